"""Data as offline learners read them: every step as rows of tensors, and rewards in a scale of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.errors import UserError
from prefrl.offline.data import OfflineData
from prefrl.offline.policy import OfflinePolicy
from prefrl.spaces import Array, SpaceEncoder, map_batch, zip_batches

ENDS = ("worst", "best", "plain")
EXTREME = 0.01  # share of the steps whose rewards lie beyond what an end is worth


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """N steps of E episodes, one after the other."""

    observations: Tensor
    """`(N + E, D)` float32: as the policy sees them; of each episode all before its steps, then the last."""
    at: Tensor
    """`(N,)` int64: row of the observation before each step; that after it is the next row."""
    actions: Tensor
    """`(N, ...)`: as the policy gives them."""
    action_features: Tensor
    """`(N, A)` float32: as values read them: numbers in the units of the policy, choices one-hot."""
    goes_on: Tensor
    """`(N,)` float32: 0 where the step terminated, else 1; what was cut short goes on."""
    rewards: Tensor
    """`(N,)` float32."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """P comparisons of segments of k steps, as rows of the data."""

    first_rows: Tensor
    """`(P, 2)` int64: where both segments begin."""
    preferences: Tensor
    """`(P,)` float32: probability that the first is better: 1, 0 or 1/2."""
    length: int
    """k."""

    def __len__(self) -> int:
        return len(self.preferences)

    def steps(self, chosen: Tensor) -> Tensor:
        """Return the rows of all steps of the chosen comparisons, `(B, 2, k)` int64."""
        return self.first_rows[chosen].unsqueeze(-1) + torch.arange(self.length)


def make_transitions(data: OfflineData, policy: OfflinePolicy, rewards: NDArray[np.floating]) -> Transitions:
    """Return data as the learners read them.

    Args:
        data: given.
        policy: its inputs have seen the observations.
        rewards: `(N,)`, as `scaled_rewards` returns them.
    """
    seen = zip_batches(np.concatenate, [episode.observations for episode in data.episodes])
    lengths = data.lengths
    at = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)
    given = data.rollout.actions[:, 0]
    actions = policy.actions.from_env(given)
    features = actions if actions.is_floating_point() else _one_hot(data, given)
    return Transitions(
        observations=policy.inputs.encode(seen),
        at=torch.from_numpy(at),
        actions=actions,
        action_features=features,
        goes_on=torch.from_numpy(1.0 - data.rollout.terminated[:, 0].astype(np.float32)),
        rewards=torch.from_numpy(np.asarray(rewards, np.float32)),
    )


def _one_hot(data: OfflineData, actions: Array) -> Tensor:
    return torch.from_numpy(SpaceEncoder(data.action_space).encode(actions))


def show_all(data: OfflineData, policy: OfflinePolicy) -> None:
    """Let a policy take the statistics of its inputs from the data, before anything is learned."""
    policy.see(map_batch(lambda x: x[:-1, 0], data.rollout.observations))


def scaled_rewards(
    rewards: NDArray[np.floating], lengths: NDArray[np.int64], ends: str, *, terminated: bool = True
) -> NDArray[np.float64]:
    """Return rewards in which the range of the data's returns is the steps of the longest episode.

    Offline learners weigh steps by exp(temperature x advantage), so that rewards must have a scale; this one is that
    of Kostrikov et al. 2022, app. B (a range of 1,000 in episodes of 1,000 steps), for episodes of any length.

    A reward that was learned from comparisons of segments of one length may be shifted by any constant, which says what
    an end is worth: after a termination nothing is earned. So it is shifted such that what follows an end is, step by
    step, as bad as the worst hundredth of the steps (`worst`: ends are failures), as good as the best (`best`: they are
    the goal), or 0 (`plain`: the rewards mean what they say).

    Args:
        rewards: `(N,)`: of all steps, episode after episode.
        lengths: `(E,)`: steps of each episode.
        ends: worst, best or plain.
        terminated: an episode terminates; otherwise a shift changes nothing and none is made.
    """
    if ends not in ENDS:
        raise UserError(f"ends must be {', '.join(ENDS)}. Received {ends!r}")
    returns = np.add.reduceat(np.asarray(rewards, np.float64), np.cumsum(lengths) - lengths)
    spread = float(returns.max() - returns.min())
    tiny = 1e-9 * max(1.0, float(np.abs(returns).max()))
    scaled = np.asarray(rewards, np.float64) * (float(lengths.max()) / spread if spread > tiny else 1.0)
    if ends == "plain" or not terminated:
        return scaled
    return scaled - np.quantile(scaled, EXTREME if ends == "worst" else 1 - EXTREME)
