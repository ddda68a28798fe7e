"""The loop: collect, ask, fit, improve (Christiano et al. 2017, s. 2.2).

    agent --rollout--> history --segments--> queries --> record --> annotator --> record --> fit --> reward --> agent

Everything random outside the agent comes from streams named by what they are for (`prefrl.training.streams`), every
query and answer passes through the record before it is used, and at each checkpoint all environments are reset: so a
run that was killed and resumed ends exactly as one that was not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prefrl.agents import Agent, Improvement
from prefrl.annotators import Annotator, load_reward_function, make_teacher
from prefrl.errors import UserError
from prefrl.feedback import Query
from prefrl.history import Episode, History
from prefrl.queries import propose_pairs
from prefrl.rewards import ComparisonData, FitReport, Fitter, RewardEnsemble
from prefrl.segments import Rollout, stack_transitions
from prefrl.spaces import Array, is_image
from prefrl.store import PreferenceStore
from prefrl.training.best import BestPolicy
from prefrl.training.checkpoint import (
    Checkpoint,
    global_random_state,
    newest_checkpoint,
    restore_global_random_state,
    save_checkpoint,
)
from prefrl.training.folder import MetricsWriter, RunFolder, finite
from prefrl.training.policies import make_run_agent, make_run_env
from prefrl.training.streams import stream, stream_seed, torch_stream

UP_FRONT_AT_ONCE = 10  # labels asked at once before training
UP_FRONT_TIES = 0.8  # share of ties among these from which on the others are postponed
ATTEMPTS = 5  # times a session asks again for what its annotator skipped


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

    Raises:
        UserError: the settings do not fit the environment or this machine.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        annotator: Annotator | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.folder, self.on_progress = folder, on_progress
        config = folder.config
        self.run_id: str = config["run_id"]
        self.is_baseline: bool = config["baseline"]
        self.settings = settings = folder.settings
        assert settings.steps is not None and settings.segment_length is not None
        self.total_env_steps, self.segment_length = settings.steps, settings.segment_length
        probe = make_run_env(settings)
        self.device = choose_device(settings.device, is_image(probe.observation_space))
        probe.close()
        self.agent: Agent = make_run_agent(
            settings, seed=stream_seed(settings.seed, "agent"), device=self.device, pass_true_reward=self.is_baseline
        )
        self.history = History(settings.history_mb * 1_000_000)
        self.best = BestPolicy()
        self.labels = 0
        self.postponed = 0  # labels that were due before training and are asked later
        self.session = 0
        self.answers_read = 0  # row of the record up to which all answers have been taken in
        self.answered: set[str] = set()  # queries whose answers have been taken in
        self.taken: list[str] = []  # queries whose answers are in the data, in that order
        self.open_queries: dict[str, Query] = {}
        self.asked_pairs: set[frozenset[str]] = set()
        self.fit_report: FitReport | None = None
        self.recent_returns: list[tuple[float, float]] = []  # true and learned, of the episodes ended last
        self._running_learned = np.zeros(0)
        self._warned = False
        self._stop_wanted = False
        if self.is_baseline:
            return
        self.annotator = annotator or self._make_teacher()
        self.store = PreferenceStore(folder.record_path)
        self.schedule = settings.label_schedule()
        reward_seed = stream_seed(settings.seed, "reward")
        self.reward = RewardEnsemble(
            self.agent.observation_space, self.agent.action_space, settings.reward, seed=reward_seed, device=self.device
        )
        self.fitter = Fitter(self.reward, settings.fit)
        self.data = self._empty_data()

    def _empty_data(self) -> ComparisonData:
        return ComparisonData(
            self.reward, self.segment_length, bootstrap=self.settings.fit.bootstrap, capacity=self.settings.labels
        )

    def _make_teacher(self) -> Annotator:
        settings = self.settings
        function = None if settings.reward_function is None else load_reward_function(settings.reward_function)
        return make_teacher(settings.teacher, seed=stream_seed(settings.seed, "teacher"), reward_function=function)

    # ------------------------------------------------------------------------------------------------ the run

    def run(self) -> bool:
        """Train from the newest checkpoint, or from the start; return whether the end was reached.

        `stop` makes it save and return before that.
        """
        checkpoint, refused = newest_checkpoint(self.folder.checkpoints, self.run_id)
        for reason in refused:
            warnings.warn(f"{reason} Going on from the checkpoint before it.", stacklevel=2)
        if checkpoint is not None:
            self._restore(checkpoint)
        else:
            self._start()
        try:
            while self.agent.num_env_steps < self.total_env_steps:
                if self._stop_wanted:
                    self._save_checkpoint()
                    return False
                self._iterate()
            self._finish()
            return True
        finally:
            self.metrics.close()

    def stop(self) -> None:
        """Ask the run to save and return after the iteration it is in."""
        self._stop_wanted = True

    def _start(self) -> None:
        settings = self.settings
        assert settings.warmup_steps is not None
        self.metrics = MetricsWriter(self.folder)
        self._reset_environments()
        self.folder.save_policy("before", self.agent.policy_state())
        rollout = self.agent.explore(settings.warmup_steps, stream(settings.seed, "explore"))
        self._take_in(rollout, np.zeros(rollout.terminated.shape, np.float32))
        if not self.is_baseline:
            self.reward.set_input_statistics(*rollout.flat_transitions())
            self._ask_and_fit()
            self.agent.relabel(self.reward)

    def _iterate(self) -> None:
        begin = time.perf_counter()
        halfway = self.agent.num_env_steps < self.total_env_steps / 2
        improvement = self.agent.improve(None if self.is_baseline else self.reward)
        improved = time.perf_counter()
        if halfway and self.agent.num_env_steps >= self.total_env_steps / 2:
            self.folder.save_policy("during", self.agent.policy_state())
        ended = self._take_in(improvement.rollout, improvement.learned_rewards)
        taken_in = time.perf_counter()
        if not self.is_baseline:
            self._ask_if_due(improvement)
        asked = time.perf_counter()
        due = self._checkpoint_due(improvement.rollout.num_steps)
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
                    labels=self.labels,
                    total_labels=0 if self.is_baseline else self.settings.labels,
                    true_return=self._mean_return(0),
                    learned_return=self._mean_return(1),
                    steps_per_second=row["steps_per_second"],
                )
            )

    def _finish(self) -> None:
        self.folder.save_policy("last", self.agent.policy_state())
        if not self.is_baseline:
            self.folder.save_policy("best", self.best.policy or self.agent.policy_state())
            self.reward.save(self.folder.reward_path)
        self._save_checkpoint()

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
        if not self.is_baseline:
            self.annotator.observe(ended)
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

    # ----------------------------------------------------------------------------------------- asking and fitting

    def _ask_if_due(self, improvement: Improvement) -> None:
        """Ask for labels that are due, take in answers that have come, fit if there are any, update the best policy."""
        due = self._labels_due() > self.labels + len(self.open_queries)
        if (due or self.open_queries) and self._ask_and_fit():
            self.agent.relabel(self.reward)
            due = True
        if due or self.agent.num_env_steps >= self.total_env_steps:
            policy = self.agent.policy_state()
            self.best.offer(improvement.rollout, policy, self.reward, self.agent.num_env_steps)

    def _ask_and_fit(self) -> bool:
        """Ask for the labels that are due and fit the reward to new answers; return whether there were any."""
        known = len(self.data)
        if self.session == 0:
            self._ask_up_front()
        for _ in range(ATTEMPTS):
            missing = self._labels_due() - self.labels - len(self.open_queries)
            if missing > 0:
                self._ask(missing)
            self._take_answers()
            if missing <= 0 or self.open_queries:
                break
        if len(self.data) == known:
            return False
        self._fit()
        return True

    def _ask_up_front(self) -> None:
        """Ask the labels due before training, a few at a time.

        Where nearly all of a few are ties, random behaviour shows too little to be worth a label: the others are
        postponed and asked in the later sessions, in proportion to what these ask anyway.
        """
        due = self.schedule.labels_due(self.agent.num_env_steps)
        while self.labels + len(self.open_queries) < due:
            begin = len(self.data)
            self._ask(min(UP_FRONT_AT_ONCE, due - self.labels - len(self.open_queries)))
            self._take_answers()
            new = self.data.preferences[begin:]
            if self.open_queries:
                continue  # answers will come later: nothing to go by
            if len(new) == 0:
                break
            if np.mean(new == 0.5) >= UP_FRONT_TIES and due < self.settings.labels:
                self.postponed = due - self.labels
                break

    def _labels_due(self) -> int:
        """Return how many labels should have been asked by now, `postponed` ones among the later."""
        planned, total = self.schedule.labels_due(self.agent.num_env_steps), self.settings.labels
        if self.postponed == 0:
            return planned
        assert self.settings.warmup_steps is not None
        first = self.schedule.labels_due(self.settings.warmup_steps)
        share = (planned - first) / (total - first)
        return first - self.postponed + round(share * (total - first + self.postponed))

    def _ask(self, num_queries: int) -> None:
        """Put a session of queries into the record, or find it there from before a kill."""
        queries = self.store.session_queries(self.session)
        if not queries:
            settings = self.settings
            by_center = settings.queries.method.startswith("k-center") and len(self.data) > 0
            pairs = propose_pairs(
                self.history,
                self.reward if self.fitter.num_fits else None,
                num_queries,
                length=self.segment_length,
                method=settings.queries.method,
                candidates_per_query=settings.queries.candidates,
                asked=self.asked_pairs,
                last_steps=max(1, int(settings.queries.recent * self.total_env_steps)),
                recent_share=settings.queries.recent_share,
                end_share=settings.queries.end_share,
                asked_embeddings=self.data.pair_embeddings() if by_center else None,
                rng=stream(settings.seed, "queries", self.session),
            )
            steps = self.agent.num_env_steps
            queries = [Query(segments=pair, session=self.session, num_env_steps=steps) for pair in pairs]
            self.store.add_queries(queries)
        self.asked_pairs |= {query.pair for query in queries}
        self.open_queries |= {query.id: query for query in queries}
        self.session += 1

    def _take_answers(self) -> None:
        """Let the annotator answer what is open, and take in what the record holds now."""
        recorded = self.store.answers(after=self.answers_read)
        answered = {comparison.query_id for _, comparison in recorded}
        waiting = [query for query in self.open_queries.values() if query.id not in answered]
        if waiting:
            answers = self.annotator.answer(waiting)
            if answers:
                self.store.add_answers(answers)
                recorded = self.store.answers(after=self.answers_read)
        pairs, preferences = [], []
        for row, comparison in recorded:
            query = self.open_queries.pop(comparison.query_id, None)
            if query is not None:
                self.answered.add(comparison.query_id)
            if comparison.query_id in self.answered and row == self.answers_read + 1:
                self.answers_read = row
            if query is None:
                continue  # taken in already, or of a session that this resumed run has not come to again
            if comparison.preference is None:
                self.labels += getattr(self.annotator, "skips_cost_labels", False)
                continue
            pairs.append(query.segments)
            preferences.append(comparison.preference)
            self.taken.append(comparison.query_id)
        self.labels += len(pairs)
        self.data.add(pairs, preferences, stream(self.settings.seed, "bootstrap", len(self.data)))

    def _fit(self) -> None:
        seed, number = self.settings.seed, self.fitter.num_fits
        self.fit_report = self.fitter.fit(self.data, torch_stream(seed, "fit", number))
        segments = self.history.sample(
            self.settings.reference_segments, self.segment_length, stream(seed, "reference", number)
        )
        self.reward.normalise(*stack_transitions(segments))

    # ------------------------------------------------------------------------------------------------ bookkeeping

    def _mean_return(self, which: int) -> float | None:
        return float(np.mean([pair[which] for pair in self.recent_returns])) if self.recent_returns else None

    def _metrics_row(self, improvement: Improvement, ended: list[Episode]) -> dict[str, Any]:
        num = len(ended)
        newest = self.recent_returns[-num:] if num else []
        learned, true = improvement.learned_rewards, improvement.rollout.true_rewards
        row: dict[str, Any] = {
            "num_env_steps": self.agent.num_env_steps,
            "labels": self.labels,
            "episodes": num,
            "true_return": float(np.mean([t for t, _ in newest])) if newest else None,
            "learned_return": float(np.mean([x for _, x in newest])) if newest else None,
            "correlation": _correlation(learned, true),
        }
        if self.fit_report is not None:
            row["reward_accuracy"] = _mean(self.fit_report.held_out_accuracy)
            row["reward_train_accuracy"] = _mean(self.fit_report.train_accuracy)
            row["reward_loss"] = _mean(self.fit_report.held_out_loss)
            row["reward_train_loss"] = _mean(self.fit_report.train_loss)
        return row

    def _reset_environments(self) -> None:
        self.agent.reset_environments(stream_seed(self.settings.seed, "environments", self.agent.num_env_steps))
        self.history.cut()
        self._running_learned = np.zeros(0)

    def _checkpoint_due(self, steps_made: int) -> bool:
        every = self.total_env_steps / self.settings.num_checkpoints
        now, before = self.agent.num_env_steps, self.agent.num_env_steps - steps_made
        return int(now / every) > int(before / every) and now < self.total_env_steps

    def _save_checkpoint(self) -> None:
        """Write a checkpoint and start new episodes, as a run resumed from it will."""
        self._reset_environments()
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
        if not self.is_baseline:
            tensors |= {"reward": self.reward.state_dict(), "fitter": self.fitter.state()}
            arrays["data/counts"] = self.data.counts
            arrays["data/preferences"] = self.data.preferences
            values |= {
                "labels": self.labels,
                "postponed": self.postponed,
                "session": self.session,
                "answers_read": self.answers_read,
                "answered": sorted(self.answered),
                "taken": self.taken,
                "annotator": self.annotator.state(),
                "fit_report": None if self.fit_report is None else self.fit_report.to_json(),
            }
        checkpoint = Checkpoint(
            num_env_steps=self.agent.num_env_steps, tensors=tensors, arrays=arrays, values=finite(values)
        )
        save_checkpoint(self.folder.checkpoints, self.run_id, checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, arrays, values = checkpoint.tensors, checkpoint.arrays, checkpoint.values
        self.agent.restore(tensors["agent"], _unprefixed("agent", arrays))
        self.history = History.restore(_unprefixed("history", arrays), values["history"])
        self.best.restore(tensors["best"], _unprefixed("best", arrays))
        self.recent_returns = [(pair[0], pair[1]) for pair in values["recent_returns"]]
        self._warned = values["warned"]
        self.metrics = MetricsWriter(self.folder, values["metrics_size"], checkpoint.num_env_steps)
        if not self.is_baseline:
            self.reward.load_state_dict(tensors["reward"])
            self.fitter.restore(tensors["fitter"])
            self.labels, self.postponed, self.session = values["labels"], values["postponed"], values["session"]
            self.answers_read, self.taken = values["answers_read"], values["taken"]
            self.answered = set(values["answered"])
            self.annotator.restore(values["annotator"])
            self.fit_report = None if values["fit_report"] is None else FitReport(**values["fit_report"])
            self._restore_comparisons(arrays["data/preferences"], arrays["data/counts"])
        self.agent.reset_environments(stream_seed(self.settings.seed, "environments", self.agent.num_env_steps))
        restore_global_random_state(tensors["random"], values["random"])

    def _restore_comparisons(self, preferences: Array, counts: Array) -> None:
        self.asked_pairs = self.store.asked_pairs()
        self.data = self._empty_data()
        taken, encoded = set(self.taken), {}
        for session in range(self.session):  # one at a time: the segments of all would fill the memory
            for query in self.store.session_queries(session):
                if query.id in taken:
                    encoded[query.id] = self.data.encode(query.segments)
                elif query.id not in self.answered:
                    self.open_queries[query.id] = query
        self.data.add_encoded([encoded[name] for name in self.taken], preferences, counts)

    def close(self) -> None:
        """Close the environments and the record."""
        self.agent.close()
        if not self.is_baseline:
            self.store.close()


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
        reason = str(error).splitlines()[0]
        raise UserError(f"The device {wanted!r} cannot be used here: {reason} Use --device cpu or auto.") from None
    return wanted


def _correlation(first: Array, second: Array) -> float | None:
    """Return Pearson's correlation over all steps, None where either is constant or not finite."""
    a, b = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or a.std() < 1e-12 or b.std() < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _prefixed(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _unprefixed(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    start = prefix + "/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
