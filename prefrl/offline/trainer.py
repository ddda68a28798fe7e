"""One offline run: questions about the data, a reward fitted to the answers, a policy learned from both.

What was asked and answered lies in the record, from which a run that was stopped before its policy began is gone
through again; from then on it goes on from checkpoints. Every draw comes from a stream named by what it is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.annotators import Annotator
from prefrl.control.evaluation import evaluate
from prefrl.control.people import People
from prefrl.control.policies import make_run_env
from prefrl.control.reward_learner import RewardLearner, make_run_teacher
from prefrl.control.run import Bounds
from prefrl.errors import UserError
from prefrl.feedback import Query
from prefrl.files import text_or_file
from prefrl.history import History
from prefrl.offline.cloning import Cloning
from prefrl.offline.cpl import Cpl
from prefrl.offline.data import OfflineData
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.ipl import Ipl
from prefrl.offline.iql import Iql
from prefrl.offline.pictures import add_clips, shown_history
from prefrl.offline.policy import OfflinePolicy
from prefrl.offline.settings import OfflineRunSettings
from prefrl.offline.transitions import Comparisons, make_transitions, scaled_rewards, show_all
from prefrl.runs.checkpoint import Checkpoint, State, checkpoint_to_go_on_from, save_checkpoint
from prefrl.runs.metrics import MetricsWriter, finite
from prefrl.runs.streams import stream, stream_seed, torch_stream

DRAWN_AT_ONCE = 500  # updates whose rows are drawn from one stream
ATTEMPTS = 5  # times a session asks again for what its annotator skipped
PLAYED = 5  # episodes by which a policy is judged on the way
Outcome = Literal["finished", "stopped", "waits"]


class Learner(Protocol):
    """Learns a policy from data."""

    def update(self, rows: Tensor, pairs: Tensor, remaining: float) -> dict[str, Tensor]:
        """Make one step with these rows of the data and these comparisons; return the figures of it."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, beside the policy."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""


class OfflineTrainer:
    """One run, and the state that joins its parts.

    Args:
        folder: the run, its configuration written.
        data: given; those that the run was made for.
        annotator: who answers; None: the teacher, or people, as the settings say.
        on_progress: called with the updates made, all that there are to be, and the figures in words.
        fit_threads: threads that a fit of the reward may use.

    Raises:
        UserError: the data cannot be learned from.
    """

    def __init__(
        self,
        folder: OfflineFolder,
        data: OfflineData,
        *,
        annotator: Annotator | None = None,
        on_progress: Callable[[int, int, str], None] | None = None,
        fit_threads: int = 1,
    ) -> None:
        self.folder, self.data, self.on_progress = folder, data, on_progress
        self.settings: OfflineRunSettings = folder.settings
        settings = self.settings
        self.policy = OfflinePolicy(
            data.observation_space,
            data.action_space,
            settings.learner.hidden,
            learning_rate=settings.learner.learning_rate,
            seed=stream_seed(settings.seed, "policy"),
        )
        show_all(data, self.policy)
        self._stop_wanted = False
        self.answers: RewardLearner | None = None
        if settings.asks:
            named = annotator is None and not settings.asks_people
            who: Annotator = annotator or (People(None) if settings.asks_people else make_run_teacher(settings))
            spaces = data.observation_space, data.action_space
            self.answers = RewardLearner(
                folder,
                settings,
                *spaces,
                annotator=who,
                device="cpu",
                fit_threads=fit_threads,
                follows_agent=False,
            )
            if named and not settings.asks_people:
                self.answers.store.add_annotator(who.name, "teacher")
            who.observe(data.history.closed)

    def run(self) -> Outcome:
        """Go on from the newest checkpoint, or from the answers so far.

        Returns:
            "waits" where questions wait for people; "stopped" where `stop` made it save and return.
        """
        checkpoint = checkpoint_to_go_on_from(self.folder)
        if checkpoint is None and self.answers is not None and not self._ask_all(self.answers):
            return "waits"
        return self._learn(checkpoint)

    def stop(self) -> None:
        """Ask the run to save and return soon."""
        self._stop_wanted = True

    def close(self) -> None:
        """Close the record."""
        if self.answers is not None:
            self.answers.close()

    # ------------------------------------------------------------------------------------------------ asking

    def _ask_all(self, answers: RewardLearner) -> bool:
        """Ask session by session, fitting the reward in between; return whether all is answered that was asked."""
        settings = self.settings
        history = shown_history(self.data) if settings.asks_people else self.data.history
        answers.begin(self.data.rollout)
        num_sessions = settings.queries.num_sessions
        for session in range(num_sessions + 1):
            first = settings.queries.initial_share if num_sessions else 1.0
            later = session / num_sessions if num_sessions else 0.0
            due = max(1, round(settings.labels * (first + (1 - first) * later)))
            for _ in range(ATTEMPTS):
                missing = due - answers.labels - answers.num_open
                if missing <= 0 or not answers.ask(history, 0, missing, self._prepared):
                    break
                answers.take_answers()
                if answers.num_open:
                    break
            answers.take_answers()
            if answers.num_open:
                if settings.asks_people:
                    add_clips(answers.store, self.data)
                self._tell(answers, f"{answers.num_open} questions wait")
                return False
            if settings.learns_reward and len(answers.data) > answers.num_fitted:
                answers.fit(history)
        if not len(answers.data):
            raise UserError("Nothing was learned from: no answer was given, or all were left out.")
        self._tell(answers, "all questions are answered", state="finished")
        return True

    def _prepared(self, query: Query, history: History) -> Query:
        return replace(query, instruction=text_or_file(self.settings.instruction))

    def _tell(self, answers: RewardLearner, training: str, state: str = "stopped") -> None:
        """Tell those who watch the record how it stands."""
        if self.settings.asks_people:
            facts = {
                "env_id": self.settings.env_id,
                "instruction": text_or_file(self.settings.instruction),
                "labels_wanted": self.settings.labels,
                "num_env_steps": 0,
                "training": training,
                "training_state": state,
                "seen_at": answers.store.now(),
            }
            answers.store.set_facts(facts)

    # ------------------------------------------------------------------------------------------------ learning

    def _learn(self, checkpoint: Checkpoint | None) -> Outcome:
        settings, answers = self.settings, self.answers
        if checkpoint is not None and answers is not None:
            answers.restore(checkpoint.state.part("learner"))
        learner, num_pairs = self._make_learner()
        done = 0
        if checkpoint is not None:
            kept = checkpoint.state.part("offline").tensors
            self.policy.restore(kept["policy"])
            learner.restore(kept["learner"])
            done = checkpoint.count
            self.metrics = MetricsWriter(self.folder, checkpoint.state.values["metrics_size"], done)
        else:
            self.metrics = MetricsWriter(self.folder)
            if answers is not None and settings.learns_reward:
                answers.save(self.folder.reward_path)
            self.folder.save_policy("before", self.policy.policy_state())
            self.metrics.write({"num_updates": 0, "labels": self._labels, **self._reward_figures()})
        try:
            while done < settings.steps:
                done = self._part(learner, num_pairs, done)
                if self._stop_wanted and done < settings.steps:
                    return "stopped"
            self.folder.save_policy("last", self.policy.policy_state())  # tells that all of the above is there
            return "finished"
        finally:
            self.metrics.close()

    @property
    def _labels(self) -> int:
        return 0 if self.answers is None else self.answers.labels

    def _reward_figures(self) -> dict[str, float | None]:
        return {} if self.answers is None else self.answers.metrics()

    def _part(self, learner: Learner, num_pairs: int, done: int) -> int:
        """Make the updates up to the next checkpoint, or until a stop is asked for; return how many are done then."""
        settings, begin = self.settings, time.perf_counter()
        every = -(-settings.steps // settings.num_checkpoints)
        until = min(settings.steps, (done // every + 1) * every)
        sums: dict[str, Tensor] = {}
        made = 0
        while done < until and not (self._stop_wanted and made):
            block = done // DRAWN_AT_ONCE
            rows, pairs = self._draw(block, num_pairs)
            stop = min(until, (block + 1) * DRAWN_AT_ONCE)
            for place in range(done % DRAWN_AT_ONCE, done % DRAWN_AT_ONCE + stop - done):
                step = block * DRAWN_AT_ONCE + place
                figures = learner.update(rows[place], pairs[place], 1 - step / settings.steps)
                for name, value in figures.items():
                    sums[name] = sums[name] + value if name in sums else value
            made, done = made + stop - done, stop
            self._show(done, {})
        self.policy.check_weights()
        learned = time.perf_counter()
        if done >= settings.steps / 2 > done - made:
            self.folder.save_policy("during", self.policy.policy_state())
        row: dict[str, Any] = {"num_updates": done, "labels": self._labels}
        row |= {name: float(value) / made for name, value in sums.items()}
        row["true_return"] = self._played_return(done)
        seconds = {"learn": learned - begin, "play": time.perf_counter() - learned}
        row["seconds"] = {name: round(value, 4) for name, value in seconds.items()}
        self.metrics.write(row)
        self._save(learner, done)
        self._show(done, row)
        return done

    def _draw(self, block: int, num_pairs: int) -> tuple[Tensor, Tensor]:
        """Draw the rows and comparisons of `DRAWN_AT_ONCE` updates."""
        settings = self.settings
        size, pairs = settings.learner.batch_size, settings.learner.pairs
        rows = stream(settings.seed, "rows", block).integers(self.data.rollout.num_steps, size=(DRAWN_AT_ONCE, size))
        if not num_pairs:
            return torch.from_numpy(rows), torch.zeros(DRAWN_AT_ONCE, 0, dtype=torch.int64)
        chosen = stream(settings.seed, "pairs", block).integers(num_pairs, size=(DRAWN_AT_ONCE, pairs))
        return torch.from_numpy(rows), torch.from_numpy(chosen)

    def _make_learner(self) -> tuple[Learner, int]:
        """Return the learner that the settings name, and the number of comparisons that it draws from."""
        settings = self.settings
        generator = torch_stream(settings.seed, "values")
        if settings.method == "iql":
            data = make_transitions(self.data, self.policy, self._rewards())
            return Iql(data, self.policy, settings.learner, generator), 0
        data = make_transitions(self.data, self.policy, np.zeros(self.data.rollout.num_steps))
        if self.answers is None:
            return Cloning(data, self.policy), 0
        compared = comparisons_of(self.answers, self.data, settings.segment_length)
        if settings.method == "ipl":
            return Ipl(data, compared, self.policy, settings.learner, generator), len(compared)
        return Cpl(data, compared, self.policy, settings.learner), len(compared)

    def _rewards(self) -> NDArray[np.float64]:
        """Return the rewards of all steps that the policy learns from, `(N,)`."""
        settings, data = self.settings, self.data
        if settings.reward_from == "true":
            rewards = data.rollout.true_rewards[:, 0]
            if not np.isfinite(rewards).all():
                raise UserError(f"The true rewards of {settings.dataset} are not known: NaN or infinite at some steps.")
        elif settings.reward_from == "zero":
            rewards = np.zeros(data.rollout.num_steps)
        elif settings.reward_from == "random":
            rewards = stream(settings.seed, "random rewards").random(data.rollout.num_steps)
        else:
            assert self.answers is not None
            rewards = self.answers.reward.of_episodes(
                *data.rollout.flat_transitions(), data.lengths, settings.segment_length
            ).astype(np.float64)
        ends = settings.ends
        return scaled_rewards(rewards, data.lengths, ends, terminated=bool(data.rollout.terminated.any()))

    def _played_return(self, done: int) -> float | None:
        """Return the mean true return of a few episodes of the policy as it is; None where there is no environment."""
        settings = self.settings
        if not self.folder.has_environment:
            return None
        seed = stream_seed(settings.seed, "played", done)
        act = partial(self.policy.act, generator=torch.Generator().manual_seed(seed))
        bounds = Bounds.of(settings)
        return evaluate(
            partial(make_run_env, settings),
            act,
            num_episodes=PLAYED,
            seed=seed,
            max_steps=bounds.max_steps,
            max_minutes=bounds.max_minutes,
        ).mean

    def _show(self, done: int, row: dict[str, Any]) -> None:
        if self.on_progress is not None:
            parts = [f"{self._labels} answers"] if self.settings.asks else []
            if row.get("true_return") is not None and self.settings.shows_true_reward:
                self._last_return = f"true return {row['true_return']:.5g}"
            parts += [getattr(self, "_last_return", "")] if hasattr(self, "_last_return") else []
            self.on_progress(done, self.settings.steps, ", ".join(parts))

    def _save(self, learner: Learner, done: int) -> None:
        parts = {"offline": State(tensors={"policy": self.policy.state(), "learner": learner.state()})}
        if self.answers is not None:
            parts["learner"] = self.answers.state()
        state = State.joined(parts, {"metrics_size": self.metrics.sync()})
        save_checkpoint(self.folder, done, replace(state, values=finite(state.values)))


def comparisons_of(answers: RewardLearner, data: OfflineData, length: int) -> Comparisons:
    """Return the comparisons that count; a ranking gives those of each two of its segments.

    Raises:
        UserError: there is none among the answers.
    """
    begins = np.concatenate([[0], np.cumsum(data.lengths)])
    given = answers.intake.answers()
    asked = {query.id: query for query in answers.store.queries([answer.query_id for answer in given])}
    rows: list[tuple[int, int]] = []
    preferences: list[float] = []
    for answer in given:
        segments = asked[answer.query_id].segments
        starts = [int(begins[segment.episode]) + segment.start for segment in segments]
        for first, second, preference in answer.pairs(len(segments)):
            rows.append((starts[first], starts[second]))
            preferences.append(preference)
    if not rows:
        raise UserError("No answer says which of two segments is better, and IPL and CPL learn from nothing else.")
    return Comparisons(first_rows=torch.tensor(rows), preferences=torch.tensor(preferences), length=length)
