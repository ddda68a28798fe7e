"""The process that draws clips: from what a run saved to clips in the record."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefrl.clips.codec import decode_clip
from prefrl.clips.saver import SavesClips, collect_marks
from prefrl.clips.trail import Trail
from prefrl.control import TrainSettings
from prefrl.control.clip_worker import ClipRenderer, clip_worker, render_open
from prefrl.control.folder import ControlFolder
from prefrl.envs import make_env
from prefrl.errors import UserError
from prefrl.feedback import Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore


@pytest.fixture
def folder(tmp_path: Path) -> ControlFolder:
    settings = TrainSettings(env_id="CartPole-v1", annotator="human", segment_length=8).resolve()
    made = ControlFolder.create(tmp_path / "run", settings, baseline=False)
    made.open_record(begins=True).close()
    return made


def segments(number: int) -> list[Segment]:
    """Return windows of one episode, with what they can be drawn from."""
    env = SavesClips(make_env("CartPole-v1", fixed_horizon=500), 8)
    seen = [env.reset(seed=1)[0]] + [env.step(step % 2)[0] for step in range(8 * number)]
    marks = collect_marks([env])
    assert marks is not None
    trail = Trail(marks.kind)
    trail.append(marks.rows[:, 0], {step: blob for (step, _), blob in marks.blobs.items()})
    return [
        Segment(
            observations=np.stack(seen[begin : begin + 9]),
            actions=np.arange(begin, begin + 8) % 2,
            true_rewards=np.ones(8),
            replay=trail.source(begin, 8).to_arrays(),
        )
        for begin in range(0, 8 * number, 8)
    ]


def test_a_process_of_the_run_draws_what_open_queries_show_once(folder: ControlFolder) -> None:
    pair = segments(2)
    with folder.open_record() as store, clip_worker(folder):
        store.add_queries([Query(segments=(pair[0], pair[1]))])
        deadline = time.monotonic() + 200
        while len(clips := store.clips([s.id for s in pair])) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert {len(decode_clip(clip.data).frames) for clip in clips.values()} == {8}
        assert {clip.frames_per_second for clip in clips.values()} == {50}
        assert store.claim_renders(5) == []


def test_what_cannot_be_drawn_is_noted_with_its_reason(folder: ControlFolder) -> None:
    first, second = segments(2)
    broken = {"kind": np.zeros(3, np.uint8)}
    with folder.open_record() as store:
        store.add_queries([Query(segments=(replace(first, replay=None), replace(second, replay=broken)))])
        renderer = ClipRenderer(folder)
        while render_open(store, renderer):
            pass
        renderer.close()
        failures = store.render_failures([first.id, second.id])
        assert "Nothing was saved" in failures[first.id]
        assert "damaged" in failures[second.id]
        assert store.facts()["render_failure"]


def test_an_environment_that_cannot_be_built_here_is_a_reason_too(folder: ControlFolder) -> None:
    (first, second) = segments(2)
    config = folder.config_path.read_text().replace("CartPole-v1", "module_that_is_not_here:Pole-v0")
    folder.config_path.write_text(config)
    with PreferenceStore(folder.record_path) as store:
        store.add_queries([Query(segments=(first, second))])
        renderer = ClipRenderer(ControlFolder.open(folder.path, trust=True))
        while render_open(store, renderer):
            pass
        assert "module_that_is_not_here" in store.render_failures([first.id])[first.id]


def test_a_clip_that_the_record_has_no_room_for_is_not_given_up(
    folder: ControlFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = segments(2)

    def full(store: PreferenceStore, segment_id: str, clip: object) -> None:
        raise UserError("the disk is full")

    with PreferenceStore(folder.record_path) as store:
        store.add_queries([Query(segments=(pair[0], pair[1]))])
        renderer = ClipRenderer(folder)
        monkeypatch.setattr(PreferenceStore, "add_clip", full)
        with pytest.raises(UserError, match="full"):
            render_open(store, renderer)
        renderer.close()
        assert store.render_failures([s.id for s in pair]) == {}


def test_a_process_that_does_not_listen_is_ended_with_the_training(
    folder: ControlFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text(
        f"#!{sys.executable}\nimport os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path / 'number')!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    deaf.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deaf))
    monkeypatch.setattr("prefrl.control.clip_worker.END_SECONDS", 1.0)
    with clip_worker(folder):
        while not (tmp_path / "number").is_file() or not (tmp_path / "number").read_text():
            time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "number").read_text()), 0)


def test_the_process_ends_with_the_one_that_started_it(folder: ControlFolder) -> None:
    folder.open_record().close()
    program = (
        "import os, subprocess, sys\n"
        "code = 'from prefrl.control.clip_worker import main; main()'\n"
        f"child = subprocess.Popen([sys.executable, '-c', code, {str(folder.path)!r}, str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    number = int(outcome.stdout)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("it lives on")
