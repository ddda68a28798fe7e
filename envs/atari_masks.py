"""Where the games of Christiano et al. 2017 show their score, and blacking it out.

App. A.2: the score is blacked out, or the reward could be read off the screen; in BeamRider also the number of enemy
ships left, in Enduro also the speedometer. Pictures before and after: `docs/environments.md`.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""Rows from, to, columns from, to; "to" is not included."""

SCREEN = (210, 160)
"""Rows and columns of the games' own screen."""

MASKS: dict[str, tuple[Box, ...]] = {
    "beam_rider": ((8, 20, 50, 116), (31, 42, 8, 60)),  # score; enemy ships left in the sector
    "breakout": ((5, 15, 30, 84),),
    "enduro": ((161, 191, 48, 112),),  # one panel: distance, whose rolling digits are the speed; day; cars to pass
    "pong": ((0, 22, 0, 160),),
    "qbert": ((5, 15, 24, 100),),
    "seaquest": ((8, 18, 52, 112),),
    "space_invaders": ((9, 21, 0, 160),),  # the command ship flies here too, in place of the score
}
"""By ALE's name of the game, in pixels of its own screen."""


def black_out(frames: NDArray[np.uint8], game: str) -> None:
    """Black out the score in place.

    Args:
        frames: `(..., H, W)` grey, or `(..., H, W, 3)` if H and W are those of the game's own screen. On a screen of
            another size every pixel goes that any masked pixel had a part in.
        game: ALE's name, one of `MASKS`.
    """
    if frames.shape[-3:-1] == SCREEN and frames.shape[-1] == 3:
        for top, bottom, left, right in MASKS[game]:
            frames[..., top:bottom, left:right, :] = 0
        return
    height, width = frames.shape[-2:]
    for top, bottom, left, right in MASKS[game]:
        rows = slice(floor(top * height / SCREEN[0]), ceil(bottom * height / SCREEN[0]))
        columns = slice(floor(left * width / SCREEN[1]), ceil(right * width / SCREEN[1]))
        frames[..., rows, columns] = 0
