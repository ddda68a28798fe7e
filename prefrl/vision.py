"""A vision-language model as a judge of pictures, behind an OpenAI-compatible address.

It sees both pictures of a pair and is asked in both orders, since such models favour a side; the answers are averaged.
A clip is one picture too: a strip of frames, from left to right.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prefrl.chats import ChatServer, verdict
from prefrl.errors import UserError, require
from prefrl.feedback.answers import ranks_of

SHOWN_PIXELS = 256
"""Smaller pictures are enlarged to at least so many pixels a side."""
NO_VERDICT = "the judge answered neither A nor B"
NO_PREFERENCE = "the judge prefers none, or whichever stands in one place"


class VisionJudge:
    """A vision-language model that compares pictures.

    Args:
        name: `URL#MODEL`; a key is read from the variable PREFRL_JUDGE_KEY.
        constitution: what it judges by.
        timeout: seconds to wait for an answer.

    Raises:
        UserError: the name has no model.
    """

    def __init__(self, name: str, constitution: str, *, timeout: float = 60.0) -> None:
        address, _, model = name.partition("#")
        if not model:
            raise UserError(f"Name the server's model after a #, as in {address}#MODEL.")
        self.name = model
        self.server, self.constitution = ChatServer(address, model, timeout=timeout), constitution

    def prefer_first(self, told: str, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float | None:
        """Return the probability that the first is better, from both orders; None if an answer was neither A nor B.

        Args:
            told: what the two are, a sentence or more.
            first: `(H, W, 3)`.
            second: `(H, W, 3)`.
        """
        answers = []
        for pair in ((first, second), (second, first)):
            found = verdict(self.server.answer(self._question(told, pair)))
            if found is None:
                return None
            answers.append(found == "A")
        ahead, behind = answers
        return (float(ahead) + 1 - float(behind)) / 2

    def ranks(self, told: str, pictures: Sequence[NDArray[np.uint8]]) -> tuple[int, ...] | str:
        """Return the rank of each picture, 1 the best, by the pairs that each wins; or why there is none.

        Args:
            told: what they are.
            pictures: K of `(H, W, 3)`; equal ones are not asked about, and tied.
        """
        wins = np.zeros(len(pictures))
        for i, j in itertools.combinations(range(len(pictures)), 2):
            same = np.array_equal(pictures[i], pictures[j])
            ahead = 0.5 if same else self.prefer_first(told, pictures[i], pictures[j])
            if ahead is None:
                return NO_VERDICT
            wins[i], wins[j] = wins[i] + ahead, wins[j] + 1 - ahead
        ranks = ranks_of(wins.tolist())
        return NO_PREFERENCE if max(ranks) == 1 else ranks

    def _question(self, told: str, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> list[dict[str, object]]:
        said = (
            f"You compare two pictures under this constitution:\n{self.constitution.strip()}\n\n{told}\n\n"
            "The first picture is A, the second is B. Which is better? Reply with A or B only."
        )
        shown: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": as_address(picture)}} for picture in pair
        ]
        return [{"type": "text", "text": said}, *shown]


def as_strip(frames: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return frames `(k, H, W, 3)`, evenly drawn from the first to the last, beside each other `(H, W', 3)`.

    Args:
        frames: of a clip.
        count: how many at most.
    """
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))]
    border = np.full((frames.shape[1], 4, 3), 128, np.uint8)
    parts = [part for frame in chosen for part in (border, frame)]
    return np.concatenate(parts[1:], axis=1)


def as_address(picture: NDArray[np.uint8]) -> str:
    """Return a picture as a `data:` address of a PNG, enlarged where it is small."""
    require("PIL", "image")
    from PIL import Image

    times = max(1, -(-SHOWN_PIXELS // max(picture.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(picture.repeat(times, 0).repeat(times, 1)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
