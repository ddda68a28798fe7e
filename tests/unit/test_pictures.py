"""What render() of other people's environments returns, brought into one form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prefrl.clips.pictures import as_picture, check_one_size
from prefrl.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]
THREE_TIMES = np.stack([GREY] * 3, axis=-1)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (RGB, RGB),
        (RGB.tolist(), RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (np.concatenate([RGB, np.full((6, 9, 1), 7, np.uint8)], axis=2), RGB),
        (GREY, THREE_TIMES),
        (GREY[..., None], THREE_TIMES),
        (GREY[None], THREE_TIMES),
        (RGB / np.float32(255), RGB),
        (RGB.astype(np.float64), RGB),
        (RGB.astype(np.int64), RGB),
        (GREY > 100, np.where(THREE_TIMES > 100, 255, 0)),
        ([np.zeros_like(RGB), RGB], RGB),
        ([np.zeros((2, 2, 3), np.uint8), RGB], RGB),
    ],
    ids=[
        "as it should be", "lists", "channels first", "transparency", "grey", "one channel", "one channel first",
        "floats to 1", "floats to 255", "integers", "bools", "several", "several of different sizes",
    ],
)  # fmt: skip
def test_pictures_of_every_kind_become_rgb(drawn: Any, expected: Any) -> None:
    picture = as_picture(drawn)
    assert picture.dtype == np.uint8 and picture.shape == (6, 9, 3)
    np.testing.assert_array_equal(picture, expected)


def test_a_picture_is_a_copy() -> None:
    drawn = RGB.copy()
    picture = as_picture(drawn)
    drawn[:] = 0
    np.testing.assert_array_equal(picture, RGB)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (None, "returned None"),
        ("+---+\n|R: |", "a text"),
        (np.zeros((6, 5, 2), np.uint8), r"\(6, 5, 2\) uint8"),
        (np.zeros(7), r"\(7,\) float64"),
        (np.full((4, 5, 3), np.nan), "nan to nan"),
        (np.full((4, 5, 3), -3), "from -3 to -3"),
        (np.full((4, 5, 3), 999.0), "from 999 to 999"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        ([], r"\(0,\)"),
        (object(), "a object"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_came(drawn: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        as_picture(drawn)


def test_pictures_of_different_sizes_make_no_film() -> None:
    check_one_size([RGB, RGB])
    with pytest.raises(UserError, match="9 x 6, 9 x 8"):
        check_one_size([RGB, np.zeros((8, 9, 3), np.uint8)])
