"""Worlds of images: captions, pictures to learn from, and the gold reward that no learner sees.

`prefrl.image` knows a world by this protocol alone. `scenes` is one; one of a user's own is named `module:Name`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.scenes import Scenes
from prefrl.seams import Registry, made_from_seed


class ImageWorld(Protocol):
    """What a text-to-image model can be taught and measured on. All of it follows from the seed it is made with.

    Attributes:
        shape: rows, columns and 3 of its pictures.
    """

    shape: tuple[int, int, int]

    def knows(self, prompt: str) -> bool:
        """Tell whether a prompt is of this world, so that `gold` can judge pictures for it."""

    def prompts(self, count: int, *, held_out: bool = False) -> Sequence[str]:
        """Return `count` prompts; those held out are others than those learned from."""

    def examples(self, count: int) -> tuple[Sequence[str], NDArray[np.uint8]]:
        """Return `count` captions and pictures `(count, rows, columns, 3)` to pretrain on."""

    def gold(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> Any:
        """Return the true reward of each picture, `(B,)` floats.

        Args:
            prompts: B prompts.
            pictures: one for each, `(B, rows, columns, 3)` uint8.
        """

    def measures(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> dict[str, float]:
        """Return what else can be said of pictures, by the name of its figure; nothing where there is nothing."""


MakeImageWorld = Callable[[int], ImageWorld]
"""Makes a world from a seed, at least 0."""


DEFAULT_IMAGE_WORLD = "scenes"
IMAGE_WORLDS: Registry[MakeImageWorld] = Registry(
    "image world", {DEFAULT_IMAGE_WORLD: Scenes}, made_from_seed(ImageWorld)
)
"""Every world of images that can be named."""
