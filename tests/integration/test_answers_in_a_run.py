"""What a run makes of answers that are taken back, of annotators left out, and of a record on a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from postgres import PostgresServer

from prefrl.control import ControlFolder, TrainSettings, train
from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Query
from prefrl.history import Episode
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.store import PreferenceStore

TINY = TrainSettings(
    env_id="Pendulum-v1", labels=8, steps=1000, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=2,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 1},
)  # fmt: skip


class Scripted:
    """Answers everything as "anna" and "ben" in turn; takes her first answer back when asked for the second time."""

    name = "anna"

    def __init__(self, record: Path | None = None) -> None:
        self.record, self.calls = record, 0

    def observe(self, episodes: Sequence[Episode]) -> None:
        pass

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        self.calls += 1
        if self.record is not None and self.calls == 2:
            with PreferenceStore(self.record) as store:
                claim = store.undo(1, "anna")
                again = {"query_id": claim.query.id, "annotator": "anna", "claim": claim.token}
                store.add_answers([Comparison(preference=0.0, **again)])
        names = ("anna", "ben")
        return [
            Comparison(query_id=query.id, preference=1.0, annotator=names[number % 2])
            for number, query in enumerate(queries)
        ]

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def restore(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


def taught(folder: ControlFolder) -> tuple[list[int], int]:
    """Return the rows of the answers that the reward was fitted to, and the labels that were counted."""
    checkpoint, _ = newest_checkpoint(folder)
    assert checkpoint is not None
    state = checkpoint.state.part("learner")
    learner = state.values
    assert len(state.arrays["counts"]) == len(learner["taken"])
    return learner["taken"], folder.read_metrics()[-1]["labels"]


def test_an_answer_taken_back_is_forgotten_and_the_new_one_learned(tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = train(TINY, out, quiet=True, annotator=Scripted(out / "record.sqlite"))
    with PreferenceStore(folder.record) as store:
        rows = dict(store.answers())
        standing = [row for row, _ in store.answers(standing=True)]
    taken, labels = taught(folder)
    assert sorted(taken) == standing and 1 not in taken
    assert any(rows[row].value == 0.0 for row in taken)
    assert labels == len(taken) == 8


def test_answers_of_an_annotator_left_out_teach_nothing_and_cost_nothing(tmp_path: Path) -> None:
    folder = train(replace(TINY, without=("ben",)), tmp_path / "run", quiet=True, annotator=Scripted())
    with PreferenceStore(folder.record) as store:
        rows = dict(store.answers())
    taken, labels = taught(folder)
    assert {rows[row].annotator for row in taken} == {"anna"}
    assert {answer.annotator for answer in rows.values()} == {"anna", "ben"}
    assert labels == len(taken)


def test_a_run_keeps_its_record_on_a_server_that_no_other_run_may_use(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database("run")
    folder = train(replace(TINY, record=url), tmp_path / "run", quiet=True)
    assert folder.record == url and not folder.record_path.exists()
    with PreferenceStore(url) as store:
        assert len(store.answers()) == 8
    taken, _ = taught(folder)
    assert len(taken) == 8
    with pytest.raises(UserError, match="holds the record of another run"):
        train(replace(TINY, record=url), tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()
