"""A reward network that knows the dynamics: what it learns from steps that nobody was asked about."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from prefrl.control import TrainSettings
from prefrl.errors import UserError
from prefrl.offline.settings import OfflineSettings
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.rewards.dynamics import EnsembleDynamics, consistency_loss
from prefrl.rewards.dynamics_learner import DynamicsLearner
from prefrl.segments import Segment, Transitions

S, A, M = 5, 2, 3
OBSERVATIONS, ACTIONS = spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-1, 1, (A,))
PULL, PUSH = (np.random.default_rng(seed).normal(size=size) for seed, size in ((1, (S, S)), (2, (A, S))))


def linear_steps(num: int, seed: int = 0) -> Transitions:
    """Return steps of a linear system, whose states differ in scale and are not centred."""
    rng = np.random.default_rng(seed)
    scale = np.array([0.1, 1.0, 10.0, 1.0, 1.0])
    states, actions = rng.normal(size=(num, S)), rng.uniform(-1, 1, (num, A))
    return states * scale + 3, actions, (0.5 * states @ PULL + actions @ PUSH) * scale + 3


def make_reward(seed: int = 0, **settings: Any) -> RewardEnsemble:
    given: dict[str, Any] = {"network": "dynamics", "hidden": (16, 8), "encoders": (6, 4), "num_members": M}
    reward = RewardEnsemble(OBSERVATIONS, ACTIONS, RewardSettings(**given | settings), seed=seed)
    reward.set_input_statistics(*linear_steps(500, seed=9))
    return reward


def network_of(reward: RewardEnsemble) -> EnsembleDynamics:
    assert isinstance(reward.network, EnsembleDynamics)
    return reward.network


def encoded(reward: RewardEnsemble, steps: Transitions) -> tuple[Tensor, Tensor]:
    return DynamicsLearner(reward, num_steps=1, batch_size=1)._encoded(steps)


def make_data(reward: RewardEnsemble, num: int = 40, length: int = 6) -> ComparisonData:
    data = ComparisonData(reward, length, capacity=num)
    pairs, preferences = [], []
    for number in range(num):
        pair = []
        for side in (0, 1):
            states, actions, _ = linear_steps(length + 1, seed=100 + 2 * number + side)
            assert isinstance(states, np.ndarray)
            worth = states[:length, 0]
            pair.append(Segment(observations=states, actions=actions[:length], true_rewards=worth))
        pairs.append((pair[0], pair[1]))
        preferences.append(float(pair[0].true_rewards.sum() > pair[1].true_rewards.sum()))
    data.add(pairs, preferences, np.random.default_rng(0))
    return data


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(state: dict[str, Any]) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.items()}


# --- the loss ---


def test_the_loss_is_minus_the_mean_cosine_of_each_member() -> None:
    predicted = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [3.0, 4.0]]])
    target = torch.tensor([[[5.0, 0.0], [3.0, 0.0]], [[-2.0, -2.0], [4.0, 3.0]]])
    torch.testing.assert_close(consistency_loss(predicted, target), torch.tensor([-0.5, (1 - 24 / 25) / 2]))


def test_predictions_and_targets_are_those_of_members_computed_apart() -> None:
    reward = make_reward()
    network = network_of(reward)
    now, later = encoded(reward, linear_steps(30))

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.01 * x)

    def projected(x: Tensor, member: int) -> Tensor:
        return leaky((x - x.mean(0)) / (x.std(0, correction=0) + 1e-5)) @ network.project[member]

    predicted, target = network.next_encodings(now, later)
    rewards = reward.network(reward.features(*linear_steps(30)))
    for m in range(M):
        weights, biases = [w[m] for w in network.weights], [b[m, 0] for b in network.biases]
        of_state, of_action = weights[0][:S, :6], weights[0][S:, 6:]
        state, action = leaky(now[:, :S] @ of_state + biases[0][:6]), leaky(now[:, S:] @ of_action + biases[0][6:])
        hidden = torch.cat([state, action], 1)
        for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
            hidden = leaky(hidden @ weight + bias)
        torch.testing.assert_close(rewards[m], (hidden @ weights[-1] + biases[-1])[:, 0])
        following = projected(hidden @ network.following[m] + network.following_bias[m, 0], m)
        told = leaky(following @ network.predict_in[m]) @ network.predict_out[m]
        torch.testing.assert_close(predicted[m], told, rtol=1e-4, atol=1e-5)
        after = projected(leaky(later @ of_state + biases[0][:6]), m)
        torch.testing.assert_close(target[m], after, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences_with_the_targets_held() -> None:
    reward = make_reward()
    network = network_of(reward).double()
    now, later = (part.double() for part in encoded(reward, linear_steps(12)))
    predicted, target = network.next_encodings(now, later)
    consistency_loss(predicted, target).sum().backward()
    step = 1e-6
    for parameter in network.dynamics_parameters():
        gradient = parameter.grad
        assert gradient is not None
        flat, of_flat = parameter.data.reshape(-1), gradient.reshape(-1)
        for place in np.random.default_rng(0).choice(len(flat), min(8, len(flat)), replace=False):
            kept, losses = float(flat[place]), []
            for value in (kept + step, kept - step):
                flat[place] = value
                with torch.no_grad():
                    losses.append(float(consistency_loss(network.next_encodings(now, later)[0], target).sum()))
            flat[place] = kept
            assert float(of_flat[place]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-7)


# --- what it learns ---


def test_it_learns_a_linear_system_without_collapse() -> None:
    reward = make_reward(hidden=(64, 64), encoders=(20, 10))
    network = network_of(reward)
    now, later = encoded(reward, linear_steps(400, seed=5))  # that it never learns from
    mixed = later[torch.randperm(len(later), generator=generator())]

    def held_out(following: Tensor) -> Tensor:
        with torch.no_grad():
            return consistency_loss(*network.next_encodings(now, following))

    first = held_out(later)
    learner = DynamicsLearner(reward, num_steps=400, batch_size=64)
    loss = learner.learn(linear_steps(2000), generator())
    last = held_out(later)
    assert loss < -0.85 and (last < -0.8).all() and (last < first - 0.5).all(), (first, last, loss)
    assert (held_out(mixed) > -0.4).all()  # no constant is the answer
    with torch.no_grad():
        _, target = network.next_encodings(now, later)
        spread = functional.normalize(target, dim=-1).std(1) * network.PROJECTION**0.5  # 1 on a sphere, 0 of a point
        assert (spread.mean(-1) > 0.5).all(), spread.mean(-1)
        encodings = network.encode_states(later)
        values = torch.linalg.svdvals(encodings - encodings.mean(1, keepdim=True))
        assert ((values > 0.05 * values[:, :1]).sum(1) >= S).all()  # nothing of the state is lost


def test_transitions_teach_all_but_the_rewards_layer_and_answers_all_but_what_is_beside() -> None:
    reward = make_reward()
    network = network_of(reward)
    fitter = Fitter(reward, FitSettings(dynamics_steps=5, dynamics_batch=16, first_steps=5))
    beside = ("following", "following_bias", "project", "predict_in", "predict_out")
    before = bits(network.state_dict())
    assert fitter.dynamics is not None
    fitter.dynamics.learn(linear_steps(100), generator())
    taught = bits(network.state_dict())
    last = len(network.weights) - 1
    assert {name for name in before if before[name] == taught[name]} == {f"weights.{last}", f"biases.{last}"}
    fitter._fit(make_data(reward), generator(), None)
    fitted = bits(network.state_dict())
    assert {name for name in taught if taught[name] == fitted[name]} == set(beside)


def test_state_and_action_stay_apart_in_the_first_layer_and_numpy_sees_the_same_reward() -> None:
    reward = make_reward()
    report = Fitter(reward).fit(make_data(reward), generator(), transitions=linear_steps(300))
    first = network_of(reward).weights[0]
    assert not first[:, :S, 6:].any() and not first[:, S:, :6].any()
    assert first[:, :S, :6].all() and first[:, S:, 6:].all()
    assert report.dynamics_loss is not None and -1 <= report.dynamics_loss < 0.2
    steps = linear_steps(20, seed=4)
    assert reward._made_for_few((reward.input_mean, reward.input_std, reward.reward_mean, reward.reward_std))
    np.testing.assert_allclose(reward.of_few(*steps), reward(*steps), atol=1e-5)


# --- inputs, files, and going on ---


def test_inputs_are_followed_without_changing_rewards_or_what_is_predicted() -> None:
    reward = make_reward(clip_inputs=1e6)
    steps = linear_steps(200)
    before, (now, later) = reward(*steps), encoded(reward, steps)
    predicted, target = network_of(reward).next_encodings(now, later)
    states, actions, following = linear_steps(300, seed=7)
    assert isinstance(states, np.ndarray) and isinstance(following, np.ndarray)
    reward.follow_inputs(2 * states + 1, 0.5 * actions + 0.1, 2 * following + 1)
    moved, moved_later = encoded(reward, steps)
    assert not torch.allclose(moved, now, atol=0.1)
    np.testing.assert_allclose(reward(*steps), before, atol=1e-5)
    again = network_of(reward).next_encodings(moved, moved_later)
    torch.testing.assert_close(again, (predicted, target), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (spaces.Dict({"a": spaces.Box(-1, 1, (2, 2)), "b": spaces.Discrete(3)}), spaces.Discrete(4)),
        (spaces.Discrete(6), spaces.Box(-1, 1, (2,))),
    ],
)
def test_every_vector_has_a_place(observations: Any, actions: Any) -> None:
    reward = RewardEnsemble(observations, actions, RewardSettings(network="dynamics"))
    observations.seed(0), actions.seed(0)

    def stacked() -> Any:
        drawn = [observations.sample() for _ in range(40)]
        return {k: np.stack([d[k] for d in drawn]) for k in drawn[0]} if isinstance(drawn[0], dict) else np.array(drawn)

    steps = stacked(), np.array([actions.sample() for _ in range(40)]), stacked()
    reward.set_input_statistics(*steps)
    assert -1 <= DynamicsLearner(reward, num_steps=3, batch_size=16).learn(steps, generator()) <= 1
    assert np.isfinite(reward(*steps)).all()


def test_a_saved_reward_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    reward = make_reward()
    reward.save(tmp_path / "reward.safetensors")
    loaded = RewardEnsemble.load(tmp_path / "reward.safetensors")
    assert bits(loaded.state_dict()) == bits(reward.state_dict()) and loaded.settings == reward.settings


def test_a_fitter_restored_between_two_fits_goes_on_bit_for_bit() -> None:
    settings = FitSettings(dynamics_steps=12, dynamics_batch=32, first_steps=8, num_steps=8)

    def twice(through_a_file: bool) -> dict[str, bytes]:
        reward = make_reward()
        fitter, data = Fitter(reward, settings), make_data(reward)
        fitter.fit(data, generator(1), transitions=linear_steps(150, seed=1))
        if through_a_file:
            buffer = io.BytesIO()
            torch.save({"reward": reward.state_dict(), "fitter": fitter.state()}, buffer)
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
            reward = make_reward(seed=1)
            reward.load_state_dict(state["reward"])
            fitter, data = Fitter(reward, settings), make_data(reward)
            fitter.restore(state["fitter"])
        fitter.fit(data, generator(2), transitions=linear_steps(150, seed=2))
        return bits(reward.state_dict())

    assert twice(True) == twice(False)


def test_another_network_learns_nothing_from_transitions_and_draws_nothing_for_them() -> None:
    results = []
    for transitions in (None, linear_steps(100)):
        reward = make_reward(network="mlp", encoders=(20, 10))
        draws = generator(3)
        report = Fitter(reward).fit(make_data(reward), draws, transitions=transitions)
        assert report.dynamics_loss is None
        results.append((bits(reward.state_dict()), bytes(draws.get_state().numpy())))
    assert results[0] == results[1]


# --- refusals ---


def test_what_it_cannot_read_is_refused() -> None:
    pixels = spaces.Box(0, 255, (50, 50, 3), np.uint8)
    with pytest.raises(UserError, match=r"reads vectors, and these observations are images. Use cnn or auto"):
        RewardEnsemble(pixels, ACTIONS, RewardSettings(network="dynamics"))
    with pytest.raises(UserError, match=r"--reward.inputs sa. Received 'sas'"):
        RewardSettings(network="dynamics", inputs="sas")
    with pytest.raises(UserError, match=r"Received 0 numbers of a state and 2 of an action"):
        RewardEnsemble(spaces.Box(-1, 1, (0,)), ACTIONS, RewardSettings(network="dynamics"))
    with pytest.raises(UserError, match=r"two numbers of units from 1 to 100000. Received \(0, 3\)"):
        RewardSettings(network="dynamics", encoders=(0, 3))
    with pytest.raises(UserError, match=r"two numbers of units from 1 to 100000. Received \(5, 5, 5\)"):
        RewardSettings(network="dynamics", encoders=(5, 5, 5))  # type: ignore[arg-type]  # as a file may have it
    reward = make_reward()
    with pytest.raises(UserError, match="learns from transitions before it is fitted: give some"):
        Fitter(reward).fit(make_data(reward), generator())


@pytest.mark.parametrize("make", [partial(TrainSettings, env_id="Pendulum-v1"), partial(OfflineSettings, dataset="x")])
def test_settings_of_the_dynamics_without_a_network_that_learns_it_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match=r"--fit.dynamics-steps is of a network that learns the dynamics"):
        make(fit=FitSettings(dynamics_steps=7))
    make(fit=FitSettings(dynamics_steps=7), reward=RewardSettings(network="dynamics"))
    with pytest.raises(UserError, match="dynamics_batch must be at least 2: encodings are standardised"):
        FitSettings(dynamics_batch=1)  # from which nothing would be learned
    with pytest.raises(UserError, match=r"encoders are of --reward.network dynamics"):
        RewardSettings(encoders=(5, 5))
