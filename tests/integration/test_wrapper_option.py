"""`--wrapper`: an environment that needs a wrapper is trained and evaluated within it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.control import TrainSettings, evaluate_run, train
from prefrl.control.policies import make_run_env
from prefrl.envs import make_env, make_vector_env
from prefrl.errors import UserError


class Told(gymnasium.Env[Any, Any]):
    """A place on a line beside a text that nothing can be learned from."""

    observation_space = spaces.Dict({"place": spaces.Box(-9, 9, (1,), np.float32), "task": spaces.Text(20)})
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.place = 0.0

    def _seen(self) -> Any:
        return {"place": np.array([self.place], np.float32), "task": "go to the right"}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = float(self.np_random.uniform(-1, 1))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = float(np.clip(self.place + 0.2 * action - 0.1, -9, 9))
        return self._seen(), self.place, False, False, {}


def place_alone(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    return gymnasium.wrappers.FlattenObservation(gymnasium.wrappers.FilterObservation(env, ["place"]))


def nothing(env: gymnasium.Env[Any, Any]) -> None:
    """Not what a wrapper returns."""


def failing(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    raise ValueError("no such key")


class Pair(Told):
    observation_space = spaces.Tuple((spaces.Box(-9, 9, (1,), np.float32), spaces.Discrete(2)))

    def _seen(self) -> Any:
        return (np.array([self.place], np.float32), 1)


class TwoLevers(Pair):
    observation_space = spaces.Box(-9, 9, (1,), np.float32)
    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))


gymnasium.register("Pair-v0", entry_point=Pair, max_episode_steps=30)
gymnasium.register("TwoLevers-v0", entry_point=TwoLevers, max_episode_steps=30)
gymnasium.register("Told-v0", entry_point=Told, max_episode_steps=30)
HERE = __name__


def test_without_it_the_environment_is_refused_and_with_it_made_as_it_says() -> None:
    with pytest.raises(UserError, match="FilterObservation"):
        make_env("Told-v0")
    assert make_env("Told-v0", wrapper=f"{HERE}:place_alone").observation_space.shape == (1,)
    assert make_vector_env("Told-v0", 2, wrapper=f"{HERE}:place_alone").num_envs == 2


@pytest.mark.parametrize(("env_id", "needs"), [("Told-v0", "FilterObservation"), ("TwoLevers-v0", "TransformAction")])
def test_a_wrapper_that_takes_arguments_is_not_one_to_name_but_to_write(env_id: str, needs: str) -> None:
    with pytest.raises(UserError, match=rf"{needs}.*--wrapper file\.py:function") as caught:
        make_env(env_id)
    assert "FlattenObservation" not in str(caught.value)


def test_a_wrapper_that_can_be_named_is_named_and_works() -> None:
    with pytest.raises(UserError, match=r"--wrapper gymnasium\.wrappers:FlattenObservation"):
        make_env("Pair-v0")
    assert make_env("Pair-v0", wrapper="gymnasium.wrappers:FlattenObservation").observation_space.shape == (3,)


def test_copies_that_are_wrapped_are_not_stepped_at_once() -> None:
    envs = make_vector_env("CartPole-v1", 3, wrapper="gymnasium.wrappers:FlattenObservation")
    assert isinstance(envs.reset(seed=0)[0], np.ndarray)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [("nothing", "must return an environment; it returned NoneType"), ("failing", "ValueError: no such key"),
     ("missing", "missing")],
)  # fmt: skip
def test_a_wrapper_that_is_none_is_refused_in_a_sentence(wrapper: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env("Told-v0", wrapper=f"{HERE}:{wrapper}")


@pytest.mark.slow
def test_a_run_keeps_its_wrapper(tmp_path: Path) -> None:
    settings = TrainSettings(
        env_id="Told-v0", wrapper=place_alone, labels=12, steps=1_200, num_envs=2, segment_length=10
    )
    run = train(settings, tmp_path / "run", quiet=True)
    assert run.settings.wrapper == f"{HERE}:place_alone"
    assert make_run_env(run.settings).observation_space.shape == (1,)
    assert np.isfinite(evaluate_run(run, "last", num_episodes=2, seed=0).mean)
