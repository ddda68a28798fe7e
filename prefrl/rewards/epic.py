"""EPIC: a distance between reward functions that ignores what cannot change the best policy.

Gleave et al. 2021, "Quantifying Differences in Reward Functions". Each reward is canonicalised (Def. 4.1), which
removes potential shaping (Ng et al. 1999) and constants; what is left is compared by a distance that ignores positive
scale (Def. 4.6): 0 means the same preferences over policies, 1 exactly the opposite, sqrt(1/2) = 0.71 no relation.

Canonicalising evaluates both rewards on transitions (s, a', s'') that never happened. A Gymnasium environment cannot be
asked for the true reward of those, so `fit_true_reward` puts a regression in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from prefrl.errors import UserError
from prefrl.rewards.function import RewardFunction
from prefrl.segments import Segment, in_parts, stack_transitions, transitions_at
from prefrl.spaces import Array, Batch, SpaceEncoder, batch_length, channels_first, is_image, num_bytes, take

Transitions = tuple[Batch, Array, Batch]
"""Observations, actions, next observations: `(B, ...)` each."""

ROUNDING = 1e-6  # relative spread below which rewards count as constant: a little more than float32 resolves
MAX_FEATURES = 512  # of a state in the regression that stands for the true reward
MAX_BATCH_BYTES = 64_000_000  # observations put together for one call of a reward


def is_constant(values: NDArray[np.floating[Any]]) -> bool:
    """Tell whether all values are the same up to float32 rounding (also true of fewer than two)."""
    return len(values) < 2 or bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def pearson_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the correlation of two series of equal length `(n,)`, in [-1, 1]; None if either is constant."""
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if is_constant(x) or is_constant(y):
        return None
    x, y = (values - values.mean() for values in (x, y))
    x, y = (values / np.abs(values).max() for values in (x, y))  # squares stay in range at any magnitude
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def pearson_distance(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return sqrt((1 - rho) / 2) in [0, 1] of two series `(n,)` (Gleave et al. 2021, Def. 4.5).

    None if either is constant.
    """
    rho = pearson_correlation(first, second)
    return None if rho is None else float(np.sqrt((1.0 - rho) / 2.0))


def independent_samples(segments: Sequence[Segment], num_samples: int, rng: np.random.Generator) -> Transitions:
    """Draw S, A and S' independently of each other from the states and actions of `segments`: `(M, ...)` each."""
    num_steps = len(segments) * len(segments[0])
    s, a, s2 = (transitions_at(segments, steps) for steps in rng.integers(num_steps, size=(3, num_samples)))
    return s[0], a[1], s2[0]


def in_turn(reward: RewardFunction, segments: Sequence[Segment]) -> NDArray[np.float64]:
    """Evaluate a reward on all steps of segments `(B * k,)`, part by part: joined they may take gigabytes."""
    parts = [reward(*stack_transitions(part)) for part in in_parts(segments, MAX_BATCH_BYTES)]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def canonicalise(
    reward: RewardFunction, transitions: Transitions, samples: Transitions, gamma: float
) -> NDArray[np.float64]:
    """Evaluate the canonically shaped reward (Gleave et al. 2021, Def. 4.1).

    C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')],
    the expectation taken as the mean over the M samples. Used for every term, the same samples make the result exactly
    free of potential shaping (but for a constant), whatever their number.

    Args:
        reward: scores a batch of transitions.
        transitions: where to evaluate it, `(B, ...)` each.
        samples: M draws of S, A, S', independent of each other, `(M, ...)` each.
        gamma: discount, in [0, 1].

    Returns:
        `(B,)` float64. Values that differ by no more than rounding are made equal.

    Raises:
        UserError: `gamma` outside [0, 1].
    """
    if not 0 <= gamma <= 1:
        raise UserError(f"gamma must be in [0, 1]. Received {gamma}")
    observations, _, next_observations = transitions
    direct = np.asarray(reward(*transitions), np.float64)
    shaped = (
        direct
        + gamma * _mean_from(reward, next_observations, samples)
        - _mean_from(reward, observations, samples)
        - gamma * float(np.mean(reward(*samples), dtype=np.float64))
    )
    if np.ptp(shaped) <= ROUNDING * np.abs(direct).max():
        return np.full_like(shaped, shaped.mean())
    return shaped


def _mean_from(reward: RewardFunction, states: Batch, samples: Transitions) -> NDArray[np.float64]:
    """Return the mean of R(state, A, S') over the samples, for every state: `(B,)`."""
    _, actions, next_observations = samples
    num_states, num_samples = batch_length(states), len(actions)
    row_bytes = max(1, num_bytes(states) // num_states)
    rows = max(1, min(65_536, MAX_BATCH_BYTES // row_bytes) // num_samples)
    means = []
    for begin in range(0, num_states, rows):
        index = np.arange(begin, min(begin + rows, num_states))
        again = np.tile(np.arange(num_samples), len(index))
        values = reward(take(states, np.repeat(index, num_samples)), actions[again], take(next_observations, again))
        means.append(np.asarray(values, np.float64).reshape(len(index), num_samples).mean(1))
    return np.concatenate(means)


def epic_distance(
    reward_a: RewardFunction,
    reward_b: RewardFunction,
    transitions: Transitions,
    samples: Transitions,
    gamma: float = 0.99,
) -> float | None:
    """Return the EPIC distance of two rewards, in [0, 1] (Gleave et al. 2021, Def. 4.6).

    Args:
        reward_a: one reward.
        reward_b: the other.
        transitions: the coverage distribution: B transitions, `(B, ...)` each.
        samples: M independent draws of S, A, S', see `independent_samples`.
        gamma: discount, in [0, 1].

    Returns:
        The distance; None if either reward is constant once canonicalised (it then prefers no policy to another).
    """
    return pearson_distance(
        canonicalise(reward_a, transitions, samples, gamma), canonicalise(reward_b, transitions, samples, gamma)
    )


def _few_features(encoder: SpaceEncoder, states: Batch) -> NDArray[np.float32]:
    """Encode states; where that gives more than `MAX_FEATURES` numbers each, as means of so many groups of neighbours.

    A regression on D numbers takes memory of D^2 and time of D^3: a float picture of 84 x 84 x 3 would be out of reach.
    """
    num = batch_length(states)
    rows = max(1, MAX_BATCH_BYTES // max(1, 8 * num_bytes(states) // max(1, num)))
    parts = []
    for begin in range(0, num, rows):
        features = encoder.encode(take(states, np.arange(begin, min(begin + rows, num))))
        if features.shape[1] > MAX_FEATURES:
            edges = np.linspace(0, features.shape[1], MAX_FEATURES + 1).astype(np.int64)
            sums = np.add.reduceat(features, edges[:-1], axis=1, dtype=np.float64)
            features = (sums / np.diff(edges)).astype(np.float32)
        parts.append(features)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class FittedReward:
    """A regression of rewards on (s, a, s'): ridge regression, plus a small network where that predicts better."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.kind = "ridge"
        """"ridge" or "ridge + network"."""
        self._observation_space = observation_space
        self._observations, self._actions = SpaceEncoder(observation_space), SpaceEncoder(action_space)
        self._mean = self._std = self._weights = np.zeros(0)
        self._bias, self._residual_std = 0.0, 1.0
        self._network: torch.nn.Module | None = None

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float64]:
        """Predict the reward of B transitions: `(B,)`."""
        features = self._standardise(self._features(observations, actions, next_observations))
        predicted = features @ self._weights + self._bias
        if self._network is not None:
            with torch.no_grad():
                correction = self._network(torch.from_numpy(features)).squeeze(1).numpy()
            predicted = predicted + correction * self._residual_std
        return np.asarray(predicted, np.float64)

    def _features(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        here, there = (self._state_features(states) for states in (observations, next_observations))
        return np.concatenate([here, self._actions.encode(actions), there], axis=1)

    def _state_features(self, states: Batch) -> NDArray[np.float32]:
        space = self._observation_space
        if not is_image(space):
            return _few_features(self._observations, states)
        assert isinstance(space, spaces.Box)
        images = np.asarray(states) if channels_first(space) else np.moveaxis(np.asarray(states), -1, 1)
        height, width = images.shape[2:]
        images = images[:, :, :: max(1, height // 12), :: max(1, width // 12)]
        return images.reshape(len(images), -1).astype(np.float32) / 255.0

    def _standardise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.clip((features - self._mean) / self._std, -5.0, 5.0).astype(np.float32)

    def fit(self, segments: Sequence[Segment], rng: np.random.Generator) -> None:
        """Fit to the true rewards; the last fifth of the steps chooses the penalty and whether to use the network."""
        parts = in_parts(segments, MAX_BATCH_BYTES)
        features = np.concatenate([self._features(*stack_transitions(part)) for part in parts])
        rewards = np.concatenate([segment.true_rewards for segment in segments])
        kept = max(1, len(features) - len(features) // 5)
        self._mean, std = features[:kept].mean(0), features[:kept].std(0)
        self._std = np.where(std < 1e-6, 1.0, std)
        x = self._standardise(features)
        self._bias = float(rewards[:kept].mean())
        y = rewards - self._bias
        candidates = [_ridge(x[:kept], y[:kept], penalty) for penalty in (1e-6, 1e-3, 1e-1, 1.0)]
        errors = [float(np.sum((y[kept:] - x[kept:] @ weights) ** 2)) for weights in candidates]
        self._weights = candidates[int(np.argmin(errors))]
        residuals = y - x @ self._weights
        offset = float(residuals[:kept].mean())  # not 0 where features were clipped
        self._bias += offset
        residuals -= offset
        self._residual_std = float(residuals[:kept].std())
        if kept < len(x) and self._residual_std > 1e-2 * float(rewards[:kept].std()):  # else it is linear: nothing left
            rest = (residuals / self._residual_std).astype(np.float32)
            self._network = _fit_network(x[:kept], rest[:kept], x[kept:], rest[kept:], rng)
        self.kind = "ridge" if self._network is None else "ridge + network"


def fit_true_reward(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    segments: list[Segment],
    rng: np.random.Generator,
    max_steps: int = 20_000,
) -> tuple[FittedReward, float | None, list[Segment]]:
    """Fit a stand-in for the true reward on half of the segments and test it on the other half.

    Episodes are kept whole where their numbers are known (more than one), so that no step is in both halves.

    Returns:
        The regression; its R^2 on the steps of the other half (at most 1; None if the rewards there are constant); and
        the segments of that half.

    Raises:
        UserError: fewer than two segments.
    """
    if len(segments) < 2:
        raise UserError(f"Fitting the true reward needs at least 2 segments. Received {len(segments)}")
    fitted_on, tested_on = _halves(segments, rng)
    fitted_on = fitted_on[: max(1, max_steps // len(segments[0]))]
    model = FittedReward(observation_space, action_space)
    model.fit(fitted_on, rng)
    part = tested_on[: max(1, max_steps // len(segments[0]))]
    truth = np.concatenate([s.true_rewards for s in part])
    if is_constant(truth):
        return model, None, tested_on
    errors = truth - in_turn(model, part)
    return model, 1.0 - float(np.mean(errors**2) / np.var(truth)), tested_on


def _halves(segments: list[Segment], rng: np.random.Generator) -> tuple[list[Segment], list[Segment]]:
    episodes = [segment.episode for segment in segments]
    known = min(episodes) >= 0 and len(set(episodes)) > 1
    groups: dict[int, list[Segment]] = {}
    for index, segment in enumerate(segments):
        groups.setdefault(segment.episode if known else index, []).append(segment)
    first: list[Segment] = []
    second: list[Segment] = []
    order = list(groups)
    for number in rng.permutation(len(order)).tolist():
        (first if len(first) <= len(second) else second).extend(groups[order[number]])
    return first, second


def _ridge(x: NDArray[np.float32], y: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    x64 = x.astype(np.float64)
    gram = x64.T @ x64 + penalty * len(x) * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, x64.T @ y), np.float64)


def _fit_network(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    check_x: NDArray[np.float32],
    check_y: NDArray[np.float32],
    rng: np.random.Generator,
    num_steps: int = 600,
) -> torch.nn.Module | None:
    """Fit a 2 x 64 network until it has stopped improving on the checks; None if it never did better than 0."""
    inputs, targets, check_inputs, check_targets = (torch.from_numpy(a) for a in (x, y, check_x, check_y))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = torch.nn.Sequential(
            *(torch.nn.Linear(x.shape[1], 64), torch.nn.Tanh()),
            *(torch.nn.Linear(64, 64), torch.nn.Tanh()),
            torch.nn.Linear(64, 1),
        )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3, fused=True)
    best_error, best_state, best_step = float((check_targets**2).mean()), None, 0
    for step in range(1, num_steps + 1):
        rows = torch.from_numpy(rng.integers(len(x), size=256))
        loss = (network(inputs[rows]).squeeze(1) - targets[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0:
            with torch.no_grad():
                error = float((network(check_inputs).squeeze(1) - check_targets).square().mean())
            if error < best_error:
                best_state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
                best_error, best_step = error, step
            elif step - best_step >= 200:
                break
    if best_state is None:
        return None
    network.load_state_dict(best_state)
    return network
