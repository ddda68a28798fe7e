"""What the viewer's threads bring from the record and take there, without a window."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query, Response, Undo
from prefrl.human_ui import desk as desks
from prefrl.human_ui.desk import Desk
from prefrl.human_ui.questions import Question, Standing
from prefrl.store import PreferenceStore

SECONDS = 10.0


def query(number: int) -> Query:
    return Query(responses=tuple(Response(prompt="Which?", text=f"{side} {number}") for side in "ab"))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        store.add_queries([query(number) for number in range(6)])
    return path


@pytest.fixture
def desk(record: Path) -> Iterator[Desk]:
    opened = Desk(lambda: PreferenceStore(record), "anna", run="r", environment="", repeat_share=0.0)
    opened.start()
    yield opened
    assert opened.close() == 0


def news(desk: Desk, wanted: Callable[[Any], bool]) -> Any:
    """Wait for news that fit, and drop the others."""
    deadline = time.monotonic() + SECONDS
    while (left := deadline - time.monotonic()) > 0:
        with suppress(queue.Empty):
            found = desk.news.get(timeout=left)
            if wanted(found):
                return found
    pytest.fail("waited in vain")


def question(desk: Desk, query_id: str | None = None) -> Question:
    found: Question = news(desk, lambda n: isinstance(n, Question) and query_id in (None, n.query_id))
    return found


def answer(asked: Question) -> Comparison:
    common = {"query_id": asked.query_id, "annotator": asked.annotator, "claim": asked.claim, "shown": asked.order}
    return Comparison(preference=1.0, seconds=1.0, shown_at=1.0, answered_at=2.0, **common)  # type: ignore[arg-type]


def fails(monkeypatch: pytest.MonkeyPatch, name: str, *, done: bool) -> None:
    """Let the next call of a method of the record fail, before it does anything or `done`."""
    method, left = getattr(PreferenceStore, name), [None]

    def once(store: PreferenceStore, *arguments: Any, **options: Any) -> Any:
        if not left:
            return method(store, *arguments, **options)
        left.pop()
        if done:
            method(store, *arguments, **options)
        raise UserError("the server is away")

    monkeypatch.setattr(PreferenceStore, name, once)


@pytest.mark.slow
def test_a_question_that_was_claimed_when_the_record_went_away_comes_when_it_is_back(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, "render_failures", done=False)
    desk = Desk(lambda: PreferenceStore(record), "anna", run="r", environment="", repeat_share=0.0)
    desk.start()
    assert "away" in news(desk, lambda n: isinstance(n, str))
    assert question(desk).query_id == query(0).id
    assert news(desk, lambda n: isinstance(n, str)) == ""
    assert question(desk).query_id == query(1).id
    desk.close()


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True])
def test_what_is_taken_back_while_the_record_goes_away_is_taken_back_once_and_asked_again(
    record: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    asked = question(desk)
    desk.save(answer(asked))
    fails(monkeypatch, "undo", done=done)
    desk.take_back(answer(asked))
    assert "away" in news(desk, lambda n: isinstance(n, str) and n)
    desk.save(answer(question(desk, asked.query_id)))
    while desk.num_unsaved:
        time.sleep(0.02)
    with PreferenceStore(record) as store:
        assert [type(answer) is Undo for _, answer in store.answers()] == [False, True, False]
        assert store.num_answers() == 1


def test_what_teaches_nothing_and_what_was_taken_over_is_not_counted_as_answered(record: Path) -> None:
    with PreferenceStore(record) as store:
        again = Query(responses=query(0).responses, repeat_of=query(0).id, reserved_for="anna")
        store.add_queries([again])
        given = [(query(0), 1.0), (again, 1.0), (query(1), None), (query(2), 0.0), (query(3), 0.5), (query(4), 1.0)]
        rows = store.add_answers([Comparison(query_id=q.id, preference=p, annotator="anna") for q, p in given])
        store.undo(rows[-1], "anna")
        store.set_facts({"labels_before": 1, "labels_wanted": 10, "training_state": "running", "seen_at": time.time()})
        assert [store.num_answers(teaching=teaching) for teaching in (False, True)] == [5, 3]
        assert store.num_answers("ben", teaching=True) == 0
    desk = Desk(lambda: PreferenceStore(record), "anna", run="r", environment="", repeat_share=0.0)
    desk.start()
    standing = news(desk, lambda n: isinstance(n, Standing))
    assert (standing.answered, standing.left, standing.running) == (2, 8, True)
    desk.close()


def test_large_clips_are_not_kept_for_long_and_come_again_when_taken_back(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "KEPT_BYTES", 1)
    monkeypatch.setattr(Question, "num_bytes", 1)
    desk = Desk(lambda: PreferenceStore(record), "anna", run="r", environment="", repeat_share=0.0)
    desk.start()
    first, _, _ = question(desk), question(desk), question(desk)
    assert len(desk._kept) == 1
    desk.save(answer(first))
    desk.take_back(answer(first))
    again = question(desk, first.query_id)
    assert again is not first and again.order == first.order
    desk.close()
