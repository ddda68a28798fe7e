"""What environments hand out, checked against what their spaces say and brought into that form.

Environments return lists for arrays, arrays of one number for numbers, one array again and again, or something else
than their space says. `read_value`, `read_reward`, `read_end` and `read_info` take what can only mean one thing and
refuse the rest in a sentence. What they return is a copy, of the shape and dtype of the space.

Floats of another precision are converted, and so are whole numbers to floats. Bounds of boxes are not checked: many
environments state them roughly, and nothing here depends on them.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from gymnasium import spaces

from prefrl.errors import UserError
from prefrl.spaces import Array, is_image

NUMBERS = "biuf"  # kinds of dtype: bool, int, uint, float
MEND = "Fix the environment, or wrap it."
ONE_NUMBER = (numbers.Real, Decimal)  # kinds of Python: fractions among them


def read_value(space: spaces.Space[Any], value: Any, what: str = "The observation") -> Any:
    """Return a value of `space` as the space has it: an array, an integer, or a dictionary of these.

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these.
        value: what the environment gave for it.
        what: it is, for messages.

    Raises:
        UserError: it is no value of that space.
    """
    if not isinstance(space, spaces.Dict):
        return _read_leaf(space, value, what)
    if not isinstance(value, Mapping):
        raise UserError(f"{what} is a {type(value).__name__}; its space says a dictionary of {_names(space)}. {MEND}")
    missing = [key for key in space.spaces if key not in value]
    if missing:
        raise UserError(f"{what} has no entry {missing[0]!r}; its space says a dictionary of {_names(space)}. {MEND}")
    return {key: _read_leaf(leaf, value[key], f"{what}, entry {key!r},") for key, leaf in space.spaces.items()}


def read_reward(reward: Any) -> float:
    """Return the reward of a step as a number; None or a masked one, which is not known, becomes NaN.

    Raises:
        UserError: it is not one number.
    """
    if type(reward) is float:
        return reward
    if reward is None:
        return float("nan")
    if isinstance(reward, ONE_NUMBER):
        return float(reward)
    array = as_array(reward)
    if array is None or array.size != 1 or array.dtype.kind not in NUMBERS:
        raise UserError(
            f"The environment's reward is {_shown(reward)}; expected one number. Make it one with a wrapper (e.g. "
            "gymnasium.wrappers.TransformReward): the weighted sum of a vector, or 0 where people or a function judge."
        )
    return float("nan") if has_masked(reward) else float(array.reshape(()))


def read_end(flag: Any, what: str) -> bool:
    """Return `terminated` or `truncated` as a bool.

    Raises:
        UserError: it is not one bool.
    """
    if type(flag) is bool:
        return flag
    array = None if has_masked(flag) else as_array(flag)
    if array is None or array.size != 1 or array.dtype.kind not in NUMBERS:
        raise UserError(f"The environment's {what} is {_shown(flag)}; expected True or False. {MEND}")
    return bool(array.reshape(()))


def read_info(info: Any) -> dict[str, Any]:
    """Return the info of a step as it is; None is an empty one.

    Raises:
        UserError: it is no dictionary.
    """
    if info is None:
        return {}
    if type(info) is not dict and not isinstance(info, Mapping):
        raise UserError(f"The environment's info is {_shown(info)}; expected a dictionary. {MEND}")
    return info  # type: ignore[return-value]  # as it is: wrappers write into it


def has_masked(value: Any) -> bool:
    """Tell whether some entries of an array are masked: what lies under them is no value."""
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.getmaskarray(value).any())


def unmasked(value: Any, what: str) -> Any:
    """Return `value` as it is.

    Raises:
        UserError: some of its entries are masked.
    """
    if has_masked(value):
        raise UserError(
            f"{what} has masked entries, which are no values: {_shown(value)}. Give them one (numpy.ma.filled), and "
            "say beside it which are missing."
        )
    return value


def copied(value: Any) -> Array:
    """Return a copy of an observation, or of what of it lies under one key.

    Raises:
        UserError: some of its entries are masked.
    """
    return np.array(unmasked(value, "An observation"))


def nan_where_masked(rewards: Any) -> Array:
    """Return rewards as floats, with NaN in the place of those that are masked: they are not known."""
    return np.ma.filled(np.ma.asarray(rewards, np.float64), np.nan)


def as_array(value: Any) -> Array | None:
    """Return `value` as an array, or None where it cannot be one; of what is masked, check that before."""
    if type(value) is np.ndarray:
        return value
    if hasattr(value, "detach"):  # a tensor of torch's, with gradients or on a GPU as it may be
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # lists of different lengths
        return None


def _read_leaf(space: spaces.Space[Any], value: Any, what: str) -> Any:
    unmasked(value, what)
    if isinstance(space, spaces.Discrete):
        return _read_choice(space, value, what)
    array = as_array(value)
    if array is None or array.dtype.kind not in NUMBERS:
        raise UserError(f"{what} is {_shown(value)}; its space says numbers {_form(space)}. {MEND}")
    if array.shape != space.shape:
        if array.size != 1 or int(np.prod(space.shape or ())) != 1:  # one number is one number, however it is wrapped
            raise UserError(f"{what} has the shape {array.shape}; its space says {_form(space)}. {MEND}")
        array = array.reshape(space.shape)
    if isinstance(space, spaces.Box):
        if array.dtype != space.dtype:
            return _converted(space, array, what)
        return array.copy()
    whole = _converted(space, array, what)
    low, counts = (0, 2) if isinstance(space, spaces.MultiBinary) else (space.start, space.nvec)  # type: ignore[attr-defined]
    if ((whole < low) | (whole >= low + counts)).any():
        raise UserError(f"{what} is {_shown(value)}, which is not in its space, {space}. {MEND}")
    return whole


def _read_choice(space: spaces.Discrete, value: Any, what: str) -> Any:
    array = as_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in NUMBERS:
        raise UserError(f"{what} is {_shown(value)}; its space says one of {_choices(space)}. {MEND}")
    number = array.reshape(())[()]
    if not space.start <= number < space.start + space.n or number != int(number):
        raise UserError(f"{what} is {_shown(value)}; its space says one of {_choices(space)}. {MEND}")
    return np.dtype(space.dtype).type(number)


def _converted(space: spaces.Space[Any], array: Array, what: str) -> Array:
    """Return a copy in the dtype of the space, unless that would change the values."""
    with np.errstate(invalid="ignore", over="ignore"):  # what overflows is found where finite numbers are asked for
        cast: Array = array.astype(space.dtype)
    if cast.dtype.kind == "f":
        return cast
    if is_image(space) and array.dtype.kind == "f":
        raise UserError(
            f"{what} is a picture of {array.dtype} from {array.min():g} to {array.max():g}; its space says uint8, 0 to "
            "255. Return uint8, or say Box(0, 1, shape, numpy.float32)."
        )
    if (cast != array).any():
        wrong = array[cast != array].reshape(-1)[0]
        raise UserError(f"{what} holds {wrong!s} ({array.dtype}); its space says {_form(space)}. {MEND}")
    return cast


def _form(space: spaces.Space[Any]) -> str:
    return f"{space.shape} {np.dtype(space.dtype)}"


def _choices(space: spaces.Discrete) -> str:
    return f"{space.start} to {space.start + space.n - 1}"


def _names(space: spaces.Dict) -> str:
    return ", ".join(map(repr, space.spaces))


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
