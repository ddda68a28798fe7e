"""Loading what a user wrote, by name: `path/to/file.py:name` or `package.module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from prefrl.errors import UserError, near_names

Function = Callable[..., Any]


def load_function(where: str, what: str, takes: str) -> Function:
    """Load a function by name.

    Args:
        where: `"path/to/file.py:function"` or `"package.module:function"`.
        what: what it is, for messages, e.g. "reward function".
        takes: what it takes, for messages, e.g. "a segment".

    Raises:
        UserError: no such file, module or function; importing it fails; it cannot be called.
    """
    place, _, name = where.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(
            f"A {what} is named like path/to/file.py:function or package.module:function. Received {where!r}"
        )
    module = _import_file(Path(place), what) if place.endswith(".py") else _import_module(place, what)
    function = getattr(module, name, None)
    if function is None:
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise UserError(f"There is no function {name!r} in {place}.{near_names(name, known)}")
    if not callable(function):
        raise UserError(f"{where} is a {type(function).__name__}; expected a function that takes {takes}.")
    return function


def is_function_name(name: str) -> bool:
    """Tell whether a name may be that of a function, and not of a file or folder that is there."""
    place, colon, function = name.rpartition(":")
    return bool(colon and place) and function.isidentifier() and not Path(name).exists()


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise UserError(f"There is no file {path} to load a {what} from (looked in {Path.cwd()}).")
    name = f"prefrl_{what.replace(' ', '_')}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look themselves up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"Importing {path} failed with {type(error).__name__}: {error}") from error
    return module


def _import_module(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"There is no module {name!r} to load a {what} from. Install it, or give the path of its "
                "file: path/to/file.py:function"
            ) from None
        raise UserError(f"Importing {name} failed with {type(error).__name__}: {error}") from error
    except Exception as error:
        raise UserError(f"Importing {name} failed with {type(error).__name__}: {error}") from error
