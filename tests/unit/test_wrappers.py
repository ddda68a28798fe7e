"""LearnedReward and VectorLearnedReward: whose reward arrives where, on every kind of step."""

from __future__ import annotations

import doctest
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrl import wrappers
from prefrl.errors import UserError
from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.rewards.settings import RewardSettings
from prefrl.wrappers import LearnedReward, VectorLearnedReward

pytestmark = pytest.mark.lowest


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; ends after `length` of them. A step is worth 100. It may hand out one array again and again."""

    def __init__(
        self, length: int = 3, as_dict: bool = False, truncates: bool = False, reuses_array: bool = True
    ) -> None:
        box = spaces.Box(-1e6, 1e6, (1,), np.float32)
        self.observation_space = spaces.Dict({"count": box}) if as_dict else box
        self.action_space = spaces.Discrete(5)
        self.length, self.as_dict, self.truncates, self.reuses_array = length, as_dict, truncates, reuses_array
        self.count = np.zeros(1, np.float32)

    def _seen(self) -> Any:
        seen = self.count if self.reuses_array else self.count.copy()
        return {"count": seen} if self.as_dict else seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count[:] = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        ended = bool(self.count[0] >= self.length)
        return self._seen(), 100.0, ended and not self.truncates, ended and self.truncates, {}


class Recorder:
    """A reward that depends on all it is given, and remembers how often and with how many rows it was called."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, observations: Any, actions: Any, next_observations: Any) -> Any:
        self.sizes.append(len(actions))
        before, after = (x["count"] if isinstance(x, dict) else x for x in (observations, next_observations))
        return before[:, 0] + 10 * actions + 1000 * (after - before)[:, 0]


def vector(mode: AutoresetMode, lengths: tuple[int, ...] = (2, 3), **kwargs: Any) -> SyncVectorEnv[Any, Any]:
    def maker(length: int) -> Callable[[], gymnasium.Env[Any, Any]]:
        # Gymnasium keeps no copy of a final observation, so an array must not be handed out twice there.
        return lambda: Counter(length, **{"reuses_array": mode is not AutoresetMode.SAME_STEP, **kwargs})

    return SyncVectorEnv([maker(length) for length in lengths], autoreset_mode=mode)


# one environment


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_reward_is_that_of_the_transition_and_the_true_one_stands_beside_it(as_dict: bool) -> None:
    env = LearnedReward(Counter(3, as_dict=as_dict), Recorder())
    env.reset()
    rows = [env.step(action) for action in (1, 2, 3)]
    assert [row[1] for row in rows] == [1010.0, 1021.0, 1032.0]
    assert all(type(row[1]) is float for row in rows)
    assert [row[4]["true_reward"] for row in rows] == [100.0] * 3
    assert [row[2] for row in rows] == [False, False, True]


def test_what_is_masked_is_neither_an_observation_nor_a_reward() -> None:
    class Masked(Counter):
        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            return np.ma.MaskedArray([1.0], mask=[True]), 0.0, False, False, {}

    env = LearnedReward(Masked(3), Recorder())
    env.reset()
    with pytest.raises(UserError, match="observation has masked entries"):
        env.step(1)
    env = LearnedReward(Counter(3), lambda *_: np.ma.MaskedArray([1.0], mask=[True]))
    env.reset()
    with pytest.raises(UserError, match="a reward function returned has masked entries"):
        env.step(1)


def test_both_returns_come_at_the_end_of_an_episode_and_only_there() -> None:
    env = LearnedReward(Counter(2, truncates=True), Recorder())
    for _ in range(2):
        env.reset()
        assert "true_return" not in env.step(0)[4]
        info = env.step(0)[4]
        assert (info["true_return"], info["learned_return"]) == (200.0, 2001.0)


def test_statistics_inside_report_the_true_return_and_gain_the_learned_one() -> None:
    env = LearnedReward(RecordEpisodeStatistics(Counter(2)), Recorder())
    env.reset()
    env.step(0)
    episode = env.step(0)[4]["episode"]
    assert (episode["r"], episode["learned_r"], episode["l"]) == (200.0, 2001.0, 2)


def test_statistics_outside_report_the_learned_return_and_the_true_one_stands_beside_it() -> None:
    env = RecordEpisodeStatistics(LearnedReward(Counter(2), Recorder()))
    env.reset()
    env.step(0)
    info = env.step(0)[4]
    assert (info["episode"]["r"], info["true_return"]) == (2001.0, 200.0)


@pytest.mark.parametrize(
    ("reward", "known"),
    [
        *((Decimal("0.5"), 0.5), (torch.tensor(0.5, requires_grad=True), 0.5), ("a lot", np.nan)),
        *((np.ma.masked, np.nan), (np.ma.MaskedArray([7.0], mask=[True]), np.nan)),
    ],
    ids=repr,
)
def test_a_true_reward_is_read_however_it_is_wrapped(reward: Any, known: float) -> None:
    class Odd(Counter):
        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            observation, _, terminated, truncated, _ = super().step(action)
            return observation, reward, terminated, truncated, {"episode": 3, "true_reward": "mine"}

    env = LearnedReward(Odd(1), Recorder())
    env.reset()
    info = env.step(0)[4]
    np.testing.assert_array_equal([info["true_reward"], info["true_return"]], [known, known])
    assert info["episode"] == 3, "another's entry stays as it is"


def test_a_nan_true_reward_does_not_reach_the_agent() -> None:
    class Broken(Counter):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return observation, float("nan"), *rest  # type: ignore[return-value]

    env = LearnedReward(Broken(1), Recorder())
    env.reset()
    _, reward, _, _, info = env.step(0)
    assert reward == 1000.0
    assert np.isnan(info["true_return"])


def test_stepping_before_a_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        LearnedReward(Counter(), Recorder()).step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        VectorLearnedReward(vector(AutoresetMode.NEXT_STEP), Recorder()).step(np.zeros(2, int))


# vectors of environments


def test_next_step_autoreset_scores_a_reset_as_zero_and_the_first_step_from_the_new_observation() -> None:
    reward = Recorder()
    envs = VectorLearnedReward(vector(AutoresetMode.NEXT_STEP), reward)
    envs.reset()
    rows = [envs.step(np.array([1, 2])) for _ in range(5)]
    np.testing.assert_array_equal(
        [row[1] for row in rows],
        [[1010, 1020], [1011, 1021], [0, 1022], [1010, 0], [1011, 1020]],
    )
    np.testing.assert_array_equal(
        [row[4]["true_reward"] for row in rows], [[100, 100]] * 2 + [[0, 100], [100, 0], [100, 100]]
    )
    assert rows[0][1].dtype == np.float64
    assert reward.sizes == [2] * 5


def test_same_step_autoreset_scores_the_last_transition_with_the_final_observation() -> None:
    for as_dict in (False, True):
        reward = Recorder()
        envs = VectorLearnedReward(vector(AutoresetMode.SAME_STEP, as_dict=as_dict), reward)
        envs.reset()
        rows = [envs.step(np.array([1, 2])) for _ in range(4)]
        np.testing.assert_array_equal(
            [row[1] for row in rows], [[1010, 1020], [1011, 1021], [1010, 1022], [1011, 1020]]
        )
        observations = rows[1][0]["count"] if as_dict else rows[1][0]
        np.testing.assert_array_equal(observations[:, 0], [0, 2])  # what the agent sees is left as it was
        assert reward.sizes == [2] * 4


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_last_observation_that_the_next_episode_overwrote_is_told_once(as_dict: bool) -> None:
    envs = VectorLearnedReward(vector(AutoresetMode.SAME_STEP, as_dict=as_dict, reuses_array=True), Recorder())
    envs.reset()
    envs.step(np.array([1, 2]))
    with pytest.warns(UserWarning, match="one array again and again"):
        envs.step(np.array([1, 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.step(np.array([1, 2]))
    right = LearnedReward(Counter(2, as_dict=as_dict), Recorder())  # what the warning advises
    right.reset()
    assert [right.step(1)[1] for _ in range(2)] == [1010, 1011]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_where_last_observations_are_kept_nothing_is_said_of_them(mode: AutoresetMode) -> None:
    envs = VectorLearnedReward(vector(mode), Recorder())
    envs.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            envs.step(np.array([1, 2]))


def test_without_autoreset_a_partial_reset_begins_only_those_episodes() -> None:
    envs = VectorLearnedReward(vector(AutoresetMode.DISABLED), Recorder())
    envs.reset()
    envs.step(np.array([0, 0]))
    infos = envs.step(np.array([0, 0]))[4]
    np.testing.assert_array_equal(infos["true_return"], [200, 0])
    envs.reset(options={"reset_mask": np.array([True, False])})
    _, rewards, _, _, infos = envs.step(np.array([0, 0]))
    np.testing.assert_array_equal(rewards, [1000, 1002])
    np.testing.assert_array_equal(infos["_true_return"], [False, True])
    np.testing.assert_array_equal(infos["true_return"], [0, 300])
    np.testing.assert_array_equal(infos["learned_return"], [0, 3003])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_returns_of_every_episode_are_those_of_the_single_wrapper(mode: AutoresetMode) -> None:
    envs = VectorLearnedReward(vector(mode), Recorder())
    envs.reset()
    ended: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    for _ in range(12):
        infos = envs.step(np.array([1, 2]))[4]
        for env in np.flatnonzero(infos.get("_true_return", [])):
            ended[int(env)].append((infos["true_return"][env], infos["learned_return"][env]))
    for env, (length, action) in enumerate(((2, 1), (3, 2))):
        single = LearnedReward(Counter(length), Recorder())
        single.reset()
        info = [single.step(action) for _ in range(length)][-1][4]
        assert len(ended[env]) >= 3
        assert set(ended[env]) == {(info["true_return"], info["learned_return"])}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_statistics_inside_and_outside(mode: AutoresetMode) -> None:
    inside = VectorLearnedReward(VectorRecordEpisodeStatistics(vector(mode)), Recorder())
    inside.reset()
    inside.step(np.array([0, 0]))
    episode = inside.step(np.array([0, 0]))[4]["episode"]
    np.testing.assert_array_equal(episode["r"], [200, 0])
    np.testing.assert_array_equal(episode["learned_r"], [2001, 0])
    outside = VectorRecordEpisodeStatistics(VectorLearnedReward(vector(mode), Recorder()))
    outside.reset()
    outside.step(np.array([0, 0]))
    infos = outside.step(np.array([0, 0]))[4]
    np.testing.assert_array_equal(infos["episode"]["r"], [2001, 0])
    np.testing.assert_array_equal(infos["true_return"], [200, 0])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_statistics_of_each_environment_for_itself_gain_the_learned_return(mode: AutoresetMode) -> None:
    made = [lambda: RecordEpisodeStatistics(Counter(2, reuses_array=False)) for _ in range(2)]
    envs = VectorLearnedReward(SyncVectorEnv(made, autoreset_mode=mode), Recorder())
    envs.reset()
    envs.step(np.array([0, 0]))
    infos = envs.step(np.array([0, 0]))[4]
    holder = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    assert holder["episode"]["r"][0] == 200
    assert holder["episode"]["learned_r"][0] == 2001


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    actions=st.lists(st.integers(0, 4), min_size=1, max_size=25),
    same_step=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_learned_rewards_add_up_to_the_learned_returns(lengths: list[int], actions: list[int], same_step: bool) -> None:
    mode = AutoresetMode.SAME_STEP if same_step else AutoresetMode.NEXT_STEP
    envs = VectorLearnedReward(vector(mode, tuple(lengths)), Recorder())
    envs.reset()
    running, ended = np.zeros(len(lengths)), np.zeros(len(lengths), bool)
    for action in actions:
        _, rewards, terminated, truncated, infos = envs.step(np.full(len(lengths), action))
        if not same_step:
            np.testing.assert_array_equal(rewards[ended], 0.0)
            running[ended] = 0.0
        running += rewards
        ended = terminated | truncated
        if ended.any():
            np.testing.assert_allclose(infos["learned_return"][ended], running[ended])
            running[ended] = 0.0


class BatchedFinal(VectorEnv[Any, Any, Any]):
    """A vector environment that hands out its last observations as one array, as compiled ones do."""

    def __init__(self, with_final: bool = True) -> None:
        self.num_envs, self.metadata, self.with_final = 2, {"autoreset_mode": AutoresetMode.SAME_STEP}, with_final
        self.single_observation_space = spaces.Box(-1e6, 1e6, (1,), np.float32)
        self.single_action_space = spaces.Discrete(5)
        self.observation_space = spaces.Box(-1e6, 1e6, (2, 1), np.float32)
        self.action_space = spaces.MultiDiscrete([5, 5])

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        infos = {"final_obs": np.full((2, 1), 7, np.float32)} if self.with_final else {}
        ended = np.array([True, False])
        return np.zeros((2, 1), np.float32), np.ones(2, np.float32), ended, np.zeros(2, bool), infos


def test_final_observations_may_come_as_one_array() -> None:
    envs = VectorLearnedReward(BatchedFinal(), Recorder())
    envs.reset()
    np.testing.assert_array_equal(envs.step(np.zeros(2, int))[1], [7000, 0])


def test_same_step_autoreset_without_final_observations_is_refused() -> None:
    envs = VectorLearnedReward(BatchedFinal(with_final=False), Recorder())
    envs.reset()
    with pytest.raises(UserError, match="must give infos"):
        envs.step(np.zeros(2, int))


# a saved reward, in the places where Gymnasium makes environments


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    env = gymnasium.make("CartPole-v1")
    path = tmp_path / "reward.safetensors"
    RewardEnsemble(env.observation_space, env.action_space, seed=3).save(path)
    return path


def test_a_saved_reward_is_loaded_by_its_path_and_scores_as_it_did(saved: Path) -> None:
    ensemble = RewardEnsemble.load(saved)
    for reward in (saved, str(saved), ensemble):
        env = LearnedReward(gymnasium.make("CartPole-v1"), reward)
        before, _ = env.reset(seed=1)
        after, value, *_ = env.step(1)
        assert value == pytest.approx(float(ensemble(before[None], np.array([1]), after[None])[0]), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_gymnasiums_checker_finds_nothing_to_complain_about(saved: Path) -> None:
    check_env(LearnedReward(gymnasium.make("CartPole-v1"), saved), skip_render_check=True)


def test_it_can_be_a_part_of_a_specification(saved: Path) -> None:
    wrapper = LearnedReward.wrapper_spec(reward=str(saved))
    env = gymnasium.make(replace(gymnasium.spec("CartPole-v1"), additional_wrappers=(wrapper,)))
    assert isinstance(env, LearnedReward)
    env.reset(seed=0)
    assert env.step(0)[4]["true_reward"] == 1.0
    gymnasium.register("LearnedPole-v0", gymnasium.spec("CartPole-v1").entry_point, additional_wrappers=(wrapper,))
    assert isinstance(gymnasium.make("LearnedPole-v0"), LearnedReward)
    gymnasium.registry.pop("LearnedPole-v0")


def test_a_path_survives_in_the_specification_as_json(saved: Path) -> None:
    env = LearnedReward(gymnasium.make("CartPole-v1"), saved)
    assert env.spec is not None
    assert str(saved) in env.spec.to_json()
    assert isinstance(gymnasium.make(env.spec), LearnedReward)


def test_single_and_vector_wrappers_agree_step_by_step(saved: Path) -> None:
    inner = gymnasium.make_vec("CartPole-v1", 3, "sync", wrappers=[lambda env: LearnedReward(env, saved)])
    outer = VectorLearnedReward(gymnasium.make_vec("CartPole-v1", 3, "sync"), saved)
    for envs in (inner, outer):
        envs.reset(seed=2)
    for step in range(60):
        actions = np.full(3, step % 2)
        one, two = inner.step(actions), outer.step(actions)
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_allclose(one[1], two[1], atol=1e-5)
        for key in ("true_return", "learned_return", "_true_return"):
            assert (key in one[4]) == (key in two[4])
            if key in one[4]:
                np.testing.assert_allclose(one[4][key], two[4][key], atol=1e-4)


def test_a_vector_environment_with_its_own_implementation_can_be_wrapped(saved: Path) -> None:
    envs = VectorLearnedReward(gymnasium.make_vec("CartPole-v1", 2, "vector_entry_point"), saved)
    envs.reset(seed=0)
    num_ended = 0
    for _ in range(40):
        infos = envs.step(np.zeros(2, int))[4]
        num_ended += int(np.sum(infos.get("_true_return", 0)))
    assert num_ended >= 4


# what is refused


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda o, a, n: np.zeros((len(a), 1)), r"array of shape \(1,\). Received shape \(1, 1\)"),
        (lambda o, a, n: 1.0, r"Received shape \(\)"),
        (lambda o, a, n: np.array(["good"]), "dtype <U4"),
        (lambda o, a, n: np.array([np.nan]), r"finite numbers. Received nan for transition 0 of 1"),
        (lambda o, a, n: np.array([np.inf]), "finite numbers. Received inf"),
    ],
)
def test_a_reward_that_returns_something_else_is_refused(reward: Any, message: str) -> None:
    env = LearnedReward(Counter(), reward)
    env.reset()
    with pytest.raises(UserError, match=message):
        env.step(0)


def test_a_nan_reward_is_refused_in_a_vector_too_but_not_for_a_step_that_only_resets() -> None:
    def reward(observations: Any, actions: Any, next_observations: Any) -> Any:
        return np.where(next_observations[:, 0] < observations[:, 0], np.nan, 1.0)  # NaN where a reset goes backwards

    envs = VectorLearnedReward(vector(AutoresetMode.NEXT_STEP), reward)
    envs.reset()
    assert np.isfinite([envs.step(np.zeros(2, int))[1] for _ in range(6)]).all()
    envs = VectorLearnedReward(vector(AutoresetMode.NEXT_STEP), lambda o, a, n: np.array([0.0, np.nan]))
    envs.reset()
    with pytest.raises(UserError, match="nan for transition 1 of 2"):
        envs.step(np.zeros(2, int))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_observation_that_is_not_finite_is_refused(value: float) -> None:
    class Broken(Counter):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            super().step(action)
            self.count[:] = value
            return self.count, 0.0, False, False, {}

    env = LearnedReward(Broken(), Recorder())
    env.reset()
    with pytest.raises(UserError, match="NaN or infinite"):
        env.step(0)
    envs = VectorLearnedReward(SyncVectorEnv([Broken]), Recorder())
    envs.reset()
    with pytest.raises(UserError, match="NaN or infinite"):
        envs.step(np.zeros(1, int))


def test_a_reward_learned_elsewhere_is_refused_with_both_spaces_named(saved: Path) -> None:
    with pytest.raises(UserError, match=r"Box\(.*\(4,\).*the environment's is Box\(.*\(3,\)"):
        LearnedReward(gymnasium.make("Pendulum-v1"), saved)
    pole = gymnasium.make("CartPole-v1")
    pole.action_space = spaces.Discrete(3)
    with pytest.raises(UserError, match=r"action space Discrete\(2\); the environment's is Discrete\(3\)"):
        LearnedReward(pole, saved)
    with pytest.raises(UserError, match="learned with the observation space"):
        VectorLearnedReward(gymnasium.make_vec("Pendulum-v1", 2), saved)


def test_bounds_and_float_precision_of_the_spaces_may_differ(saved: Path) -> None:
    pole = FlattenObservation(gymnasium.make("CartPole-v1"))
    pole.observation_space = spaces.Box(-100, 100, (4,), np.float64)
    LearnedReward(pole, saved)
    pole.observation_space = spaces.Box(0, 255, (4,), np.uint8)
    with pytest.raises(UserError, match="uint8"):
        LearnedReward(pole, saved)


def test_bounds_that_differ_from_those_the_reward_learned_with_are_said(saved: Path) -> None:
    with pytest.warns(UserWarning, match="put that wrapper outside"):
        LearnedReward(gymnasium.wrappers.NormalizeObservation(gymnasium.make("CartPole-v1")), saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium.wrappers.NormalizeObservation(LearnedReward(gymnasium.make("CartPole-v1"), saved))


def test_a_learned_reward_around_another_is_said() -> None:
    def learned() -> gymnasium.Env[Any, Any]:
        return LearnedReward(Counter(2), Recorder())

    with pytest.warns(UserWarning, match="learned reward is inside already"):
        LearnedReward(RecordEpisodeStatistics(learned()), Recorder())
    with pytest.warns(UserWarning, match="learned reward is inside already"):
        VectorLearnedReward(SyncVectorEnv([learned, learned]), Recorder())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VectorLearnedReward(SyncVectorEnv([lambda: Counter(2)]), Recorder())


def test_an_autoreset_inside_begins_a_new_episode_with_a_step_that_counts_for_nothing() -> None:
    env = LearnedReward(gymnasium.wrappers.Autoreset(Counter(length=3)), lambda o, a, n: n[:, 0])
    env.reset()
    rows = [env.step(0) for _ in range(8)]
    assert [row[1] for row in rows] == [1, 2, 3, 0, 1, 2, 3, 0]
    assert [(row[4]["true_return"], row[4]["learned_return"]) for row in rows if row[2]] == [(300, 6), (300, 6)]


def test_a_few_transitions_are_scored_by_numpy_as_torch_scores_them() -> None:
    box, choice = spaces.Box(-1, 1, (5,), np.float32), spaces.Discrete(3)
    rng = np.random.default_rng(0)
    for inputs in ("s", "sa", "ss", "sas"):
        reward = RewardEnsemble(box, choice, RewardSettings(inputs=inputs, num_members=4), seed=3)
        batch = (rng.normal(0, 3, (9, 5)).astype(np.float32), rng.integers(0, 3, 9), rng.normal(size=(9, 5)))
        reward.set_input_statistics(*batch)
        reward.normalise(*batch)
        np.testing.assert_allclose(reward.of_few(*batch), reward(*batch), atol=1e-5)


@pytest.mark.slow
def test_processes_forked_from_one_that_used_torchs_threads_do_not_hang(saved: Path) -> None:
    """The children have none of the threads that the parent's torch believes to have."""
    program = f"""
import gymnasium, numpy, torch
from prefrl.wrappers import LearnedReward
torch.set_num_threads(2)
layer = torch.nn.Linear(64, 64)
layer(torch.randn(4096, 64)).sum().backward()
def make():
    return LearnedReward(gymnasium.make("CartPole-v1"), {str(saved)!r})
envs = gymnasium.vector.AsyncVectorEnv([make] * 2, context="fork")
envs.reset(seed=0)
for _ in range(20):
    envs.step(numpy.zeros(2, int))
envs.close()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip().endswith("done"), done.stderr


def test_a_vector_tells_its_autoreset_mode_and_rewards_beside_it_have_a_dtype() -> None:
    for mode in AutoresetMode:
        assert VectorLearnedReward(vector(mode), Recorder()).autoreset_mode is mode
    env = LearnedReward(Counter(length=1), Recorder())
    env.reset()
    info = env.step(0)[4]
    assert {info[name].dtype for name in ("true_reward", "true_return", "learned_return")} == {np.dtype(np.float64)}


def test_an_unsupported_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"Tuple.*not supported"):
        LearnedReward(gymnasium.make("Blackjack-v1"), Recorder())


def test_what_is_no_reward_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="function or the file of a saved reward; got int"):
        LearnedReward(Counter(), 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no saved reward at"):
        LearnedReward(Counter(), tmp_path / "nothing.safetensors")


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(wrappers)
    assert result.attempted > 15
    assert result.failed == 0
