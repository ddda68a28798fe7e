"""Offline learning: data of every source, the losses, IQL against a known optimum, runs that are stopped and go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given
from hypothesis import strategies as st

from prefrl.agents import AGENTS
from prefrl.agents.action_scale import ActionScale
from prefrl.control import QuerySettings, TrainSettings, train
from prefrl.control.offline_start import with_start
from prefrl.control.policies import KeptPolicy, make_run_agent
from prefrl.errors import UserError
from prefrl.feedback import Comparison
from prefrl.offline import run as runs
from prefrl.offline.cpl import Cpl
from prefrl.offline.data import GivenEpisode, World, make_data
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.ipl import Ipl
from prefrl.offline.iql import Iql
from prefrl.offline.losses import cloning_weights, contrastive_loss, expectile_loss, preference_loss
from prefrl.offline.pictures import _draw, shown_history
from prefrl.offline.policy import OfflinePolicy, policy_hyperparameters
from prefrl.offline.settings import LearnerSettings, OfflineSettings
from prefrl.offline.sources import read_data
from prefrl.offline.trainer import OfflineTrainer
from prefrl.offline.transitions import Comparisons, make_transitions, scaled_rewards, show_all
from prefrl.rewards import FitSettings, RewardEnsemble, RewardSettings
from prefrl.runs.codec import from_json
from prefrl.runs.guard import Interrupted
from prefrl.store import PreferenceStore

# ------------------------------------------------------------------------------------------------ losses


def test_the_expectile_loss_is_least_at_the_expectile() -> None:
    """Of 0 and 1 with equal chances the expectile is the expectile itself: t (1 - v) = (1 - t) v gives v = t."""
    x = torch.tensor([0.0, 1.0])
    for expectile in (0.1, 0.5, 0.7, 0.95):
        grid = torch.linspace(0, 1, 1001)
        losses = torch.stack([expectile_loss(x - v, expectile) for v in grid])
        assert float(grid[losses.argmin()]) == pytest.approx(expectile, abs=1e-3)


def test_cloning_weights_are_exponentials_up_to_a_hundred() -> None:
    weights = cloning_weights(torch.tensor([0.0, 1.0, -1.0, 50.0]), 2.0)
    assert weights.tolist() == pytest.approx([1.0, np.exp(2), np.exp(-2), 100.0])
    assert cloning_weights(torch.tensor([3.0, -7.0]), 0.0).tolist() == [1.0, 1.0]


def test_the_contrastive_loss_by_hand() -> None:
    first, second = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.4, 0.4, 0.4])
    a, b = np.exp(1.0), np.exp(0.4)
    for_first = -np.log(a / (a + np.exp(0.5 * 0.4)))
    for_second = -np.log(b / (b + np.exp(0.5 * 1.0)))
    expected = (for_first + for_second + (for_first + for_second) / 2) / 3
    found = contrastive_loss(first, second, torch.tensor([1.0, 0.0, 0.5]), 0.5)
    assert float(found) == pytest.approx(expected)


@given(st.floats(-20, 20), st.floats(-20, 20), st.sampled_from([0.0, 0.5, 1.0]))
@example(-20.0, 0.5, 1.0)  # where PyTorch's softplus is off by 1e-9
def test_without_bias_the_contrastive_loss_is_that_of_preferences(first: float, second: float, p: float) -> None:
    a, b, preference = (torch.tensor([x], dtype=torch.float64) for x in (first, second, p))
    found = contrastive_loss(a, b, preference, 1.0)
    assert float(found) == pytest.approx(float(preference_loss(a, b, preference)), abs=1e-9)


# ------------------------------------------------------------------------------------------------ rewards


def test_returns_range_over_the_steps_of_the_longest_episode_whatever_the_scale() -> None:
    rng, lengths = np.random.default_rng(0), np.array([50, 100, 80])
    rewards = rng.normal(size=230)
    scaled = scaled_rewards(rewards, lengths, "plain")
    returns = np.add.reduceat(scaled, [0, 50, 150])
    assert returns.max() - returns.min() == pytest.approx(100)
    assert scaled_rewards(1e-3 * rewards, lengths, "plain") == pytest.approx(scaled)
    assert scaled_rewards(1e-3 * rewards + 7.0, np.array([230]), "worst").std() > 0  # one episode: no range to go by


def test_what_follows_an_end_is_as_bad_as_the_worst_or_as_good_as_the_best_steps() -> None:
    rewards, lengths = np.linspace(-3, 5, 1000), np.array([400, 600])
    worst, best = (scaled_rewards(rewards, lengths, ends) for ends in ("worst", "best"))
    assert (worst < 0).mean() == pytest.approx(0.01, abs=0.002)
    assert (best > 0).mean() == pytest.approx(0.01, abs=0.002)
    assert scaled_rewards(np.zeros(1000), lengths, "worst").tolist() == [0.0] * 1000
    with pytest.raises(UserError, match=r"ends must be worst, best, plain\. Received 'bad'"):
        scaled_rewards(rewards, lengths, "bad")


# ------------------------------------------------------------------------------------------------ the policy


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-2.0, 6.0, (2,)),
        spaces.Box(np.array([0, -np.inf], np.float32), np.array([1, np.inf], np.float32)),
        spaces.Discrete(4, start=3),
        spaces.MultiDiscrete([3, 2], start=[1, -1]),
        spaces.MultiBinary(3),
    ],
)
def test_actions_of_the_environment_become_those_of_the_policy_and_back(space: spaces.Space[Any]) -> None:
    space.seed(0)
    actions = np.stack([np.asarray(space.sample()) for _ in range(20)])
    policy = OfflinePolicy(spaces.Box(-1, 1, (3,)), space, (8,), learning_rate=1e-3, seed=0)
    there = policy.actions.from_env(actions)
    np.testing.assert_allclose(policy.actions.to_env(there), actions, rtol=1e-5)


def test_bounded_actions_are_in_units_of_half_their_range() -> None:
    scale = ActionScale(spaces.Box(-2.0, 6.0, (1,)))
    assert scale.from_env(np.array([[-2.0], [2.0], [6.0]])).ravel().tolist() == [-1.0, 0.0, 1.0]


def test_a_ppo_agent_acts_with_the_policy_as_it_was_learned() -> None:
    policy = OfflinePolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (1,)), (16, 16), learning_rate=1e-2, seed=1)
    observations = np.random.default_rng(0).normal(3.0, 2.0, (64, 3)).astype(np.float32)
    policy.see(observations)
    inputs = policy.inputs.encode(observations)
    for _ in range(5):
        policy.log_prob(inputs, torch.full((64, 1), 0.5))
        policy.step(torch.full((64,), -1 / 64), 1.0)
    envs = gymnasium.make_vec(
        "Pendulum-v1", 1, vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    )
    agent = AGENTS.find("ppo").make(
        envs,
        total_env_steps=100,
        hyperparameters=policy_hyperparameters((16, 16)),
        seed=9,
        device="cpu",
        pass_true_reward=False,
    )
    agent.load_policy_state(policy.policy_state())
    np.testing.assert_array_equal(agent.act(observations), policy.act(observations, torch.Generator()))
    agent.close()


def test_cloning_raises_the_likelihood_of_the_data_and_noise_stays_within_bounds() -> None:
    policy = OfflinePolicy(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), (16,), learning_rate=1e-2, seed=0)
    inputs, actions = torch.randn(128, 2, generator=torch.Generator().manual_seed(0)), torch.full((128, 1), 0.25)
    before = float(policy.log_prob(inputs, actions).mean())
    for _ in range(1500):
        policy.log_prob(inputs, actions)
        policy.step(torch.full((128,), -1 / 128), 1.0)
    assert float(policy.log_prob(inputs, actions).mean()) > before + 2
    assert float(policy.actions.parameters()[0].min()) >= -5.0  # data without noise would make it go to minus infinity


# ------------------------------------------------------------------------------------------------ a known optimum


PLACES, RIGHT = 5, 1
BEST = [0, 1, 1, 1, 1]
VALUES = [7.0, 7.29, 8.1, 9.0, 10.0]
"""By hand, discount 0.9: staying at the last place earns 1 a step, 10 in all, staying at the first 0.7 a step, 7 in
all. From the first, the last is four steps away: 10 x 0.9^4 = 6.56 < 7; from the second three: 7.29 > 0.9 x 7 = 6.3."""


def step_of(place: int, action: int) -> tuple[int, float]:
    """Return where a step in a corridor of five places leads, and its reward: 0.7 at the left wall, 1 at the right."""
    if action == RIGHT:
        return min(place + 1, 4), float(place == 4)
    return max(place - 1, 0), 0.7 * (place == 0)


def walks(num: int, steps: int = 30, seed: int = 0, *, ends: bool = False) -> list[GivenEpisode]:
    """Return random walks in the corridor; with `ends`, the last step of each counts as a termination."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(num):
        seen, earned = [int(rng.integers(PLACES))], []
        done = rng.integers(2, size=int(rng.integers(2, steps)) if ends else steps)
        for action in done.tolist():
            place, reward = step_of(seen[-1], action)
            seen.append(place)
            earned.append(reward)
        found.append(
            GivenEpisode(observations=np.array(seen), actions=done, true_rewards=np.array(earned), terminated=ends)
        )
    return found


PENDULUM = spaces.Box(-8.0, 8.0, (3,)), spaces.Box(-2.0, 2.0, (1,))
CORRIDOR = spaces.Discrete(PLACES), spaces.Discrete(2)
FAST = LearnerSettings(
    hidden=(32,), batch_size=128, discount=0.9, expectile=0.9, temperature=10.0, target_rate=0.1, learning_rate=1e-2
)


def corridor_learner() -> tuple[Any, OfflinePolicy, Any]:
    data = make_data("walks", CORRIDOR, World(), walks(200))
    policy = OfflinePolicy(*CORRIDOR, (32,), learning_rate=1e-2, seed=0)
    show_all(data, policy)
    return data, policy, make_transitions(data, policy, data.rollout.true_rewards[:, 0])


def teach(learner: Any, num_rows: int, num_pairs: int, updates: int = 700) -> None:
    rng = np.random.default_rng(0)
    for update in range(updates):
        rows = torch.from_numpy(rng.integers(num_rows, size=128))
        pairs = torch.from_numpy(rng.integers(num_pairs, size=32)) if num_pairs else torch.zeros(0, dtype=torch.int64)
        learner.update(rows, pairs, 1 - update / updates)


def chosen(policy: OfflinePolicy) -> list[int]:
    """Return the likeliest action at each place."""
    return policy._network.policy(policy.inputs.encode(np.arange(PLACES))).argmax(1).tolist()


def compared(data: Any, worth: Any, scale: float, length: int = 4, num: int = 600) -> Comparisons:
    """Return comparisons of random segments, answered with the exact probabilities of Bradley-Terry."""
    rng = np.random.default_rng(1)
    begins = np.concatenate([[0], np.cumsum(data.lengths)[:-1]])
    rows = begins[rng.integers(len(begins), size=(num, 2))] + rng.integers(30 - length + 1, size=(num, 2))
    places = data.rollout.observations[:-1, 0]
    worths = np.array([worth(s, a) for s, a in zip(places, data.rollout.actions[:, 0], strict=True)])
    sums = worths[rows[..., None] + np.arange(length)].sum(-1)
    likely = 1 / (1 + np.exp(-scale * (sums[:, 0] - sums[:, 1])))
    return Comparisons(
        first_rows=torch.from_numpy(rows), preferences=torch.tensor(likely, dtype=torch.float32), length=length
    )


def advantage_of(place: int, action: int) -> float:
    following, reward = step_of(int(place), int(action))
    return reward + 0.9 * VALUES[following] - VALUES[int(place)]


def test_the_values_by_hand_are_those_of_the_best_policy() -> None:
    assert max(abs(max(advantage_of(s, a) for a in (0, 1))) for s in range(PLACES)) < 1e-9
    assert [int(np.argmax([advantage_of(s, a) for a in (0, 1)])) for s in range(PLACES)] == BEST


def test_iql_finds_the_best_policy_of_a_corridor_from_random_walks() -> None:
    _, policy, transitions = corridor_learner()
    learner = Iql(transitions, policy, FAST, torch.Generator().manual_seed(0))
    teach(learner, len(transitions), 0)
    assert chosen(policy) == BEST
    # of two equally frequent actions the expectile t is t times the better and 1 - t times the worse
    exact = np.zeros(PLACES)
    for _ in range(500):
        q = np.array([[r + 0.9 * exact[to] for to, r in (step_of(s, a) for a in (0, 1))] for s in range(PLACES)])
        exact = 0.9 * q.max(1) + 0.1 * q.min(1)
    assert q.argmax(1).tolist() == BEST
    values = learner.values.value(policy.inputs.encode(np.arange(PLACES))).detach().numpy()
    np.testing.assert_allclose(values, exact, rtol=0.05)


@pytest.mark.slow
def test_ipl_finds_it_from_comparisons_by_reward_alone() -> None:
    data, policy, transitions = corridor_learner()
    transitions = replace(transitions, rewards=torch.full_like(transitions.rewards, torch.nan))  # it reads none
    pairs = compared(data, lambda s, a: step_of(int(s), int(a))[1], 3.0)
    settings = replace(FAST, regularisation=1e-3, temperature=3.0)
    teach(Ipl(transitions, pairs, policy, settings, torch.Generator().manual_seed(0)), len(transitions), len(pairs))
    assert chosen(policy) == BEST


def test_cpl_finds_it_from_comparisons_by_advantage_alone() -> None:
    data, policy, transitions = corridor_learner()
    transitions = replace(transitions, rewards=torch.full_like(transitions.rewards, torch.nan))
    pairs = compared(data, advantage_of, 3.0)
    settings = replace(FAST, contrast=1.0, bias=1.0, cloning_share=0.2)
    teach(Cpl(transitions, pairs, policy, settings), len(transitions), len(pairs))
    assert chosen(policy) == BEST
    outputs = policy._network.policy(policy.inputs.encode(np.arange(PLACES))).log_softmax(1)
    gaps = (outputs[:, 1] - outputs[:, 0]).numpy()  # alpha log pi is the advantage: a gap of 3 x (A(right) - A(left))
    expected = [3.0 * (advantage_of(s, 1) - advantage_of(s, 0)) for s in range(PLACES)]
    assert np.corrcoef(gaps, expected)[0, 1] > 0.95


def test_cpl_leaves_the_noise_as_cloning_left_it() -> None:
    data = make_data("swings", PENDULUM, World(), pendulum_episodes(6))
    policy = OfflinePolicy(*PENDULUM, (16,), learning_rate=1e-2, seed=0)
    show_all(data, policy)
    transitions = make_transitions(data, policy, np.zeros(360))
    rows = torch.arange(0, 100, 10).view(-1, 2)
    pairs = Comparisons(first_rows=rows, preferences=torch.ones(5), length=5)
    learner = Cpl(transitions, pairs, policy, replace(FAST, cloning_share=0.5))
    learner.update(torch.arange(64), torch.arange(5), 0.9)
    noise = policy.actions.parameters()[0].clone()
    before = policy.policy_state()["network"]["actor.weights.0"]
    learner.update(torch.arange(64), torch.arange(5), 0.4)
    assert torch.equal(policy.actions.parameters()[0], noise)
    assert not torch.equal(policy.policy_state()["network"]["actor.weights.0"], before)


# ------------------------------------------------------------------------------------------------ data


def pendulum_episodes(num: int, steps: int = 60, seed: int = 0) -> list[GivenEpisode]:
    """Return episodes from clumsy to good: a swing with more and less noise."""
    rng, env, found = np.random.default_rng(seed), gymnasium.make("Pendulum-v1"), []
    for number in range(num):
        seen, done, earned = [env.reset(seed=number)[0]], [], []
        skill = number % 3 / 2
        for _ in range(steps):
            cosine, sine, speed = seen[-1]
            angle = np.arctan2(sine, cosine)
            good = -(10 * angle + 2.5 * speed) if abs(angle) < 0.6 else -speed * (0.5 * speed**2 + 10 * (cosine - 1))
            drawn = skill * np.clip(good, -2, 2) + (1 - skill) * rng.uniform(-2, 2)
            done.append(np.array([np.clip(drawn, -2, 2)], np.float32))
            observation, reward, _, _, _ = env.step(done[-1])
            seen.append(observation)
            earned.append(float(reward))
        found.append(
            GivenEpisode(
                observations=np.array(seen),
                actions=np.array(done),
                true_rewards=np.array(earned),
                terminated=False,
                seed=number,
            )
        )
    env.close()
    return found


def save(episodes: list[GivenEpisode], folder: Path) -> Path:
    folder.mkdir()
    for number, one in enumerate(episodes):
        more = {} if one.seed is None else {"seed": np.array(one.seed)}
        np.savez(
            folder / f"{number:03d}.npz",
            observations=one.observations,
            actions=one.actions,
            rewards=one.true_rewards,
            terminated=np.array(one.terminated),
            **more,
        )
    return folder


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(pendulum_episodes(12), tmp_path_factory.mktemp("data") / "pendulum")


def test_episodes_come_back_from_files_as_they_were(pendulum: Path) -> None:
    data, episodes = read_data(str(pendulum), World(env_id="Pendulum-v1")), pendulum_episodes(12)
    assert len(data.episodes) == len(data.history.closed) == 12
    assert data.lengths.tolist() == [60] * 12
    for number, (one, known) in enumerate(zip(data.history.closed, episodes, strict=True)):
        whole = one.segment(0, 60)
        np.testing.assert_array_equal(whole.observations, known.observations)
        np.testing.assert_array_equal(whole.actions, known.actions)
        np.testing.assert_array_equal(whole.true_rewards, known.true_rewards)
        assert one.number == number and one.truncated and not one.terminated
    assert data.fingerprint == read_data(str(pendulum), World(env_id="Pendulum-v1")).fingerprint


def test_rows_of_transitions_are_the_steps_of_the_data() -> None:
    given = walks(6, ends=True)
    data = make_data("walks", CORRIDOR, World(), given)
    policy = OfflinePolicy(data.observation_space, data.action_space, (4,), learning_rate=1e-3, seed=0)
    found = make_transitions(data, policy, data.rollout.true_rewards[:, 0])
    row = 0
    for episode in given:
        for step in range(len(episode.actions)):
            at = int(found.at[row])
            assert int(found.observations[at].argmax()) == episode.observations[step]
            assert int(found.observations[at + 1].argmax()) == episode.observations[step + 1]
            assert int(found.action_features[row].argmax()) == episode.actions[step]
            last = step == len(episode.actions) - 1
            assert float(found.goes_on[row]) == float(not (last and episode.terminated))
            row += 1
    assert row == len(found)


def test_a_run_is_data_with_the_environment_that_it_was_in(tmp_path: Path) -> None:
    settings = TrainSettings(
        env_id="CartPole-v1", fixed_horizon=0, labels=4, steps=256, num_envs=2, segment_length=5, warmup_steps=64,
        hyperparameters={"n_steps": 32, "batch_size": 32, "n_epochs": 1}, fit=FitSettings(num_steps=1, first_steps=1),
        num_checkpoints=1, eval_episodes=1,
    )  # fmt: skip
    folder = train(settings, tmp_path / "run", quiet=True)
    data = read_data(str(folder.path))
    assert data.world.env_id == "CartPole-v1"
    assert data.lengths.sum() == 256
    assert data.figures()["ends"] > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"observations": np.zeros((60, 3), np.float32)}, "has 60 actions, 60 observations and 60 rewards"),
        ({"observations": np.zeros((61, 4), np.float32)}, r"its observations have shape \(4,\) where it should be"),
        ({"actions": np.zeros((60, 2), np.float32)}, r"its actions have shape \(2,\)"),
        ({"actions": np.full((60, 1), np.nan, np.float32)}, "actions that are NaN or infinite"),
        ({"rewards": np.zeros(59)}, "59 rewards"),
        ({"terminated": np.array([True, False])}, "only the last step"),
        ({"actions": np.array(3.0)}, "one for each step"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    arrays = {
        "observations": np.zeros((61, 3), np.float32),
        "actions": np.zeros((60, 1), np.float32),
        "rewards": np.zeros(60),
    }
    np.savez(tmp_path / "one.npz", **(arrays | change))
    with pytest.raises(UserError, match=told):
        read_data(str(tmp_path / "one.npz"), World(env_id="Pendulum-v1"))


def test_data_of_another_environment_are_refused(pendulum: Path) -> None:
    with pytest.raises(UserError, match="does not fit its spaces: its observations have shape"):
        read_data(str(pendulum), World(env_id="MountainCarContinuous-v0"))


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"There are no data in .*empty"):
        read_data(str(tmp_path / "empty"))
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match=r"bad\.npz cannot be read"):
        read_data(str(tmp_path / "bad.npz"))
    (tmp_path / "some").mkdir()
    for number in range(3):
        known = {"rewards": np.zeros(2)} if number else {}
        np.savez(tmp_path / "some" / f"{number}.npz", observations=np.zeros((3, 2)), actions=np.zeros((2, 1)), **known)
    with pytest.warns(UserWarning, match="1 of the 3 episodes of .* without a true reward"):
        read_data(str(tmp_path / "some"))
    np.savez(tmp_path / "half.npz", observations=np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"half\.npz holds no .*actions"):
        read_data(str(tmp_path / "half.npz"))


def test_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Offline learners read vectors, and these observations are images"):
        OfflinePolicy(spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Discrete(2), (8,), learning_rate=1e-3, seed=0)


def test_minari_data_come_back_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from prefrl.offline.minari_data import write_minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = pendulum_episodes(3)
    env = gymnasium.make("Pendulum-v1")
    folder = write_minari("pendulum/mixed-v0", env, episodes)
    env.close()
    there = minari.load_dataset("pendulum/mixed-v0")  # as the library itself reads it
    assert there.total_episodes == 3 and there.total_steps == 180
    np.testing.assert_array_equal(there[1].actions, episodes[1].actions)
    for place in ("pendulum/mixed-v0", str(folder), str(folder / "data")):
        data = read_data(place)
        assert data.world.env_id == "Pendulum-v1"
        assert data.observation_space == gymnasium.make("Pendulum-v1").observation_space
        for one, known in zip(data.episodes, episodes, strict=True):
            np.testing.assert_array_equal(one.observations, known.observations)
            np.testing.assert_array_equal(one.actions, known.actions)
            np.testing.assert_array_equal(one.true_rewards, known.true_rewards)
            assert one.seed == known.seed
    with pytest.raises(UserError, match="There are no data 'pendulum/none-v0'"):
        read_data("pendulum/none-v0")
    (folder / "data" / "main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_data(str(folder))


def test_without_minari_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match=r'pip install "prefrl\[offline\]"'):
        read_data("some/data-v0")


# ------------------------------------------------------------------------------------------------ runs


USUAL_FIT = OfflineSettings(dataset="any").fit


def few(pendulum: Path, **changes: Any) -> OfflineSettings:
    settings = OfflineSettings(
        dataset=str(pendulum),
        env="Pendulum-v1",
        labels=12,
        steps=120,
        segment_length=10,
        fit=FitSettings(first_steps=10, num_steps=5),
        learner=LearnerSettings(hidden=(16,), batch_size=32),
        eval_episodes=2,
        num_checkpoints=3,
    )
    return replace(settings, **changes)


def policy_of(folder: OfflineFolder) -> torch.Tensor:
    state = folder.load_policy("last")
    return torch.cat([tensor.reshape(-1) for tensor in state["network"].values()])


@pytest.fixture(scope="module")
def finished(pendulum: Path, tmp_path_factory: pytest.TempPathFactory) -> OfflineFolder:
    controls = ("true", "zero", "random", "cloning")
    return runs.offline(few(pendulum), tmp_path_factory.mktemp("runs") / "run", controls=controls, quiet=True)


@pytest.mark.slow
def test_a_run_has_what_every_run_has(finished: OfflineFolder) -> None:
    summary = finished.read_summary()
    assert summary["labels"] == 12 and summary["steps"] == 120
    assert summary["data"]["episodes"] == 12 and summary["data"]["steps"] == 720
    assert summary["true_return_mean"] < 0 and summary["random_true_return_mean"] < 0
    assert set(summary["controls"]) == {"true", "zero", "random", "cloning"}
    assert [row["num_updates"] for row in finished.read_metrics()] == [0, 40, 80, 120]
    for name in ("before", "during", "last"):
        finished.load_policy(name)
    with PreferenceStore(finished.path / "record.sqlite") as store:
        assert store.num_answers() == 12
        assert {query.session for query in map(store.query, store.query_ids())} == {0, 1, 2, 3}
    assert (finished.path / "curves.png").is_file() and (finished.path / "reward.safetensors").is_file()
    assert not (finished.path / "controls" / "true" / "record.sqlite").exists()


@pytest.mark.slow
def test_a_finished_run_is_played_reported_and_refused_to_go_on(finished: OfflineFolder) -> None:
    kept = KeptPolicy(finished, "last")
    assert kept.act(np.zeros((2, 3), np.float32)).shape == (2, 1)
    kept.close()
    from prefrl.studies.report import report_run

    card = report_run(finished)
    assert card.num_segments > 10 and (finished.path / "report.png").is_file()
    with pytest.raises(UserError, match="is finished"):
        runs.resume(finished.path, quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["the first part", "half a part"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    finished: OfflineFolder, pendulum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    settings, whole = few(pendulum), OfflineTrainer._part
    stopped = []

    def part(self: OfflineTrainer, learner: Any, num_pairs: int, done: int) -> int:
        if not stopped:
            stopped.append(True)
            if after == "half a part":
                original = learner.update
                calls = []

                def update(*given: Any) -> Any:
                    calls.append(1)
                    if len(calls) == 7:
                        raise KeyboardInterrupt
                    return original(*given)

                learner.update = update
            else:
                self.stop()
        return whole(self, learner, num_pairs, done)

    monkeypatch.setattr(OfflineTrainer, "_part", part)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        runs.offline(settings, tmp_path / "run", quiet=True)
    folder = runs.offline(settings, tmp_path / "run", quiet=True)  # the same command again
    assert torch.equal(policy_of(folder), policy_of(finished))

    def figures(one: OfflineFolder) -> list[dict[str, Any]]:
        return [{name: v for name, v in row.items() if name != "seconds"} for row in one.read_metrics()]

    assert figures(folder) == figures(finished)


@pytest.mark.slow
def test_the_same_folder_with_other_settings_or_other_data_is_refused(
    finished: OfflineFolder, pendulum: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="was begun with other settings: steps is 120 there"):
        runs.offline(few(pendulum, steps=121), finished.path, quiet=True)
    there = save(pendulum_episodes(4), tmp_path / "data")
    folder = runs.offline(few(there, labels=4), tmp_path / "run", quiet=True)
    (there / "000.npz").unlink()
    with pytest.raises(UserError, match=r"are not those that the run in .* was begun with"):
        runs.data_of(folder)


def test_data_without_an_environment_are_learned_from_and_no_return_is_claimed(
    pendulum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="No environment is named: actions are taken to be Box"):
        folder = runs.offline(few(pendulum, env=None), tmp_path / "run", quiet=True)
    summary = folder.read_summary()
    assert summary["true_return_mean"] is None and summary["num_episodes"] is None
    from prefrl.cli import main

    assert main(["evaluate", str(folder.path)]) == 2
    assert "name no environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"segment_length": 61}, "longer than every episode"),
        ({"method": "cpl", "reward_from": "zero"}, "--reward-from zero is for --method iql"),
        ({"reward": RewardSettings(groups=2)}, "--reward.groups is of prefrl train"),
        ({"method": "ipl", "queries": QuerySettings(feedback="rating")}, "learns from which segment is better"),
        ({"method": "cpl", "queries": QuerySettings(method="k-center")}, "fits no reward by which to choose"),
        ({"method": "cpl"}, "--method cpl fits no reward model .* so --fit.num-steps does nothing"),
        (
            {"reward_from": "true", "fit": USUAL_FIT, "reward": RewardSettings(network="transformer")},
            "--reward-from true fits no reward model .* so --reward.network does nothing",
        ),
        ({"labels": 0}, "labels must be at least 1"),
        ({"teacher": "oracl"}, "Did you mean 'oracle'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    pendulum: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        runs.offline(few(pendulum, **changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_an_offline_run_is_evaluated_and_shown_by_the_command(
    finished: OfflineFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefrl.cli import main

    assert main(["evaluate", str(finished.path), "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_episodes"] == 1
    assert main(["evaluate", str(finished.path), "--episodes", "1"]) == 0
    shown = capsys.readouterr().out
    assert "IQL on 12 answers" in shown and "IQL on the true reward" in shown and "Cloning" in shown
    assert main(["resume", str(finished.path), "--labels", "+5"]) == 2
    assert "--labels and --steps are for control runs" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ipl", "cpl"])
def test_without_a_reward_model_all_questions_come_at_once_and_a_stopped_run_goes_on(
    pendulum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    settings = few(pendulum, method=method, fit=USUAL_FIT)
    whole = runs.offline(settings, tmp_path / "whole", quiet=True)
    assert not whole.reward_path.exists() and whole.read_summary()["held_out_agreement"] is None
    with PreferenceStore(whole.path / "record.sqlite") as store:
        assert {query.session for query in map(store.query, store.query_ids())} == {0}
    part, stopped = OfflineTrainer._part, []

    def stop_once(self: OfflineTrainer, *given_: Any) -> int:
        if not stopped:
            stopped.append(True)
            self.stop()
        return part(self, *given_)

    monkeypatch.setattr(OfflineTrainer, "_part", stop_once)
    with pytest.raises(Interrupted):
        runs.offline(settings, tmp_path / "run", quiet=True)
    assert torch.equal(policy_of(runs.resume(tmp_path / "run", quiet=True)), policy_of(whole))


def test_a_transformer_judges_steps_in_their_episodes(pendulum: Path, tmp_path: Path) -> None:
    settings = few(pendulum, reward=RewardSettings(network="transformer", hidden=(8,)))
    folder = runs.offline(settings, tmp_path / "run", quiet=True)
    reward, data = RewardEnsemble.load(folder.reward_path), runs.data_of(folder)
    steps = data.rollout.flat_transitions()
    assert not np.allclose(reward.of_episodes(*steps, data.lengths, 10), reward(*steps))
    assert folder.read_summary()["held_out_agreement"] is not None


def test_a_ranking_teaches_ipl_the_comparisons_of_each_two(pendulum: Path, tmp_path: Path) -> None:
    ranked = QuerySettings(feedback="ranking", num_ranked=3)
    folder = runs.offline(
        few(pendulum, method="ipl", labels=4, queries=ranked, fit=USUAL_FIT), tmp_path / "run", quiet=True
    )
    assert folder.read_summary()["labels"] == 4


def test_rewards_are_not_read_where_none_may_be(finished: OfflineFolder) -> None:
    assert make_run_agent(finished.settings, seed=0, device="cpu", num_envs=1).action_space.shape == (1,)
    zero = finished.controls["zero"]
    advantages = [row["advantage"] for row in zero.read_metrics() if "advantage" in row]
    assert np.abs(advantages).max() < 0.5  # values of nothing, at their start


def answer_all(place: Path, name: str = "anna") -> int:
    """Answer what waits in a record, as somebody who goes by the true reward; return how many answers these are."""
    with PreferenceStore(place) as store:
        claims = store.claim(name, 100, with_clips=True, repeat_share=0.0)
        for claim in claims:
            query = store.query(claim.query.id)
            first, second = (segment.true_rewards.sum() for segment in query.segments)
            answer = Comparison(query_id=query.id, annotator=name, preference=float(first > second), claim=claim.token)
            store.add_answers([answer])
        return len(claims)


@pytest.mark.slow
def test_people_answer_between_calls_of_the_command_and_see_the_episodes_as_they_were(
    pendulum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = few(pendulum, annotator="human", queries=QuerySettings(num_sessions=1), labels=6, steps=30)
    settings = replace(settings, instruction="upright")
    folder = runs.offline(settings, tmp_path / "run", quiet=True)
    assert not folder.finished
    assert "2 questions wait. Answer them with: prefrl label" in capsys.readouterr().err
    with PreferenceStore(folder.record) as store:
        asked = store.open_queries()
        assert {query.instruction for query in asked} == {"upright"}
        shown = asked[0].segments[0]
        clip = store.clips([shown.id])[shown.id]
        assert clip.num_frames == 10
        assert store.facts()["labels_wanted"] == 6
    assert answer_all(folder.path / "record.sqlite") == 2
    assert not runs.offline(settings, tmp_path / "run", quiet=True).finished  # the second session, by the reward
    assert answer_all(folder.path / "record.sqlite") == 4
    again = runs.resume(folder.path, quiet=True)
    assert again.finished and again.read_summary()["labels"] == 6


def test_pictures_of_an_episode_played_again_are_those_of_the_environment(pendulum: Path) -> None:
    data = read_data(str(pendulum), World(env_id="Pendulum-v1"))
    env = data.world.make("rgb_array")
    env.reset(seed=data.episodes[2].seed)
    true = []
    for action in data.episodes[2].actions[:12]:
        env.step(action)
        true.append(env.render())
    segment = data.history.closed[2].segment(8, 4)
    again = _draw(env, data.episodes[2], [segment])
    np.testing.assert_array_equal(np.stack(again[8:]), np.stack(true[8:]))
    env.close()


def test_episodes_that_cannot_be_shown_are_not_asked_about(pendulum: Path, tmp_path: Path) -> None:
    data = read_data(str(pendulum), World(env_id="Pendulum-v1"))
    some = [replace(one, seed=one.seed if number < 5 else 99) for number, one in enumerate(data.episodes)]
    changed = make_data("some", PENDULUM, data.world, some)
    with pytest.warns(UserWarning, match="7 of 12 episodes hold no frames and cannot be played again"):
        assert [one.number for one in shown_history(changed).closed] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="People cannot be shown these data"):
        runs.offline(few(pendulum, env="none", annotator="human"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


ONLINE = TrainSettings(
    env_id="Pendulum-v1", labels=4, steps=256, num_envs=2, warmup_steps=64, fit=FitSettings(num_steps=2, first_steps=2),
    hyperparameters={"n_steps": 32, "batch_size": 32, "n_epochs": 1}, num_checkpoints=1, eval_episodes=1,
)  # fmt: skip


@pytest.mark.slow
def test_an_online_run_starts_from_policy_reward_and_answers_of_an_offline_one(
    finished: OfflineFolder, tmp_path: Path
) -> None:
    folder = train(replace(ONLINE, from_offline=str(finished.path)), tmp_path / "run", quiet=True)
    first, last = folder.load_policy("before"), finished.load_policy("last")
    for name, weights in last["network"].items():
        assert torch.equal(first["network"][name], weights)
    assert folder.settings.segment_length == 10
    with PreferenceStore(folder.record) as store:
        assert store.facts()["labels_before"] == 12
    before, after = (RewardEnsemble.load(one.reward_path) for one in (finished, folder))
    assert torch.equal(before.least_input_std, after.least_input_std)  # as the warm-up of the online run has none


def test_a_bonus_for_exploring_leaves_the_network_that_an_online_run_starts_from(
    finished: OfflineFolder, tmp_path: Path
) -> None:
    path = tmp_path / "own"
    shutil.copytree(finished.path, path)
    config = json.loads((path / "config.json").read_text())
    config["settings"]["reward"] |= {"network": "dynamics", "pessimism": 0.5}
    (path / "config.json").write_text(json.dumps(config))
    there = from_json(RewardSettings, config["settings"]["reward"])
    for reward in (RewardSettings(), RewardSettings(bonus=0.1), RewardSettings(bonus=0.1, bonus_decay=1e-3)):
        taken = with_start(replace(ONLINE, from_offline=str(path), reward=reward)).reward
        assert taken == replace(there, bonus=reward.bonus, bonus_decay=reward.bonus_decay)
    other = RewardSettings(pessimism=0.2, bonus=0.1)
    assert with_start(replace(ONLINE, from_offline=str(path), reward=other)).reward == other


def test_what_an_online_run_cannot_start_from_is_refused(finished: OfflineFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not go with --agent sac"):
        train(replace(ONLINE, agent="sac", hyperparameters={}, from_offline=str(finished.path)), tmp_path / "a")
    with pytest.raises(UserError, match="of another environment"):
        train(replace(ONLINE, env_id="MountainCarContinuous-v0", from_offline=str(finished.path)), tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    cloned = finished.controls["cloning"].path  # nothing was asked: its policy is all that it brings
    with pytest.raises(UserError, match="does not fit this environment"):
        train(replace(ONLINE, env_id="MountainCarContinuous-v0", from_offline=str(cloned)), tmp_path / "c", quiet=True)
