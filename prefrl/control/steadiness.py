"""How much a reward still changes with more answers: whether it puts behaviour in the same order as it did before.

Held-out agreement alone does not tell: what is asked gets harder as the reward gets better. So the reward of now is
held against the one that was fitted to two thirds of the answers, on segments of what the agent has done: of two of
them drawn at random, how often do both say the same?
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from prefrl.rewards import RewardEnsemble
from prefrl.runs import State
from prefrl.segments import Segment, stack_transitions

TIMES = 1.5  # as many answers as at the last look, before the next
LEAST = 20  # answers before the first


class Steadiness:
    """Keeps a reward as it was, and holds later ones against it."""

    def __init__(self) -> None:
        self._earlier: dict[str, Any] | None = None
        self._num_answers = 0

    def look(
        self, reward: RewardEnsemble, num_answers: int, draw: Callable[[], list[Segment]]
    ) -> dict[str, float] | None:
        """Compare a reward that was just fitted with the one kept, if there are enough new answers, and keep it.

        Args:
            reward: as it is now.
            num_answers: that it was fitted to.
            draw: segments of what the agent has done, all of one length.

        Returns:
            `same_order`, the share of their pairs that both put in the same order, in [0, 1], with the numbers of
            answers `from` and `to`; None where there is nothing to compare.
        """
        if num_answers < max(LEAST, TIMES * self._num_answers):
            return None
        found = None
        if self._earlier is not None:
            before = copy.deepcopy(reward)
            before.load_state_dict(self._earlier)
            segments = draw()
            both = [_returns(one, segments) for one in (before, reward)]
            found = {"same_order": same_order(*both), "from": self._num_answers, "to": num_answers}
        self._earlier = {name: tensor.detach().clone() for name, tensor in reward.state_dict().items()}
        self._num_answers = num_answers
        return found

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        return State(tensors={"reward": self._earlier or {}}, values={"num_answers": self._num_answers})

    def restore(self, state: State) -> None:
        """Go on from what `state` gave; checkpoints of earlier versions have none."""
        self._earlier = state.tensors.get("reward") or None
        self._num_answers = state.values.get("num_answers", 0)


def same_order(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Return the share of pairs of n values `(n,)` that two lists of them put in the same order; a tie counts half."""
    rows, columns = np.triu_indices(len(first), 1)
    signs = np.sign(first[rows] - first[columns]) * np.sign(second[rows] - second[columns])
    return float((1 + signs.mean()) / 2) if len(signs) else 1.0


def _returns(reward: RewardEnsemble, segments: list[Segment]) -> np.ndarray[Any, Any]:
    return np.asarray(reward(*stack_transitions(segments)), np.float64).reshape(len(segments), -1).sum(1)
