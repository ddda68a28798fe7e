"""The loop: collect, ask, fit, improve (Christiano et al. 2017, s. 2.2).

    agent --rollout--> history --segments--> queries --> record --> annotator --> record --> fit --> reward --> agent

Everything random outside the agent comes from streams named by what they are for (`prefrl.training.streams`), every
query and answer passes through the record before it is used, and at each checkpoint all environments are reset: so a
run that was killed and resumed ends exactly as one that was not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prefrl.agents import Agent, Improvement
from prefrl.annotators import Annotator
from prefrl.errors import UserError, first_line
from prefrl.gpu import enough_gpu_memory
from prefrl.history import Episode, History
from prefrl.segments import Rollout
from prefrl.spaces import Array, is_image
from prefrl.training.best import BestPolicy
from prefrl.training.checkpoint import (
    Checkpoint,
    global_random_state,
    newest_checkpoint,
    restore_global_random_state,
    save_checkpoint,
    seed_global_random,
)
from prefrl.training.folder import RunFolder
from prefrl.training.metrics import MetricsWriter, finite
from prefrl.training.people import PeopleLearner
from prefrl.training.policies import make_run_agent, make_run_env
from prefrl.training.reward_learner import RewardLearner
from prefrl.training.streams import stream, stream_seed

LESS_MEMORY = "Use a smaller --fit.batch-size, a shorter --segment-length, fewer --labels, or --device cpu."
"""Where the reward takes too much; agents say which of their own settings to lower."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, for whoever watches."""

    num_env_steps: int
    total_env_steps: int
    labels: int
    total_labels: int
    true_return: float | None
    """Mean of the last 20 episodes."""
    learned_return: float | None
    steps_per_second: float


class Trainer:
    """One run: agent, reward, annotator and record, and the state that joins them.

    Args:
        folder: the run folder, its configuration written.
        annotator: who answers; default: the teacher that the settings name.
        on_progress: called after every iteration.
        fit_threads: threads that fits of the reward may use, which work on more at once than anything else.

    Raises:
        UserError: the settings do not fit the environment or this machine.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        annotator: Annotator | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        fit_threads: int = 1,
    ) -> None:
        self.folder, self.on_progress = folder, on_progress
        config = folder.config
        self.run_id: str = config["run_id"]
        self.is_baseline: bool = config["baseline"]
        self.settings = settings = folder.settings
        assert settings.steps is not None
        self.total_env_steps = settings.steps
        probe = make_run_env(settings)
        self.device = choose_device(settings.device, is_image(probe.observation_space))
        probe.close()
        self.agent: Agent = make_run_agent(
            settings, seed=stream_seed(settings.seed, "agent"), device=self.device, pass_true_reward=self.is_baseline
        )
        self.history = History(settings.history_mb * 1_000_000)
        self.best = BestPolicy()
        self.recent_returns: list[tuple[float, float]] = []  # true and learned, of the episodes ended last
        self._running_learned = np.zeros(0)
        self._warned = False
        self._stop_wanted = False
        self._ended_since_checkpoint = 0  # episodes
        self._checkpoint_postponed = False
        self.learner: RewardLearner | None = None  # none where the agent trains on the true reward
        if not self.is_baseline:
            spaces = self.agent.observation_space, self.agent.action_space
            kind = PeopleLearner if settings.asks_people else RewardLearner
            self.learner = kind(
                folder, settings, *spaces, annotator=annotator, device=self.device, fit_threads=fit_threads
            )

    # ------------------------------------------------------------------------------------------------ the run

    def run(self) -> bool:
        """Train from the newest checkpoint, or from the start; return whether the end was reached.

        `stop` makes it save and return before that.
        """
        checkpoint, refused = newest_checkpoint(self.folder.checkpoints, self.run_id)
        for reason in refused:
            warnings.warn(f"{reason} Going on from the checkpoint before it.", stacklevel=2)
        with enough_gpu_memory(LESS_MEMORY):
            return self._run_from(checkpoint)

    def _run_from(self, checkpoint: Checkpoint | None) -> bool:
        if checkpoint is not None:
            self._restore(checkpoint)
        else:
            self._start()
        try:
            while not self._at_end():
                self._hold()
                if self._stop_wanted:
                    self._save_checkpoint()
                    return False
                self._iterate()
            self._finish()
            return True
        finally:
            self.metrics.close()

    def _at_end(self) -> bool:
        steps = self.agent.num_env_steps
        return steps >= self.total_env_steps if self.learner is None else self.learner.at_end(steps)

    def _hold(self) -> None:
        """Let the learner wait for answers where it must."""
        learner = self.learner
        if learner is not None and learner.hold(self.history, self.agent.num_env_steps, lambda: self._stop_wanted):
            self.agent.relabel(learner.reward)

    def stop(self) -> None:
        """Ask the run to save and return after the iteration it is in."""
        self._stop_wanted = True

    def _start(self) -> None:
        settings = self.settings
        assert settings.warmup_steps is not None
        self.metrics = MetricsWriter(self.folder)
        seed_global_random(stream_seed(settings.seed, "global"))
        self._reset_environments()
        self.folder.save_policy("before", self.agent.policy_state())
        uniform = settings.warmup == "uniform"
        rollout = self.agent.explore(settings.warmup_steps, stream(settings.seed, "explore"), uniform=uniform)
        self._take_in(rollout, np.zeros(rollout.terminated.shape, np.float32))
        if self.learner is not None:
            self.learner.begin(rollout, self.history, self.agent.num_env_steps)
            if self.learner.fitted:
                self.agent.relabel(self.learner.reward)

    def _iterate(self) -> None:
        begin = time.perf_counter()
        halfway = self.agent.num_env_steps < self.total_env_steps / 2
        learner = self.learner
        improvement = self.agent.improve(learner.reward if learner is not None and learner.fitted else None)
        improved = time.perf_counter()
        if halfway and self.agent.num_env_steps >= self.total_env_steps / 2:
            self.folder.save_policy("during", self.agent.policy_state())
        ended = self._take_in(improvement.rollout, improvement.learned_rewards)
        taken_in = time.perf_counter()
        if learner is not None:
            self._learn_reward(learner, improvement)
        asked = time.perf_counter()
        due = self._checkpoint_due(improvement.rollout, len(ended))
        row = self._metrics_row(improvement, ended)
        seconds = {**improvement.seconds, "history": taken_in - improved, "ask_and_fit": asked - taken_in}
        row["seconds"] = {name: round(value, 4) for name, value in seconds.items()}
        row["steps_per_second"] = improvement.rollout.num_steps / (time.perf_counter() - begin)
        self.metrics.write(row)
        if due:
            self._save_checkpoint()
        if self.on_progress is not None:
            self.on_progress(
                Progress(
                    num_env_steps=self.agent.num_env_steps,
                    total_env_steps=self.total_env_steps,
                    labels=0 if learner is None else learner.labels,
                    total_labels=0 if learner is None else self.settings.labels,
                    true_return=self._mean_return(0),
                    learned_return=self._mean_return(1),
                    steps_per_second=row["steps_per_second"],
                )
            )

    def _finish(self) -> None:
        if self.learner is not None:
            if not self.learner.fitted:
                warnings.warn("Nothing was learned from: no answer was given, or all were left out.", stacklevel=2)
            self.folder.save_policy("best", self.best.policy or self.agent.policy_state())
            self.learner.reward.save(self.folder.reward_path)
        self._save_checkpoint()
        self.folder.save_policy("last", self.agent.policy_state())  # tells that all of the above is there

    def _take_in(self, rollout: Rollout, learned: Array) -> list[Episode]:
        """Add a rollout to the history and the episodes that ended to the returns; tell the annotator."""
        ended = self.history.add(rollout)
        if len(self._running_learned) != learned.shape[1]:
            self._running_learned = np.zeros(learned.shape[1])
        totals = []
        over = rollout.ended
        for step in range(len(learned)):
            self._running_learned += learned[step]
            for env in np.flatnonzero(over[step]):
                totals.append(float(self._running_learned[env]))
                self._running_learned[env] = 0.0
        for episode, total in zip(ended, totals, strict=True):
            true_return = float(episode.true_rewards.window(0, episode.num_steps).sum())
            self.recent_returns.append((true_return, total))
        self.recent_returns = self.recent_returns[-20:]
        if self.learner is not None:
            self.learner.observe(ended)
            self._warn_of_terminations(ended)
        return ended

    def _warn_of_terminations(self, ended: list[Episode]) -> None:
        if not self._warned and any(episode.terminated for episode in ended):
            self._warned = True
            warnings.warn(
                f"Episodes of {self.settings.env_id} end early (terminate), so their length leaks the task: any "
                "constant reward can then teach it, whatever the answers. Use the fixed-horizon form: --fixed-horizon "
                "STEPS --terminal-reward R (R below 0 where ending is bad, above 0 where it is the goal).",
                stacklevel=2,
            )

    def _learn_reward(self, learner: RewardLearner, improvement: Improvement) -> None:
        """Ask for labels that are due, take in answers that have come, fit if there are any, judge the policy."""
        steps = self.agent.num_env_steps
        due = learner.due(steps)
        if (due or learner.open_queries) and learner.learn(self.history, steps):
            self.agent.relabel(learner.reward)
            due = True
        if due or steps >= self.total_env_steps:
            self.best.offer(improvement.rollout, self.agent.policy_state(), learner.reward, steps)

    # ------------------------------------------------------------------------------------------------ bookkeeping

    def _mean_return(self, which: int) -> float | None:
        return float(np.mean([pair[which] for pair in self.recent_returns])) if self.recent_returns else None

    def _metrics_row(self, improvement: Improvement, ended: list[Episode]) -> dict[str, Any]:
        num = len(ended)
        newest = self.recent_returns[-num:] if num else []
        learned, true = improvement.learned_rewards, improvement.rollout.true_rewards
        row: dict[str, Any] = {
            "num_env_steps": self.agent.num_env_steps,
            "labels": 0 if self.learner is None else self.learner.labels,
            "episodes": num,
            "true_return": float(np.mean([t for t, _ in newest])) if newest else None,
            "learned_return": float(np.mean([x for _, x in newest])) if newest else None,
            "correlation": _correlation(learned, true),
        }
        if self.learner is not None:
            row |= self.learner.metrics()
        return improvement.figures | row

    def _reset_environments(self) -> None:
        self.agent.reset_environments(stream_seed(self.settings.seed, "environments", self.agent.num_env_steps))
        self.history.cut()
        self._running_learned = np.zeros(0)

    def _checkpoint_due(self, rollout: Rollout, num_ended: int) -> bool:
        """Return whether to save now: a number of times in a run, once as many episodes ended as there are copies.

        A checkpoint begins new episodes. Where they are long and copies many, none would ever come to its end
        otherwise. A checkpoint is postponed once, not twice: some environments never end.
        """
        every = self.total_env_steps / self.settings.num_checkpoints
        now, before = self.agent.num_env_steps, self.agent.num_env_steps - rollout.num_steps
        due = int(now / every) > int(before / every)
        wanted, late = due or self._checkpoint_postponed, due and self._checkpoint_postponed
        self._ended_since_checkpoint += num_ended
        enough = self._ended_since_checkpoint >= rollout.terminated.shape[1]
        self._checkpoint_postponed = wanted and not enough
        return wanted and (enough or late) and not self._at_end()

    def _save_checkpoint(self) -> None:
        """Write a checkpoint and start new episodes, as a run resumed from it will."""
        self._reset_environments()
        self._ended_since_checkpoint, self._checkpoint_postponed = 0, False
        metrics_size = self.metrics.sync()
        agent_state, agent_arrays = self.agent.state()
        history_arrays, history = self.history.state()
        best_state, best_arrays = self.best.state()
        random_tensors, random_values = global_random_state()
        tensors: dict[str, Any] = {"agent": agent_state, "best": best_state, "random": random_tensors}
        arrays = (
            _prefixed("agent", agent_arrays) | _prefixed("history", history_arrays) | _prefixed("best", best_arrays)
        )
        values: dict[str, Any] = {
            "history": history,
            "random": random_values,
            "metrics_size": metrics_size,
            "recent_returns": [list(pair) for pair in self.recent_returns],
            "warned": self._warned,
        }
        if self.learner is not None:
            learner_tensors, learner_arrays, values["learner"] = self.learner.state()
            tensors["learner"] = learner_tensors
            arrays |= _prefixed("learner", learner_arrays)
        checkpoint = Checkpoint(
            num_env_steps=self.agent.num_env_steps, tensors=tensors, arrays=arrays, values=finite(values)
        )
        save_checkpoint(self.folder.checkpoints, self.run_id, checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, values = checkpoint.tensors, checkpoint.values
        self.agent.restore(tensors["agent"], checkpoint.arrays_of("agent"))
        self.history = History.restore(checkpoint.arrays_of("history"), values["history"])
        self.best.restore(tensors["best"], checkpoint.arrays_of("best"))
        self.recent_returns = [(pair[0], pair[1]) for pair in values["recent_returns"]]
        self._warned = values["warned"]
        self.metrics = MetricsWriter(self.folder, values["metrics_size"], checkpoint.num_env_steps)
        if self.learner is not None:
            self.learner.restore(tensors["learner"], checkpoint.arrays_of("learner"), values["learner"])
        self.agent.reset_environments(stream_seed(self.settings.seed, "environments", self.agent.num_env_steps))
        restore_global_random_state(tensors["random"], values["random"])

    def close(self) -> None:
        """Close the environments and the record."""
        self.agent.close()
        if self.learner is not None:
            self.learner.close()


def choose_device(wanted: str, needs_images: bool) -> str:
    """Return the device to train on.

    Args:
        wanted: "auto" (the GPU for image observations where there is one, else the CPU), or a device by name.
        needs_images: the observations are images.

    Raises:
        UserError: there is no such device.
    """
    if wanted == "auto":
        return "cuda" if needs_images and torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The device {wanted!r} cannot be used here: {first_line(error)} Use --device cpu or auto."
        ) from None
    return wanted


def _correlation(first: Array, second: Array) -> float | None:
    """Return Pearson's correlation over all steps, None where either is constant or not finite."""
    a, b = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or a.std() < 1e-12 or b.std() < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _prefixed(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
