"""Figures beside the return."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.control.evaluation import evaluate
from prefrl.envs import make_env
from prefrl.envs.measures import MEASURES, Measure, measures_of


@pytest.mark.parametrize("env_id", MEASURES)
def test_measures_read_what_their_environment_shows(env_id: str) -> None:
    if env_id.startswith(("LunarLander", "BipedalWalker")):
        pytest.importorskip("Box2D")
    if env_id.startswith("prefrl/DMC-"):
        pytest.importorskip("dm_control")
    env = make_env(env_id)
    observation, _ = env.reset(seed=0)
    assert measures_of(env_id, env.observation_space) == MEASURES[env_id]
    for measure in MEASURES[env_id]:
        value = measure.of_episode(np.stack([observation] * 3))
        assert np.isfinite(value)
        assert measure.kind != "share" or value in (0.0, 1.0)


def test_a_cheetah_on_its_back_is_seen() -> None:
    (feet,) = MEASURES["HalfCheetah-v5"]
    lying = np.zeros((4, 17))
    lying[:, 1] = [0.0, np.pi, -np.pi, 2 * np.pi + 0.1]  # the angle of the torso is not wrapped
    assert feet.of_episode(lying) == 0.5
    assert feet.text(0.5) == "50%"


def test_an_ant_upside_down_is_seen() -> None:
    (feet,) = MEASURES["Ant-v5"]
    seen = np.zeros((2, 105))
    seen[0, 1] = 1.0  # as it is born
    seen[1, 2] = 1.0  # turned by half a turn about its x-axis
    assert feet.of_episode(seen) == 0.5


def test_acrobot_has_reached_the_goal_with_both_links_up_and_not_hanging() -> None:
    (goal,) = MEASURES["Acrobot-v1"]
    hanging, up = [1.0, 0, 1, 0, 0, 0], [-1.0, 0, 1, 0, 0, 0]
    assert goal.of_episode(np.array([hanging, hanging])) == 0.0
    assert goal.of_episode(np.array([hanging, up, hanging])) == 1.0


def test_the_distance_is_that_at_the_end() -> None:
    (distance,) = MEASURES["Reacher-v5"]
    seen = np.zeros((3, 10))
    seen[-1, 8:] = 0.03, 0.04
    assert distance.of_episode(seen) == pytest.approx(0.05)
    assert distance.text(0.05) == "0.05 metres"


def test_other_observations_are_not_measured() -> None:
    env = make_env("HalfCheetah-v5", options={"exclude_current_positions_from_observation": False})
    assert measures_of("HalfCheetah-v5", env.observation_space) == ()
    assert measures_of("HalfCheetah-v5", spaces.Dict({"a": spaces.Box(-1, 1, (17,))})) == ()
    assert measures_of("prefrl/HalfCheetah-v5", make_env("HalfCheetah-v5").observation_space) != ()
    assert measures_of("SomethingElse-v0", spaces.Box(-1, 1, (17,))) == ()


class Counting(gymnasium.Env[np.ndarray, int]):
    """Shows how many steps were made; the episode of seed s ends after s + 2 steps, later ones never."""

    observation_space = spaces.Box(0, 100, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.length = 0, 1000 if seed is None else seed + 2
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, self.steps == self.length, False, {}


def test_evaluation_measures_each_episode_to_its_end_and_no_further() -> None:
    mean = Measure(name="steps", kind="metres", num_observed=1, of=lambda seen: seen[..., 0])
    last = Measure(name="last", kind="metres", num_observed=1, of=lambda seen: seen[..., 0], over="last")
    result = evaluate(Counting, lambda seen: np.zeros(len(seen), int), num_episodes=3, seed=0, measures=(mean, last))
    assert result.lengths == [2, 3, 4]
    assert result.measures == {"steps": pytest.approx((1.5 + 2 + 2.5) / 3), "last": pytest.approx(3.0)}
