"""The report card of a control run: is its learned reward right on segments it was not fitted on?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from prefrl.annotators import load_reward_function
from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.history import History
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.run import data_of
from prefrl.rewards import RewardEnsemble
from prefrl.rewards.report import ReportCard, report_card
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.runs.metrics import finite
from prefrl.runs.streams import stream
from prefrl.segments import Segment
from prefrl.spaces import num_bytes
from prefrl.studies.own_measure import against_of
from prefrl.studies.report_plot import plot_report
from prefrl.studies.run_quality import run_quality

REPORT_SEGMENTS = 600
REPORT_BYTES = 512_000_000  # of their observations; fewer segments where they are large


def report_run(folder: ControlFolder) -> ReportCard:
    """Judge the learned reward on segments it was not fitted on; write `report.json` and `report.png`.

    The answers it was learned from are judged too, see `prefrl.studies.run_quality`.

    The segments are windows of the run's own history that overlap none that was asked about.

    Raises:
        UserError: the run has no reward or no readable checkpoint yet.
    """
    settings = folder.settings
    if folder.config.get("baseline"):
        raise UserError(
            f"The run in {folder.path} is trained on the environment's own reward alone, so there is no learned reward "
            f"to judge. Measure what the agent does with: prefrl evaluate {folder.path}"
        )
    history = history_of(folder)
    reward = RewardEnsemble.load(folder.reward_path)
    rng = stream(settings.seed, "report")
    one = history.sample(1, settings.segment_length, np.random.default_rng(0))[0]
    num = max(10, min(REPORT_SEGMENTS, REPORT_BYTES // max(1, num_bytes(one.observations))))
    segments = _held_out_segments(folder, history, num, rng)
    if settings.reward_function is not None:
        segments = [_judged_by(load_reward_function(settings.reward_function), segment) for segment in segments]
    card = report_card(reward, segments, rng=rng)
    del history, one, segments  # before the checkpoint is read again: a history may take hundreds of MB
    answers = run_quality(folder)
    write_json(folder.path / "report.json", {**finite(card.to_json()), "answers": answers.to_json()})
    path = folder.path / "report.png"
    shown = answers.quality if answers.quality.anything_known else None  # not of a teacher that was asked once
    plot_report(
        card,
        [] if isinstance(folder, OfflineFolder) else folder.read_metrics(),
        path,
        answers=shown,
        reliability=answers.reliability,
        against=against_of(settings) if settings.shows_true_reward else None,
        agreement=answers.held_out_agreement if settings.by_own_measure else None,
    )
    return card


def history_of(folder: ControlFolder) -> History:
    """Return what segments of a run are drawn from: its agent's behaviour, or the data that it was given.

    Raises:
        UserError: the run has no readable checkpoint yet, or its data are gone or others now.
    """
    if isinstance(folder, OfflineFolder):
        return data_of(folder).history
    checkpoint, refused = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(" ".join([f"The run in {folder.path} has no readable checkpoint yet.", *refused]))
    kept = checkpoint.state.part("history")
    return History.restore(kept.arrays, kept.values)


def _held_out_segments(folder: ControlFolder, history: History, num: int, rng: np.random.Generator) -> list[Segment]:
    length = folder.settings.segment_length
    with folder.open_record() as store:
        asked = store.asked_windows()
    kept: list[Segment] = []
    for _ in range(20):
        for segment in history.sample(num, length, rng):
            if all(abs(segment.start - begin) >= length for begin in asked.get(segment.episode, ())):
                kept.append(segment)
        if len(kept) >= num:
            return kept[:num]
    if len(kept) < 10:
        raise UserError("The run's history holds too few segments that were not asked about for a report.")
    return kept


def _judged_by(function: Callable[[Segment], Any], segment: Segment) -> Segment:
    """Put the values of the teacher's own function in place of the environment's rewards, for a report against it."""
    values = np.asarray(function(segment), np.float64)
    if values.ndim == 0:  # one number for the whole segment
        values = np.full(len(segment), values / len(segment))
    return replace(segment, true_rewards=values)
