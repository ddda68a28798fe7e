"""Runs in environments that never end, have no reward, fail or draw oddly: nothing learned is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.cli import main
from prefrl.clips.codec import decode_clip
from prefrl.control import ControlFolder
from prefrl.control.duels import ask_duels
from prefrl.errors import UserError

pytestmark = pytest.mark.slow

QUICK = [
    "--labels", "8", "--steps", "1200", "--num-envs", "2", "--segment-length", "5", "--warmup-steps", "300", "--quiet",
    "--hyper", "n_steps=100", "batch_size=50", "n_epochs=1", "--eval-episodes", "3",
]  # fmt: skip


class Point(gymnasium.Env[Any, Any]):
    """A point that is pushed along a line, for 20 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    length = 20

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.x, self.v = 0, float(self.np_random.uniform(-2, 2)), 0.0
        return self.seen(), {}

    def seen(self) -> Any:
        return np.array([self.x, self.v], np.float32)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.t += 1
        self.v = 0.8 * self.v + 0.3 * float(np.asarray(action).reshape(-1)[0])
        self.x = float(np.clip(self.x + self.v, -5, 5))
        return self.seen(), self.reward(), False, self.t >= self.length, {}

    def reward(self) -> Any:
        return -abs(self.x)

    def render(self) -> Any:
        return np.full((60, 200, 3), 200, np.uint8)


class NeverEnds(Point):
    length = 10**9


class NanReward(Point):
    def reward(self) -> Any:
        return np.nan


class NoneReward(Point):
    def reward(self) -> Any:
        return None


class SometimesNan(Point):
    count = 0

    def reward(self) -> Any:
        SometimesNan.count += 1
        return np.nan if SometimesNan.count % 25 == 0 else super().reward()


class TwoSizes(Point):
    def render(self) -> Any:
        return np.full((60 + 2 * (self.t % 5), 200, 3), 200, np.uint8)


class NoPicture(Point):
    def render(self) -> Any:
        return None


class RaisesInRender(Point):
    def render(self) -> Any:
        raise RuntimeError("no display")


class LeavesInRender(Point):
    def render(self) -> Any:
        raise SystemExit(0)


class Black(Point):
    def render(self) -> Any:
        return np.zeros((60, 200, 3), np.uint8)


class SmallAndGrey(Point):
    def render(self) -> Any:
        return np.full((1, 7), 0.8, np.float32)


class Layers(Point):
    def render(self) -> Any:
        return [np.full((4, 61, 33), 180, np.uint8)]


class TwoStates(Point):
    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def seen(self) -> Any:
        return int(self.x > 0)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.t += 1
        self.x = float(action)
        return self.seen(), self.x, False, self.t >= self.length, {}


class NothingSeen(Point):
    observation_space = spaces.Dict(camera=spaces.Box(0, 1, (0,), np.float32), mode=spaces.Discrete(2))

    def seen(self) -> Any:
        return {"camera": np.zeros(0, np.float32), "mode": int(self.x > 0)}


class Leaves(Point):
    def step(self, action: Any) -> Any:
        if self.t == 15:
            raise SystemExit(0)
        return super().step(action)


class Chats(Point):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        print("step", self.t)  # noqa: T201
        return super().step(action)


class TakesTheSignals(Point):
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        signal.signal(signal.SIGINT, lambda *_: None)
        return super().reset(seed=seed, options=options)


class GoesElsewhere(Point):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        os.chdir("/")
        return super().step(action)


class Silences(Point):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        sys.stdout = io.StringIO()
        warnings.simplefilter("error")
        sys.setrecursionlimit(200)
        return super().step(action)


class ClosesTheOutput(Point):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        sys.stdout.close()
        return super().step(action)


for kind in list(Point.__subclasses__()):
    gymnasium.register(f"Odd{kind.__name__}-v0", kind)


@pytest.fixture
def judge(tmp_path: Path) -> str:
    path = tmp_path / "judge.py"
    path.write_text("def near(segment):\n    return -abs(segment.observations[1:, 0])\n")
    return f"{path}:near"


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_an_environment_without_an_end_is_evaluated_within_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", "OddNeverEnds-v0", "--no-video", "--max-episode-steps", "30", "--out", out, *QUICK) == 0
    assert ControlFolder.open(out).read_metrics()[-1]["true_return"] is not None, "it trains on episodes of 30 steps"
    capsys.readouterr()
    config = json.loads((out / "config.json").read_text())
    config["settings"]["max_episode_steps"] = None  # as runs of earlier versions were
    (out / "config.json").write_text(json.dumps(config))
    assert run("evaluate", out, "--max-episode-steps", "12", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert "3 of 3 episodes were stopped after 12 steps" in summary["remarks"]["last"][0]
    assert summary["true_return_mean"] >= -5 * 12


@pytest.mark.parametrize("env_id", ["OddNanReward-v0", "OddNoneReward-v0", "OddSometimesNan-v0"])
def test_a_true_reward_that_is_unknown_is_a_state_of_its_own(
    env_id: str, judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    seen = ("--segment-length", "8")  # long enough that nothing is said of it
    assert run("train", env_id, "--reward-function", judge, "--out", out, *QUICK, *seen) == 0
    said = capsys.readouterr()
    assert "unknown" in said.out and said.err == ""
    assert (out / "report.json").is_file() and (out / "videos" / "training.mp4").is_file()
    assert run("evaluate", out) == 0 and run("report", out) == 0


def test_a_baseline_without_a_reward_is_refused_before_anything_is_asked(
    judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", "OddNanReward-v0", "--baseline", "--reward-function", judge, "--out", out, *QUICK) == 2
    assert "Leave out --baseline" in capsys.readouterr().err


NOT_DRAWN = [
    ("OddTwoSizes-v0", "different sizes"),
    ("OddNoPicture-v0", "None"),
    ("OddRaisesInRender-v0", "RuntimeError: no display"),
    ("OddLeavesInRender-v0", "SystemExit: 0"),
]


@pytest.mark.parametrize(("env_id", "reason"), NOT_DRAWN)
def test_odd_pictures_cost_the_video_alone(
    env_id: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", env_id, "--out", out, *QUICK) == 0
    said = capsys.readouterr()
    assert said.err.count("No video") == 1 and reason in said.err and "libegl" not in said.err
    assert "random actions" in said.out and (out / "report.json").is_file()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "run"
    assert run("train", "OddNoPicture-v0", "--no-video", "--out", out, *QUICK) == 0
    return out


def as_if_people_taught(taught: Path, env_id: str, path: Path) -> ControlFolder:
    """Return a copy of a run, of an environment that is the same but for its pictures."""
    shutil.copytree(taught, path)
    config = json.loads((path / "config.json").read_text())
    config["settings"] |= {"env_id": env_id, "annotator": "human"}
    (path / "config.json").write_text(json.dumps(config))
    return ControlFolder.open(path)


@pytest.mark.parametrize(("env_id", "reason"), [*NOT_DRAWN, ("OddBlack-v0", "black")])
def test_duels_that_cannot_be_drawn_are_not_asked(env_id: str, reason: str, taught: Path, tmp_path: Path) -> None:
    folder = as_if_people_taught(taught, env_id, tmp_path / "run")
    with folder.open_record() as store:
        before = store.query_ids()
        with pytest.raises(UserError, match=reason):
            ask_duels(folder, store, num=2)
        assert store.query_ids() == before


@pytest.mark.parametrize("env_id", ["OddSmallAndGrey-v0", "OddLayers-v0"])
def test_duels_of_small_or_odd_pictures_have_clips(env_id: str, taught: Path, tmp_path: Path) -> None:
    folder = as_if_people_taught(taught, env_id, tmp_path / "run")
    with folder.open_record() as store:
        assert ask_duels(folder, store, num=2) == 2
        duels = store.session_queries(store.next_session(judging=True) - 1)
        clips = store.clips([segment.id for query in duels for segment in query.segments])
        frames = [decode_clip(clip.data).frames for clip in clips.values()]
    assert [len(each) for each in frames] == [5] * 4, "each of two duels has two clips of five steps"
    assert all(each.max() > 100 for each in frames)


@pytest.mark.parametrize("agent", ["ppo", "sb3-ppo"])
def test_observations_may_have_entries_that_hold_no_numbers(
    agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", "OddNothingSeen-v0", "--agent", agent, "--no-video", "--out", out, *QUICK) == 0
    assert "No report" not in capsys.readouterr().err and (out / "report.json").is_file()


def test_an_environment_that_leaves_the_program_is_an_error_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "OddLeaves-v0", "--no-video", "--out", tmp_path / "run", *QUICK) == 2
    assert "broke off in step" in capsys.readouterr().err


def test_a_run_without_enough_different_segments_ends_with_the_labels_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*QUICK, "--segment-length", "1", "--queries.end-share", "0"]
    assert run("train", "OddTwoStates-v0", "--no-video", "--out", tmp_path / "run", *arguments) == 0
    assert "too few different segments of 1 steps" in capsys.readouterr().err
    summary = ControlFolder.open(tmp_path / "run").read_summary()
    assert 0 < summary["labels"] <= 6, "there are four different steps, so six pairs"


def test_an_ensemble_of_one_that_shall_disagree_is_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", "Pendulum-v1", "--reward.num-members", "1", "--out", out, *QUICK) == 2
    assert "at least 2 members" in capsys.readouterr().err and not out.exists()


def test_a_damaged_policy_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run("train", "OddTwoSizes-v0", "--no-video", "--out", out, *QUICK) == 0
    (out / "policies" / "last.pt").write_bytes(b"")
    capsys.readouterr()
    assert run("evaluate", out) == 2
    assert "last.pt cannot be read" in capsys.readouterr().err


def test_what_an_environment_prints_is_not_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run("train", "OddChats-v0", "--no-video", "--out", out, *QUICK) == 0
    for verb in ("evaluate", "report", "quality"):
        capsys.readouterr()
        assert run(verb, out, "--json") == 0
        assert json.loads(capsys.readouterr().out)


def test_an_environment_that_changes_the_whole_program_leaves_the_run_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for env_id in ("OddGoesElsewhere-v0", "OddSilences-v0"):
        assert run("train", env_id, "--no-video", "--out", env_id, *QUICK) == 0
        said = capsys.readouterr()
        assert "random actions" in said.out and (tmp_path / env_id / "report.json").is_file()
        assert ("sys.stdout" in said.err) == (env_id == "OddSilences-v0")
        assert run("evaluate", env_id) == 0 and "random actions" in capsys.readouterr().out


def test_an_environment_that_closes_the_output_is_an_error_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run("train", "OddClosesTheOutput-v0", "--no-video", "--out", tmp_path / "run", *QUICK) == 2
    assert "closed sys.stdout" in capsys.readouterr().err


def test_that_an_environment_took_the_signals_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "OddTakesTheSignals-v0", "--no-video", "--out", tmp_path / "run", *QUICK) == 0
    assert capsys.readouterr().err.count("handler of its own in place for SIGINT") == 1
