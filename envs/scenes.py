"""Scenes: pictures of a few shapes on a dark ground, the captions that ask for them, and an exact judge.

A caption names how many shapes, their colour, their kind and where they are: `two red squares on the left`. Pictures
are 16 x 16, a board of 4 x 4 cells with a shape of 3 x 3 pixels in some, so that a model that draws them is trained
from nothing in minutes. The gold reward reads a picture by exact analysis, not by a model: it names the colour of every
pixel, finds connected shapes, tells what they are, and counts how many of those asked for are there. No learner sees
it.

The pictures that a model learns from are not all good: some show another scene than their caption says, some are dull
or grainy, as collected pictures are. What a model trained on them draws leaves something to prefer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import require
from prefrl.runs.streams import stream

SIZE = 16
"""Pixels of a side."""
COLOURS = {"red": (230, 50, 50), "green": (50, 200, 70), "blue": (60, 90, 235), "yellow": (235, 215, 60)}
GROUND = (20, 20, 28)
COUNTS = {"one": 1, "two": 2, "three": 3}
PLACES = {"on the left": (0, 0, 16, 8), "on the right": (0, 8, 16, 16), "at the top": (0, 0, 8, 16),
          "at the bottom": (8, 0, 16, 16)}  # fmt: skip
"""First row, first column, and where the rows and columns end."""
CELL = 4
"""Pixels of a side of a cell."""
LEAST = 4
"""Connected pixels that are a shape."""
KINDS = {"square": ("###", "###", "###"), "cross": (".#.", "###", ".#."), "ring": ("###", "#.#", "###")}
HELD_OUT = 24
"""Of the 144 captions, those that no picture is learned from."""
CLEAN, SHARP = 0.5, 0.5
"""Weights of an empty ground and of pure colours beside what is shown."""
_MASKS = {name: np.array([[mark == "#" for mark in row] for row in rows]) for name, rows in KINDS.items()}
_PALETTE = np.array([GROUND, *COLOURS.values()], np.float64)
_NAMES = (None, *COLOURS)
_CAPTION = re.compile(r"(one|two|three) (red|green|blue|yellow) (square|cross|ring)(?:e?s)? (.+)")


@dataclass(frozen=True, order=True)
class Scene:
    """What a caption asks for."""

    count: int
    colour: str
    kind: str
    place: str

    @property
    def caption(self) -> str:
        """The words for it."""
        number = next(word for word, count in COUNTS.items() if count == self.count)
        plural = "" if self.count == 1 else "es" if self.kind == "cross" else "s"
        return f"{number} {self.colour} {self.kind}{plural} {self.place}"

    @classmethod
    def read(cls, caption: str) -> Scene | None:
        """Return the scene of a caption, None where it is none of these."""
        found = _CAPTION.fullmatch(" ".join(caption.lower().split()))
        if found is None or found[4] not in PLACES:
            return None
        scene = cls(COUNTS[found[1]], found[2], found[3], found[4])
        return scene if scene.caption == " ".join(caption.lower().split()) else None


@dataclass(frozen=True)
class Shape:
    """A connected part of one colour in a picture."""

    colour: str
    kind: str | None
    """None: none of the kinds."""
    row: float
    column: float
    """Its middle."""


def all_scenes() -> list[Scene]:
    """Return every scene, in a fixed order."""
    return [Scene(*parts) for parts in itertools.product(COUNTS.values(), COLOURS, KINDS, PLACES)]


def draw(scene: Scene, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture `(16, 16, 3)` of a scene, its shapes in cells drawn at random."""
    top, left, bottom, right = PLACES[scene.place]
    cells = [(row, column) for row in range(top, bottom, CELL) for column in range(left, right, CELL)]
    mask = _MASKS[scene.kind]
    picture = np.broadcast_to(np.array(GROUND, np.uint8), (SIZE, SIZE, 3)).copy()
    for number in random.permutation(len(cells))[: scene.count]:
        row, column = cells[number]
        picture[row : row + len(mask), column : column + len(mask)][mask] = COLOURS[scene.colour]
    return picture


def shapes_in(picture: NDArray[np.uint8]) -> list[Shape]:
    """Return what a picture `(16, 16, 3)` shows: connected pixels nearest to one colour, of at least four pixels."""
    ndimage = require("scipy.ndimage", "image")
    nearest = _nearest(picture[None])[0][0]
    found = []
    for number, colour in enumerate(_NAMES):
        if colour is None:
            continue
        labels, count = ndimage.label(nearest == number)
        for label in range(1, count + 1):
            rows, columns = np.nonzero(labels == label)
            if len(rows) < LEAST:
                continue
            found.append(Shape(colour, _kind_of(labels == label), float(rows.mean()), float(columns.mean())))
    return found


def gold(captions: Sequence[str], pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how well pictures show what their captions ask for: from 0 to 4, 4 for a perfect one.

    Three points are for the shapes: 3 times the F1 score of those found against those asked for, where a shape counts
    a third each for its colour, its kind and its place, and what is asked for is met at most as often as it is asked.
    Half a point is for an empty ground outside the shapes, and half for pure colours: it falls with the distance of
    the pixels from the nearest of the five colours.

    Args:
        captions: B captions of scenes.
        pictures: `(B, 16, 16, 3)` uint8.

    Returns:
        `(B,)` float64.
    """
    _, distance = _nearest(pictures)
    purity = np.exp(-distance.mean((1, 2)) / 25)
    rewards = np.zeros(len(captions))
    for number, caption in enumerate(captions):
        scene = Scene.read(caption)
        if scene is None:
            raise ValueError(f"{caption!r} is no caption of a scene")
        shapes = shapes_in(pictures[number])
        worth = sorted((_worth(shape, scene) for shape in shapes), reverse=True)[: scene.count]
        f1 = 2 * sum(worth) / (len(shapes) + scene.count)
        stray = _stray(pictures[number])
        rewards[number] = 3 * f1 + CLEAN * (1 - stray) + SHARP * purity[number]
    return rewards


def measures(captions: Sequence[str], pictures: NDArray[np.uint8]) -> dict[str, float]:
    """Return shares of pictures with the right number, colour, kind and place throughout, and how bright they are."""
    right: dict[str, list[float]] = {"count": [], "colour": [], "kind": [], "place": [], "all": []}
    for caption, picture in zip(captions, pictures, strict=True):
        scene = Scene.read(caption)
        assert scene is not None
        shapes = shapes_in(picture)
        found = {
            "count": len(shapes) == scene.count,
            "colour": bool(shapes) and all(shape.colour == scene.colour for shape in shapes),
            "kind": bool(shapes) and all(shape.kind == scene.kind for shape in shapes),
            "place": bool(shapes) and all(_in_place(shape, scene) for shape in shapes),
        }
        for name, value in found.items():
            right[name].append(float(value))
        right["all"].append(float(all(found.values())))
    shares = {f"right_{name}": float(np.mean(values)) for name, values in right.items()}
    return {**shares, "brightness": float(np.mean(pictures) / 255)}


def _nearest(pictures: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return for each pixel `(B, 16, 16)` the number of the nearest colour, and the distance from it."""
    distances = np.linalg.norm(pictures[..., None, :].astype(np.float64) - _PALETTE, axis=-1)
    return distances.argmin(-1), distances.min(-1)


def _stray(picture: NDArray[np.uint8]) -> float:
    """Return the share of pixels that are far from the ground and belong to no shape large enough to be one."""
    ndimage = require("scipy.ndimage", "image")
    nearest = _nearest(picture[None])[0][0]
    lit = 0
    for number in range(1, len(_NAMES)):
        labels, count = ndimage.label(nearest == number)
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
        lit += int(sum(size for size in sizes if size < LEAST))
    far = np.linalg.norm(picture.astype(np.float64) - np.array(GROUND), axis=-1)
    haze = float(np.clip(far[nearest == 0] / 60, 0, 1).mean()) if (nearest == 0).any() else 1.0
    return min(1.0, 4 * lit / SIZE**2 + haze)


def _kind_of(pixels: NDArray[np.bool_]) -> str | None:
    """Return which kind of shape these pixels are: that with the largest overlap at the best place, if it is most."""
    ndimage = require("scipy.ndimage", "image")
    best, name = 0.0, None
    for kind, mask in _MASKS.items():
        hits = ndimage.correlate(pixels.astype(float), mask.astype(float), mode="constant").max()
        overlap = hits / (pixels.sum() + mask.sum() - hits)
        if overlap > best:
            best, name = float(overlap), kind
    return name if best >= 0.7 else None


def _in_place(shape: Shape, scene: Scene) -> bool:
    top, left, bottom, right = PLACES[scene.place]
    return top - 0.5 <= shape.row <= bottom - 0.5 and left - 0.5 <= shape.column <= right - 0.5


def _worth(shape: Shape, scene: Scene) -> float:
    return (float(shape.colour == scene.colour) + float(shape.kind == scene.kind) + float(_in_place(shape, scene))) / 3


class Scenes:
    """The world: captions, pictures to learn from, and the judge.

    Args:
        seed: which captions are held out, and everything drawn.
        wrong: share of pictures that show a scene of which one thing is other than the caption says.
        poor: share of pictures that are dull or grainy.
    """

    name = "scenes"
    shape = (SIZE, SIZE, 3)

    def __init__(self, seed: int = 0, *, wrong: float = 0.25, poor: float = 0.35) -> None:
        self.seed, self.wrong, self.poor = seed, wrong, poor
        scenes = all_scenes()
        order = stream(seed, "scenes held out").permutation(len(scenes))
        self._held_out = [scenes[i] for i in sorted(order[:HELD_OUT])]
        self._known = [scenes[i] for i in sorted(order[HELD_OUT:])]

    def knows(self, prompt: str) -> bool:
        """Tell whether a prompt is a caption of a scene."""
        return Scene.read(prompt) is not None

    def prompts(self, count: int, *, held_out: bool = False) -> list[str]:
        """Return `count` captions drawn at random; those held out are others than those learned from."""
        scenes = self._held_out if held_out else self._known
        random = stream(self.seed, "captions", int(held_out))
        return [scenes[i].caption for i in random.integers(len(scenes), size=count)]

    def examples(self, count: int) -> tuple[list[str], NDArray[np.uint8]]:
        """Return `count` captions and pictures `(count, 16, 16, 3)` to learn from, some of them wrong or poor."""
        random = stream(self.seed, "pictures")
        captions, pictures = [], np.empty((count, *self.shape), np.uint8)
        for number in range(count):
            scene = self._known[int(random.integers(len(self._known)))]
            shown = _other(scene, random) if random.random() < self.wrong else scene
            picture = draw(shown, random)
            if random.random() < self.poor:
                picture = _spoil(picture, random)
            captions.append(scene.caption)
            pictures[number] = picture
        return captions, pictures

    def gold(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the gold reward of pictures, `(B,)` float64."""
        return gold(prompts, pictures)

    def measures(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> dict[str, float]:
        """Return what the pictures get right, by name."""
        return measures(prompts, pictures)


def _other(scene: Scene, random: np.random.Generator) -> Scene:
    """Return a scene that differs in one thing."""
    kinds: dict[str, list[Any]] = {
        "count": list(COUNTS.values()), "colour": list(COLOURS), "kind": list(KINDS), "place": list(PLACES)
    }  # fmt: skip
    name = list(kinds)[int(random.integers(len(kinds)))]
    others = [value for value in kinds[name] if value != getattr(scene, name)]
    return replace(scene, **{name: others[int(random.integers(len(others)))]})


def _spoil(picture: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a duller or grainier copy."""
    values = picture.astype(np.float64)
    if random.random() < 0.5:
        values = values * random.uniform(0.4, 0.8) + random.uniform(10, 50)
    values += random.normal(0, random.uniform(5, 30), values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
