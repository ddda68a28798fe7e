"""Frozen settings as JSON and back: nested dataclasses, paths, tuples, dictionaries and plain values."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from prefrl.errors import UserError

_Settings = TypeVar("_Settings")


def to_json(value: Any) -> Any:
    """Return settings ready for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    return value


def from_json(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    """Return settings of a kind from what `to_json` gave; what was not known when it was written gets its default.

    Raises:
        UserError: a value that the kind does not know, or one that it refuses.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = set(values) - set(known)
    if unknown:
        raise UserError(
            f"{kind.__name__} has no setting {', '.join(sorted(unknown))}; another version of prefrl wrote it. "
            "config.json says which: install that one to go on with the run."
        )
    needed = {f.name for f in dataclasses.fields(kind) if _is_needed(f)}  # type: ignore[arg-type]
    if missing := needed - set(values):
        raise UserError(f"{kind.__name__} needs {', '.join(sorted(missing))}; another version of prefrl left it out.")
    return kind(**{name: _value(known[name], value) for name, value in values.items()})


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if hint is Path:
        return Path(value)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    return value
