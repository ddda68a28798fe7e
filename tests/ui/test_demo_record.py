"""`prefrl demo record` by hand: real keys in a real window, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from screens import Display, needs_screen, wait_for

pytestmark = needs_screen


def start(display: Display, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DISPLAY": display.name, "SDL_AUDIODRIVER": "dummy"}
    environment.pop("SDL_VIDEODRIVER", None)
    program = subprocess.Popen(
        [sys.executable, "-m", "prefrl", "demo", "record", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: bool(display.picture().any()), program, seconds=120)
    time.sleep(0.4)
    return program


def test_keys_steer_and_each_episode_is_kept_or_thrown_away(display: Display, tmp_path: Path) -> None:
    out = tmp_path / "shown"
    program = start(display, "CartPole-v1", "--out", str(out), "--episodes", "2", "--speed", "20")
    for answer in ("BackSpace", "Return", "Return"):  # the first is thrown away
        display.key("Return")
        display.do("keydown", "Right")
        time.sleep(1.0)
        display.do("keyup", "Right")
        display.key("Escape", answer)
        time.sleep(0.3)
    said, told = program.communicate(timeout=60)
    assert program.returncode == 0, told
    assert "2 episodes recorded. Train with: prefrl train CartPole-v1 --demonstrations" in said
    files = sorted(out.glob("*.npz"))
    assert [path.name for path in files] == ["episode-000001.npz", "episode-000002.npz"]
    for path in files:
        episode = np.load(path)
        assert not episode["terminated"] and (episode["actions"] == 1).all() and 5 <= len(episode["actions"]) <= 60


def test_an_episode_ends_by_escape_and_the_window_may_be_closed(display: Display, tmp_path: Path) -> None:
    out = tmp_path / "shown"
    program = start(display, "Pendulum-v1", "--out", str(out), "--speed", "30")
    display.key("Return")
    display.do("keydown", "Right")
    time.sleep(1.0)
    before = display.picture()
    assert before.std() > 10
    display.do("keyup", "Right")
    display.key("Escape", "Return")
    time.sleep(0.5)
    display.key("Return")
    time.sleep(0.5)
    program.send_signal(signal.SIGTERM)  # as closing the window is
    said, told = program.communicate(timeout=60)
    assert program.returncode == 0, told
    assert "1 episodes recorded" in said and "is not kept" in told
    (path,) = out.glob("*.npz")
    pushed = np.load(path)["actions"]
    assert 10 <= len(pushed) <= 100 and (pushed == 2.0).sum() >= 5 and not np.load(path)["terminated"]


def test_a_robot_of_mujoco_is_seen_beside_its_own_renderer(display: Display, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    program = start(display, "HalfCheetah-v5", "--out", str(tmp_path / "shown"))
    display.key("Return")
    time.sleep(2.0)
    seen = display.picture()[200:600, 400:800]  # the middle of the window: with OpenGL in two places it was black
    display.key("Escape", "BackSpace", "Escape")
    said, told = program.communicate(timeout=60)
    assert program.returncode == 0 and "No episode was kept." in said, told
    assert seen.std() > 10
