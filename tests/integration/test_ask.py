"""Questions without a trainer, runs that are extended, and runs judged by what was asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from background import in_background
from PIL import Image

from prefrl.cli import main
from prefrl.clips.codec import decode_clip, encode_clip
from prefrl.control import TrainSettings, train
from prefrl.control.folder import ControlFolder
from prefrl.control.loop import Trainer
from prefrl.control.strip import film, film_path, is_due, kept, not_filmed
from prefrl.errors import UserError
from prefrl.feedback import Comparison
from prefrl.feedback.queries import JUDGING_SESSION
from prefrl.quality import duels
from prefrl.store import PreferenceStore
from prefrl.studies import asking

SMALL: dict[str, Any] = {
    "env_id": "Pendulum-v1",
    "steps": 1600,
    "num_envs": 2,
    "segment_length": 10,
    "warmup_steps": 200,
    "eval_episodes": 1,
    "hyperparameters": {"n_steps": 100, "batch_size": 50, "n_epochs": 1},
    "num_checkpoints": 2,
}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@contextmanager
def answering(record: Path) -> Iterator[None]:
    """Answer whatever is open, by the true rewards, from a thread."""

    def work(over: threading.Event) -> None:
        while not over.wait(0.05):  # until there is a record, and again where it could not be read yet
            with suppress(UserError), PreferenceStore(record, create=False) as store:
                while True:
                    claims = store.claim("anna", 1, repeat_share=0.0)
                    for claim in claims:
                        first, second = (part.true_rewards.sum() for part in store.query(claim.query.id).segments)
                        given = {"annotator": "anna", "shown": claim.shown, "claim": claim.token}
                        answer = Comparison(query_id=claim.query.id, preference=float(first > second), **given)
                        store.add_answers([answer])
                    if not claims and over.wait(0.02):  # what was asked last is answered too
                        break

    with in_background(work):
        yield


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a function taught."""
    place = tmp_path_factory.mktemp("judged")
    (place / "judge.py").write_text("def upright(segment):\n    return segment.observations[1:, 0]\n")
    out = place / "run"
    train(TrainSettings(**SMALL, labels=12, reward_function=f"{place / 'judge.py'}:upright"), out, quiet=True)
    return out


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a person taught, without a viewer."""
    out = tmp_path_factory.mktemp("taught") / "run"
    with answering(out / "record.sqlite"):
        train(TrainSettings(**SMALL, labels=8, annotator="human", wait=4, shows_true_reward=False), out, quiet=True)
    return out


def test_a_run_that_a_function_taught_is_judged_by_answers_returns_and_duels_first(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = ControlFolder.open(judged).read_summary()
    assert {"learned_return_mean", "best_learned_return_mean", "random_learned_return_mean"} <= summary.keys()
    assert summary["duels"]["num"] > 0, "the function has judged before against after"
    assert summary["held_out_agreement"]["num"] > 0
    assert run("evaluate", judged) == 0
    told = capsys.readouterr().out
    assert told.index("answers held out") < told.index("Before training against after") < told.index("learned return")
    assert "environment's own reward" in told and "true return" not in told
    assert run("report", judged) == 0
    told = capsys.readouterr().out
    assert "Learned reward against the reward function" in told
    assert (judged / "curves.png").read_bytes().startswith(b"\x89PNG")
    with PreferenceStore(judged / "record.sqlite") as store:
        assert store.num_answers(teaching=True) == 12, "what judges does not teach"
        taught_by = store.cards([answer.query_id for _, answer in store.answers(repeats=False)])
        assert all(card.session < JUDGING_SESSION for card in taught_by)


def test_the_environments_reward_is_not_shown_where_it_is_not_wanted(
    taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("evaluate", taught) == 0
    told = capsys.readouterr().out
    assert "learned return" in told and "environment" not in told and "true" not in told
    assert run("report", taught) == 0
    assert "Learned reward against" not in capsys.readouterr().out


def test_the_person_judges_before_against_after_when_the_training_is_over(taught: Path) -> None:
    with PreferenceStore(taught / "record.sqlite") as store:
        asked = store.num_judging()
        assert 5 <= asked <= 10
        given = store.judgements()  # by whoever answered the others, as soon as they were asked
        assert {card.session for card in store.cards([answer.query_id for answer in given])} == {JUDGING_SESSION}
        better = []
        for answer in given:
            before, after = store.query(answer.query_id).segments
            better.append(after.true_rewards.sum() >= before.true_rewards.sum())
            assert len(store.clips([before.id, after.id])) == 2
        found = duels(store)
        assert found is not None and (found.num, found.share) == (asked, np.mean(better))
        assert store.num_answers(teaching=True) == 8


def test_policies_are_kept_along_a_training_by_people_and_filmed(taught: Path, judged: Path) -> None:
    folder = ControlFolder.open(taught)
    names = kept(folder)
    assert 6 <= len(names) <= 14 and min(names) == 0 and list(names) == sorted(names)
    assert len(kept(ControlFolder.open(judged))) == 1, "nobody looks at those of a program"
    newest = not_filmed(folder)[0]
    assert newest == max(names)
    film(folder, newest)
    assert len(decode_clip(film_path(folder, newest).read_bytes()).frames) == 100
    assert newest not in not_filmed(folder)
    assert [is_due(before, before + 100, 1200) for before in (0, 50, 100)] == [True, True, True]
    assert not is_due(110, 190, 1200)


def test_a_run_that_is_over_goes_on_with_more_labels(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("resume", judged) == 2, "it is finished"
    assert run("resume", judged, "--labels", "3") == 2
    assert "cannot be less than the 12 that were given" in capsys.readouterr().err
    assert run("resume", judged, "--labels", "many") == 2
    assert run("resume", judged, "--labels", "+6", "--no-video") == 0
    folder = ControlFolder.open(judged)
    assert (folder.settings.labels, folder.settings.steps) == (18, 2400)
    summary = folder.read_summary()
    assert summary["labels"] == 18 and summary["steps"] >= 2400
    with PreferenceStore(judged / "record.sqlite") as store:
        assert store.num_answers(teaching=True) == 18
        assert store.next_session(judging=True) == JUDGING_SESSION + 2, "and judged anew"


def test_questions_of_a_stopped_training_are_prepared_answered_and_learned_from(
    taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("ask", taught, "--prepare", "3") == 0
    assert "Added 3 questions" in capsys.readouterr().out
    with PreferenceStore(taught / "record.sqlite") as store:
        claims = store.claim("ben", 3, with_clips=True, repeat_share=0.0)
        assert len(claims) == 3
        for claim in claims:
            given = {"annotator": "ben", "shown": claim.shown, "claim": claim.token}
            store.add_answers([Comparison(query_id=claim.query.id, preference=1.0, **given)])
    assert run("resume", taught, "--labels", "+3", "--no-viewer", "--no-video", "--quiet") == 0
    summary = ControlFolder.open(taught).read_summary()
    assert summary["labels"] == 11
    assert run("ask", taught, "--prepare", "0") == 0


def test_questions_before_the_first_fit_are_drawn_uniformly_and_that_is_said(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "reward_of", lambda _: (None, None))
    with pytest.warns(UserWarning, match="No reward has been fitted in this run yet"):
        assert asking.prepare(ControlFolder.open(taught), 1)[0] == 1


def test_a_run_taught_by_people_ends_early_with_the_answers_that_it_has(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = TrainSettings(**SMALL, labels=8, annotator="human", wait=2)
    folder = ControlFolder.create(out, settings.resolve(), baseline=False)
    trainer = Trainer(folder)
    deadline = time.monotonic() + 60

    def both_answered() -> bool:
        while (out / "record.sqlite").exists() and _answer_one(out / "record.sqlite"):
            with PreferenceStore(out / "record.sqlite") as store:
                if store.num_answers() >= 2:
                    return True
        return False

    with in_background(lambda over: trainer.run()):
        try:
            while not both_answered():
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            trainer.stop()
    trainer.close()
    assert run("resume", out, "--labels", "2", "--no-viewer", "--no-video", "--quiet") == 0
    summary = ControlFolder.open(out).read_summary()
    assert summary["labels"] == 2


def _answer_one(record: Path) -> bool:
    with PreferenceStore(record) as store:
        for claim in store.claim("anna", 1, repeat_share=0.0):
            given = {"annotator": "anna", "claim": claim.token}
            store.add_answers([Comparison(query_id=claim.query.id, preference=1.0, **given)])
            return True
    return False


# ------------------------------------------------------------------------------------------------ into other records


def test_segments_of_any_run_are_asked_about_in_a_record_of_their_own(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.sqlite"
    assert run("ask", record, "--of", judged, "--num", "4", "--instruction", "Upright.") == 0
    with PreferenceStore(record) as store:
        claims = store.claim("anna", 9, with_clips=True, repeat_share=0.0)
        assert len(claims) == 4 and claims[0].query.instruction == "Upright."
        (clip, _) = store.clips(claims[0].query.segment_ids).values()
        assert clip.num_frames == 10
        assert len(store.query(claims[0].query.id).segments[0]) == 10
    assert run("ask", judged, "--prepare", "2") == 2, "it saved nothing of what its agent did"
    of = ["--of", judged]
    for options in ([*of, "--table", "t.csv"], [*of, "--length", "5"], [*of, "--prepare", "1"], [*of, "--scale", "7"],
                    ["--prepare", "2", "--num", "3"]):  # fmt: skip
        assert run("ask", tmp_path / "new.sqlite", *options) == 2
        assert "would do nothing here" in capsys.readouterr().err
    assert not (tmp_path / "new.sqlite").exists()


def test_saved_episodes_are_cut_into_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        frames = rng.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8)
        arrays = {"observations": rng.normal(size=(31, 3)), "actions": rng.normal(size=(30, 1)), "frames": frames}
        np.savez(tmp_path / f"{number}.npz", **arrays)
    record = tmp_path / "record.sqlite"
    ranking = ("--kind", "ranking", "--num-ranked", "3")
    assert run("ask", record, "--of", tmp_path, "--num", "5", "--length", "8", *ranking) == 0
    with PreferenceStore(record) as store:
        claims = store.claim("anna", 9, with_clips=True, repeat_share=0.0)
        assert [claim.query.kind for claim in claims] == ["ranking"] * 5
        segments = store.query(claims[0].query.id).segments
        assert all(len(segment) == 8 and np.isnan(segment.true_rewards).all() for segment in segments)
        assert len(next(iter(store.clips([segments[0].id]).values())).data) > 0
    assert run("ask", record, "--of", tmp_path, "--length", "31") == 2
    assert "No episode" in capsys.readouterr().err
    np.savez(tmp_path / "2.npz", actions=np.zeros((3, 1)), observations=np.zeros((3, 1)), frames=np.zeros((3, 8, 8, 3)))
    assert run("ask", record, "--of", tmp_path / "2.npz") == 2
    assert "3 actions need 4 observations" in capsys.readouterr().err


def test_videos_and_images_of_a_folder_are_asked_about_with_the_numbers_of_their_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "files"
    place.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (80 * number, 0, 90)).save(place / f"{number}.png")
    frames = [np.full((48, 64, 3), 20 * index, np.uint8) for index in range(12)]
    (place / "moving.mp4").write_bytes(encode_clip(frames, 12).data)
    (tmp_path / "table.csv").write_text("file,quality,name\n0.png,0.5,a\n1.png,1,b\nmoving.mp4,2,c\n")
    record = tmp_path / "record.sqlite"
    assert run("ask", record, "--of", place, "--table", tmp_path / "table.csv", "--num", "9") == 0
    assert "Added 3 questions (9 were wanted" in capsys.readouterr().out
    with PreferenceStore(record) as store:
        claims = store.claim("anna", 9, with_clips=True, repeat_share=0.0)
        shown = {s.episode: s for claim in claims for s in store.query(claim.query.id).segments}
        assert {row: float(s.observations[0, 0]) for row, s in shown.items()} == {0: 0.5, 1: 1.0, 2: 2.0}
        clips = store.clips([s.id for s in shown.values()])
        assert sorted(clip.num_frames for clip in clips.values()) == [1, 1, 12]
    assert run("ask", tmp_path / "all.sqlite", "--of", place, "--kind", "rating", "--num", "4") == 0
    (tmp_path / "table.csv").write_text("file\n../record.sqlite\n")
    assert run("ask", record, "--of", place, "--table", tmp_path / "table.csv") == 2
    assert "there is no file '../record.sqlite'" in capsys.readouterr().err
    (place / "broken.mp4").write_bytes(b"no video")
    assert run("ask", record, "--of", place) == 2
    assert "broken.mp4 cannot be shown" in capsys.readouterr().err
