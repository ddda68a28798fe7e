"""Learning the reward: ask what is due, take in the answers, fit.

The queries and answers all pass through the record; which of them this run has taken in is its own state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from prefrl.annotators import Annotator, load_reward_function, make_teacher
from prefrl.feedback import KINDS, Answer, Query, Undo
from prefrl.history import Episode, History
from prefrl.queries import METHODS, propose_pairs, reads_asked
from prefrl.rewards import ComparisonData, FitReport, Fitter, RewardEnsemble
from prefrl.segments import Rollout, stack_transitions
from prefrl.spaces import Array
from prefrl.training.earlier import copy_answers
from prefrl.training.folder import RunFolder
from prefrl.training.settings import TrainSettings
from prefrl.training.streams import stream, stream_seed, torch_stream
from prefrl.training.threads import torch_threads

PATIENCE_SECONDS = 600.0  # for the record's server, once it was there: hours of training outlast its restart
UP_FRONT_AT_ONCE = 10  # labels asked at once before training
UP_FRONT_TIES = 0.8  # share of ties among these from which on the others are postponed
INPUTS_FROM = 0.1  # share of the run, the newest, that the scales of the reward's inputs are taken from
INPUT_STEPS = 1_000  # drawn from there
MANY_TIES = 0.25  # share of ties from which on what the agent usually does is not what the answers are about
ATTEMPTS = 5  # times a session asks again for what its annotator skipped


class RewardLearner:
    """The reward of a run, and everything it is learned from.

    Args:
        folder: the run folder, which holds the record.
        settings: resolved settings of the run.
        observation_space: of the environment.
        action_space: of the environment.
        annotator: who answers; None: the teacher that the settings name.
        device: where the reward lives.
        fit_threads: threads that a fit may use.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainSettings,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        annotator: Annotator | None,
        device: str,
        fit_threads: int = 1,
    ) -> None:
        assert settings.segment_length is not None and settings.steps is not None
        self.settings, self.segment_length, self.total_env_steps = settings, settings.segment_length, settings.steps
        self.annotator = annotator or make_run_teacher(settings)
        self.fit_threads = fit_threads
        self.store = folder.open_record()
        if annotator is None:
            self.store.add_annotator(self.annotator.name, "teacher")
        self.store.patience_seconds = PATIENCE_SECONDS
        self.schedule = settings.label_schedule()
        self.method = METHODS.find(settings.queries.method)
        seed = stream_seed(settings.seed, "reward")
        self.reward = RewardEnsemble(observation_space, action_space, settings.reward, seed=seed, device=device)
        self.fitter = Fitter(self.reward, settings.fit)
        self.data = self._empty_data()
        self.fit_report: FitReport | None = None
        self.labels = 0
        self.up_front = 0  # labels that were due before training
        self.postponed = 0  # those of them that are asked later
        self.session = 0
        self.answers_read = 0  # row of the record up to which all answers have been taken in
        self.settled: set[int] = set()  # rows after that one that have been taken in too
        self.taken: list[int] = []  # rows of the answers that are in the data, in that order
        self.open_queries: dict[str, Query] = {}
        self.closed: set[str] = set()  # queries that need no more answers
        self.answerers: dict[str, list[str]] = {}  # who has answered each query
        self.asked_pairs: set[frozenset[str]] = set()

    def _empty_data(self) -> ComparisonData:
        bootstrap, labels = self.settings.fit.bootstrap, self.settings.labels
        return ComparisonData(self.reward, self.segment_length, bootstrap=bootstrap, capacity=labels)

    @property
    def fitted(self) -> bool:
        """The reward has been fitted to something."""
        return self.fitter.num_fits > 0

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Tell the annotator of training episodes that ended."""
        self.annotator.observe(episodes)

    def begin(self, warmup: Rollout, history: History, num_env_steps: int) -> None:
        """Take the statistics of the inputs from the warm-up, ask the labels due before training and fit."""
        self.reward.set_input_statistics(*warmup.flat_transitions())
        self.take_over_earlier()
        self._ask_up_front(history, num_env_steps)
        self.learn(history, num_env_steps)

    def take_over_earlier(self) -> None:
        """Take in the answers of an earlier run, if the settings name one, beside the labels that this one asks for."""
        if self.settings.from_run is None:
            return
        earlier = Path(self.settings.from_run)
        num = copy_answers(earlier, self.store, self.reward.observation_space, self.segment_length)
        self.store.set_facts({"labels_before": num})  # beside those that viewers count
        queries = self.store.session_queries(0)
        self.asked_pairs |= {query.pair for query in queries}
        self.open_queries = {query.id: query for query in queries}
        self.session = 1
        self._take_answers()
        self.labels, self.open_queries = 0, {}

    def hold(self, history: History, num_env_steps: int, stopping: Callable[[], bool]) -> bool:
        """Wait before the agent goes on, if there is a reason to; return whether the reward was fitted meanwhile."""
        return False

    def at_end(self, num_env_steps: int) -> bool:
        """The training is over."""
        return num_env_steps >= self.total_env_steps

    def due(self, num_env_steps: int) -> bool:
        """More labels should have been asked by now."""
        return self._labels_due(num_env_steps) > self.labels + len(self.open_queries)

    def learn(self, history: History, num_env_steps: int) -> bool:
        """Ask for the labels that are due and fit the reward to new answers; return whether there were any."""
        known = self.fit_report.num_comparisons if self.fit_report is not None else 0
        for _ in range(ATTEMPTS):
            missing = self._labels_due(num_env_steps) - self.labels - len(self.open_queries)
            if missing > 0:
                self._ask(history, num_env_steps, missing)
            self._take_answers()
            if missing <= 0 or self.open_queries:
                break
        if len(self.data) == known:
            return False
        self._fit(history)
        return True

    def _ask_up_front(self, history: History, num_env_steps: int) -> None:
        """Ask the labels due before training, a few at a time.

        Where nearly all of a few are ties, random behaviour shows too little to be worth a label: the others are
        postponed and asked in the later sessions, in proportion to what these ask anyway.
        """
        due = self.up_front = self.schedule.labels_due(num_env_steps)
        while self.labels + len(self.open_queries) < due:
            begin = len(self.data.preferences)
            self._ask(history, num_env_steps, min(UP_FRONT_AT_ONCE, due - self.labels - len(self.open_queries)))
            self._take_answers()
            new = self.data.preferences[begin:]
            if self.open_queries:
                continue  # answers will come later: nothing to go by
            if len(new) == 0:
                break
            if np.mean(new == 0.5) >= UP_FRONT_TIES and due < self.settings.labels:
                self.postponed = due - self.labels
                break

    def _labels_due(self, num_env_steps: int) -> int:
        """Return how many labels should have been asked by now, `postponed` ones among the later."""
        planned, total = self.schedule.labels_due(num_env_steps), self.settings.labels
        if self.postponed == 0:
            return planned
        share = (planned - self.up_front) / (total - self.up_front)
        asked = self.up_front - self.postponed
        return asked + round(share * (total - asked))

    def _ask(self, history: History, num_env_steps: int, num_queries: int) -> None:
        """Put a session of queries into the record, or find it there from before a kill."""
        queries = self.store.session_queries(self.session)
        if not queries:
            settings = self.settings
            maker = settings.queries.maker
            look_back = reads_asked(self.method) and len(self.data) > 0
            pairs = propose_pairs(
                history,
                self.reward if self.fitted else None,
                maker.num_pairs(num_queries),
                length=self.segment_length,
                method=self.method,
                candidates_per_query=settings.queries.candidates,
                asked=self.asked_pairs,
                last_steps=max(1, int(settings.queries.recent * self.total_env_steps)),
                recent_share=settings.queries.recent_share,
                end_share=settings.queries.end_share,
                asked_embeddings=self.data.pair_embeddings() if look_back else None,
                rng=stream(settings.seed, "queries", self.session),
            )
            queries = maker.make(pairs, num_queries, session=self.session, num_env_steps=num_env_steps)
            queries = [self._prepared(query, history) for query in queries]
            self.store.add_queries(queries)
        self.asked_pairs |= {query.pair for query in queries}
        self.open_queries |= {query.id: query for query in queries}
        self.session += 1

    def _prepared(self, query: Query, history: History) -> Query:
        """Return a query as it goes into the record."""
        return query

    def _take_answers(self) -> None:
        """Let the annotator answer what is open, and take in what the record holds now."""
        recorded = self._new_answers()
        answered = {answer.query_id for _, answer in recorded}
        waiting = [query for query in self.open_queries.values() if query.id not in answered]
        if waiting:
            answers = self.annotator.answer(waiting)
            if answers:
                self.store.add_answers(answers)
                recorded = self._new_answers()
        undone = {answer.undoes for _, answer in recorded if isinstance(answer, Undo)}
        new: list[tuple[int, Answer, Query]] = []
        for row, answer in recorded:
            if row in self.settled:
                continue
            if isinstance(answer, Undo):
                if answer.undoes <= self.answers_read or answer.undoes in self.settled:
                    self._take_back(answer)
                    self.settled.add(row)
                continue
            query = self.open_queries.get(answer.query_id)
            if query is None and answer.query_id not in self.closed:
                continue  # of a session that this resumed run has not come to again
            self.settled.add(row)
            if row in undone or query is None or not self._counts(answer, query):
                continue
            if answer.value is None:
                self.labels += getattr(self.annotator, "skips_cost_labels", False)
            else:
                new.append((row, answer, query))
        for row, _ in recorded:
            if row not in self.settled:
                break
            self.answers_read = row
        self.settled = {row for row in self.settled if row > self.answers_read}
        self._learn_from(new)

    def _counts(self, answer: Answer, query: Query) -> bool:
        """Note who answered; return whether it teaches something."""
        names = self.answerers.setdefault(query.id, [])
        new = answer.kind == query.kind and answer.annotator not in names
        if answer.kind == query.kind:
            names.append(answer.annotator)
        if len(set(names)) >= query.overlap:
            del self.open_queries[query.id]
            self.closed.add(query.id)
        return new and answer.annotator not in self.settings.without

    def _learn_from(self, new: Sequence[tuple[int, Answer, Query]]) -> None:
        if not new:
            return
        counts = self.data.draw_counts(len(new), stream(self.settings.seed, "bootstrap", len(self.data)))
        items = [self.data.encode(query.segments) for _, _, query in new]
        answers, scales = [answer for _, answer, _ in new], [query.scale for _, _, query in new]
        self.data.add_answers(items, answers, scales, counts)
        self.taken += [row for row, _, _ in new]
        self.labels += len(new)

    def _take_back(self, undo: Undo) -> None:
        """Forget an answer that was taken back; its query is open again."""
        if undo.undoes in self.taken:
            place = self.taken.index(undo.undoes)
            self.data.remove(place)
            del self.taken[place]
            self.labels -= 1
        names = self.answerers.get(undo.query_id, [])
        if undo.annotator in names:
            names.remove(undo.annotator)
        if undo.query_id in self.closed:
            self.closed.discard(undo.query_id)
            self.open_queries[undo.query_id] = self.store.query(undo.query_id)

    def _new_answers(self) -> list[tuple[int, Answer]]:
        return self.store.answers(after=self.answers_read, repeats=False)

    def _fit(self, history: History) -> None:
        seed, number = self.settings.seed, self.fitter.num_fits
        if self.fitted and self.reward.num_inputs and self.data.tie_share < MANY_TIES:
            recent = max(1, int(INPUTS_FROM * self.total_env_steps))
            steps = history.sample_steps(INPUT_STEPS, stream(seed, "inputs", number), last_steps=recent)
            self.reward.follow_inputs(*stack_transitions(steps))
        with torch_threads(self.fit_threads):
            self.fit_report = self.fitter.fit(self.data, torch_stream(seed, "fit", number))
        reference = stream(seed, "reference", number)
        if self.data.tie_share < MANY_TIES:
            segments = history.sample(self.settings.reference_segments, self.segment_length, reference)
            self.reward.normalise(*stack_transitions(segments))
        else:
            asked = self.data.sample_features(self.settings.reference_segments, reference)
            self.reward.normalise_on_asked(asked, self.segment_length)

    def metrics(self) -> dict[str, float | None]:
        """Return how well the reward fits, averaged over its members; nothing before the first fit."""
        if self.fit_report is None:
            return {}
        return {
            "reward_accuracy": _mean(self.fit_report.held_out_accuracy),
            "reward_train_accuracy": _mean(self.fit_report.train_accuracy),
            "reward_loss": _mean(self.fit_report.held_out_loss),
            "reward_train_loss": _mean(self.fit_report.train_loss),
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Array], dict[str, Any]]:
        """Return what a checkpoint must hold: tensors, arrays and JSON; the segments stay in the record."""
        tensors = {"reward": self.reward.state_dict(), "fitter": self.fitter.state()}
        arrays = {"counts": self.data.counts}
        values = {
            "labels": self.labels,
            "up_front": self.up_front,
            "postponed": self.postponed,
            "session": self.session,
            "answers_read": self.answers_read,
            "settled": sorted(self.settled),
            "taken": self.taken,
            "annotator": self.annotator.state(),
            "fit_report": None if self.fit_report is None else self.fit_report.to_json(),
        }
        return tensors, arrays, values

    def restore(self, tensors: dict[str, Any], arrays: dict[str, Array], values: dict[str, Any]) -> None:
        """Go on from what `state` gave, with the segments of the record."""
        self.reward.load_state_dict(tensors["reward"])
        self.fitter.restore(tensors["fitter"])
        for name in ("labels", "up_front", "postponed", "session", "answers_read", "taken"):
            setattr(self, name, values[name])
        self.settled = set(values["settled"])
        self.annotator.restore(values["annotator"])
        self.fit_report = None if values["fit_report"] is None else FitReport(**values["fit_report"])
        self._restore_data(arrays["counts"])

    def _restore_data(self, counts: Array) -> None:
        self.asked_pairs = self.store.asked_pairs()
        self.data = self._empty_data()
        known = {
            row: a for row, a in self.store.answers(repeats=False) if row <= self.answers_read or row in self.settled
        }
        undone = {answer.undoes for answer in known.values() if isinstance(answer, Undo)}
        self.answerers, self.closed = {}, set()
        for row, answer in known.items():
            if row not in undone and answer.kind in KINDS:
                self.answerers.setdefault(answer.query_id, []).append(answer.annotator)
        taught = {known[row].query_id for row in self.taken}
        encoded, scales = {}, {}
        for session in range(self.session):  # one at a time: the segments of all would fill the memory
            for query in self.store.session_queries(session):
                if query.id in taught:
                    encoded[query.id], scales[query.id] = self.data.encode(query.segments), query.scale
                if len(set(self.answerers.get(query.id, ()))) >= query.overlap:
                    self.closed.add(query.id)
                else:
                    self.open_queries[query.id] = query
        answers = [known[row] for row in self.taken]
        self.data.add_answers(
            [encoded[a.query_id] for a in answers], answers, [scales[a.query_id] for a in answers], counts
        )

    def close(self) -> None:
        """Close the record."""
        self.store.close()


def make_run_teacher(settings: TrainSettings) -> Annotator:
    """Make the simulated teacher that the settings name."""
    function = None if settings.reward_function is None else load_reward_function(settings.reward_function)
    return make_teacher(settings.teacher, seed=stream_seed(settings.seed, "teacher"), reward_function=function)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
