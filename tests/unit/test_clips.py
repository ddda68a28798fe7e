"""Steps drawn again from what was saved of them: bit for bit what the environment drew itself."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO

from prefrl.agents.sb3_on_policy import OnPolicyAgent
from prefrl.clips import worlds
from prefrl.clips.codec import decode_clip, encode_clip
from prefrl.clips.saver import SavesClips
from prefrl.clips.trail import ClipSource, Trail
from prefrl.control.rendering import choose_gl_backend, prepare_pictures
from prefrl.envs import EnvLoop, make_env, make_vector_env
from prefrl.errors import UserError
from prefrl.history import History

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


@pytest.fixture(scope="module", autouse=True)
def gl() -> None:
    choose_gl_backend()


def make(env_id: str, horizon: int | None = None) -> gymnasium.Env[Any, Any]:
    env = make_env(env_id, fixed_horizon=horizon, render_mode="rgb_array")
    prepare_pictures(env)
    return env


def play(env: gymnasium.Env[Any, Any], num_steps: int) -> tuple[Trail, list[worlds.Picture], list[dict[str, Any]]]:
    """Act at random; return the marks, the pictures that the environment drew and the infos."""
    saving = SavesClips(env, segment_length=10)
    saving.reset(seed=3)
    env.action_space.seed(3)
    trail, pictures, infos = Trail(saving.world.kind), [], []
    for _ in range(num_steps):
        *_, truncated, info = saving.step(env.action_space.sample())
        if len(pictures) % 7 == 3:  # taken now and then, as rollouts are
            trail.append(*saving.world.take())
        pictures.append(np.array(env.render()))
        infos.append(info)
        assert not truncated
    trail.append(*saving.world.take())
    return trail, pictures, infos


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "horizon", "kind"),
    [
        ("HalfCheetah-v5", None, "mujoco"),
        ("Hopper-v5", 200, "mujoco"),
        ("Reacher-v5", None, "mujoco"),
        ("Pendulum-v1", None, "classic"),
        ("CartPole-v1", 200, "classic"),
        ("Acrobot-v1", None, "classic"),
        ("MountainCarContinuous-v0", None, "classic"),
        ("ALE/Breakout-v5", None, "ale"),
        ("ALE/Pong-v5", None, "ale"),
        ("prefrl/Atari-Seaquest-v0", None, "atari"),
    ],
)
def test_a_clip_drawn_again_is_what_the_environment_drew(env_id: str, horizon: int | None, kind: str) -> None:
    trail, pictures, infos = play(make(env_id, horizon), 45)
    if horizon is not None:
        assert any("hidden_terminated" in info for info in infos), "no end was held: the test shows too little"
        assert any("restarted" in info for info in infos)
    assert trail.kind == kind
    again = make(env_id, horizon)
    again.reset(seed=11)
    world = worlds.find_world(again, segment_length=10)
    for start, length in ((29, 10), (0, 10), (7, 38)):
        source = ClipSource.from_arrays(trail.source(start, length).to_arrays())
        drawn = list(world.draw(source))
        assert len(drawn) == length
        for picture, original in zip(drawn, pictures[start : start + length], strict=True):
            np.testing.assert_array_equal(picture, original)
    assert len({picture.tobytes() for picture in pictures}) > 5, "the pictures do not move"


@pytest.mark.slow
@pytest.mark.parametrize(("env_id", "horizon"), [("HalfCheetah-v5", None), ("Hopper-v5", 90), ("prefrl/Ant-v5", None)])
def test_clips_of_many_robots_stepped_at_once_show_what_the_agent_saw(env_id: str, horizon: int | None) -> None:
    envs: Any = make_vector_env(env_id, 3, fixed_horizon=horizon)
    envs.unwrapped.save_clips()
    seen = [envs.reset(seed=3)[0]]
    envs.action_space.seed(3)
    rows, hidden, ends = [], 0, 0
    for step in range(200):
        observations, _, terminated, truncated, infos = envs.step(envs.action_space.sample())
        ended = terminated | truncated
        shown = observations.copy()
        for copy in np.flatnonzero(ended):
            shown[copy] = infos["final_obs"][copy]
        seen.append(shown)
        ends += ended.sum()
        hidden += infos.get("hidden_terminated", ended).sum()
        if step % 7 == 3 or step == 199:  # taken now and then, as rollouts are
            rows.append(envs.unwrapped.take_marks().rows)
    assert envs.unwrapped.take_marks() is None
    if horizon is not None:
        assert hidden and ends, "no end was held and no horizon reached: the test shows too little"
    again: Any = make(env_id, horizon)
    again.reset(seed=11)
    world = worlds.find_world(again, segment_length=10)
    robot = getattr(again.unwrapped, "template", again.unwrapped)
    for copy in range(3):
        source = ClipSource(kind=world.kind, rows=np.concatenate(rows)[:, copy])
        for step, picture in enumerate(world.draw(source)):
            assert picture.shape == (480, 480, 3)
            np.testing.assert_array_equal(robot._get_obs(), seen[step + 1][copy])


@pytest.mark.slow
def test_clips_of_one_robot_out_of_many_show_what_the_agent_saw() -> None:
    env: Any = make_env("prefrl/Christiano-Hopper-v0")
    saving = SavesClips(env, segment_length=10)
    saving.reset(seed=3)
    seen = [saving.step(action)[0] for action in np.random.default_rng(0).uniform(-1, 1, (80, 3)).astype(np.float32)]
    source = ClipSource(kind="mujoco", rows=saving.world.take()[0])
    again: Any = make("prefrl/Christiano-Hopper-v0")
    again.reset(seed=11)
    for observation, _ in zip(seen, worlds.find_world(again, segment_length=10).draw(source), strict=True):
        np.testing.assert_array_equal(again.unwrapped.template._get_obs(), observation)


@pytest.mark.slow
@pytest.mark.parametrize("hide", [True, False], ids=["ends hidden", "ends shown"])
def test_clips_of_many_games_stepped_at_once_show_what_was_played(hide: bool) -> None:
    games: Any = gymnasium.make_vec(
        "prefrl/Atari-Breakout-v0", 2, autoreset_mode="SameStep", max_episode_steps=90, hide_game_over=hide
    )
    assert games.unwrapped.can_save_clips
    games.unwrapped.save_clips()
    games.reset(seed=3)
    random, num_ends, restarts = np.random.default_rng(0), 0, 0
    trails: list[list[tuple[int, Trail]]] = [[(0, Trail("atari"))], [(0, Trail("atari"))]]
    for step in range(1, 401):
        *_, terminated, truncated, infos = games.step(random.integers(4, size=2))
        num_ends += int((terminated | truncated).sum())
        restarts += int(infos.get("restarted", np.zeros(2)).sum())
        if (terminated | truncated).any() or step % 7 == 3:  # taken now and then, as rollouts are
            marks = games.unwrapped.take_marks()
            for env in (0, 1):
                blobs = {at: blob for (at, of_env), blob in marks.blobs.items() if of_env == env}
                trails[env][-1][1].append(marks.rows[:, env], blobs)
                if terminated[env] or truncated[env]:
                    trails[env].append((step, Trail("atari")))
    assert num_ends >= 8 and (restarts >= 2) == hide
    world, num_drawn = worlds.find_world(make("prefrl/Atari-Breakout-v0"), segment_length=10), 0
    for env in (0, 1):
        for first, trail in trails[env]:
            for start in range(0, trail.rows.length - 12, 29):
                source = ClipSource.from_arrays(trail.source(start, 12).to_arrays())
                drawn = np.stack(list(world.draw(source)))
                np.testing.assert_array_equal(drawn, games.unwrapped.clip(env, first + start, 12))
                num_drawn += 1
    assert num_drawn > 15


def test_games_that_depend_on_earlier_ones_or_hold_their_ends_are_filmed() -> None:
    assert worlds.find_world(make("prefrl/Atari-BeamRider-v0"), segment_length=10).kind == "film"
    assert worlds.find_world(make("prefrl/Atari-Pong-v0", 100), segment_length=10).kind == "film"
    with pytest.raises(UserError, match="does not tell how its game began"):
        list(make("prefrl/Atari-Pong-v0").unwrapped.draw_again(np.zeros((3, 2), np.int32), None, 0))  # type: ignore[attr-defined]


def test_a_game_that_restarts_within_an_episode_is_drawn_again() -> None:
    env = gymnasium.wrappers.TimeLimit(gymnasium.make("ALE/Breakout-v5", render_mode="rgb_array"), 10_000)
    saving = SavesClips(env, segment_length=10)
    saving.reset(seed=0)
    trail, pictures = Trail("ale"), []
    for step in range(30):
        if step in (9, 20):  # as the fixed-horizon form does behind the scenes
            original, env.unwrapped.step = (
                env.unwrapped.step,
                lambda action: (*env.unwrapped.reset()[:1], 0, False, False, {}),
            )
        saving.step(1 + step % 3)
        if step in (9, 20):
            env.unwrapped.step = original
        trail.append(*saving.world.take())
        pictures.append(np.array(env.render()))
    again = gymnasium.make("ALE/Breakout-v5", render_mode="rgb_array")
    again.reset(seed=1)
    for start in (0, 5, 9, 10, 18):
        drawn = list(worlds.find_world(again, segment_length=10).draw(trail.source(start, 10)))
        assert all(np.array_equal(a, b) for a, b in zip(drawn, pictures[start : start + 10], strict=True))


class Dot(gymnasium.Env[Any, Any]):
    """An environment of somebody's own: nothing is known of its state."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(0, 100, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode: str | None = "rgb_array") -> None:
        self.render_mode, self.place = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.place += 1
        return np.array([self.place], np.float32), 0.0, False, self.place == 37, {}

    def render(self) -> Any:
        picture = np.zeros((40, 40, 3), np.uint8)
        picture[:, self.place] = 255
        return picture


def test_of_any_other_environment_only_windows_drawn_beforehand_are_asked_about() -> None:
    agent = OnPolicyAgent(PPO, EnvLoop([lambda: SavesClips(Dot(), 5)] * 2), total_env_steps=1000)
    agent.reset_environments(0)
    history = History()
    history.add(agent.explore(400, np.random.default_rng(0)))
    assert 2 * 2 <= history.num_windows(5) < 200
    arrays, meta = history.state()
    for kept in (history, History.restore(arrays, meta)):
        for segment in kept.sample(20, 5, np.random.default_rng(1)):
            source = kept.clip_source(segment)
            assert source is not None
            drawn = list(worlds.find_world(Dot(), segment_length=5).draw(source))
            places = [int(np.flatnonzero(picture[0, :, 0])[0]) for picture in drawn]
            assert places == segment.observations[1:, 0].astype(int).tolist()


def test_marks_follow_a_segment_through_rollouts_checkpoints_and_ends() -> None:
    def env() -> gymnasium.Env[Any, Any]:
        return SavesClips(make_env("CartPole-v1"), 5)

    agent = OnPolicyAgent(PPO, EnvLoop([env] * 2), total_env_steps=1000, hyperparameters={"n_steps": 64})
    agent.reset_environments(0)
    history = History()
    history.add(agent.explore(100, np.random.default_rng(0)))
    history.add(agent.improve(None).rollout)
    arrays, meta = history.state()
    for kept in (history, History.restore(arrays, meta)):
        for segment in kept.sample(50, 5, np.random.default_rng(1)):
            source = kept.clip_source(segment)
            assert source is not None
            np.testing.assert_array_equal(source.rows.astype(np.float32), segment.observations[1:])


def test_nothing_is_saved_unless_asked_for() -> None:
    agent = OnPolicyAgent(PPO, EnvLoop([lambda: make_env("CartPole-v1")]), total_env_steps=1000)
    agent.reset_environments(0)
    history = History()
    rollout = agent.explore(50, np.random.default_rng(0))
    assert rollout.marks is None
    history.add(rollout)
    assert history.clip_source(history.sample(1, 5, np.random.default_rng(1))[0]) is None


def test_a_clip_survives_compression_sharp_and_in_order() -> None:
    _, pictures, _ = play(make("Pendulum-v1"), 12)
    clip = decode_clip(encode_clip(pictures, 30).data)
    assert clip.frames.shape == (12, 500, 500, 3)
    assert clip.frames_per_second == 30
    errors = [[np.abs(a.astype(int) - b).mean() for b in pictures] for a in clip.frames]
    assert [int(np.argmin(row)) for row in errors] == list(range(12))
    assert max(min(row) for row in errors) < 2


def test_small_and_odd_pictures_become_playable_clips() -> None:
    small = [np.full((21, 33, 3), level, np.uint8) for level in (0, 200)]
    clip = decode_clip(encode_clip(small, 12.5).data)
    assert clip.frames.shape[0] == 2
    assert clip.frames.shape[1] >= 320
    assert clip.frames_per_second == 12.5
    huge = decode_clip(encode_clip([np.zeros((1000, 1500, 3), np.uint8)], 30).data)
    assert max(huge.frames.shape[1:3]) <= 752


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\0" * 500])
def test_damaged_clips_and_states_say_so(data: bytes) -> None:
    with pytest.raises(UserError, match="damaged"):
        decode_clip(data)
    with pytest.raises(UserError, match="damaged"):
        ClipSource.from_arrays({"content": np.frombuffer(data, np.uint8)})


def test_states_of_another_environment_are_refused() -> None:
    trail, _, _ = play(make("Reacher-v5"), 3)
    other = make("HalfCheetah-v5")
    other.reset(seed=0)
    with pytest.raises(UserError, match="not the one"):
        list(worlds.find_world(other, segment_length=3).draw(trail.source(0, 3)))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "Acrobot-v1"])
def test_copies_marked_together_save_what_each_saves_alone(env_id: str) -> None:
    together = EnvLoop([lambda: SavesClips(make_env(env_id, fixed_horizon=40), 5)] * 2)
    alone = [SavesClips(make_env(env_id, fixed_horizon=40), 5) for _ in range(2)]
    together.reset(seed=0)
    for seed, env in enumerate(alone):
        env.reset(seed=seed)
    for _ in range(60):
        actions = together.action_space.sample()
        together.step(actions)
        for env, action in zip(alone, actions, strict=True):
            if env.step(action)[3]:
                env.reset()
    marks = together.take_marks()
    assert marks is not None and together.take_marks() is None
    expected = np.stack([env.world.take()[0] for env in alone], axis=1)
    np.testing.assert_array_equal(marks.rows, expected)
