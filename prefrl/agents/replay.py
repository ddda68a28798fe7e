"""A replay buffer whose rewards are those of whatever reward function there is now."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.envs.memory import free_memory
from prefrl.errors import UserError
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.spaces import Array, Batch, map_batch, num_bytes, take, to_arrays, zip_batches

SCORED_AT_ONCE = 16_384  # transitions
SMALL = 100_000_000  # bytes that any machine has


class Minibatch(NamedTuple):
    """Transitions to learn from, and the noise of the actions that the policy takes in them."""

    inputs: Tensor
    """`(B, n)`: of the observations."""
    next_inputs: Tensor
    """`(B, n)`: of the next ones."""
    actions: Tensor
    """`(B, A)`, in [-1, 1]."""
    rewards: Tensor
    """`(B,)`"""
    going_on: Tensor
    """`(B,)`: 0 where the episode terminated, else 1."""
    noise: Tensor
    """`(N B, A)`, standard normal, N being the agent's `NOISES`: its own order."""


class Replay:
    """The newest transitions of E environments, scored in batches: new ones when first drawn, all after every fit.

    Args:
        size: transitions kept; when it is full the oldest give way.
        observations: `(E, ...)`: what one step's look like.
        actions: `(E, ...)`: the environments'.
        own_actions: `(E, A)`: as the agent has them.

    Raises:
        UserError: it would not fit into the memory.
    """

    def __init__(self, size: int, observations: Batch, actions: Array, own_actions: Array) -> None:
        self.num_envs = len(own_actions)
        self.size = max(size // self.num_envs, 1) * self.num_envs
        per_step = 2 * num_bytes(observations) + actions.nbytes + own_actions.nbytes
        _check_room(self.size // self.num_envs * per_step)

        def room(now: Array) -> Array:
            return np.zeros((self.size, *now.shape[1:]), now.dtype)

        self.observations, self.next_observations = map_batch(room, observations), map_batch(room, observations)
        self.actions, self.own_actions = room(actions), room(own_actions)
        self.rewards = np.zeros(self.size, np.float32)
        self.terminated = np.zeros(self.size, np.bool_)
        self.num_added = 0
        """Transitions added in all, the forgotten ones too."""
        self.num_unscored = 0

    def __len__(self) -> int:
        return min(self.num_added, self.size)

    def add(
        self,
        observations: Batch,
        actions: Array,
        own_actions: Array,
        next_observations: Batch,
        rewards: NDArray[np.floating],
        terminated: NDArray[np.bool_],
    ) -> None:
        """Keep one step of E environments; `next_observations` are an episode's last where one ended."""
        begin = self.num_added % self.size
        rows = slice(begin, begin + self.num_envs)

        def put(pair: list[Array]) -> Array:
            pair[0][rows] = pair[1]
            return pair[0]

        zip_batches(put, [self.observations, observations])
        zip_batches(put, [self.next_observations, next_observations])
        self.actions[rows], self.own_actions[rows] = actions, own_actions
        self.rewards[rows], self.terminated[rows] = rewards, terminated
        self.num_added += self.num_envs
        self.num_unscored = min(self.num_unscored + self.num_envs, self.size)

    def score(self, reward: RewardFunction | None, *, everything: bool = False) -> None:
        """Give transitions that have none yet, or all of them, their reward; None: they keep what they have."""
        num = len(self) if everything else self.num_unscored
        rows = np.arange(self.num_added - num, self.num_added) % self.size
        for begin in range(0, num if reward is not None else 0, SCORED_AT_ONCE):
            part = rows[begin : begin + SCORED_AT_ONCE]
            seen = take(self.observations, part), self.actions[part], take(self.next_observations, part)
            assert reward is not None
            self.rewards[part] = checked_rewards(reward, *seen)
        self.num_unscored = 0

    def draw(
        self, num: int, size: int, random: torch.Generator, recent_share: float = 0.0, recent_steps: int = 1
    ) -> NDArray[np.int64]:
        """Draw rows uniformly, with replacement: `num` minibatches, `(num * size,)`.

        Args:
            num: of minibatches.
            size: of each.
            random: what is drawn with.
            recent_share: share of each that comes from the newest `recent_steps` transitions alone.
            recent_steps: see there.
        """
        rows = torch.randint(len(self), (num, size), generator=random)
        if recent_share > 0:
            newest = self.num_added - min(recent_steps, len(self))
            drawn = torch.randint(newest, self.num_added, (num, round(recent_share * size)), generator=random)
            rows[:, : drawn.shape[1]] = drawn % self.size
        found: NDArray[np.int64] = rows.flatten().numpy()
        return found

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what a checkpoint must hold: counters, and arrays of what is kept."""
        arrays: dict[str, Array] = {"rewards": self.rewards, "terminated": self.terminated}
        arrays |= {"actions": self.actions, "own_actions": self.own_actions}
        for name, batch in (("observations", self.observations), ("next_observations", self.next_observations)):
            arrays |= to_arrays(name, batch)
        counters = {"num_added": self.num_added, "num_unscored": self.num_unscored, "size": self.size}
        return counters, {f"replay/{name}": values[: len(self)] for name, values in arrays.items()}

    def restore(self, counters: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave, also where this buffer is larger."""
        kept = min(counters["num_added"], counters["size"])
        oldest = counters["num_added"] % counters["size"] if kept == counters["size"] else 0
        grown = counters["size"] != self.size
        for name, values in arrays.items():
            field, _, key = name.removeprefix("replay/").partition("/")
            place = getattr(self, field)
            place = place[key] if key else place
            place[:kept] = np.roll(values, -oldest, 0) if grown else values
        self.num_added, self.num_unscored = kept if grown else counters["num_added"], counters["num_unscored"]


def _check_room(num_bytes: int) -> None:
    if num_bytes > SMALL and num_bytes > (free := free_memory("train")):
        raise UserError(
            f"The replay buffer takes about {num_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free. Use a smaller "
            "--hyper buffer_size."
        )
