"""A vision-language judge of clips in a record, against a stand-in that measures how bright the strips are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("PIL")
pytest.importorskip("tyro")

from prefrl.cli import main
from prefrl.feedback import Answer, Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.store.clips import clip_of
from prefrl.vision import as_strip
from tests.unit import eyes

LIGHT = (40, 120, 220)


class _StandIn:
    """Prefers the brighter strip, or says what it is told to say."""

    says = "honest"
    texts: list[str] = []  # noqa: RUF012  (emptied before each test)

    @classmethod
    def look(cls, text: str, pictures: list[Any]) -> str:
        cls.texts.append(text)
        first, second = (float(picture.mean()) for picture in pictures)
        return {"honest": "A" if first > second else "B", "left": "A", "both": "Both are good."}[cls.says]


@pytest.fixture
def address() -> Iterator[str]:
    _StandIn.says = "honest"
    _StandIn.texts.clear()
    with eyes.serving(_StandIn.look) as found:
        yield found


def segment(number: int) -> Segment:
    return Segment(observations=np.full((4, 1), number, np.float32), actions=np.zeros((3, 1), np.float32),
                   true_rewards=np.zeros(3))  # fmt: skip


def make_record(path: Path, *, drawn: int = 3) -> None:
    """Two comparisons, a ranking and a rating of clips of grey frames, each segment lighter than the last."""
    of = [segment(number) for number in range(3)]
    with PreferenceStore(path) as store:
        store.add_queries(
            [
                Query(segments=(of[0], of[1]), instruction="Be bright."),
                Query(segments=(of[2], of[1]), instruction="Be bright."),
                Query(segments=tuple(of), kind="ranking", instruction="Be bright."),
                Query(segments=(of[0],), kind="rating", scale=5),
            ]
        )
        for number in range(drawn):
            frames = np.full((3, 32, 32, 3), LIGHT[number], np.uint8)
            store.add_clip(of[number].id, clip_of(iter(frames), 10.0))


def said(path: Path) -> list[Any]:
    with PreferenceStore(path) as store:
        answers = [answer for _, answer in store.answers() if isinstance(answer, Answer)]
        assert store.annotators() == {"eyes": "model"}
    assert {answer.annotator for answer in answers} <= {"eyes"}
    return [answer.value for answer in answers]


def test_it_answers_comparisons_and_rankings_by_their_clips_and_leaves_ratings_open(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.sqlite"
    make_record(record)
    assert main(["judge", str(record), "--by", address]) == 0
    assert said(record) == [0.0, 1.0, (3, 2, 1)]
    assert len(_StandIn.texts) == 6  # three pairs in both orders: what the ranking asks again was kept
    assert all("What is wanted: Be bright." in text for text in _StandIn.texts)
    out = capsys.readouterr().out
    assert "eyes answered 3 questions." in out and "1 questions are open still" in out


@pytest.mark.parametrize(("says", "reason"), [("left", "stands in one place"), ("both", "neither A nor B")])
def test_a_judge_that_goes_by_the_place_cannot_tell_and_is_not_learned_from(
    says: str, reason: str, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.sqlite"
    make_record(record)
    _StandIn.says = says
    assert main(["judge", str(record), "--by", address, "--most", "2"]) == 0
    assert said(record) == [None, None]
    out = capsys.readouterr().out
    assert "answered 0 questions" in out and "2 where the judge" in out and reason in out


def test_what_was_said_is_not_asked_again_and_clips_not_drawn_are_left(address: str, tmp_path: Path) -> None:
    record = tmp_path / "record.sqlite"
    make_record(record, drawn=2)
    assert main(["judge", str(record), "--by", address]) == 0
    assert said(record) == [0.0] and len(_StandIn.texts) == 2
    other = tmp_path / "copy.sqlite"
    make_record(other, drawn=2)
    (tmp_path / "record.sqlite.judge.jsonl").rename(tmp_path / "copy.sqlite.judge.jsonl")
    assert main(["judge", str(other), "--by", address]) == 0
    assert said(other) == [0.0] and len(_StandIn.texts) == 2


def test_a_judge_that_is_away_is_told_and_the_question_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefrl.servers.FIRST_WAIT", 0.01)
    record = tmp_path / "record.sqlite"
    make_record(record)
    assert main(["judge", str(record), "--by", "http://127.0.0.1:1/v1#eyes"]) == 2
    assert "does not answer" in capsys.readouterr().err
    with PreferenceStore(record) as store:
        assert store.num_answers() == 0 and store.num_open("anna") == 4


def test_a_record_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", str(tmp_path / "none.sqlite"), "--by", "http://127.0.0.1:1/v1#eyes"]) == 2
    assert "There is no record" in capsys.readouterr().err
    assert not (tmp_path / "none.sqlite").exists()


def test_a_strip_has_the_first_and_the_last_frame_and_none_twice() -> None:
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 2, 3, 3), np.uint8)
    strip = as_strip(frames, 3)
    assert strip.shape == (2, 3 * 3 + 2 * 4, 3)
    assert [int(strip[0, at, 0]) for at in (0, 7, 14)] == [0, 2, 4]
    assert as_strip(frames[:1], 4).shape == (2, 3, 3)
