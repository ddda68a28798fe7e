"""Batches of observations and actions of Gymnasium spaces.

A batch of values of a `Box`, `Discrete`, `MultiDiscrete` or `MultiBinary` space is one NumPy array with the batch axes
first; a batch of values of a `Dict` of these is a dictionary of such arrays. `SpaceEncoder` turns batches into the
float features that reward networks read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.errors import UserError

Array = NDArray[Any]
Batch = Array | Mapping[str, Array]
"""Values of one space with leading batch axes: an array, or for `Dict` spaces a mapping of arrays."""

_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_KINDS = "Box, Discrete, MultiDiscrete, MultiBinary"
_FEW = 256  # numbers
_LARGEST = float(np.finfo(np.float32).max)
_MOST_FEATURES = 10_000_000  # of one value; more is a mistake, or needs an encoding of its own


def check_observation_space(space: spaces.Space[Any] | None) -> None:
    """Raise `UserError` unless `space` is a Box, Discrete, MultiDiscrete, MultiBinary or a flat Dict of these."""
    space = _space(space, "observation")
    if isinstance(space, spaces.Dict):
        if not space.spaces:
            raise UserError("The observation space is a Dict without entries; expected at least one.")
        for key, leaf in space.spaces.items():
            if key == "":
                raise UserError(f"The observation space {space} has an entry without a name. Give it one.")
            if not isinstance(leaf, _LEAVES):
                raise UserError(f"Observation space entry {key!r} is {leaf}; expected {_KINDS}. {_wrapper_for(space)}")
    elif not isinstance(space, _LEAVES):
        raise UserError(
            f"Observation space {space} is not supported; expected {_KINDS} or a Dict of these. {_wrapper_for(space)}"
        )
    _check_size(space, "Observation")


def check_action_space(space: spaces.Space[Any] | None) -> None:
    """Raise `UserError` unless `space` is a Box, Discrete, MultiDiscrete or MultiBinary."""
    space = _space(space, "action")
    if not isinstance(space, _LEAVES):
        raise UserError(
            f"Action space {space} is not supported; expected {_KINDS}. Wrap the environment in "
            "gymnasium.wrappers.TransformAction(env, function, space), so that it has one of these."
        )
    if SpaceEncoder(space).size == 0:
        raise UserError(f"Action space {space} holds no numbers, so there is nothing to choose.")
    _check_size(space, "Action")


def _space(given: Any, what: str) -> spaces.Space[Any]:
    """Return a space, which environments may have forgotten, or taken from the package of before."""
    if isinstance(given, spaces.Space):
        return given
    kind = "missing" if given is None else f"a {type(given).__module__}.{type(given).__name__}"
    raise UserError(
        f"The environment's {what} space is {kind}; expected one of gymnasium.spaces, set in the constructor. Use an "
        "environment written for gym before version 0.26 through shimmy."
    )


def _check_size(space: spaces.Space[Any], what: str) -> None:
    size = SpaceEncoder(space).size
    if size > _MOST_FEATURES:
        raise UserError(
            f"{what} space {space} comes to {size:,} features, more than {_MOST_FEATURES:,}. Wrap the environment so "
            "that it has fewer, e.g. a box of numbers in place of one choice among very many."
        )


def _wrapper_for(space: spaces.Space[Any]) -> str:
    """Return which wrapper of Gymnasium's makes an observation space one that is supported."""
    if isinstance(space, spaces.Dict):
        known = [key for key, leaf in space.spaces.items() if isinstance(leaf, _LEAVES)]
        nested = all(isinstance(leaf, (*_LEAVES, spaces.Dict, spaces.Tuple)) for leaf in space.spaces.values())
        if known and not nested:
            return f"Leave it out: wrap the environment in gymnasium.wrappers.FilterObservation(env, {known!r})."
    if space.is_np_flattenable:
        return "Wrap the environment in gymnasium.wrappers.FlattenObservation(env)."
    return (
        "Wrap the environment in gymnasium.wrappers.TransformObservation(env, function, space), so that it has one of "
        "these."
    )


def map_batch(function: Callable[[Array], Array], batch: Batch) -> Batch:
    """Apply `function` to the array, or to each array of a dictionary."""
    if isinstance(batch, Mapping):
        return {key: function(value) for key, value in batch.items()}
    return function(batch)


def zip_batches(function: Callable[[list[Array]], Array], batches: list[Batch]) -> Batch:
    """Apply `function` to the list of corresponding arrays, e.g. `zip_batches(np.concatenate, parts)`."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {key: function([b[key] for b in batches]) for key in first}
    return function(batches)  # type: ignore[arg-type]


def take(batch: Batch, index: Any) -> Batch:
    """Index the first axis of the array, or of each array of a dictionary."""
    return map_batch(lambda x: x[index], batch)


def join_axes(batch: Batch) -> Batch:
    """Return a batch `(T, E, ...)` as `(T * E, ...)`."""
    return map_batch(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), batch)  # -1 fails where it holds none


def with_rows(batch: Batch, rows: Mapping[int, Any]) -> Batch:
    """Return a copy of a batch with some of its values, by their places on the first axis, replaced."""
    changed = map_batch(np.array, batch)
    for row, value in rows.items():
        if isinstance(changed, Mapping):
            for key, values in changed.items():
                values[row] = value[key]
        else:
            changed[row] = value
    return changed


def batch_length(batch: Batch) -> int:
    """Return the size of the first axis."""
    if isinstance(batch, Mapping):
        return len(next(iter(batch.values())))
    return len(batch)


def num_bytes(batch: Batch) -> int:
    """Return the memory held by the arrays, in bytes."""
    if isinstance(batch, Mapping):
        return sum(v.nbytes for v in batch.values())
    return batch.nbytes


def to_arrays(prefix: str, batch: Batch) -> dict[str, Array]:
    """Return the arrays under flat names, for an `.npz` file; `from_arrays` is the inverse."""
    if isinstance(batch, Mapping):
        return {f"{prefix}/{key}": value for key, value in batch.items()}
    return {prefix: batch}


def from_arrays(prefix: str, arrays: Mapping[str, Array]) -> Batch:
    """Rebuild the batch that `to_arrays(prefix, batch)` took apart."""
    if prefix in arrays:
        return arrays[prefix]
    start = prefix + "/"
    found = {key[len(start) :]: arrays[key] for key in arrays if key.startswith(start)}
    if not found:
        raise KeyError(f"no array named {prefix!r} or {start}*")
    return found


def all_finite(values: Array) -> bool:
    """Tell whether an array of floats holds neither NaN nor infinity."""
    if values.size <= _FEW:  # a sum of squares takes half as long; where it is finite, so are they
        flat = values.reshape(-1)
        if math.isfinite(flat.dot(flat)):
            return True
    return bool(np.isfinite(values).all())


def _within_float32(values: Array) -> bool:
    """Tell whether float32 has room for all numbers of an array of floats; it has none for NaN and infinity."""
    if values.size <= _FEW:  # as in `all_finite`
        flat = values.reshape(-1)
        if float(flat.dot(flat)) <= _LARGEST**2:  # not in the precision of the array, which may have no room for it
            return True
    return float(values.min()) >= -_LARGEST and float(values.max()) <= _LARGEST


def check_finite(batch: Batch, what: str) -> None:
    """Raise `UserError` if a float array holds NaN, infinity or what float32 has no room for; `what` names it."""
    for key, value in batch.items() if isinstance(batch, Mapping) else (("", batch),):
        if value.dtype.kind != "f" or _within_float32(value):
            continue
        where = f" (entry {key!r})" if key else ""
        if not np.isfinite(value).all():
            raise UserError(
                f"{what}{where} holds NaN or infinite values; expected finite numbers. "
                "The environment produced them: fix it, or clip its observations with a wrapper."
            )
        raise UserError(
            f"{what}{where} holds numbers beyond {_LARGEST:.2g}, the largest of float32, which networks work in. "
            "Give them in another unit, or clip them with a wrapper."
        )


def misfit(space: spaces.Space[Any], batch: Batch) -> str | None:
    """Say why values `(B, ...)` cannot be of `space`: their entries, shapes, kinds or range; None: they may be.

    Numbers in boxes are not held against the bounds, which environments overstep.
    """
    if isinstance(space, spaces.Dict) or isinstance(batch, Mapping):
        if not (isinstance(space, spaces.Dict) and isinstance(batch, Mapping) and space.spaces.keys() == batch.keys()):
            there = f"entries {', '.join(sorted(batch))}" if isinstance(batch, Mapping) else "one array"
            return f"{there} where there should be those of {space}"
        reasons = ((key, misfit(leaf, batch[key])) for key, leaf in space.spaces.items())
        return next((f"{key}: {reason}" for key, reason in reasons if reason), None)
    shape = space.shape or ()
    if batch.shape[1:] != shape:
        return f"shape {batch.shape[1:]} where it should be {shape}"
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        return None if batch.dtype.kind == "f" else f"whole numbers where there should be those of {space}"
    if batch.dtype.kind not in "iub":
        return f"{batch.dtype} numbers where there should be whole ones of {space}"
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        last = space.start + (space.n if isinstance(space, spaces.Discrete) else space.nvec) - 1
        outside = (batch < space.start) | (batch > last)
        if outside.any():
            return f"{batch[outside][0]}, which is none of {space}"
    return None


def alike(a: spaces.Space[Any], b: spaces.Space[Any]) -> bool:
    """Tell whether values of `a` can stand for values of `b`; bounds of boxes and precision may differ."""
    if isinstance(a, spaces.Dict) and isinstance(b, spaces.Dict):
        return a.spaces.keys() == b.spaces.keys() and all(alike(a.spaces[key], b.spaces[key]) for key in a.spaces)
    if isinstance(a, spaces.Box) and isinstance(b, spaces.Box):
        kinds = {a.dtype.kind, b.dtype.kind}
        return a.shape == b.shape and (
            a.dtype == b.dtype or kinds == {"f"} or (kinds <= {"i", "u"} and not is_image(a))
        )
    if isinstance(a, spaces.Discrete) and isinstance(b, spaces.Discrete):
        return bool(a.n == b.n and a.start == b.start)
    if isinstance(a, spaces.MultiDiscrete) and isinstance(b, spaces.MultiDiscrete):
        return np.array_equal(a.nvec, b.nvec) and np.array_equal(a.start, b.start)
    if isinstance(a, spaces.MultiBinary) and isinstance(b, spaces.MultiBinary):
        return a.shape == b.shape
    return bool(a == b)


def same_bounds(a: spaces.Space[Any], b: spaces.Space[Any]) -> bool:
    """Tell whether the boxes of two `alike` spaces reach from the same values to the same."""
    if isinstance(a, spaces.Dict) and isinstance(b, spaces.Dict):
        return all(same_bounds(a.spaces[key], b.spaces[key]) for key in a.spaces)
    if isinstance(a, spaces.Box) and isinstance(b, spaces.Box):
        return all(np.allclose(x, y, rtol=1e-5) for x, y in ((a.low, b.low), (a.high, b.high)))
    return True


def native(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return a space whose arrays are in this machine's byte order, of at most eight bytes a number; itself if it is.

    Args:
        space: Box, MultiDiscrete or a Dict of these is translated; any other is returned.
    """
    if isinstance(space, spaces.Dict):
        inside = {key: native(leaf) for key, leaf in space.spaces.items()}
        same = all(inside[key] is leaf for key, leaf in space.spaces.items())
        return space if same else spaces.Dict(inside)
    if not isinstance(space, spaces.Box | spaces.MultiDiscrete):
        return space
    dtype = np.dtype(space.dtype).newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    if dtype == space.dtype:
        return space
    if isinstance(space, spaces.Box):
        return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype.type)
    return spaces.MultiDiscrete(space.nvec, dtype=dtype.type, start=space.start)


def exchangeable(what: str, a: spaces.Space[Any], b: spaces.Space[Any]) -> bool:
    """Tell whether one environment's space can stand for another's: actions must have the same bounds as well.

    Args:
        what: observation_space or action_space.
        a: the one.
        b: the other.
    """
    return alike(a, b) and (what != "action_space" or same_bounds(a, b))


def is_image(space: spaces.Space[Any]) -> bool:
    """Tell whether `space` is a uint8 `Box` of three axes (one of them the channels)."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def channels_first(space: spaces.Box) -> bool:
    """Tell whether the channel axis of an image space comes first: it is the smaller of the first and last axes."""
    return space.shape[0] < space.shape[-1]


class SpaceEncoder:
    """Turns a batch of values of a space into float32 features `(B, size)`.

    `Box` and `MultiBinary` values are flattened, `Discrete` and `MultiDiscrete` values one-hot encoded, `Dict` entries
    concatenated in the order of their keys.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        self._leaves: list[tuple[str | None, spaces.Space[Any]]] = (
            [(key, space.spaces[key]) for key in sorted(space.spaces)]
            if isinstance(space, spaces.Dict)
            else [(None, space)]
        )
        self.sizes = [_leaf_size(leaf) for _, leaf in self._leaves]
        """Features of each entry, in the order in which they are joined."""
        self.size = sum(self.sizes)

    def encode(self, batch: Batch) -> NDArray[np.float32]:
        """Return features `(B, size)` float32 of a batch whose only batch axis is the first.

        Raises:
            UserError: a choice that is none of those of its space.
        """
        if len(self.sizes) == 1:
            (key, leaf), (size,) = self._leaves[0], self.sizes
            return _encode_leaf(leaf, size, batch if key is None else batch[key])  # type: ignore[arg-type]
        parts = [
            _encode_leaf(leaf, size, batch[key])  # type: ignore[index]
            for (key, leaf), size in zip(self._leaves, self.sizes, strict=True)
        ]
        return np.concatenate(parts, axis=1)


def _leaf_size(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    return int(np.prod(space.shape or ()))


def _encode_leaf(space: spaces.Space[Any], size: int, values: Array) -> NDArray[np.float32]:
    num = len(values)
    if isinstance(space, spaces.Discrete):
        out = np.zeros((num, size), np.float32)
        if num == 1:  # as wherever environments are stepped one by one: plain numbers are quicker
            one = int(np.asarray(values).item()) - int(space.start)
            _check_choices(space, 0 <= one < size)
            out[0, one] = 1.0
            return out
        choice = np.asarray(values, np.int64).reshape(num) - int(space.start)
        _check_choices(space, not ((choice < 0).any() or (choice >= size).any()))
        out[np.arange(num), choice] = 1.0
        return out
    if isinstance(space, spaces.MultiDiscrete):
        sizes = np.asarray(space.nvec, np.int64).reshape(-1)
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        choices = np.asarray(values, np.int64).reshape(num, len(sizes)) - np.asarray(space.start).reshape(-1)
        _check_choices(space, not ((choices < 0).any() or (choices >= sizes).any()))
        out = np.zeros((num, size), np.float32)
        out[np.arange(num)[:, None], choices + offsets] = 1.0
        return out
    return np.asarray(values, np.float32).reshape(num, size)


def _check_choices(space: spaces.Space[Any], there: bool) -> None:
    """Refuse choices, counted from 0, that are not there: -1 would be read as the last one."""
    if not there:
        raise UserError(f"Expected values of {space}; got some that are not in it. Fix what gives them.")


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe a supported space as JSON; `space_from_json` is the inverse."""
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {k: space_to_json(v) for k, v in space.spaces.items()}}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)} | _other_dtype(space)
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": np.asarray(space.nvec).tolist(),
            "start": np.asarray(space.start).tolist(),
        } | _other_dtype(space)
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.n) if isinstance(space.n, tuple) else int(space.n)}
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "shape": list(space.shape),
            "dtype": np.dtype(space.dtype).name,
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
        }
    raise UserError(f"Space {space} is not supported; expected {_KINDS} or a Dict of these.")


def space_from_json(description: Mapping[str, Any]) -> spaces.Space[Any]:
    """Rebuild the space that `space_to_json` described."""
    kind = description["kind"]
    if kind == "Dict":
        return spaces.Dict({k: space_from_json(v) for k, v in description["spaces"].items()})
    integer = {"dtype": np.dtype(description["dtype"]).type} if "dtype" in description else {}
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"], **integer)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.asarray(description["nvec"]), start=np.asarray(description["start"]), **integer)
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) > _MOST_FEATURES:
        raise UserError(f"A Box of shape {shape} is no space of observations or actions that can be held.")
    low, high = (_bounds_from_json(description[side], shape, dtype) for side in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)


def _other_dtype(space: spaces.Space[Any]) -> dict[str, str]:
    """Return the dtype of integers, where it is not the usual one."""
    name = np.dtype(space.dtype).name
    return {} if name == "int64" else {"dtype": name}


def _bounds_to_json(bounds: Array) -> list[str] | str:
    texts = [str(x) for x in bounds.reshape(-1).tolist()]  # text: JSON has no infinity
    return texts[0] if len(set(texts)) == 1 else texts


def _bounds_from_json(texts: list[str] | str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    parsers: dict[str, Callable[[str], Any]] = {"f": float, "b": "True".__eq__}
    parse = parsers.get(dtype.kind, int)
    if isinstance(texts, str):
        return np.full(shape, parse(texts), dtype)
    return np.asarray([parse(t) for t in texts], dtype).reshape(shape)
