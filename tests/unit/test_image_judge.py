"""A vision-language judge against a stand-in that looks at what it is sent: order, caching, nonsense."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("PIL")

from prefrl.envs.scenes import Scene, Scenes, draw, gold
from prefrl.errors import UserError
from prefrl.image.judge import CONSTITUTION, rank_pictures
from prefrl.vision import VisionJudge, as_address
from tests.unit import eyes


class _StandIn:
    """Looks at both pictures as an exact judge would, and says what it is told to say."""

    says = "honest"
    asked = 0

    @classmethod
    def look(cls, text: str, pictures: list[Any]) -> str:
        cls.asked += 1
        prompt = re.search(r"asked for with: (.*)\n", text)
        assert prompt is not None and all(picture.shape == (256, 256, 3) for picture in pictures)
        first, second = gold([prompt[1]] * 2, np.stack([picture[::16, ::16] for picture in pictures]))
        said = {"honest": "A" if first >= second else "B", "left": "The answer is A.", "both": "Both are good."}
        return said[cls.says]


@pytest.fixture
def address() -> Iterator[str]:
    _StandIn.says, _StandIn.asked = "honest", 0
    with eyes.serving(_StandIn.look) as found:
        yield found


def some(count: int, images: int) -> tuple[list[str], list[np.ndarray[Any, Any]]]:
    random, prompts = np.random.default_rng(0), Scenes(0).prompts(count)
    pictures = []
    for prompt in prompts:
        scene = Scene.read(prompt)
        assert scene is not None
        right = draw(scene, random)
        dull = [np.clip(right * (1 - 0.2 * i) + 25 * i, 0, 255).astype(np.uint8) for i in range(images)]
        pictures.append(np.stack(dull[::-1]))
    return prompts, pictures


def test_it_ranks_pictures_as_it_sees_them_and_is_asked_nothing_twice(address: str, tmp_path: Path) -> None:
    judge = VisionJudge(address, CONSTITUTION)
    judge.server.keep_answers(tmp_path / "answers.jsonl")
    rows, left_out = rank_pictures(judge, *some(4, 3))
    assert [row.ranks for row in rows] == [(3, 2, 1)] * 4
    assert not left_out
    assert _StandIn.asked == 4 * 3 * 2
    again = VisionJudge(address, CONSTITUTION)
    again.server.keep_answers(tmp_path / "answers.jsonl")
    assert [row.ranks for row in rank_pictures(again, *some(4, 3))[0]] == [(3, 2, 1)] * 4
    assert _StandIn.asked == 4 * 3 * 2


@pytest.mark.parametrize(("says", "reason"), [("left", "whichever stands in one place"), ("both", "neither A nor B")])
def test_a_judge_that_goes_by_the_place_or_says_neither_is_left_out_and_counted(
    address: str, says: str, reason: str
) -> None:
    _StandIn.says = says
    rows, left_out = rank_pictures(VisionJudge(address, CONSTITUTION), *some(3, 2))
    assert rows == []
    ((found, count),) = left_out.items()
    assert reason in found and count == 3


def test_equal_pictures_are_not_put_to_it(address: str) -> None:
    prompts, pictures = some(1, 2)
    same = [np.stack([pictures[0][0]] * 2)]
    rows, left_out = rank_pictures(VisionJudge(address, CONSTITUTION), prompts, same)
    assert rows == [] and sum(left_out.values()) == 1 and _StandIn.asked == 0


def test_an_address_without_a_model_or_a_server_is_refused() -> None:
    with pytest.raises(UserError, match="model after a #"):
        VisionJudge("http://127.0.0.1:1/v1", CONSTITUTION)
    assert as_address(np.zeros((300, 300, 3), np.uint8)).startswith("data:image/png;base64,")
