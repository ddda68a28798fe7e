"""stable-baselines3 behind the agent protocol: what it is given, what it never sees, and going on from a state."""

from __future__ import annotations

import contextlib
import copy
import io
import random
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv

from prefrl.agents import AGENTS, sb3_buffers, sb3_off_policy
from prefrl.agents.sb3 import Sb3Agent
from prefrl.agents.sb3_envs import Sb3Envs
from prefrl.agents.sb3_off_policy import OffPolicyAgent
from prefrl.agents.sb3_on_policy import OnPolicyAgent
from prefrl.agents.sb3_streams import StreamsApart
from prefrl.envs import EnvLoop
from prefrl.errors import UserError
from prefrl.runs.checkpoint import State
from prefrl.runs.global_random import global_random_state, restore_global_random_state
from prefrl.spaces import Array, Batch

Env = gymnasium.Env[Any, Any]
MakeEnv = Callable[[], Env]

ON_POLICY = ("ppo", "a2c")
SMALL = {"policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {**SMALL, "batch_size": 16, "train_freq": 10, "gradient_steps": 2}
HYPER: dict[str, dict[str, Any]] = {
    "ppo": {**SMALL, "n_steps": 32, "batch_size": 32, "n_epochs": 2, "learning_rate": "linear:1e-3"},
    "a2c": {**SMALL, "n_steps": 8},
    "sac": OFF_POLICY,
    "td3": {**OFF_POLICY, "action_noise_std": 0.1},
    "dqn": {**OFF_POLICY, "target_update_interval": 30, "exploration_fraction": 0.8},
}


@pytest.fixture(autouse=True)
def short_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sb3_off_policy, "ITERATION", 60)


def env_of(algorithm: str, wrap: Callable[[Env], Env] = lambda env: env, max_steps: int = 13) -> MakeEnv:
    """CartPole for DQN (it terminates), Pendulum for the rest; both cut off early."""
    name = "CartPole-v1" if algorithm == "dqn" else "Pendulum-v1"
    return lambda: wrap(gymnasium.make(name, max_episode_steps=max_steps))


def agent_of(algorithm: str, make_env: MakeEnv | None = None, total: int = 1920, **changes: Any) -> Sb3Agent:
    options = {name: changes.pop(name) for name in ("seed", "pass_true_reward") if name in changes}
    envs = EnvLoop([make_env or env_of(algorithm)] * changes.pop("num_envs", 2))
    kind: Any = OnPolicyAgent if algorithm in ON_POLICY else OffPolicyAgent
    agent: Sb3Agent = kind(
        getattr(stable_baselines3, algorithm.upper()),
        envs,
        total_env_steps=total,
        hyperparameters={**HYPER[algorithm], **changes},
        **options,
    )
    return agent


def formula(observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
    """Score steps of Pendulum or CartPole; term by term, so that one step comes to the same bits as a batch."""
    s, s2 = np.asarray(observations), np.asarray(next_observations)
    return (s[:, 0] * np.float32(0.5) + s2[:, -1]).astype(np.float32)


def with_actions(observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float64]:
    total = formula(observations, actions, next_observations) + 10.0 * np.asarray(actions).reshape(
        len(actions), -1
    ).sum(1)
    return np.asarray(total)


class FormulaReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment's own reward is `formula`."""

    def reset(self, **kwargs: Any) -> Any:
        self.seen, info = self.env.reset(**kwargs)
        return self.seen, info

    def step(self, action: Any) -> Any:
        before = self.seen
        self.seen, _, terminated, truncated, info = self.env.step(action)
        reward = formula(before[None], np.asarray(action)[None], self.seen[None])
        return self.seen, float(reward[0]), terminated, truncated, info


class NanReward(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return float("nan")


class Scripted(gymnasium.Env[Any, Any]):
    """Observations drawn from a space; ends by a script: "terminated", "truncated" or "both" at a step's number."""

    def __init__(self, observations: Any, actions: Any, script: dict[int, str] | None = None) -> None:
        self.observation_space, self.action_space = observations, actions
        self.script = {5: "truncated"} if script is None else script
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.steps += 1
        end = self.script.get(self.steps, "")
        return self.observation_space.sample(), 1.0, end in ("terminated", "both"), end in ("truncated", "both"), {}


def parameters(agent: Sb3Agent) -> dict[str, bytes]:
    """Return all weights and what the observations are normalised by, as bytes."""
    state = agent.policy_state()
    found = {name: tensor.numpy().tobytes() for name, tensor in state["policy"].items()}
    for key, values in state["observations"].items():
        found |= {f"{key}/{name}": np.asarray(value).tobytes() for name, value in values.items()}
    return found


def plain_parameters(model: Any) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.policy.state_dict().items()}


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def stored_transitions(buffer: Any) -> tuple[Array, Array, Array]:
    rows = buffer.buffer_size if buffer.full else buffer.pos
    parts = (buffer.observations, buffer.actions, buffer.next_observations)
    return tuple(part[:rows].reshape(-1, *part.shape[2:]) for part in parts)


# --- the same as stable-baselines3 on an environment whose reward is the function ---


def plain_model(algorithm: str, make_env: MakeEnv, seed: int, total: int, **changes: Any) -> Any:
    """Return the algorithm as its own documentation has it."""
    hyper = copy.deepcopy({**HYPER[algorithm], **changes})
    noise_std = hyper.pop("action_noise_std", None)
    if noise_std is not None:
        from stable_baselines3.common.noise import NormalActionNoise

        hyper["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, noise_std))
    if algorithm == "ppo":
        hyper["learning_rate"] = lambda remaining: 1e-3 * remaining
    if algorithm not in ON_POLICY:
        hyper |= {"learning_starts": 0, "buffer_size": total}
    env = DummyVecEnv([make_env] * 2)
    return getattr(stable_baselines3, algorithm.upper())("MlpPolicy", env, seed=seed, device="cpu", **hyper).learn(
        total
    )


@pytest.mark.parametrize("algorithm", HYPER)
def test_weights_are_those_of_stable_baselines3_on_an_environment_with_that_reward(algorithm: str) -> None:
    total = 448 if algorithm == "ppo" else 480  # whole iterations
    agent = agent_of(algorithm, total=total, seed=3, normalize_observations=False)
    agent.reset_environments(3)
    while agent.num_env_steps < total:
        agent.improve(formula)
    plain = plain_model(algorithm, env_of(algorithm, FormulaReward), 3, total)
    assert agent.num_env_steps == plain.num_timesteps
    assert parameters(agent) == plain_parameters(plain)


def test_gradient_steps_of_minus_one_are_as_many_as_environment_steps() -> None:
    total = 120
    agent = agent_of("sac", total=total, seed=3, normalize_observations=False, gradient_steps=-1)
    agent.reset_environments(3)
    while agent.num_env_steps < total:
        agent.improve(formula)
    plain = plain_model("sac", env_of("sac", FormulaReward), 3, total, gradient_steps=-1)
    assert plain._n_updates == total
    assert parameters(agent) == plain_parameters(plain)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_baseline_is_stable_baselines3_on_the_true_reward(algorithm: str) -> None:
    total = 192 if algorithm == "ppo" else 180
    agent = agent_of(algorithm, total=total, seed=3, normalize_observations=False, pass_true_reward=True)
    agent.reset_environments(3)
    while agent.num_env_steps < total:
        improvement = agent.improve(None)
        np.testing.assert_array_equal(improvement.learned_rewards, improvement.rollout.true_rewards.astype(np.float32))
    assert parameters(agent) == plain_parameters(plain_model(algorithm, env_of(algorithm), 3, total))


# --- the agent never sees the true reward ---


@pytest.mark.parametrize("algorithm", HYPER)
def test_weights_are_the_same_when_every_true_reward_is_nan(algorithm: str) -> None:
    found = []
    for wrap in (lambda env: env, NanReward):
        agent = agent_of(algorithm, env_of(algorithm, wrap))
        agent.reset_environments(1)
        rollout = agent.explore(40, np.random.default_rng(0))
        assert np.isnan(rollout.true_rewards).all() == (wrap is NanReward)
        agent.relabel(with_actions)
        for _ in range(3):
            agent.improve(with_actions)
        agent.reset_environments(2)
        agent.improve(with_actions)
        found.append(parameters(agent))
    assert found[0] == found[1]
    assert all(np.isfinite(np.frombuffer(value, np.float32)).all() for name, value in found[0].items() if "." in name)


# --- rewards on-policy ---


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_buffer_holds_learned_rewards_and_the_bootstraps_of_time_limits(algorithm: str) -> None:
    changes: dict[str, Any] = {"learning_rate": 0.0, "gamma": 0.9, "n_steps": 60, "normalize_observations": False}
    if algorithm == "ppo":
        changes["batch_size"] = 60
    agent = agent_of(algorithm, env_of("dqn", max_steps=16), **changes)
    agent.reset_environments(0)
    agent.explore(40, np.random.default_rng(0))
    improvement = agent.improve(formula)
    rollout = improvement.rollout
    assert rollout.terminated.any() and rollout.truncated.any()
    expected = improvement.learned_rewards.copy()
    np.testing.assert_array_equal(expected, formula(*rollout.flat_transitions()).reshape(60, 2))
    steps, envs = np.nonzero(rollout.ended)
    ends = np.asarray(rollout.last_observations)
    for step, env, last in zip(steps, envs, ends, strict=True):
        if rollout.truncated[step, env]:
            with torch.no_grad():
                value = agent._model.policy.predict_values(torch.from_numpy(last[None]))
            expected[step, env] += 0.9 * float(value)
    np.testing.assert_allclose(agent._model.rollout_buffer.rewards, expected, atol=1e-5)
    bootstraps = np.abs(agent._model.rollout_buffer.rewards - improvement.learned_rewards)
    np.testing.assert_array_equal(bootstraps > 1e-5, rollout.truncated)


def test_reward_function_is_called_once_for_a_whole_rollout() -> None:
    sizes: list[int] = []

    def count(observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        sizes.append(len(actions))
        return formula(observations, actions, next_observations)

    agent = agent_of("ppo")
    agent.reset_environments(0)
    for _ in range(3):
        agent.improve(count)
    assert sizes == [64, 64, 64]


# --- rewards off-policy ---

SLIDE = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([3.0, 10.0], np.float32))
OFF_POLICY_ENVS: dict[str, MakeEnv] = {
    "sac": lambda: Scripted(spaces.Box(-5, 5, (3,)), SLIDE),
    "td3": lambda: Scripted(spaces.Box(-5, 5, (3,)), SLIDE),
    "dqn": lambda: Scripted(spaces.Box(-5, 5, (3,)), spaces.Discrete(4), {7: "terminated"}),
}


@pytest.mark.parametrize("algorithm", OFF_POLICY_ENVS)
@pytest.mark.parametrize("normalize", [False, True])
def test_relabelled_rewards_are_the_functions_on_what_the_environment_saw(
    algorithm: str, normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sb3_buffers, "RELABEL_CHUNK", 14)
    agent = agent_of(algorithm, OFF_POLICY_ENVS[algorithm], normalize_observations=normalize)
    agent.reset_environments(0)
    rollouts = [agent.explore(40, np.random.default_rng(0)), *(agent.improve(formula).rollout for _ in range(2))]
    agent.relabel(with_actions)
    expected = np.concatenate([with_actions(*rollout.flat_transitions()) for rollout in rollouts])
    rewards = agent._model.replay_buffer.rewards[: agent._model.replay_buffer.pos]
    assert rewards.size == 40 + 60 + 60
    np.testing.assert_allclose(rewards.ravel(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", OFF_POLICY_ENVS)
def test_transitions_are_scored_before_they_are_sampled_also_when_the_buffer_begins_anew(algorithm: str) -> None:
    agent = agent_of(algorithm, OFF_POLICY_ENVS[algorithm], buffer_size=46)
    agent.reset_environments(0)
    agent.explore(30, np.random.default_rng(0))
    agent.relabel(with_actions)
    buffer: Any = agent._model.replay_buffer
    unscale = buffer.env_actions
    take_samples, sampled = buffer._get_samples, []

    def check(rows: Array, env: Any = None) -> Any:
        s, a, s2 = stored_transitions(buffer)
        np.testing.assert_allclose(buffer.rewards[: len(s) // 2].ravel(), with_actions(s, unscale(a), s2), rtol=1e-5)
        sampled.append(len(rows))
        return take_samples(rows, env=env)

    buffer._get_samples = check
    for _ in range(3):
        agent.improve(with_actions)
    assert buffer.full
    assert len(sampled) == 3 * 3 * 2  # iterations of 3 rounds of 2 gradient steps


def test_a_change_of_reward_reaches_all_that_is_kept() -> None:
    agent = agent_of("sac", buffer_size=46)
    agent.reset_environments(0)
    agent.improve(formula)
    buffer: Any = agent._model.replay_buffer
    assert buffer.full
    agent.relabel(lambda s, a, s2: np.full(len(a), 7.0))
    assert (buffer.rewards == 7).all()
    agent.improve(lambda s, a, s2: np.full(len(a), 7.0))
    assert (buffer.rewards == 7).all()


# --- going on from a state ---


def kept(agent: Sb3Agent) -> Any:
    """Return everything as it comes back from a file."""
    state, arrays = agent.state()
    copies = {name: array.copy() for name, array in arrays.items()}
    random = global_random_state()
    return through_a_file(state), copies, State(tensors=through_a_file(random.tensors), values=random.values)


@pytest.mark.parametrize("algorithm", HYPER)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reset_first", [False, True])
def test_restored_agent_goes_on_bit_for_bit(algorithm: str, normalize: bool, reset_first: bool) -> None:
    agent = agent_of(algorithm, normalize_observations=normalize, normalize_until=0.6, seed=1, total=480)
    agent.reset_environments(0)
    agent.explore(40, np.random.default_rng(0))
    agent.relabel(with_actions)
    for _ in range(3):
        agent.improve(with_actions)
    if reset_first:  # as the loop does at a checkpoint
        agent.reset_environments(5)
    state, arrays, random = kept(agent)
    if not reset_first:
        agent.reset_environments(5)
    going_on = [agent.improve(with_actions) for _ in range(3)]

    other = agent_of(algorithm, normalize_observations=normalize, normalize_until=0.6, seed=2, total=480)
    other.restore(state, arrays)
    other.reset_environments(5)
    restore_global_random_state(random)
    for there in going_on:
        here = other.improve(with_actions)
        np.testing.assert_array_equal(here.learned_rewards, there.learned_rewards)
        np.testing.assert_array_equal(here.rollout.actions, there.rollout.actions)
    assert other.num_env_steps == agent.num_env_steps
    assert parameters(other) == parameters(agent)
    for first, second in zip(kept(agent)[1].items(), kept(other)[1].items(), strict=True):
        assert first[0] == second[0]
        np.testing.assert_array_equal(first[1], second[1])


def test_resetting_the_environments_leaves_the_statistics_of_observations_as_they_are() -> None:
    agent = agent_of("ppo")
    agent.reset_environments(0)
    agent.improve(formula)
    before = parameters(agent)
    agent.reset_environments(1)
    assert parameters(agent) == before


def test_statistics_of_observations_freeze_where_they_are_told_to() -> None:
    agent = agent_of("ppo", total=256, normalize_until=0.5)
    agent.reset_environments(0)
    counts = []
    for _ in range(4):
        agent.improve(formula)
        counts.append(agent.policy_state()["observations"][""]["count"])
    np.testing.assert_allclose(counts, [64, 128, 128, 128], atol=1e-3)


# --- acting ---


@pytest.mark.parametrize("algorithm", HYPER)
@pytest.mark.parametrize("num", [1, 5])
def test_one_action_for_each_observation(algorithm: str, num: int) -> None:
    agent = agent_of(algorithm)
    agent.reset_environments(0)
    observations = agent.improve(formula).rollout.flat_transitions()[0]
    given = np.asarray(observations)[:num]
    actions = agent.act(given)
    assert actions.shape == (num, *(agent.action_space.shape or ()))
    assert all(agent.action_space.contains(action) for action in actions)
    np.testing.assert_array_equal(agent.act(given), actions)


def test_a_policy_acts_the_same_in_another_agent() -> None:
    agent, other = agent_of("ppo", seed=0), agent_of("ppo", seed=1, num_envs=1)
    agent.reset_environments(0)
    given = np.asarray(agent.improve(formula).rollout.flat_transitions()[0])
    assert not np.array_equal(other.act(given), agent.act(given))
    other.load_policy_state(through_a_file(agent.policy_state()))
    np.testing.assert_allclose(other.act(given), agent.act(given), rtol=1e-6)


def test_exploring_is_uniform_counted_and_decided_by_its_generator() -> None:
    found = []
    for algorithm in ("ppo", "sac"):
        for _ in range(2):
            agent = agent_of(algorithm)
            agent.reset_environments(0)
            rollout = agent.explore(401, np.random.default_rng(4))
            assert agent.num_env_steps == rollout.num_steps == 402  # whole steps of both environments
            found.append(rollout.actions)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], found[3])
    for actions in (found[0], found[2]):
        np.testing.assert_allclose(np.histogram(actions, 4, (-2, 2))[0], 100.5, atol=40)


# --- spaces ---

PIXELS = spaces.Box(0, 255, (40, 44, 3), np.uint8)
SPACES: dict[str, tuple[str, Any, Any]] = {
    "dict": ("ppo", spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (3,))}), SLIDE),
    "dict of kinds": ("ppo", spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), SLIDE),
    "dict, off-policy": ("sac", spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), SLIDE),
    "discrete": ("ppo", spaces.Discrete(5), spaces.MultiDiscrete([2, 3])),
    "discrete, off-policy": ("dqn", spaces.Discrete(5), spaces.Discrete(3)),
    "multi-discrete": ("a2c", spaces.MultiDiscrete([2, 3]), spaces.Discrete(3)),
    "images, channels last": ("ppo", PIXELS, spaces.Discrete(3)),
    "images, channels first": ("ppo", spaces.Box(0, 255, (3, 40, 44), np.uint8), spaces.Discrete(3)),
    "images, channels last, off-policy": ("dqn", PIXELS, spaces.Discrete(3)),
    "an entry that holds no numbers": ("ppo", spaces.Dict(a=spaces.Box(-1, 1, (0,)), b=spaces.Discrete(3)), SLIDE),
    "no numbers, off-policy": ("sac", spaces.Box(-1, 1, (0,)), SLIDE),
    "one action that is fixed": ("sac", spaces.Discrete(3), spaces.Box(np.float32([-1, 2]), np.float32([1, 2]))),
    "actions that are all fixed": ("td3", spaces.Discrete(3), spaces.Box(3, 3, (2,))),
    "images in a dict": ("sac", spaces.Dict({"a": PIXELS, "b": spaces.Discrete(3)}), SLIDE),
}


@pytest.mark.parametrize("name", SPACES)
def test_observations_and_actions_reach_the_reward_as_the_environment_has_them(name: str) -> None:
    algorithm, observations, actions = SPACES[name]
    num_calls = 0

    def check(s: Batch, a: Array, s2: Batch) -> NDArray[np.float32]:
        nonlocal num_calls
        num_calls += 1
        for seen in (s, s2):
            if isinstance(observations, spaces.Dict):
                assert isinstance(seen, dict)
                one: Any = {key: values[-1] for key, values in seen.items()}
            else:
                one = np.asarray(seen)[-1]
            assert observations.contains(one)
        assert actions.contains(a[-1])
        return np.zeros(len(a), np.float32)

    changes = {"batch_size": 8, "n_steps": 4} if algorithm == "ppo" else {}
    agent = agent_of(algorithm, lambda: Scripted(observations, actions, {3: "truncated"}), total=120, **changes)
    agent.reset_environments(0)
    agent.explore(8, np.random.default_rng(0))
    agent.relabel(check)
    rollout = agent.improve(check).rollout
    assert num_calls > 0
    first = rollout.flat_transitions()[0]
    given = {k: v[:3] for k, v in first.items()} if isinstance(first, dict) else np.asarray(first)[:3]
    assert agent.act(given).shape == (3, *(actions.shape or ()))


# --- between stable-baselines3 and the environments ---


def envs_of(*envs: Env) -> Sb3Envs:
    between = Sb3Envs(EnvLoop([lambda env=env: env for env in envs]))
    between.seed(0)
    between.reset()
    return between


def test_every_step_is_kept_and_terminated_told_from_truncated() -> None:
    box, actions = spaces.Box(-1, 1, (2,)), spaces.Discrete(9)
    scripts: list[dict[int, str]] = [{2: "terminated", 3: "truncated"}, {3: "truncated"}, {4: "both"}]
    between = envs_of(*(Scripted(spaces.Box(-1, 1, (2,)), actions, script) for script in scripts))
    seen, ends, cut_off = [np.array(between.stepper.observations)], [], []
    for step in range(4):
        observations, rewards, dones, infos = between.step(np.array([step, step + 1, step + 2]))
        assert (rewards == 0).all()
        seen.append(observations)
        ends += [infos[env]["terminal_observation"] for env in np.flatnonzero(dones)]
        cut_off += [infos[env]["TimeLimit.truncated"] for env in np.flatnonzero(dones)]
    assert cut_off == [False, True, False, False]
    rollout = between.stepper.take()
    np.testing.assert_array_equal(rollout.observations, np.stack(seen))
    np.testing.assert_array_equal(rollout.actions, np.arange(4)[:, None] + np.arange(3))
    assert (rollout.true_rewards == 1).all()
    assert np.argwhere(rollout.terminated).tolist() == [[1, 0], [3, 0], [3, 2]]
    assert np.argwhere(rollout.truncated).tolist() == [[2, 1], [3, 2]]
    np.testing.assert_array_equal(rollout.last_observations, np.stack(ends))
    following = rollout.next_observations()
    np.testing.assert_array_equal(np.asarray(following)[1, 0], ends[0])
    np.testing.assert_array_equal(np.asarray(following)[2, 1], ends[1])
    assert box.contains(ends[0])

    between.step(np.zeros(3, int))
    after = between.stepper.take()
    np.testing.assert_array_equal(np.asarray(after.observations)[0], seen[-1])  # goes on where the last one ended
    assert after.num_steps == 3
    assert np.asarray(after.last_observations).shape == (0, 2)


def test_more_steps_than_there_was_room_for_are_kept_too() -> None:
    between = envs_of(Scripted(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), {}))
    between.stepper.begin(3)
    seen = [np.array(between.stepper.observations)] + [between.step(np.zeros(1, int))[0] for _ in range(20)]
    np.testing.assert_array_equal(between.stepper.take().observations, np.stack(seen))


def test_stable_baselines3_is_given_observations_of_its_own() -> None:
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,))})
    between = envs_of(Scripted(space, spaces.Discrete(2), {}))
    for _ in range(2):
        between.step(np.zeros(1, int))[0]["a"][:] = 7.0
    rollout = between.stepper.take()
    assert isinstance(rollout.observations, dict) and (np.abs(rollout.observations["a"]) <= 1).all()


class Careless(Scripted):
    """At an episode's end it hands out other types than its space has."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        place = observation["place"].astype(np.float64) if rest[2] else observation["place"]
        return {"place": place, "key": int(observation["key"])}, *rest


def test_last_observations_have_the_types_of_the_space() -> None:
    space = spaces.Dict({"place": spaces.Box(-1, 1, (2,)), "key": spaces.Discrete(3)})
    between = envs_of(Careless(space, spaces.Discrete(2), {1: "truncated"}))
    between.step(np.zeros(1, int))
    rollout = between.stepper.take()
    assert isinstance(rollout.observations, dict) and isinstance(rollout.last_observations, dict)
    for key, values in rollout.observations.items():
        assert rollout.last_observations[key].dtype == values.dtype


class Broken(Scripted):
    """Its observation number `at` holds NaN."""

    def __init__(self, at: int, **kwargs: Any) -> None:
        super().__init__(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), **kwargs)
        self.at = at

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation * (np.nan if self.at == 0 else 1), info

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return observation * (np.nan if self.steps == self.at else 1), *rest


@pytest.mark.parametrize(
    "broken",
    [Broken(0), Broken(2, script={}), Broken(2, script={2: "terminated"})],
    ids=["first", "middle", "last"],
)
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_an_observation_that_is_not_finite_ends_with_a_message(broken: Env, algorithm: str) -> None:
    agent = agent_of(algorithm, lambda: broken, num_envs=1)

    def act() -> None:
        agent.reset_environments(0)
        agent.improve(formula)

    with pytest.raises(UserError, match="observation holds NaN or infinite"):
        act()


# --- hyper-parameters and errors ---


def test_unknown_hyperparameter_is_refused_with_near_names() -> None:
    with pytest.raises(UserError, match=r"PPO has no hyper-parameter 'learningrate'.*Did you mean 'learning_rate'"):
        agent_of("ppo", learningrate=1e-3)
    with pytest.raises(UserError, match=r"Did you mean 'normalize_observations'"):
        agent_of("ppo", normalise_observations=False)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        ("sac", "learning_starts"),  # the loop explores
        ("sac", "n_steps"),  # the replay buffer is ours
        ("sac", "replay_buffer_class"),
        ("ppo", "rollout_buffer_class"),
        ("ppo", "tensorboard_log"),
        ("ppo", "action_noise_std"),
        ("dqn", "action_noise_std"),
    ],
)
def test_hyperparameters_that_would_have_no_effect_are_refused(algorithm: str, name: str) -> None:
    with pytest.raises(UserError, match=f"no hyper-parameter '{name}' here"):
        agent_of(algorithm, **{name: 3})


@pytest.mark.parametrize("algorithm", HYPER)
def test_hyperparameters_that_were_given_are_not_written_to(algorithm: str) -> None:
    given = copy.deepcopy(HYPER[algorithm])
    name = "sb3-ppo" if algorithm == "ppo" else algorithm
    envs = EnvLoop([env_of(algorithm)] * 2)
    AGENTS[name].make(envs, total_env_steps=100, hyperparameters=given, seed=0, device="cpu", pass_true_reward=False)
    assert given == HYPER[algorithm]


def test_unknown_algorithm_is_refused_with_near_names() -> None:
    with pytest.raises(UserError, match=r"There is no agent 'ddqn'; choose one of ppo, .*Did you mean 'dqn'"):
        AGENTS.find("ddqn")


def test_an_algorithm_that_cannot_act_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"DQN cannot be set up .*Box.*only supports"):
        agent_of("dqn", env_of("ppo"))
    with pytest.raises(UserError, match=r"SAC cannot be set up .*Discrete.*only supports"):
        agent_of("sac", env_of("dqn"))


@pytest.mark.parametrize(("value", "message"), [("linear:abc", "or e.g. linear:"), ("abc", "cannot be set up")])
def test_a_learning_rate_that_is_no_number_is_refused(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent_of("ppo", learning_rate=value)


def test_a_linear_schedule_falls_to_zero_and_stays_there() -> None:
    agent = agent_of("ppo", total=100, learning_rate="linear:0.01")
    agent.reset_environments(0)
    rates = []
    for _ in range(3):
        agent.improve(formula)
        rates.append(agent._model.policy.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [0.01 * (1 - 64 / 100), 0, 0], rtol=1e-6)


@pytest.mark.parametrize("space", [spaces.Discrete(4), PIXELS, SPACES["images in a dict"][1]])
def test_normalising_what_is_not_floats_is_refused(space: Any) -> None:
    with pytest.raises(UserError, match="normalize_observations needs"):
        agent_of("ppo", lambda: Scripted(space, SLIDE), normalize_observations=True)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (spaces.Tuple([SLIDE, SLIDE]), SLIDE, "Observation space"),
        (SLIDE, spaces.Tuple([SLIDE, SLIDE]), "Action space"),
    ],
)
def test_unsupported_spaces_are_refused(observations: Any, actions: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent_of("ppo", lambda: Scripted(observations, actions))


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda s, a, s2: np.zeros(3), r"one number per transition, an array of shape \(\d+,\). Received shape \(3,\)"),
        (lambda s, a, s2: np.full(len(a), np.nan), "finite numbers. Received nan"),
    ],
)
def test_a_reward_function_of_wrong_shape_or_value_ends_with_a_message(
    algorithm: str, reward: Any, message: str
) -> None:
    agent = agent_of(algorithm)
    agent.reset_environments(0)
    with pytest.raises(UserError, match=message):
        agent.improve(reward)


class Seeds(gymnasium.Env[Any, Any]):
    """Seeds the global streams in every reset, or every step, and draws from them in every step."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, where: str) -> None:
        self.where, self.drawn = where, []  # type: ignore[var-annotated]

    def _seed(self, where: str) -> None:
        if where == self.where:
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._seed("reset")
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self._seed("step")
        self.drawn.append((float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002
        self.t += 1
        return np.zeros(1, np.float32), 0.0, False, self.t == 5, {}


def explored(algorithm: str, env: Seeds, episodes: int = 20) -> Array:
    """Return what an untaught agent did in an environment where all that is seen is the same: `(episodes, 5)`."""
    hyper = {key: value for key, value in HYPER[algorithm].items() if key != "learning_rate"}
    cls = OnPolicyAgent if algorithm in ON_POLICY else OffPolicyAgent
    agent = cls(
        getattr(stable_baselines3, algorithm.upper()),
        EnvLoop([lambda: env]),
        total_env_steps=1920,
        hyperparameters=hyper,
    )
    agent.reset_environments(7)
    env.drawn.clear()
    steps = 5 * episodes
    actions = agent.explore(steps, np.random.default_rng(0), uniform=False).actions
    agent.close()
    return actions[:steps].reshape(episodes, 5)


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
def test_environments_that_seed_the_global_streams_leave_exploration_alone(
    algorithm: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every action is another, and what the environment draws after its seeding is what it asked for."""
    env = Seeds(where)
    actions = explored(algorithm, env)
    inside = actions[np.abs(actions) < 1]
    assert len(inside) > 50
    assert len(np.unique(inside)) == len(inside)
    rng, torch_rng = np.random.RandomState(0), torch.Generator().manual_seed(0)
    asked = [(rng.rand(), float(torch.rand((), generator=torch_rng))) for _ in range(5)]
    if where == "step":
        asked = asked[:1] * 5
    assert env.drawn[:100] == asked * 20

    with monkeypatch.context() as patched:  # the control: without it they act alike
        patched.setattr(StreamsApart, "call", lambda self: contextlib.nullcontext())
        repeated = explored(algorithm, Seeds(where))
    assert len(np.unique(repeated)) <= 10


@pytest.mark.parametrize("algorithm", ["ppo", "td3"])
def test_environments_that_leave_the_global_streams_alone_change_nothing(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet(Seeds):
        def step(self, action: Any) -> Any:
            self.t += 1
            return np.zeros(1, np.float32), 0.0, False, self.t == 5, {}

    actions = explored(algorithm, Quiet("never"))
    monkeypatch.setattr(StreamsApart, "call", lambda self: contextlib.nullcontext())
    np.testing.assert_array_equal(actions, explored(algorithm, Quiet("never")))
