"""Frozen settings as JSON and back: nested dataclasses, paths, tuples, dictionaries and plain values."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from prefrl.errors import UserError

_Settings = TypeVar("_Settings")
MOST = 2.0**63
"""Whole numbers from here on fit into no array."""


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
    if not isinstance(values, dict):
        raise UserError(f"{kind.__name__} should be an object. Received {str(values)[:60]!r}")
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
    return kind(**{name: _value(known[name], value, name) for name, value in values.items()})


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, name: str) -> Any:
    """Return a JSON value as a setting of the kind that a hint says."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    hint = next((kind for kind in kinds if kind is not type(None)), None)
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if value is None and type(None) in kinds:
        return None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_json(hint, value)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], item, name) for item in value)
    if origin is int and isinstance(value, int | float) and abs(value) >= MOST:
        raise UserError(f"{name} should be a whole number below 2^63. Received {str(value)[:60]}")
    if _fits(origin, inner, value):
        return Path(value) if hint is Path else value
    wanted = " or ".join(map(repr, inner)) if origin is typing.Literal else _WANTED.get(origin, "an object")
    raise UserError(f"{name} should be {wanted}. Received {str(value)[:60]!r} of type {type(value).__name__}")


_WANTED = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    bool: "true or false",
    tuple: "a list",
}


def _fits(kind: Any, choices: tuple[Any, ...], value: Any) -> bool:
    if kind is typing.Literal:
        return value in choices
    if kind is int:
        return type(value) is int or (isinstance(value, float) and value.is_integer())
    if kind is float:
        return type(value) in (int, float)
    if kind in (str, Path):
        return isinstance(value, str) and "\0" not in value
    return kind in (bool, dict) and isinstance(value, kind)


def merged(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known with what was given over it, dictionaries within joined likewise."""
    both = dict(known)
    for name, value in given.items():
        old = known.get(name)
        both[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both
