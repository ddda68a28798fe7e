"""Python functions of a segment that a teacher judges by: loading them by name, and calling them safely.

A reward function takes a `Segment` of k steps and returns the reward of each step `(k,)`, or one number for the
whole segment: how high it jumped, how long it stood on one leg.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrl.errors import UserError, near_names
from prefrl.segments import Segment

SegmentReward = Callable[[Segment], ArrayLike]
"""Takes a segment of k steps; returns its rewards `(k,)`, or one number."""


def evaluate(function: SegmentReward, segment: Segment) -> NDArray[np.float64]:
    """Call a user's reward function and check what it returns.

    Returns:
        `(k,)` float64 rewards per step, or `()` where it gave one number for the segment.

    Raises:
        UserError: it raised, or returned something else than finite numbers of one of these shapes.
    """
    called = f"The reward function {name_of(function)}"
    try:
        returned = function(segment)
    except Exception as error:
        raise UserError(f"{called} raised {type(error).__name__}: {error}") from error
    wanted = f"expected {len(segment)} numbers, one for each step of the segment, or one number"
    try:
        values = np.asarray(returned, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that needs a gradient is a RuntimeError
        raise UserError(f"{called} returned {returned!r}; {wanted}.") from error
    if values.shape not in ((), (len(segment),)):
        raise UserError(f"{called} returned an array of shape {values.shape}; {wanted}.")
    if not np.isfinite(values).all():
        raise UserError(f"{called} returned NaN or infinite values; {wanted}, all finite.")
    return values


def name_of(function: Callable[..., object]) -> str:
    """Return the function's name as a message quotes it."""
    return repr(getattr(function, "__qualname__", None) or type(function).__qualname__)


def load_reward_function(where: str) -> SegmentReward:
    """Load a reward function by name.

    Args:
        where: `"path/to/file.py:function"` or `"package.module:function"`.

    Raises:
        UserError: no such file, module or function; importing it fails; it cannot be called.
    """
    place, _, name = where.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(
            f"A reward function is named like path/to/file.py:function or package.module:function. Received {where!r}"
        )
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    function = getattr(module, name, None)
    if function is None:
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise UserError(f"There is no function {name!r} in {place}.{near_names(name, known)}")
    if not callable(function):
        raise UserError(f"{where} is a {type(function).__name__}; expected a function that takes a segment.")
    return cast(SegmentReward, function)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"There is no file {path} to load a reward function from (looked in {Path.cwd()}).")
    name = f"prefrl_reward_function_{path.stem}"
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


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"There is no module {name!r} to load a reward function from. Install it, or give the path of its "
                "file: path/to/file.py:function"
            ) from None
        raise UserError(f"Importing {name} failed with {type(error).__name__}: {error}") from error
    except Exception as error:
        raise UserError(f"Importing {name} failed with {type(error).__name__}: {error}") from error
