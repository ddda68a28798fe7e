"""The answers of a run: their quality, and those that its reward model is most surprised by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefrl.control.folder import ControlFolder
from prefrl.control.policies import make_run_env
from prefrl.errors import UserError
from prefrl.feedback import Answer, Entry, Query
from prefrl.files import write_json
from prefrl.quality import EXPECTED, FEWEST_TO_CALL, AnnotatorQuality, Quality, measure_quality
from prefrl.rewards import RewardEnsemble
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.runs.metrics import finite
from prefrl.shares import Share
from prefrl.store import PreferenceStore
from prefrl.studies.quality_plot import plot_quality
from prefrl.studies.queries_in_turn import in_turn
from prefrl.studies.wishes import Wishes, compare_wishes

RANDOM, TIMES_AS_RELIABLE = 0.1, 4.0  # less reliable than this, and another so many times as much: it is said
MOST_EXPECTED = 5_000
"""Answers whose segments are evaluated by the reward, at most: those of more would take minutes."""


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """An answer that the learned reward did not expect."""

    row: int
    """Of the answer in the record."""
    query_id: str
    annotator: str
    kind: str
    value: Any
    probability: float
    """Of this answer under the learned reward."""


@dataclass(frozen=True, kw_only=True)
class RunQuality:
    """What `prefrl quality` tells."""

    quality: Quality
    reliability: dict[str, float] | None
    """Share of each annotator's answers that are not random, where the run's fit estimates it."""
    surprises: tuple[Surprise, ...]
    """Least expected first; empty if there is no reward yet."""
    wishes: Wishes | None
    """Whether one reward fits all who answered; None: cannot be told."""
    held_out_agreement: Share | None
    """How far the reward agrees with answers that it did not learn from, as its last fit found."""
    num_expected: int = 0
    """Answers that the surprises are of: where there are more than `MOST_EXPECTED`, so many drawn at random."""

    def warnings_of(self, one: AnnotatorQuality) -> tuple[str, ...]:
        """Return what to look at before the answers of one are relied on, in a few words each."""
        shares = self.reliability or {}
        share, best = shares.get(one.name), max(shares.values(), default=0.0)
        if share is None or one.num_answers < FEWEST_TO_CALL or share >= min(RANDOM, best / TIMES_AS_RELIABLE):
            return one.warnings
        return (*one.warnings, f"looks random to the reward: reliability {share:.2f}, where another has {best:.2f}")

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        values = self.quality.to_json()
        for one, told in zip(self.quality.annotators, values["annotators"], strict=True):
            told["warnings"] = list(self.warnings_of(one))
        values["reliability"] = self.reliability
        values["wishes"] = None if self.wishes is None else self.wishes.to_json()
        values["held_out_agreement"] = None if self.held_out_agreement is None else self.held_out_agreement.to_json()
        values["num_expected"] = self.num_expected
        values["surprises"] = [asdict(surprise) for surprise in self.surprises]
        return dict(finite(values))


def run_quality(folder: ControlFolder, num_surprises: int = 10) -> RunQuality:
    """Judge the answers of a run, finished or not; write `quality.json` and `quality.png` into its folder.

    Args:
        folder: the run.
        num_surprises: how many answers to list for a second look.

    Raises:
        UserError: the run has no record, or nobody has answered yet.
    """
    if isinstance(folder.record, Path) and not folder.record.is_file() and not folder.metrics_path.exists():
        raise UserError(f"The run in {folder.path} has no record of answers yet.")
    with folder.open_record() as store:
        store.check()
        standing = store.answers(standing=True)
        quality = measure_quality(store, standing)
        if not quality.annotators:
            raise UserError(f"Nobody has answered in the run in {folder.path} yet, so there is nothing to judge.")
        reward, reliability = reward_of(folder)
        wishes = compare_wishes(store, standing)
        newest = store.last_row()
        agreement = store.facts().get("held_out_agreement")
        error_rate = folder.settings.fit.error_rate
        expected = [] if reward is None else expectations(store, reward, error_rate, standing, at_most=MOST_EXPECTED)
    if len(expected) < MOST_EXPECTED:  # of all
        write_expected(folder, [surprise for _, surprise in expected], newest)
    expected.sort(key=lambda one: one[0])
    found = RunQuality(
        quality=quality,
        reliability=reliability,
        surprises=tuple(surprise for _, surprise in expected[:num_surprises]),
        wishes=wishes,
        held_out_agreement=None if agreement is None else Share(**agreement),
        num_expected=len(expected),
    )
    write_json(folder.path / "quality.json", found.to_json())
    plot_quality(quality, reliability, folder.path / "quality.png")
    return found


def record_quality(where: Path | str) -> RunQuality:
    """Judge the answers of a record that need not be that of a run here; nothing is written.

    Raises:
        UserError: there is no such record, or nobody has answered yet.
    """
    with PreferenceStore(where, create=False) as store:
        store.check()
        quality = measure_quality(store)
        if not quality.annotators:
            raise UserError(f"Nobody has answered in the record {store.name} yet, so there is nothing to judge.")
    return RunQuality(quality=quality, reliability=None, surprises=(), wishes=None, held_out_agreement=None)


def write_expected(folder: ControlFolder, expected: Sequence[Surprise], newest_row: int) -> None:
    """Keep the probability of answers in the folder of their run, for those who show them.

    Args:
        folder: the run.
        expected: answers with their probabilities.
        newest_row: of the record, when they were computed.
    """
    rows = {str(one.row): round(one.probability, 6) for one in expected}
    write_json(folder.path / EXPECTED, {"newest_row": newest_row, "probabilities": rows})


def expectations(
    store: PreferenceStore,
    reward: RewardEnsemble,
    error_rate: float,
    standing: Sequence[tuple[int, Entry]],
    at_most: int | None = None,
) -> list[tuple[float, Surprise]]:
    """Return how well a reward explains each answer that stands about several segments.

    Args:
        store: the record.
        reward: fitted to it.
        error_rate: share of random answers that the fit assumes.
        standing: answers that stand, with their rows.
        at_most: so many of them, drawn at random.

    Returns:
        for each: its probability in a form that can be compared between kinds (the geometric mean for a pair: 1/2 is
        chance), and the answer. Ties are left out: nothing expects them.
    """
    answers = [
        (row, answer)
        for row, answer in standing
        if isinstance(answer, Answer) and answer.value is not None and not answer.graded
    ]
    if at_most is not None and len(answers) > at_most:
        drawn = np.random.default_rng(0).choice(len(answers), at_most, replace=False)
        answers = [answers[index] for index in np.sort(drawn)]
    found = []
    for (row, answer), query in zip(answers, in_turn(store, [answer.query_id for _, answer in answers]), strict=True):
        if query.segments and any(preference != 0.5 for _, _, preference in answer.pairs(len(query.segments))):
            probability, fair = _probability(reward, query, answer, error_rate)
            surprise = Surprise(
                row=row,
                query_id=query.id,
                annotator=answer.annotator,
                kind=answer.kind,
                value=answer.value,
                probability=probability,
            )
            found.append((fair, surprise))
    return found


def _probability(reward: RewardEnsemble, query: Query, answer: Answer, error_rate: float) -> tuple[float, float]:
    returns = torch.from_numpy(reward.segment_returns(list(query.segments))).double().unsqueeze(1)  # (M, 1, K)
    encoded = [torch.from_numpy(part) for part in answer.encode([answer])]
    probability = float(answer.log_likelihood(returns, encoded, error_rate).exp().mean())
    outcomes = answer.num_outcomes(len(query.segments), query.scale)
    return probability, probability ** (math.log(2) / math.log(outcomes)) if probability > 0 else 0.0


def reward_of(folder: ControlFolder) -> tuple[RewardEnsemble | None, dict[str, float] | None]:
    """Return the reward of a run that is finished, or that of its newest checkpoint, and the reliabilities."""
    checkpoint, _ = newest_checkpoint(folder, with_arrays=False)
    report = None if checkpoint is None else checkpoint.state.part("learner").values["fit_report"]
    reliability = None if report is None else report.get("reliability")
    if folder.reward_path.is_file():
        return RewardEnsemble.load(folder.reward_path), reliability
    if checkpoint is None or report is None:
        return None, reliability
    settings = folder.settings
    probe = make_run_env(settings)
    reward = RewardEnsemble(probe.observation_space, probe.action_space, settings.reward)
    probe.close()
    reward.load_state_dict(checkpoint.state.part("learner").tensors["reward"])
    return reward, reliability
