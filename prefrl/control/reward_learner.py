"""What a run learns its reward from: queries put into the record, answers taken in from it, fits.

When all this happens is for others to say (`prefrl.control.scheduled`, `prefrl.control.people`), and which answers
count for `prefrl.control.intake`. The queries and answers all pass through the record; which of them this run has taken
in is its own state.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gymnasium

from prefrl.annotators import Annotator, load_reward_function, make_panel, make_teacher
from prefrl.control.demonstrations import ANNOTATOR, Demonstrations
from prefrl.control.earlier import copy_answers
from prefrl.control.fit_worker import FitDone, FitJob, FitWorker
from prefrl.control.folder import ControlFolder
from prefrl.control.intake import Change, Intake
from prefrl.control.lost import find_lost, what_is_known
from prefrl.control.offline_start import start_reward
from prefrl.control.serving import Serving
from prefrl.control.settings import RunSettings
from prefrl.control.steadiness import Steadiness
from prefrl.errors import UserError
from prefrl.feedback import Entry, Query
from prefrl.feedback.queries import AskedPairs
from prefrl.history import Episode, History
from prefrl.queries import METHODS, Pair, propose_pairs, reads_asked
from prefrl.rewards import ComparisonData, FitReport, Fitter, RewardEnsemble
from prefrl.rewards.networks import EnsembleMLP
from prefrl.runs import State
from prefrl.runs.folder import RESUME
from prefrl.runs.metrics import mean_of_known
from prefrl.runs.streams import stream, stream_seed
from prefrl.segments import Rollout, Segment, stack_transitions
from prefrl.spaces import Array
from prefrl.threads import torch_threads

PATIENCE_SECONDS = 600.0  # for the record's server, once it was there: hours of training outlast its restart
INPUTS_FROM = 0.1  # share of the run, the newest, that the scales of the reward's inputs are taken from
INPUT_STEPS = 1_000  # drawn from there
LONG_FIT_SECONDS = 0.1  # from which on a process of their own is begun for fits, where there are cores for it
DYNAMICS_STEPS = 4_000  # that a reward which learns the dynamics draws for each fit, at least
MANY_TIES = 0.25  # share of ties from which on what the agent usually does is not what the answers are about

Prepare = Callable[[Query, History], Query]


class RewardLearner:
    """The reward of a run, and everything it is learned from.

    Args:
        folder: the run folder, which holds the record.
        settings: of the run.
        observation_space: of the environment.
        action_space: of the environment.
        annotator: who answers.
        device: where the reward lives.
        fit_threads: threads that a fit may use.
        beside: fits may go on beside the agent (`begin_fit`), as those of perceptrons on the CPU then do.
        follows_agent: the scales of the reward's inputs follow what the agent did lately; not where data are given.
        demonstrations: that are preferred to what the untaught agent did; None: there are none.
    """

    def __init__(
        self,
        folder: ControlFolder,
        settings: RunSettings,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        annotator: Annotator,
        device: str,
        fit_threads: int = 1,
        beside: bool = False,
        follows_agent: bool = True,
        demonstrations: Demonstrations | None = None,
    ) -> None:
        self.settings, self.annotator, self.fit_threads = settings, annotator, fit_threads
        self._follows_agent, self.demonstrations = follows_agent, demonstrations
        self.store, self._accept_lost = folder.open_record(begins=True), folder.accept_lost
        self.store.patience_seconds = PATIENCE_SECONDS
        self.store.check()
        seed = stream_seed(settings.seed, "reward")
        self.reward = RewardEnsemble(observation_space, action_space, settings.reward, seed=seed, device=device)
        simple = isinstance(self.reward.network, EnsembleMLP) and self.reward.device.type == "cpu"
        alone = self.reward.num_groups == 1 and demonstrations is None  # else others look at the reward in between
        self.fits_beside = beside and simple and alone
        self._begun: FitJob | None = None
        self._fitting: Future[FitDone] | None = None  # where it is made by another process
        self._worker: FitWorker | None = None
        self._worth_a_worker = fit_threads > 1
        self.fitter = Fitter(self.reward, settings.fit)
        self.data = self._empty_data()
        self.fit_report: FitReport | None = None
        self.steadiness = Steadiness()
        self.intake = Intake(
            first_session=int(settings.from_run is not None or demonstrations is not None),
            without=settings.without,
            skips_cost_labels=getattr(annotator, "skips_cost_labels", False),
        )
        self.session = 0
        self.open_queries: dict[str, Query] = {}
        self.asked_pairs = AskedPairs()
        self._warned = self._told_missing = self._told_short = False
        self.screen = settings.queries.screen(self.reward)
        self.serving = Serving(self.reward, settings) if self.reward.num_groups > 1 else None

    def _empty_data(self) -> ComparisonData:
        settings, fit = self.settings, self.settings.fit
        return ComparisonData(
            self.reward, settings.segment_length,
            bootstrap=fit.bootstrap, held_out=fit.held_out, capacity=settings.labels,
        )  # fmt: skip

    @property
    def fitted(self) -> bool:
        """The reward has been fitted to something."""
        return self.fitter.num_fits > 0

    @property
    def labels(self) -> int:
        """Answers that this run has paid for."""
        return self.intake.labels

    @property
    def num_open(self) -> int:
        """Queries that want more answers."""
        return len(self.open_queries)

    @property
    def num_fitted(self) -> int:
        """Answers that the last fit was made to."""
        return 0 if self.fit_report is None else self.fit_report.num_comparisons

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Tell the annotator of training episodes that ended."""
        self.annotator.observe(episodes)
        if not self._warned and any(episode.terminated for episode in episodes):
            self._warned = True
            warnings.warn(
                f"Episodes of {self.settings.env_id} end early (terminate), so their length leaks the task: any "
                "constant reward can then teach it, whatever the answers. Use the fixed-horizon form: --fixed-horizon "
                "STEPS --terminal-reward R (R below 0 where ending is bad, above 0 where it is the goal).",
                stacklevel=2,
            )

    # ------------------------------------------------------------------------------------------------ asking

    def begin(self, warmup: Rollout, history: History | None = None) -> None:
        """Take the statistics of the inputs from the warm-up, and in what is known before anything is asked.

        That is the answers of an earlier run, if there is one, and comparisons with demonstrations.

        Args:
            warmup: what the agent did.
            history: the same, from which segments are drawn; needed where there are demonstrations.
        """
        start = self.settings.from_offline
        if start is None or not start_reward(Path(start), self.reward):
            self.reward.set_input_statistics(*warmup.flat_transitions())
        if self.serving is not None:
            self.serving.begin(warmup)
        if not self.intake.first_session:
            return
        num = 0
        if self.settings.from_run is not None:
            earlier = Path(self.settings.from_run)
            spaces = (self.reward.observation_space, self.reward.action_space)
            num += copy_answers(earlier, self.store, spaces, self.settings.segment_length)
        if self.demonstrations is not None:
            if not self.demonstrations.chosen:
                assert history is not None
                self.demonstrations.compare_with(history)
            num += self.demonstrations.record(self.store)
        self.store.set_facts({"labels_before": num})  # beside those that viewers count
        self._note_asked(self.store.session_queries(0))
        self.session = 1
        self.take_answers()

    def ask(self, history: History, num_env_steps: int, num_queries: int, prepare: Prepare | None = None) -> int:
        """Put a session of queries into the record, or find it there from before a kill; return how many there are.

        Where the history holds too few segments that were not asked about, they are fewer than wanted, perhaps none;
        the first time that is said.

        Args:
            history: where segments come from.
            num_env_steps: that the agent has made.
            num_queries: how many to ask.
            prepare: returns a query as it goes into the record.
        """
        queries = self.store.session_queries(self.session)
        pairs: list[Pair] = []
        if not queries or self.screen is not None:  # of a session in the record what was dropped is counted again
            pairs = self._propose(history, num_queries)
        if not queries:
            maker = self.settings.queries.maker
            queries = maker.make(pairs, num_queries, session=self.session, num_env_steps=num_env_steps)
            self._note_missing(num_queries - len(queries))
            if prepare is not None:
                queries = [prepare(query, history) for query in queries]
            self.store.add_queries(queries)
        self._note_asked(queries)
        self.session += bool(queries)  # one without queries cannot be told from one that was not asked
        return len(queries)

    def _propose(self, history: History, num_queries: int) -> list[Pair]:
        """Choose the pairs of the next session."""
        settings = self.settings
        method = METHODS.find(settings.queries.method)
        look_back = reads_asked(method) and len(self.data) > 0
        pairs = propose_pairs(
            history,
            self.reward if self.fitted else None,
            settings.queries.maker.num_pairs(num_queries),
            length=settings.segment_length,
            method=method,
            candidates_per_query=settings.queries.candidates,
            asked=self.asked_pairs,
            last_steps=max(1, int(settings.queries.recent * settings.steps)),
            recent_share=settings.queries.recent_share or 0.0,
            end_share=settings.queries.end_share,
            asked_embeddings=self.data.pair_embeddings() if look_back else None,
            rng=stream(settings.seed, "queries", self.session),
            fewer=True,
            screen=self.screen,
        )
        if self.screen is not None and self.screen.fell_short and not self._told_short:
            self._told_short = True
            warnings.warn(
                f"The agent has made too few different segments of {settings.segment_length} steps to leave out as "
                "many pairs as --queries.drop-alike and --queries.drop-even say: fewer are left out.",
                stacklevel=3,
            )
        return pairs

    def _note_missing(self, num_missing: int) -> None:
        if num_missing > 0 and not self._told_missing:
            self._told_missing = True
            warnings.warn(
                f"The agent has made too few different segments of {self.settings.segment_length} steps: {num_missing} "
                f"of the questions that are due cannot be asked yet, after {self.labels} labels. The run goes on with "
                "those it has. Longer segments differ more.",
                stacklevel=2,
            )

    def take_up_recorded(self) -> None:
        """Take up sessions that were asked before a kill, and after the checkpoint that this goes on from."""
        while queries := self.store.session_queries(self.session):
            self._note_asked(queries)
            self.session += 1

    def _note_asked(self, queries: Sequence[Query]) -> None:
        self._know_asked(queries)
        self._follow_open({query.id: query for query in queries})

    def _know_asked(self, queries: Sequence[Query]) -> None:
        for query in queries:
            self.asked_pairs.add(query.pair)
        self.intake.ask(queries)

    def _follow_open(self, known: dict[str, Query]) -> None:
        """Hold the open queries with their segments, and no others."""
        known = self.open_queries | known
        self.open_queries = {
            name: known[name] if name in known else self.store.query(name) for name in self.intake.open
        }

    # ------------------------------------------------------------------------------------------------ answers

    def take_answers(self) -> None:
        """Let the annotator answer what is open, and take in what the record holds now."""
        recorded = self.store.answers(after=self.intake.read_up_to, repeats=False)
        answered = {answer.query_id for _, answer in recorded}
        waiting = [query for query in self.open_queries.values() if query.id not in answered]
        if waiting:
            answers = self.annotator.answer(waiting)
            if answers:
                self.store.add_answers(answers)
                recorded = self.store.answers(after=self.intake.read_up_to, repeats=False)
        taken = list(self.intake.taken)
        change = self.intake.take_in(recorded)
        self._remove(taken, change)
        if change.added:
            answers = [answer for _, answer in change.added]
            queries = [self.open_queries.get(a.query_id) or self.store.query(a.query_id) for a in answers]
            counts = self.data.draw_counts(len(answers), stream(self.settings.seed, "bootstrap", len(self.data)))
            items = [self.data.encode(query.segments) for query in queries]
            self.data.add_answers(items, answers, [query.scale for query in queries], counts)
        self._follow_open({})

    def _remove(self, taken: Sequence[int], change: Change) -> None:
        """Leave out of the data what counts no longer; `taken` are the rows that it holds."""
        place_of = {row: place for place, row in enumerate(taken)}
        for place in sorted((place_of[row] for row in change.removed), reverse=True):
            self.data.remove(place)

    def _drop_demonstrations(self) -> None:
        """Learn no more from what was said in the name of demonstrations."""
        taken = list(self.intake.taken)
        change = self.intake.leave_out(ANNOTATOR)
        self._remove(taken, change)
        warnings.warn(
            f"After {self.labels} labels the agent has overtaken the demonstrations, by the learned reward: from now "
            f"on the {len(change.removed)} comparisons with them are left out.",
            stacklevel=2,
        )

    # ------------------------------------------------------------------------------------------------ fitting

    def fit(self, history: History) -> None:
        """Fit the reward to all answers that count; where the agent has overtaken the demonstrations, once more."""
        self._fit(self._fit_job(history))
        self._take_over(history)
        shown, names = self.demonstrations, set(self.data.annotators)
        both = ANNOTATOR in names and len(names) > 1
        if shown is not None and both and shown.look(self.reward, history, self.fitter.num_fits):
            self._drop_demonstrations()
            self._fit(self._fit_job(history))
            self._take_over(history)

    def begin_fit(self, history: History) -> None:
        """Begin to fit the reward to all answers that count, beside whatever comes next; `finish_fit` ends it.

        Until then the reward is that of before. The fit is made by another process where that is ready, else at the
        end: the result is the same.
        """
        assert self.fits_beside and self._begun is None
        self._begun = job = self._fit_job(history)
        if self._worker is not None and self._worker.ready and job.can_move:
            self._fitting = self._worker.submit(job)

    def finish_fit(self, history: History) -> bool:
        """Wait for the fit that was begun and put its reward in place of the one before; return whether there was one.

        When it is over decides nothing: where a run is made again, the reward changes after the same step.
        """
        job, fitting = self._begun, self._fitting
        if job is None:
            return False
        self._begun = self._fitting = None
        done = None
        if fitting is not None:
            try:
                done = fitting.result()
            except Exception:  # it is gone, or something printed into the pipe, which is then no result
                self._do_without_worker()
        if done is None:
            self._fit(job)
        else:
            self.fit_report = done.report
            self.reward.load_state_dict(done.reward)
            self.fitter.restore(done.fitter)
        self._take_over(history)
        return True

    def _do_without_worker(self) -> None:
        warnings.warn(
            "The process that fits the reward beside the agent has ended, or could not begin. The training makes the "
            "fits itself from now on, with the same result.",
            stacklevel=2,
        )
        if self._worker is not None:
            self._worker.close()
        self._worker, self._worth_a_worker = None, False

    def _fit(self, job: FitJob) -> None:
        begin = time.perf_counter()
        with torch_threads(1 if self.fits_beside else self.fit_threads):  # as many as the other process uses
            self.fit_report = job.run()
        missing = self.fits_beside and self._worth_a_worker and self._worker is None
        if missing and time.perf_counter() - begin > LONG_FIT_SECONDS:
            try:
                self._worker = FitWorker()
            except OSError:
                self._do_without_worker()

    def _fit_job(self, history: History) -> FitJob:
        """Return a fit to the answers that count; what it reads of the history is drawn here."""
        settings, number = self.settings, self.fitter.num_fits
        many_ties = (self.data.share_of_ties() or 0.0) >= MANY_TIES
        recently = reference = transitions = None
        draw = stream(settings.seed, "reference", number)
        if self._follows_agent and self.fitted and self.reward.num_inputs and not many_ties:
            recent = max(1, int(INPUTS_FROM * settings.steps))
            steps = history.sample_steps(INPUT_STEPS, stream(settings.seed, "inputs", number), last_steps=recent)
            recently = stack_transitions(steps)
        if not many_ties:
            segments = history.sample(settings.reference_segments, settings.segment_length, draw)
            reference = stack_transitions(segments)
        if self.fitter.dynamics is not None:
            num = -(-DYNAMICS_STEPS // settings.segment_length)
            seen = history.sample(num, settings.segment_length, stream(settings.seed, "dynamics", number))
            transitions = stack_transitions(seen)
        return FitJob(
            fitter=self.fitter, data=self.data, seed=settings.seed, recently=recently, transitions=transitions,
            reference=reference, num_reference=settings.reference_segments, draw=draw,
        )  # fmt: skip

    def _take_over(self, history: History) -> None:
        """Do what comes after a fit: weigh groups, and tell those who watch how good the reward is by now."""
        seed, number, length = self.settings.seed, self.fitter.num_fits - 1, self.settings.segment_length
        if self.serving is not None and self.fitter.groups is not None:
            self.serving.weigh(self.fitter.groups, history, stream(seed, "serving", number))
        self._tell(lambda: history.sample(self.settings.reference_segments, length, stream(seed, "steady", number)))

    def _tell(self, draw: Callable[[], list[Segment]]) -> None:
        """Tell those who watch the record how good the reward is by the answers; `draw` gives what the agent did."""
        assert self.fit_report is not None
        agreement = self.fit_report.held_out_agreement
        facts: dict[str, Any] = {"held_out_agreement": None if agreement is None else agreement.to_json()}
        if (steady := self.steadiness.look(self.reward, len(self.data), draw)) is not None:
            facts["steadiness"] = steady
        self.store.set_facts(facts)

    def metrics(self) -> dict[str, float | None]:
        """Return how well the reward fits, averaged over its members, once it was; and what was dropped unasked."""
        dropped = {} if self.screen is None else self.screen.metrics()
        if self.fit_report is None:
            return dropped
        return dropped | {
            "reward_accuracy": mean_of_known(self.fit_report.held_out_accuracy),
            "reward_train_accuracy": mean_of_known(self.fit_report.train_accuracy),
            "reward_loss": mean_of_known(self.fit_report.held_out_loss),
            "reward_train_loss": mean_of_known(self.fit_report.train_loss),
            "held_out_agreement": None if (share := self.fit_report.held_out_agreement) is None else share.share,
            "held_out_answers": self.fit_report.num_judged,
            **({} if (loss := self.fit_report.dynamics_loss) is None else {"dynamics_loss": loss}),
            **({} if self.serving is None else self.serving.metrics()),
            **({} if self.demonstrations is None else self.demonstrations.metrics()),
        }

    # ------------------------------------------------------------------------------------------------ going on

    def state(self) -> State:
        """Return what a checkpoint must hold, while no fit is under way; the segments stay in the record."""
        assert self._begun is None
        values: dict[str, Any] = {
            **self.intake.state(),
            "known": what_is_known(self.intake.answers(), self.intake.num_read, self.intake.asked(self.session)),
            "session": self.session,
            "warned": self._warned,
            "annotator": self.annotator.state(),
            "fit_report": None if self.fit_report is None else self.fit_report.to_json(),
        }
        if self.demonstrations is not None:
            values["demonstrations"] = self.demonstrations.state()
        if self.screen is not None:
            values["screen"] = self.screen.state()
        steadiness = self.steadiness.state()
        tensors = {"reward": self.reward.state_dict(), "fitter": self.fitter.state(), "steadiness": steadiness.tensors}
        values["steadiness"] = steadiness.values
        arrays = {"counts": self.data.counts} | ({} if self.serving is None else self.serving.arrays())
        return State(tensors=tensors, arrays=arrays, values=values)

    def restore(self, state: State) -> None:
        """Go on from what `state` gave, with the segments of the record."""
        values = state.values
        self.reward.load_state_dict(state.tensors["reward"])
        self.fitter.restore(state.tensors["fitter"])
        self.steadiness.restore(State(tensors=state.tensors.get("steadiness", {}), values=values.get("steadiness", {})))
        self.session, self._warned = values["session"], values.get("warned", False)
        self.annotator.restore(values["annotator"])
        self.fit_report = None if values["fit_report"] is None else FitReport(**values["fit_report"])
        if self.screen is not None:
            self.screen.restore(values["screen"])
        if self.serving is not None:
            self.serving.restore(state.arrays)
        if self.demonstrations is not None:
            self.demonstrations.restore(values["demonstrations"])
            if self.demonstrations.overtaken:
                self.intake.leave_out(ANNOTATOR)
        self._restore_data(state.arrays["counts"], values)

    def _restore_data(self, counts: Array, values: dict[str, Any]) -> None:
        self.asked_pairs = AskedPairs()
        place_of = {row: place for place, row in enumerate(values["taken"])}
        self.data = self._empty_data()
        rows = dict(self.store.answers(repeats=False))
        taught = {rows[row].query_id for row in values["taken"] if row in rows}
        encoded, scales = {}, {}
        for session in range(self.session):  # one at a time: the segments of all would fill the memory
            queries = self.store.session_queries(session)
            self._know_asked(queries)
            for query in queries:
                if query.id in taught:
                    encoded[query.id], scales[query.id] = self.data.encode(query.segments), query.scale
        values = self._without_what_is_lost(values, rows)
        self.intake.restore(values, list(rows.items()))
        answers = self.intake.answers()
        self.data.add_answers(
            [encoded[a.query_id] for a in answers],
            answers,
            [scales[a.query_id] for a in answers],
            counts[[place_of[row] for row in self.intake.taken]],
        )
        self._follow_open({})

    def _without_what_is_lost(self, values: dict[str, Any], rows: dict[int, Entry]) -> dict[str, Any]:
        """Refuse a record that is not the one that the checkpoint knew, unless the user goes on with what is there."""
        lost = find_lost(values, rows, self.intake.asked(self.session))
        if not lost:
            return values
        told = f"The record {self.store.name} is not the one that the checkpoint knew: it lacks {lost}."
        if not self._accept_lost:
            raise UserError(
                f"{told} Restore it from a copy, with the file that ends in -wal if there is one beside it; or go on "
                f"without them: {RESUME} RUN --accept-lost"
            )
        warnings.warn(f"{told} The training goes on without them.", stacklevel=2)
        gone = set(lost.answers)
        return values | {
            "taken": [row for row in values["taken"] if row not in gone],
            "answers_read": min(values["answers_read"], max(rows, default=0)),
        }

    def save(self, path: Path) -> None:
        """Write the reward into a file, with a warning where it was fitted to nothing."""
        if not self.fitted:
            warnings.warn("Nothing was learned from: no answer was given, or all were left out.", stacklevel=2)
        elif (groups := self.fitter.groups) is not None and not groups.belongs:
            warnings.warn(
                f"The {groups.num_groups} groups of annotators are no different: only {len(self.data.annotators)} "
                "answered with a preference.",
                stacklevel=2,
            )
        self.reward.save(path)

    def close(self) -> None:
        """Close the record."""
        if self._worker is not None:
            self._worker.close()
        self.store.close()


def make_run_teacher(settings: RunSettings) -> Annotator:
    """Make the simulated teacher that the settings name, or the panel of them."""
    seed = stream_seed(settings.seed, "teacher")
    if settings.panel:
        return make_panel(settings.panel, teacher=settings.teacher, seed=seed)
    function = None if settings.reward_function is None else load_reward_function(settings.reward_function)
    return make_teacher(settings.teacher, seed=seed, reward_function=function)
