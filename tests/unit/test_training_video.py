"""Episodes recorded, composed with their rewards, and encoded."""

from __future__ import annotations

import ctypes.util
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from prefrl.control import rendering
from prefrl.envs import make_env
from prefrl.errors import UserError
from prefrl.studies.video import (
    EpisodeClip,
    choose_gl_backend,
    compose,
    fast_rendering,
    follow_agent,
    record_episode,
    write_gif,
    write_video,
)


class Counter(gymnasium.Env[Any, int]):
    """Counts its steps, rewards with the count, ends after `length`; its picture is as bright as the count."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space: Any = spaces.Discrete(3)

    def __init__(self, length: int = 5, *, brightness: int = 20, dictionary: bool = False) -> None:
        self.render_mode: str | None = "rgb_array"
        self.length, self.brightness, self.dictionary, self.count = length, brightness, dictionary, 0
        box = spaces.Box(0, 100, (2,))
        self.observation_space = spaces.Dict({"x": box}) if dictionary else box
        self._observation, self._picture = np.zeros(2, np.float32), np.zeros((30, 41, 3), np.uint8)

    def _see(self) -> Any:
        self._observation[:] = self.count  # the same array every time, as some environments do
        return {"x": self._observation} if self.dictionary else self._observation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._see(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._see(), float(self.count), self.count == self.length, False, {}

    def render(self) -> Any:
        self._picture[:] = self.count * self.brightness
        return self._picture


def difference(observations: Any, actions: Any, next_observations: Any) -> NDArray[np.float64]:
    if isinstance(observations, dict):
        observations, next_observations = observations["x"], next_observations["x"]
    return np.asarray(100.0 * actions + next_observations[:, 0] + 10.0 * observations[:, 0])


@pytest.mark.parametrize("dictionary", [False, True])
def test_an_episode_is_recorded_to_its_end(dictionary: bool) -> None:
    clip = record_episode(Counter(dictionary=dictionary), lambda _: 2, difference, num_steps=50, seed=0)
    np.testing.assert_array_equal(clip.true_rewards, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(clip.frames[:, 0, 0, 0], [20, 40, 60, 80, 100])
    assert clip.learned_rewards is not None
    np.testing.assert_array_equal(clip.learned_rewards, [201, 212, 223, 234, 245])


def test_recording_stops_after_num_steps_and_needs_no_learned_reward() -> None:
    clip = record_episode(Counter(), lambda _: 0, None, num_steps=3, seed=0)
    assert len(clip.frames) == 3 and clip.learned_rewards is None


def test_what_an_environment_calls_a_true_reward_is_not_taken_for_its_reward() -> None:
    class Telling(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, reward, terminated, truncated, info | {"true_reward": "unknown"}

    clip = record_episode(Telling(Counter()), lambda _: 0, None, num_steps=3, seed=0)
    np.testing.assert_array_equal(clip.true_rewards, [1, 2, 3])


def test_black_pictures_are_refused() -> None:
    with pytest.raises(UserError, match=r"black.*Expected its render\(\) to draw"):
        record_episode(Counter(brightness=0), lambda _: 0, None, num_steps=3, seed=0)


def test_a_renderer_that_fails_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Counter) -> None:
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(Counter, "render", fail)
    with pytest.raises(UserError, match=r"glGetError.*libosmesa6"):
        record_episode(Counter(), lambda _: 0, None, num_steps=3, seed=0)


def test_other_render_modes_and_no_steps_are_refused() -> None:
    env = Counter()
    with pytest.raises(UserError, match="num_steps must be at least 1"):
        record_episode(env, lambda _: 0, None, num_steps=0, seed=0)
    env.render_mode = None
    with pytest.raises(UserError, match='render_mode="rgb_array"; got None'):
        record_episode(env, lambda _: 0, None, num_steps=3, seed=0)


def test_a_clip_checks_its_shapes() -> None:
    with pytest.raises(UserError, match="one reward for each of 2 frames"):
        EpisodeClip(frames=np.zeros((2, 4, 4, 3), np.uint8), true_rewards=np.zeros(3))
    with pytest.raises(UserError, match="uint8"):
        EpisodeClip(frames=np.zeros((2, 4, 4, 3)), true_rewards=np.zeros(2))  # type: ignore[arg-type]


def clip(num_frames: int = 8, height: int = 120, width: int = 201, seed: int = 0) -> EpisodeClip:
    rng = np.random.default_rng(seed)
    frames = np.full((num_frames, height, width, 3), 90, np.uint8)
    frames[:, : height // 2, : width // 3] = 0
    return EpisodeClip(
        frames=frames, true_rewards=rng.normal(size=num_frames), learned_rewards=rng.normal(size=num_frames)
    )


def test_all_frames_have_one_even_size_and_clips_follow_one_another() -> None:
    frames = list(compose([("one", clip(8)), ("two", clip(5, 90, 160))], hold_frames=2))
    assert len(frames) == 8 + 2 + 5 + 2
    sizes = {frame.size for frame in frames}
    assert len(sizes) == 1
    assert all(side % 2 == 0 for side in sizes.pop())


def test_side_by_side_lasts_as_long_as_the_longest_and_is_as_wide_as_all() -> None:
    alone = next(compose([("one", clip())]))
    frames = list(compose([("one", clip(8)), ("two", clip(5)), ("three", clip(3))], side_by_side=True))
    assert len(frames) == 8
    assert 3 * alone.width <= frames[0].width <= 3 * alone.width + 40
    assert frames[0].height == alone.height


def test_max_width_bounds_the_width() -> None:
    three = [(name, clip(2)) for name in "abc"]
    assert next(compose(three, side_by_side=True, max_width=300)).width <= 300
    with pytest.raises(UserError, match="leaves no room for 3 clips"):
        next(compose(three, side_by_side=True, max_width=40))


def test_small_pictures_are_enlarged() -> None:
    assert next(compose([("pong", clip(2, 210, 160))])).width == 320


def columns(frame: Image.Image, colour: tuple[int, int, int], below: int) -> NDArray[np.int64]:
    strip = np.asarray(frame)[below:, 40:-40].astype(int)
    return np.nonzero((np.abs(strip - colour).sum(2) < 90).any(0))[0]


@pytest.mark.parametrize("colour", [(0, 114, 178), (213, 94, 0)])
def test_curves_grow_with_the_steps(colour: tuple[int, int, int]) -> None:
    frames = list(compose([("one", clip(20, 240, 320))]))
    below = frames[0].height - 50  # the curves alone, without the line of text
    reach = [columns(frame, colour, below).max(initial=-1) for frame in frames]
    assert reach[5] < reach[10] < reach[15] < reach[19]


def test_only_rewards_that_are_there_are_drawn() -> None:
    only_true = EpisodeClip(frames=clip(4, 240, 320).frames, true_rewards=np.arange(4.0))
    last = list(compose([("one", only_true)]))[-1]
    assert len(columns(last, (213, 94, 0), 260)) > 0
    assert len(columns(last, (0, 114, 178), 260)) == 0


def test_constant_rewards_are_drawn() -> None:
    constant = EpisodeClip(frames=clip(4).frames, true_rewards=np.ones(4), learned_rewards=np.zeros(4))
    assert len(list(compose([("one", constant)]))) == 4


def test_a_clip_of_one_frame_is_drawn() -> None:
    assert len(list(compose([("one", clip(1))]))) == 1


def test_a_video_is_h264_that_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "run.mp4"
    clips = [("before", clip(8)), ("after", clip(6))]
    write_video(path, clips, 10)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    reader.close()
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 10
    assert tuple(meta["size"]) == next(compose(clips)).size
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 8 + 5 + 6 + 5
    assert [p.name for p in path.parent.iterdir()] == ["run.mp4"]


def test_a_gif_keeps_the_true_speed_with_fewer_frames(tmp_path: Path) -> None:
    path = tmp_path / "run.gif"
    write_gif(path, [("run", clip(50))], 50, max_width=120)
    with Image.open(path) as picture:
        assert picture.width <= 120
        duration, frames = 0.0, 0
        for index in range(getattr(picture, "n_frames", 1)):
            picture.seek(index)
            duration += picture.info["duration"] / 1000
            frames += 1
        assert picture.info["loop"] == 0
    assert duration == pytest.approx(2.0, abs=0.1)  # one second of steps, one of the last frame
    assert frames <= 25


def test_what_was_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.mp4"
    path.write_bytes(b"earlier")

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", full)
    with pytest.raises(UserError, match=r"Could not write .*run.mp4: No space left"):
        write_video(path, [("one", clip(2))], 10)
    assert path.read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Could not write"):
        write_gif(tmp_path / "file" / "run.gif", [("one", clip(2))], 10)


def test_no_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one clip"):
        write_video(tmp_path / "x.mp4", [], 10)


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")  # so that what is set during the test is undone, too
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


def test_without_a_screen_what_works_is_chosen(headless: pytest.MonkeyPatch) -> None:
    headless.setattr(rendering, "_egl_works", lambda: True)
    assert choose_gl_backend() == "egl" == os.environ["MUJOCO_GL"]


def test_osmesa_is_next(headless: pytest.MonkeyPatch) -> None:
    headless.setattr(rendering, "_egl_works", lambda: False)
    headless.setattr(rendering, "_osmesa_works", lambda: True)
    assert choose_gl_backend() == "osmesa"


def test_the_platform_that_pyopengl_is_bound_to_is_kept(headless: pytest.MonkeyPatch) -> None:
    headless.setenv("PYOPENGL_PLATFORM", "osmesa")
    headless.setattr(rendering, "_egl_works", lambda: True)
    headless.setattr(rendering, "_osmesa_works", lambda: True)
    assert choose_gl_backend() == "osmesa"


def test_without_any_library_the_packages_are_named(headless: pytest.MonkeyPatch) -> None:
    headless.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(UserError, match=r"apt-get install libegl1 libgl1 \(or libosmesa6 libgl1\)"):
        choose_gl_backend()


def test_a_library_that_does_not_load_counts_as_missing(headless: pytest.MonkeyPatch) -> None:
    headless.setattr(ctypes.util, "find_library", lambda name: f"/nonexistent/lib{name}.so")
    with pytest.raises(UserError):
        choose_gl_backend()


def test_the_users_choice_a_screen_and_other_systems_are_left_alone(headless: pytest.MonkeyPatch) -> None:
    headless.setattr(ctypes.util, "find_library", lambda name: None)
    headless.setenv("DISPLAY", ":0")
    assert choose_gl_backend() is None
    headless.setenv("MUJOCO_GL", "glfw")
    assert choose_gl_backend() == "glfw"
    headless.setenv("MUJOCO_GL", "")
    headless.setenv("DISPLAY", "")
    headless.setattr(sys, "platform", "darwin")
    assert choose_gl_backend() is None


def test_fast_rendering_leaves_other_environments_alone() -> None:
    assert fast_rendering(Counter()) is False


def test_fast_rendering_of_mujoco_and_a_clip_of_it() -> None:
    pytest.importorskip("mujoco")
    try:
        choose_gl_backend()
    except UserError as error:
        pytest.skip(str(error))
    env = gymnasium.make("HalfCheetah-v5", render_mode="rgb_array", width=96, height=64)
    assert fast_rendering(env)
    quality = env.unwrapped.model.vis.quality  # type: ignore[attr-defined]
    assert quality.shadowsize == 0 and quality.offsamples == 0
    floor = env.unwrapped.model.geom("floor")  # type: ignore[attr-defined]
    assert floor.size[:2].tolist() == [1000, 1000]  # a robot that runs stays on it
    env.action_space.seed(0)
    recorded = record_episode(env, lambda _: env.action_space.sample(), None, num_steps=3, seed=0)
    assert recorded.frames.shape == (3, 64, 96, 3) and recorded.frames.std() > 10
    with pytest.raises(UserError, match="too late"):
        fast_rendering(env)
    env.close()


@pytest.mark.parametrize(
    ("env_id", "follows"), [("HalfCheetah-v5", True), ("Reacher-v5", False), ("CartPole-v1", False)]
)
def test_camera_follows_a_robot_that_has_one(env_id: str, follows: bool) -> None:
    env = make_env(env_id, render_mode="rgb_array")
    assert follow_agent(env) is follows
    if follows:
        assert env.unwrapped.mujoco_renderer.camera_id >= 0
    env.close()
