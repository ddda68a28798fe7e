"""Pictures as environments draw them, brought into one form: `(H, W, 3)` uint8.

`render()` of other people's environments returns grey pictures, pictures with transparency, with the channels first, of
floats, lists of pictures, or something that is no picture at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.values import unmasked

EXPECTED = 'Expected pictures (H, W, 3) uint8 from the environment\'s render() with render_mode="rgb_array"'
CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency


def as_picture(drawn: Any) -> NDArray[np.uint8]:
    """Return what `render()` gave as a picture `(H, W, 3)` uint8, a copy: some environments draw into one array.

    Grey pictures get three equal channels, transparency is left out, channels are put last, and of several pictures the
    last one is taken. Floats and bools up to 1 are shares of white, larger floats stand for 0 to 255.

    Raises:
        UserError: it is no picture.
    """
    if drawn is None:
        raise UserError('The environment\'s render() returned None with render_mode="rgb_array": it draws nothing.')
    try:
        array: NDArray[Any] = np.asarray(unmasked(drawn, "The picture"))
    except ValueError:  # a list of pictures of different sizes
        return as_picture(drawn[-1])
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise UserError(f"{EXPECTED}; got {_kind(drawn, array)}.")
    if array.ndim == 4:
        array = array[-1]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in CHANNELS:
        raise UserError(f"{EXPECTED}; got {_kind(drawn, array)}.")
    if array.dtype != np.uint8:
        if array.dtype.kind == "b" or (array.dtype.kind == "f" and array.max() <= 1):
            array = array * 255.0
        if not (array.min() >= 0 and array.max() <= 255):  # NaN neither
            raise UserError(f"{EXPECTED}; got {_kind(drawn, array)} from {array.min():g} to {array.max():g}.")
        array = np.rint(array).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3].copy()


def check_one_size(pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Refuse pictures of different sizes, which make no film.

    Raises:
        UserError: they are.
    """
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sizes[:2]
        raise UserError(
            f"The environment's pictures are of different sizes ({width} x {height}, {other_width} x {other_height}, "
            "...), and those of a video must be of one size."
        )


def _kind(drawn: Any, array: NDArray[Any]) -> str:
    if array.dtype.kind in "biuf":
        return f"{array.shape} {array.dtype}"
    return f"a text, {str(drawn)[:30]!r}" if isinstance(drawn, str) else f"a {type(drawn).__name__}"
