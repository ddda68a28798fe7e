"""Which answers count: the same ones, however the rows of the record are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from prefrl.control.intake import Change, Intake, Row
from prefrl.feedback import Answer, Comparison, Query, Rating, Response, Undo
from prefrl.store import PreferenceStore

NAMES = ("anna", "ben", "cleo")


def query(number: int, *, session: int = 0, overlap: int = 1) -> Query:
    responses = (Response(prompt=f"{number}", text="a"), Response(prompt=f"{number}", text="b"))
    return Query(responses=responses, session=session, overlap=overlap)


def says(asked: Query, annotator: str, preference: float | None = 1.0) -> Comparison:
    return Comparison(query_id=asked.id, annotator=annotator, preference=preference)


def takes_back(asked: Query, annotator: str, row: int) -> Undo:
    return Undo(query_id=asked.id, annotator=annotator, undoes=row)


def numbered(*answers: Answer) -> list[Row]:
    return list(enumerate(answers, 1))


def counted(rows: Sequence[Row], queries: Sequence[Query], without: Sequence[str] = ()) -> set[int]:
    """Return the rows that count, from the words of the module: another way to the same set."""
    undone = {answer.undoes for _, answer in rows if isinstance(answer, Undo)}
    found = set()
    for asked in queries:
        standing = [
            (row, a) for row, a in rows if a.query_id == asked.id and a.kind == asked.kind and row not in undone
        ]
        first = {name: next(pair for pair in standing if pair[1].annotator == name) for _, a in standing
                 for name in [a.annotator]}  # fmt: skip
        wanted = sorted(first.values(), key=lambda pair: pair[0])[: asked.overlap]
        found |= {row for row, a in wanted if a.value is not None and a.annotator not in without}
    return found


# ---------------------------------------------------------------------------------------------------- by hand


def test_what_was_answered_counts_and_closes_the_query() -> None:
    first, second = query(1), query(2)
    intake = Intake()
    intake.ask([first, second])
    change = intake.take_in(numbered(says(second, "anna")))
    assert change == Change(added=((1, says(second, "anna")),))
    assert (intake.taken, intake.labels, intake.open, intake.read_up_to) == ([1], 1, (first.id,), 1)


def test_an_answer_taken_back_counts_no_longer_and_its_query_is_open_again() -> None:
    asked = query(1)
    intake = Intake()
    intake.ask([asked])
    rows = numbered(says(asked, "anna"), takes_back(asked, "anna", 1), says(asked, "anna", 0.0))
    intake.take_in(rows[:1])
    assert intake.take_in(rows[:2]) == Change(removed=(1,))
    assert (intake.labels, intake.open) == (0, (asked.id,))
    assert intake.take_in(rows) == Change(added=(rows[2],))
    assert (intake.taken, intake.labels, intake.open) == ([3], 1, ())


def test_an_answer_that_came_too_late_counts_when_the_one_before_it_is_taken_back() -> None:
    asked = query(1)
    for cuts in ((3,), (1, 2, 3), (2, 3)):
        intake = Intake()
        intake.ask([asked])
        rows = numbered(says(asked, "anna"), says(asked, "ben"), takes_back(asked, "anna", 1))
        for cut in cuts:
            intake.take_in(rows[:cut])
        assert (intake.taken, intake.open) == ([2], ())


def test_cannot_tell_closes_a_query_teaches_nothing_and_costs_a_label_only_where_it_is_said_to() -> None:
    asked = query(1)
    for costs in (False, True):
        intake = Intake(skips_cost_labels=costs)
        intake.ask([asked])
        assert intake.take_in(numbered(says(asked, "anna", None))) == Change()
        assert (intake.labels, intake.open) == (int(costs), ())


def test_answers_of_an_earlier_run_teach_and_cost_nothing() -> None:
    earlier, own = query(1), query(2, session=1)
    intake = Intake(first_session=1)
    intake.ask([earlier, own])
    assert intake.open == (own.id,)
    intake.take_in(numbered(says(earlier, "anna"), says(own, "anna")))
    assert (intake.taken, intake.labels) == ([1, 2], 1)


def test_rows_about_queries_that_are_not_asked_yet_wait() -> None:
    now, later = query(1), query(2)
    intake = Intake()
    intake.ask([now])
    rows = numbered(says(later, "anna"), says(now, "anna"))
    intake.take_in(rows)
    assert (intake.taken, intake.read_up_to) == ([2], 0)
    intake.ask([later])
    assert intake.take_in(rows) == Change(added=(rows[0],))
    assert (intake.taken, intake.read_up_to) == ([2, 1], 2)


# ---------------------------------------------------------------------------------------------------- properties


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Query], list[Row]]:
    """Draw queries of several sessions, and what several annotators said about them, with what they took back."""
    queries = [
        query(number, session=draw(st.integers(0, 2)), overlap=draw(st.integers(1, 2)))
        for number in range(draw(st.integers(1, 4)))
    ]
    rows: list[Row] = []
    for number in range(1, draw(st.integers(0, 14)) + 1):
        standing = [
            (row, a) for row, a in rows
            if not isinstance(a, Undo) and not any(isinstance(b, Undo) and b.undoes == row for _, b in rows)
        ]  # fmt: skip
        if standing and draw(st.integers(0, 3)) == 0:
            row, undone = draw(st.sampled_from(standing))
            rows.append((number, Undo(query_id=undone.query_id, annotator=undone.annotator, undoes=row)))
            continue
        asked, name = draw(st.sampled_from(queries)), draw(st.sampled_from(NAMES))
        if draw(st.integers(0, 9)) == 0:
            rows.append((number, Rating(query_id=asked.id, annotator=name, rating=1)))  # not what was asked for
        else:
            rows.append((number, says(asked, name, draw(st.sampled_from([0.0, 0.5, 1.0, None])))))
    return queries, rows


@given(history=histories(), without=st.sets(st.sampled_from(NAMES)), data=st.data())
def test_the_data_are_the_same_however_the_rows_come(
    history: tuple[list[Query], list[Row]], without: set[str], data: st.DataObject
) -> None:
    queries, rows = history
    options: dict[str, Any] = {"first_session": 1, "without": without, "skips_cost_labels": data.draw(st.booleans())}
    intake, asked, held = Intake(**options), 0, []
    for end in [*sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6))), len(rows)]:
        if end == len(rows):
            asked = len(queries)  # in the end all is known
        asked = max(asked, data.draw(st.integers(0, len(queries))))
        intake.ask(queries[:asked])
        start = data.draw(st.integers(0, intake.read_up_to))  # what was read before may come again
        change = intake.take_in(rows[start:end])
        held = [row for row in held if row not in change.removed] + [row for row, _ in change.added]
        if data.draw(st.booleans()):  # a kill and a restart
            state, intake = intake.state(), Intake(**options)
            intake.ask(queries[:asked])
            intake.restore(state, rows)
    at_once = Intake(**options)
    at_once.ask(queries)
    at_once.take_in(rows)
    assert held == intake.taken
    assert set(intake.taken) == set(at_once.taken) == counted(rows, queries, sorted(without))
    assert (intake.labels, set(intake.open)) == (at_once.labels, set(at_once.open))
    assert intake.read_up_to == len(rows)
    own = {asked.id for asked in queries if asked.session >= 1}
    assert len([row for row in intake.taken if dict(rows)[row].query_id in own]) <= intake.labels


@given(history=histories())
def test_each_annotator_counts_once_for_a_query_and_no_more_than_it_wants(
    history: tuple[list[Query], list[Row]],
) -> None:
    queries, rows = history
    intake = Intake()
    intake.ask(queries)
    intake.take_in(rows)
    taken = [dict(rows)[row] for row in intake.taken]
    for asked in queries:
        names = [answer.annotator for answer in taken if answer.query_id == asked.id]
        assert len(names) == len(set(names)) <= asked.overlap
        assert (asked.id in intake.open) == (len(intake.answerers(asked.id)) < asked.overlap)


def test_who_is_left_out_later_counts_as_if_left_out_from_the_start() -> None:
    first, second, third = query(1), query(2, session=1), query(3, session=1)
    rows = numbered(says(first, "anna"), says(second, "ben"), says(third, "anna"))
    intake, never = Intake(first_session=1), Intake(first_session=1, without=("anna",))
    for one in (intake, never):
        one.ask([first, second, third])
        one.take_in(rows[:2])
    assert (intake.taken, intake.labels) == ([1, 2], 1)
    assert intake.leave_out("anna") == Change(removed=(1,))
    assert intake.leave_out("anna") == Change()
    for one in (intake, never):
        assert one.take_in(rows) == Change()
    assert (intake.taken, intake.labels, intake.open) == (never.taken, never.labels, never.open) == ([2], 1, ())


@given(data=st.data())
def test_the_order_in_which_people_answer_does_not_matter_where_nobody_is_too_late(data: st.DataObject) -> None:
    queries = [query(number, overlap=data.draw(st.integers(1, 3))) for number in range(data.draw(st.integers(1, 4)))]
    answers = [
        says(asked, name, data.draw(st.sampled_from([0.0, 0.5, 1.0, None])))
        for asked in queries
        for name in NAMES[: asked.overlap]
    ]
    found = []
    for order in (answers, data.draw(st.permutations(answers))):
        intake = Intake()
        intake.ask(queries)
        for end in range(1, len(order) + 1):
            intake.take_in(numbered(*order)[:end])
        taught = sorted((a.query_id, a.annotator, a.value) for a in intake.answers())
        found.append((taught, intake.labels, intake.open))
    assert found[0] == found[1]
    assert found[0][1] == sum(a.value is not None for a in answers)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_data_are_the_same_however_a_record_was_written_and_read(data: st.DataObject) -> None:
    """Several people claim, answer, take back and are asked again, while a reader reads, is killed and starts again."""
    queries = [query(number, overlap=data.draw(st.integers(1, 2))) for number in range(data.draw(st.integers(2, 9)))]
    rng, steps = (
        np.random.default_rng(data.draw(st.integers(0, 9))),
        ["answer", "answer", "undo", "read", "save", "kill"],
    )
    with TemporaryDirectory() as place, PreferenceStore(Path(place) / "record.sqlite", rng=rng) as store:
        store.add_queries(queries)
        given_rows: dict[str, list[int]] = {name: [] for name in NAMES}
        intake = Intake()
        intake.ask(queries)
        held: list[int] = []
        checkpoint: tuple[dict[str, Any], list[int]] = intake.state(), []
        for step in data.draw(st.lists(st.sampled_from(steps), max_size=40)):
            name = data.draw(st.sampled_from(NAMES))
            if step == "answer":
                for claim in store.claim(name, 1, repeat_share=0.5):
                    said = {"preference": data.draw(st.sampled_from([0.0, 0.5, 1.0, None])), "shown": claim.shown}
                    answer = Comparison(query_id=claim.query.id, annotator=name, claim=claim.token, **said)
                    given_rows[name] += store.add_answers([answer, answer][: data.draw(st.integers(1, 2))])[:1]
            elif step == "undo" and given_rows[name]:
                store.release([store.undo(given_rows[name].pop(), name)])
            elif step == "read":
                change = intake.take_in(store.answers(after=intake.read_up_to, repeats=False))
                held = [row for row in held if row not in change.removed] + [row for row, _ in change.added]
            elif step == "save":
                checkpoint = intake.state(), list(held)
            elif step == "kill":
                intake = Intake()
                intake.ask(queries)
                intake.restore(checkpoint[0], store.answers(repeats=False))
                held = list(checkpoint[1])
        change = intake.take_in(store.answers(after=intake.read_up_to, repeats=False))
        held = [row for row in held if row not in change.removed] + [row for row, _ in change.added]
        at_once = Intake()
        at_once.ask(queries)
        at_once.take_in(store.answers(repeats=False))
        assert held == intake.taken
        assert sorted(held) == sorted(at_once.taken)
        assert intake.labels == at_once.labels == len(held) == store.num_answers(teaching=True)
        assert set(intake.open) == {asked.id for asked in store.open_queries()}
