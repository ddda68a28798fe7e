"""What the vector environments share: seeds, reset masks, checked actions and infos in Gymnasium's layout."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from prefrl.errors import UserError

Flags = NDArray[np.bool_]


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"{name} must be a whole number, at least {least}. Received {value!r}")


def checked_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """Return the mode that a name stands for.

    Raises:
        UserError: there is no such mode.
    """
    try:
        return AutoresetMode(mode)
    except ValueError:
        names = ", ".join(repr(known.value) for known in AutoresetMode)
        raise UserError(f"autoreset_mode must be one of {names}. Received {mode!r}") from None


def seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Return one seed for each environment: `seed + i`, or entry i of a sequence."""
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, Sequence | np.ndarray):
        check_whole("seed", seed, 0)
        return [int(seed) + env for env in range(num_envs)]
    if len(seed) != num_envs:
        raise UserError(f"Expected one seed for each of {num_envs} environments; got {len(seed)}.")
    for one in seed:
        if one is not None:
            check_whole("seed", one, 0)
    return [None if one is None else int(one) for one in seed]


def reset_mask(options: dict[str, Any] | None, num_envs: int, *, first: bool) -> Flags:
    """Return which environments to reset, `(E,)`.

    Args:
        options: of `reset`; `{"reset_mask": mask}` names some.
        num_envs: E.
        first: nothing was reset before, so all have to be.

    Raises:
        UserError: the mask is no array `(E,)` of bool, names none, or leaves some out the first time.
    """
    if options is None or "reset_mask" not in options:
        return np.ones(num_envs, np.bool_)
    mask = np.asarray(options["reset_mask"])
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise UserError(
            f"reset_mask must be an array ({num_envs},) of bool with at least one True; got {mask.shape} {mask.dtype}."
        )
    if first and not mask.all():
        raise UserError("The first reset has to be of all environments: leave reset_mask out.")
    return mask.copy()


def checked_actions(actions: Any, space: spaces.Space[Any], num_envs: int) -> NDArray[Any]:
    """Return the actions of E environments as an array `(E, ...)`.

    Args:
        actions: what the environments were given.
        space: of one action: `Box` or `Discrete`.
        num_envs: E.

    Raises:
        UserError: another shape or kind, out of bounds, or NaN; the first environment concerned is named.
    """
    values = np.asarray(actions, order="C")  # sums are rounded by the order in memory
    shape = (num_envs, *(space.shape or ()))
    kinds = "iub" if isinstance(space, spaces.Discrete) else "iubf"
    if values.shape != shape or values.dtype.kind not in kinds:
        raise UserError(f"Expected actions {shape} for {num_envs} environments; got {values.shape} {values.dtype}.")
    low: Any
    high: Any
    if isinstance(space, spaces.Discrete):
        low, high = space.start, space.start + space.n - 1
    else:
        assert isinstance(space, spaces.Box)
        low, high = space.low, space.high
    within = (values >= low) & (values <= high)  # False for NaN
    if not within.all():
        env = int(np.argwhere(~within)[0][0])
        raise UserError(
            f"The action of environment {env} is {np.array2string(values[env], precision=4)}; expected finite values "
            f"from {np.min(low)} to {np.max(high)}. Clip actions to the action space first."
        )
    return values if values.dtype.kind == "f" or "f" not in kinds else values.astype(np.float64)


def expanded(flags: Flags, like: NDArray[Any]) -> Flags:
    """Return `flags` `(E,)` with axes added so that they broadcast against `like` `(E, ...)`."""
    return flags.reshape(len(flags), *[1] * (like.ndim - 1))


def masked_info(info: dict[str, Any], which: Flags) -> dict[str, Any]:
    """Return an info that holds for some environments: zero elsewhere, and under `_key` a mask that tells where."""
    if not which.any():
        return {}
    masked: dict[str, Any] = {}
    for key, values in info.items():
        masked[key] = np.where(expanded(which, values), values, np.zeros((), values.dtype))
        masked[f"_{key}"] = which.copy()
    return masked


def restarted_info(info: dict[str, Any], reset_info: dict[str, Any], due: Flags) -> dict[str, Any]:
    """Return the info of a step in which some environments were restarted: theirs is what the reset tells.

    Args:
        info: of the step, as `(E, ...)` each; it is written to.
        reset_info: what a reset tells, of all environments as they are now: where the info of a step has the same key,
            it says the same of those that were not restarted.
        due: `(E,)`: which ones were restarted.
    """
    if due.all():
        return masked_info(reset_info, due)
    envs, going, everywhere = np.flatnonzero(due), ~due, np.ones_like(due)
    joined: dict[str, Any] = {}
    for key, values in info.items():
        if key in reset_info:
            joined[key], joined[f"_{key}"] = reset_info[key], everywhere
        else:
            values[envs] = 0
            joined[key], joined[f"_{key}"] = values, going
    return joined | masked_info({key: reset_info[key] for key in reset_info if key not in info}, due)


def weighted(sums: NDArray[Any], weight: float) -> NDArray[Any]:
    """Return `sums` `(E,)` times a number, in the precision in which NumPy multiplies one of them alone.

    That is how single environments do it: in the sums' own precision, before NumPy 2 always in float64.
    """
    product: NDArray[Any] = np.multiply(sums, weight, dtype=(sums.dtype.type(0) * weight).dtype)
    return product


def norms(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Euclidean lengths `(E,)` of `(E, n)`, rounded as `numpy.linalg.norm` of each row."""
    rows = np.ascontiguousarray(vectors)
    lengths: NDArray[np.float64] = np.sqrt(np.matmul(rows[:, None, :], rows[:, :, None])[:, 0, 0])
    return lengths
