"""A vision-language model as a judge of pictures, behind an OpenAI-compatible address.

It sees both pictures of a pair and is asked in both orders, since such models favour a side; the answers are averaged.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prefrl.chats import ChatServer, verdict
from prefrl.errors import UserError, require
from prefrl.image.reward_model import Ranked

CONSTITUTION = (
    "Prefer the picture that shows what was asked for: the right things, as many as asked for, in the right colours "
    "and places. Of two that do so equally well, prefer the cleaner one."
)
SHOWN_PIXELS = 256
"""Smaller pictures are enlarged to at least so many pixels a side."""


class VisionJudge:
    """A vision-language model that compares pictures.

    Args:
        name: `URL#MODEL`; a key is read from the variable PREFRL_JUDGE_KEY.
        constitution: what it judges by.
        timeout: seconds to wait for an answer.

    Raises:
        UserError: the name has no model.
    """

    def __init__(self, name: str, constitution: str = CONSTITUTION, *, timeout: float = 60.0) -> None:
        address, _, model = name.partition("#")
        if not model:
            raise UserError(f"Name the server's model after a #, as in {address}#MODEL.")
        self.server, self.constitution = ChatServer(address, model, timeout=timeout), constitution

    def prefer_first(self, prompt: str, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float | None:
        """Return the probability that the first is better, from both orders; None if an answer was neither A nor B."""
        answers = []
        for pair in ((first, second), (second, first)):
            found = verdict(self.server.answer(self._question(prompt, pair)))
            if found is None:
                return None
            answers.append(found == "A")
        ahead, behind = answers
        return (float(ahead) + 1 - float(behind)) / 2

    def _question(self, prompt: str, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> list[dict[str, object]]:
        said = (
            f"You compare two pictures under this constitution:\n{self.constitution.strip()}\n\nThey were asked for "
            f"with: {prompt}\n\nThe first picture is A, the second is B. Which is better? Reply with A or B only."
        )
        shown: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": as_address(picture)}} for picture in pair
        ]
        return [{"type": "text", "text": said}, *shown]

    def rank(self, prompts: Sequence[str], pictures: Sequence[NDArray[np.uint8]]) -> tuple[list[Ranked], Counter[str]]:
        """Return a ranking of the pictures `(K, H, W, 3)` of each prompt, by the pairs that each wins.

        Returns:
            rankings: those in which two pictures come apart.
            left_out: numbers of the others, by the reason.
        """
        rows, left_out = [], Counter[str]()
        for prompt, some in zip(prompts, pictures, strict=True):
            wins = np.zeros(len(some))
            clear = True
            for i, j in itertools.combinations(range(len(some)), 2):
                ahead = 0.5 if np.array_equal(some[i], some[j]) else self.prefer_first(prompt, some[i], some[j])
                if ahead is None:
                    left_out["the judge answered neither A nor B"] += 1
                    clear = False
                    break
                wins[i], wins[j] = wins[i] + ahead, wins[j] + 1 - ahead
            if not clear:
                continue
            order = sorted(set(wins.tolist()), reverse=True)
            if len(order) == 1:
                left_out["the judge prefers none, or whichever stands in one place"] += 1
                continue
            rows.append(Ranked(prompt, some, tuple(order.index(value) + 1 for value in wins)))
        return rows, left_out


def as_address(picture: NDArray[np.uint8]) -> str:
    """Return a picture as a `data:` address of a PNG, enlarged where it is small."""
    require("PIL", "image")
    from PIL import Image

    times = max(1, -(-SHOWN_PIXELS // max(picture.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(picture.repeat(times, 0).repeat(times, 1)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
