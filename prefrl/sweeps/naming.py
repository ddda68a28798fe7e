"""Settings by the names of their options: where each lies, values put there, and what a name was to be."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from prefrl.errors import UserError, near_names
from prefrl.runs.codec import to_json

Path = tuple[str, ...]


def option_paths(kind: type[Any], prefix: tuple[str, ...] = (), place: Path = ()) -> dict[str, Path]:
    """Return where each setting lies, by the name of its option with `_` for `-`, e.g. `reward.num_members`.

    Args:
        kind: frozen settings, nested or not.
        prefix: of the names of options.
        place: of these settings within others.
    """
    found: dict[str, Path] = {}
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[field.name]
        named = [name for one in getattr(hint, "__metadata__", ()) if (name := getattr(one, "name", None)) is not None]
        own = (named[0] if named else field.name).replace("-", "_")
        names = (*prefix, own) if own else prefix
        inner = _plain(hint)
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            found |= option_paths(inner, names, (*place, field.name))
        else:
            found[".".join(names)] = (*place, field.name)
    return found


def _plain(hint: Any) -> Any:
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def default_values(kind: type[Any]) -> dict[str, Any]:
    """Return the defaults of settings as JSON values; those that must be given are left out."""
    values = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            values[field.name] = to_json(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = to_json(field.default_factory())
    return values


def place_of(name: str, paths: Mapping[str, Path], aliases: Mapping[str, str]) -> Path:
    """Return where a setting of a name lies.

    Args:
        name: of an option, e.g. `reward.num-members`; or `hyper.NAME`.
        paths: of the options, as `option_paths` gives them.
        aliases: settings that hold values by name, by how their options are called: `hyper` is `hyperparameters`.

    Raises:
        UserError: there is none of that name.
    """
    plain = name.removeprefix("--").replace("-", "_")
    if plain in paths:
        return paths[plain]
    for known, path in paths.items():
        if ".".join(path) == plain:
            return paths[known]
    part, dot, rest = name.partition(".")
    part = aliases.get(part, part)
    if dot and part in aliases.values() and rest:
        return (part, *rest.split("."))
    shown = [known.replace("_", "-") for known in paths]
    raise UserError(
        f"There is no setting {name!r}.{near_names(plain.replace('_', '-'), shown)} They are called as the "
        "options of the command."
    )


def put(values: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return JSON values with one replaced."""
    name, *rest = path
    inner = values.get(name)
    if rest:
        value = put(dict(inner) if isinstance(inner, dict) else {}, tuple(rest), value)
    return {**values, name: value}


def get(values: Mapping[str, Any], path: Path) -> Any:
    """Return a value within JSON values; None where there is none."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
