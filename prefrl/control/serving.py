"""Whose reward an agent is given where annotators are of several groups with wishes of their own.

The mean of the groups' rewards weighted by their shares serves the many. The group that got least is served where the
weights follow what each got (MaxMin-RLHF, Chakraborty et al. 2024): a policy's value to a group is the group's reward
of what the agent did lately less that of what it did before it learned anything, per step, and the weights are the
softmax of minus so many times these values. Training on rewards so weighted goes up the gradient of the soft minimum of
the values, -log(sum(exp(-sharpness value))) / sharpness. (The paper takes the least one alone, by turns; so does this
where the sharpness is large.)
"""

from __future__ import annotations

import numpy as np
import torch

from prefrl.control.settings import RunSettings
from prefrl.history import History
from prefrl.rewards import RewardEnsemble
from prefrl.rewards.groups import Groups
from prefrl.segments import Rollout, stack_transitions
from prefrl.spaces import Array, Batch, from_arrays, to_arrays

SHARPNESS = 5.0  # per standard deviation of a group's reward
STEPS = 1_000  # of the start, and of late, by which values are measured
LATELY = 0.05  # share of the run


class Serving:
    """Sets the weights of the groups' rewards after every fit.

    Args:
        reward: of two groups or more.
        settings: of the run.
    """

    def __init__(self, reward: RewardEnsemble, settings: RunSettings) -> None:
        self.reward, self.serve = reward, settings.reward.serve
        self._lately = max(1, int(LATELY * settings.steps))
        self._start: tuple[Batch, Array, Batch] | None = None
        self.values: list[float] = []
        """What each group got, in standard deviations of its reward per step."""

    def begin(self, warmup: Rollout) -> None:
        """Remember what the agent did before it learned anything."""
        every = -(-warmup.num_steps // STEPS)
        steps, envs = np.divmod(np.arange(0, warmup.num_steps, every), warmup.terminated.shape[1])
        self._start = warmup.transitions_at(steps, envs)

    def weigh(self, groups: Groups, history: History, rng: np.random.Generator) -> None:
        """Set the weights by what the agent did lately, and by who answered."""
        assert self._start is not None, "a run begins"
        lately = stack_transitions(history.sample_steps(STEPS, rng, last_steps=self._lately))
        values = self.reward.group_rewards(*lately).mean(1) - self.reward.group_rewards(*self._start).mean(1)
        self.values = [float(value) for value in values]
        if self.serve == "worst":
            weights = torch.softmax(-SHARPNESS * torch.tensor(self.values), dim=0)
        else:
            weights = groups.served(self.serve)
        self.reward.group_weights = weights.to(self.reward.device)

    def metrics(self) -> dict[str, float | None]:
        """Return what each group got and weighs, for a row of metrics."""
        found: dict[str, float | None] = {}
        for number, (value, weight) in enumerate(zip(self.values, self.reward.group_weights.tolist(), strict=False), 1):
            found[f"group_{number}_value"], found[f"group_{number}_weight"] = value, weight
        return found

    def arrays(self) -> dict[str, Array]:
        """Return what a checkpoint must hold; the weights are the reward's."""
        assert self._start is not None, "a run begins"
        observations, actions, following = self._start
        return {
            **to_arrays("start_observations", observations),
            "start_actions": actions,
            **to_arrays("start_next_observations", following),
            "group_values": np.array(self.values),
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Go on from what `arrays` gave."""
        self._start = (
            from_arrays("start_observations", arrays),
            arrays["start_actions"],
            from_arrays("start_next_observations", arrays),
        )
        self.values = arrays["group_values"].tolist()
