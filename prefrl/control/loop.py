"""The loop: collect, ask, fit, improve (Christiano et al. 2017, s. 2.2).

    agent --rollout--> history --segments--> queries --> record --> annotator --> record --> fit --> reward --> agent

Everything random outside the agent comes from streams named by what they are for (`prefrl.runs.streams`), every
query and answer passes through the record before it is used, and at each checkpoint all environments are reset: so a
run that was killed and resumed ends exactly as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from prefrl.agents import Agent, Improvement
from prefrl.annotators import Annotator
from prefrl.control.best import BestPolicy
from prefrl.control.bonus import rescored, without_bonus
from prefrl.control.demonstrations import Demonstrations, start_clone
from prefrl.control.folder import ControlFolder
from prefrl.control.offline_start import start_policy
from prefrl.control.people import People, PeopleTeaching
from prefrl.control.policies import make_run_agent, make_run_env, warn_of_short_segments
from prefrl.control.reward_learner import RewardLearner, make_run_teacher
from prefrl.control.scheduled import ScheduledTeaching
from prefrl.control.settings import RunSettings
from prefrl.control.strip import is_due, policy_name
from prefrl.control.teaching import Teaching, TrueReward
from prefrl.errors import UserError
from prefrl.history import Episode, History
from prefrl.program import own_folder
from prefrl.rewards.particle_entropy import ParticleEntropy, knows_states
from prefrl.runs.checkpoint import Checkpoint, State, checkpoint_to_go_on_from, save_checkpoint
from prefrl.runs.device import choose_device, device_to_go_on_with
from prefrl.runs.global_random import global_random_state, restore_global_random_state, seed_global_random
from prefrl.runs.guard import enough_memory
from prefrl.runs.metrics import MetricsWriter, finite, mean_of_known
from prefrl.runs.streams import stream, stream_seed
from prefrl.segments import Rollout
from prefrl.spaces import Array, is_image, join_axes, take

EXPLORED_BEFORE = 8  # the share of the warm-up in which an agent acts as it is, before it learns to explore
LESS_MEMORY = "Use fewer --num-envs, a smaller --hyper n_steps, or fewer --warmup-steps."
LESS_GPU_MEMORY = "Use a smaller --fit.batch-size, a shorter --segment-length, fewer --labels, or --device cpu."
"""Where the reward takes too much; agents say which of their own settings to lower."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, for whoever watches."""

    num_env_steps: int
    total_env_steps: int
    labels: int
    total_labels: int
    true_return: float | None
    """Mean of those of the last 20 episodes whose true return is known."""
    learned_return: float | None
    steps_per_second: float
    by_own_measure: bool = False
    """What is asked for is not what the environment rewards."""

    def facts(self) -> str:
        """Return the figures in a few words, for the terminal."""
        parts = [f"{self.labels}/{self.total_labels} labels"] if self.total_labels else []
        true = [] if self.true_return is None else [f"true return {self.true_return:.5g}"]
        learned = []
        if self.learned_return is not None and self.total_labels:
            learned = [f"learned {self.learned_return:.4g}"]
        if self.by_own_measure:
            parts += [*learned, *(figure.replace("true", "environment's") for figure in true)]
        else:
            parts += [*true, *learned]
        parts.append(f"{self.steps_per_second:,.0f} steps/s")
        return ", ".join(parts)


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
        folder: ControlFolder,
        *,
        annotator: Annotator | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        fit_threads: int = 1,
    ) -> None:
        self.folder, self.on_progress = folder, on_progress
        self.is_baseline: bool = folder.config["baseline"]
        self.settings = settings = folder.settings
        self.total_env_steps = settings.steps
        probe = make_run_env(settings)
        choose = device_to_go_on_with if folder.metrics_path.is_file() else choose_device
        self.device = choose(settings.device, prefer_gpu=is_image(probe.observation_space))
        if not (self.is_baseline or folder.metrics_path.is_file()):
            warn_of_short_segments(settings, probe)
        probe.close()
        self.agent: Agent = make_run_agent(
            settings, seed=stream_seed(settings.seed, "agent"), device=self.device, pass_true_reward=self.is_baseline
        )
        self.history = History(settings.history_mb * 1_000_000)
        self.best = BestPolicy()
        self.recent_returns: list[tuple[float, float]] = []  # true and learned, of the episodes ended last
        self._running_learned = np.zeros(0)
        self._stop_wanted = False
        self._ended_since_checkpoint = 0  # episodes
        self._checkpoint_postponed = False
        self.teaching: Teaching = TrueReward(settings.steps)
        self.demonstrations: Demonstrations | None = None
        if not self.is_baseline:
            spaces = self.agent.observation_space, self.agent.action_space
            self.demonstrations = Demonstrations.open(folder, spaces)
            wanted = settings.warmup == "entropy" or self._may_explore
            self.teaching = make_teaching(
                folder, settings, *spaces, annotator=annotator, device=self.device, fit_threads=fit_threads,
                demonstrations=self.demonstrations, novelty=ParticleEntropy(spaces[0]) if wanted else None,
            )  # fmt: skip

    @property
    def _may_explore(self) -> bool:
        """The agent may look for something new while answers tell nothing: there is nothing that it would unlearn."""
        begun = self.settings.from_offline is not None or self.settings.clone_demonstrations
        return not begun and knows_states(self.agent.observation_space)

    # ------------------------------------------------------------------------------------------------ the run

    def run(self) -> bool:
        """Train from the newest checkpoint, or from the start; return whether the end was reached.

        `stop` makes it save and return before that.
        """
        with enough_memory(LESS_MEMORY, LESS_GPU_MEMORY):
            return self._run_from(checkpoint_to_go_on_from(self.folder))

    def _run_from(self, checkpoint: Checkpoint | None) -> bool:
        if checkpoint is not None:
            self._restore(checkpoint)
        else:
            self._start()
        try:
            while not self.teaching.at_end(self.agent.num_env_steps):
                self._hold()
                if self._stop_wanted:
                    self._save_checkpoint()
                    return False
                self._iterate()
            self._finish()
            return True
        finally:
            self.metrics.close()

    def _hold(self) -> None:
        """Wait for answers where the teaching must."""
        explored = self.teaching.explores
        fitted = self.teaching.hold(self.history, self.agent.num_env_steps, lambda: self._stop_wanted)
        if fitted is not None or explored != self.teaching.explores:
            self._relabel()

    def _relabel(self) -> None:
        """Let the agent score anew what it keeps, by what was learned; what it explored by stays as it was."""
        reward = None if self.teaching.explores else self.teaching.given(self.agent.num_env_steps)
        if reward is not None:
            self.agent.relabel(reward)

    def stop(self) -> None:
        """Ask the run to save and return after the iteration it is in."""
        self._stop_wanted = True

    def _start(self) -> None:
        settings = self.settings
        self.metrics = MetricsWriter(self.folder)
        seed_global_random(stream_seed(settings.seed, "global"))
        if settings.from_offline is not None:
            start_policy(Path(settings.from_offline), self.agent)
        if settings.clone_demonstrations:
            start_clone(self.folder, self.agent)
        self._reset_environments()
        self.folder.save_policy("before", self.agent.policy_state())
        rollout = self._warm_up()
        if not self._may_explore:
            self.teaching.novelty = None
        self.teaching.begin(rollout, self.history, self.agent.num_env_steps)
        self._relabel()

    def _warm_up(self) -> Rollout:
        """Make the first steps, before anything is asked; return the last rollout."""
        settings = self.settings
        novelty = self.teaching.novelty if settings.warmup == "entropy" else None
        steps = settings.warmup_steps if novelty is None else settings.warmup_steps // EXPLORED_BEFORE
        rng, uniform = stream(settings.seed, "explore"), settings.warmup == "uniform"
        if settings.clone_demonstrations and not uniform:
            # A clone does much as the demonstrations do: what these are preferred to is something else.
            with own_folder():
                rollout = self.agent.explore(steps // 2, rng, uniform=True)
            self._take_in(rollout, np.zeros(rollout.terminated.shape, np.float32))
            steps -= rollout.num_steps
        if self.demonstrations is not None and self.history.num_steps:
            self.demonstrations.compare_with(self.history)
        with own_folder():
            rollout = self.agent.explore(steps, rng, uniform=uniform)
        self._take_in(rollout, np.zeros(rollout.terminated.shape, np.float32))
        while novelty is not None and self.agent.num_env_steps < settings.warmup_steps:
            with own_folder():
                rollout = self.agent.improve(novelty).rollout
            self._take_in(rollout, np.zeros(rollout.terminated.shape, np.float32))
        if self.is_baseline or self.folder.baseline is not None:
            check_true_rewards(rollout)
        return rollout

    def _iterate(self) -> None:
        begin = time.perf_counter()
        steps = self.agent.num_env_steps
        halfway = steps < self.total_env_steps / 2
        self.teaching.begin_rollout(self.history)
        with own_folder():
            improvement = self.agent.improve(self.teaching.given(steps))
        improvement = self._as_reported(improvement, steps)
        if self.is_baseline:
            check_true_rewards(improvement.rollout)
        improved = time.perf_counter()
        if halfway and self.agent.num_env_steps >= self.total_env_steps / 2:
            self.folder.save_policy("during", self.agent.policy_state())
        self._keep_for_film(improvement.rollout.num_steps)
        ended = self._take_in(improvement.rollout, improvement.learned_rewards)
        taken_in = time.perf_counter()
        self._learn_reward(improvement.rollout)
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
                    labels=self.teaching.labels,
                    total_labels=self.teaching.total_labels,
                    true_return=self._mean_return(0) if self.settings.shows_true_reward else None,
                    by_own_measure=self.settings.by_own_measure and not self.is_baseline,
                    learned_return=self._mean_return(1),
                    steps_per_second=row["steps_per_second"],
                )
            )

    def _as_reported(self, improvement: Improvement, steps: int) -> Improvement:
        """Return what the agent did with the rewards of what was learned, whatever it was given beside or instead."""
        reward, given = self.teaching.reward, improvement.learned_rewards
        if self.teaching.explores:
            plain = replace(improvement, learned_rewards=np.zeros_like(given))
            plain = plain if reward is None else rescored(improvement, reward)
            return replace(plain, figures=plain.figures | {"novelty": float(np.mean(given))})
        return without_bonus(improvement, reward) if reward is not None and self.teaching.bonus(steps) else improvement

    def _finish(self) -> None:
        self.teaching.finish(self.folder, self.best.policy or self.agent.policy_state())
        self._save_checkpoint()
        self.folder.save_policy("last", self.agent.policy_state())  # tells that all of the above is there

    def _take_in(self, rollout: Rollout, learned: Array) -> list[Episode]:
        """Add a rollout to the history and the episodes that ended to the returns; tell the annotator."""
        ended = self.history.add(rollout)
        if self.teaching.novelty is not None:
            rng = stream(self.settings.seed, "novelty", self.agent.num_env_steps)
            self.teaching.novelty.remember(join_axes(take(rollout.observations, slice(1, None))), rng)
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
        self.teaching.observe(ended)
        return ended

    def _learn_reward(self, rollout: Rollout) -> None:
        """Ask, take in what was answered and fit, as the teaching sees fit; hold the policy against the best so far."""
        steps = self.agent.num_env_steps
        explored = self.teaching.explores
        lesson = self.teaching.after_rollout(self.history, steps)
        changed = self.teaching.bonus(steps) != self.teaching.bonus(steps - rollout.num_steps)
        if lesson.fitted is not None or changed or explored != self.teaching.explores:
            self._relabel()
        if lesson.judge is not None:
            self.best.offer(rollout, self.agent.policy_state(), lesson.judge, steps)

    # ------------------------------------------------------------------------------------------------ bookkeeping

    def _keep_for_film(self, num_new_steps: int) -> None:
        """Keep the policy now and then, where people want to see what became of their answers."""
        now = self.agent.num_env_steps
        shown = self.settings.asks_people and not self.is_baseline
        if shown and is_due(now - num_new_steps, now, self.total_env_steps):
            self.folder.save_policy(policy_name(now), self.agent.policy_state())

    def _mean_return(self, which: int) -> float | None:
        return mean_of_known(pair[which] for pair in self.recent_returns)

    def _metrics_row(self, improvement: Improvement, ended: list[Episode]) -> dict[str, Any]:
        num = len(ended)
        newest = self.recent_returns[-num:] if num else []
        learned, true = improvement.learned_rewards, improvement.rollout.true_rewards
        row: dict[str, Any] = {
            "num_env_steps": self.agent.num_env_steps,
            "labels": self.teaching.labels,
            "episodes": num,
            "true_return": mean_of_known(true for true, _ in newest),
            "learned_return": mean_of_known(learned for _, learned in newest),
            "correlation": _correlation(learned, true),
        }
        return improvement.figures | row | self.teaching.metrics()

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
        return wanted and (enough or late) and not self.teaching.at_end(now)

    def _save_checkpoint(self) -> None:
        """Write a checkpoint and start new episodes, as a run resumed from it will."""
        random = global_random_state()  # before the reset, in which many environments draw from it
        self._reset_environments()
        self._ended_since_checkpoint, self._checkpoint_postponed = 0, False
        metrics_size = self.metrics.sync()
        agent_tensors, agent_arrays = self.agent.state()
        history_arrays, history_values = self.history.state()
        parts = {
            "agent": State(tensors=agent_tensors, arrays=agent_arrays),
            "history": State(arrays=history_arrays, values=history_values),
            "best": self.best.state(),
            "random": random,
            "learner": self.teaching.state(),
        }
        own = {
            "metrics_size": metrics_size,
            "recent_returns": [list(pair) for pair in self.recent_returns],
        }
        state = State.joined(parts, own)
        save_checkpoint(self.folder, self.agent.num_env_steps, replace(state, values=finite(state.values)))

    def _restore(self, checkpoint: Checkpoint) -> None:
        state, own = checkpoint.state, checkpoint.state.values
        agent, history = state.part("agent"), state.part("history")
        self.agent.restore(agent.tensors, agent.arrays)
        self.history = History.restore(history.arrays, history.values)
        self.best.restore(state.part("best"))
        self.recent_returns = [
            (math.nan if true is None else true, math.nan if learned is None else learned)
            for true, learned in own["recent_returns"]
        ]
        self.metrics = MetricsWriter(self.folder, own["metrics_size"], checkpoint.count)
        self.teaching.restore(state.part("learner"))
        restore_global_random_state(state.part("random"))
        self.agent.reset_environments(stream_seed(self.settings.seed, "environments", self.agent.num_env_steps))

    def close(self) -> None:
        """Close the environments and the record."""
        self.agent.close()
        self.teaching.close()


def make_teaching(
    folder: ControlFolder,
    settings: RunSettings,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    annotator: Annotator | None,
    device: str,
    fit_threads: int = 1,
    demonstrations: Demonstrations | None = None,
    novelty: ParticleEntropy | None = None,
) -> ScheduledTeaching | PeopleTeaching:
    """Return what teaches a run that learns from answers.

    Args:
        folder: the run folder, which holds the record.
        settings: of the run.
        observation_space: of the environment.
        action_space: of the environment.
        annotator: who answers, or the teacher beside people; None: the one that the settings name.
        device: where the reward lives.
        fit_threads: threads that a fit may use.
        demonstrations: that are preferred to what the untaught agent did; None: there are none.
        novelty: what the agent is given while answers tell nothing; None: the learned reward all the same.
    """
    by_people = settings.asks_people
    named = annotator is None and settings.annotator != "human"
    teacher = make_run_teacher(settings) if named else annotator
    answering: Annotator = People(teacher) if by_people or teacher is None else teacher
    spaces = observation_space, action_space
    learner = RewardLearner(
        folder, settings, *spaces, annotator=answering, device=device, fit_threads=fit_threads, beside=not by_people,
        demonstrations=demonstrations,
    )  # fmt: skip
    if by_people:
        return PeopleTeaching(learner, settings, teacher, novelty)
    if named:
        for name in getattr(answering, "names", [answering.name]):
            learner.store.add_annotator(name, "teacher")
    return ScheduledTeaching(learner, settings, novelty)


class TrueRewardUnknown(UserError):
    """The environment's own reward, which a baseline trains on, is not a number."""


def check_true_rewards(rollout: Rollout) -> None:
    """Refuse to train on the environment's own reward where it is unknown.

    Raises:
        TrueRewardUnknown: it is NaN, None or infinite at a step.
    """
    if not np.isfinite(rollout.true_rewards).all():
        raise TrueRewardUnknown(
            "The environment's own reward is NaN, None or infinite, and a baseline trains on it: expected finite "
            "numbers. Leave out --baseline or --baseline-only, or fix the environment."
        )


def _correlation(first: Array, second: Array) -> float | None:
    """Return Pearson's correlation over all steps where both are finite, None where either is constant."""
    a, b = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) == 0 or a.std() < 1e-12 or b.std() < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])
