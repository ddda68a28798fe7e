"""A reward fitted anew to all answers of a record, from the beginning."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from prefrl.control.folder import ControlFolder
from prefrl.control.policies import make_run_env
from prefrl.control.settings import RunSettings
from prefrl.errors import UserError
from prefrl.feedback import Answer, settled
from prefrl.rewards import ComparisonData, FitReport, FitSettings, Fitter, RewardEnsemble
from prefrl.runs.streams import stream, stream_seed, torch_stream
from prefrl.segments import Segment, stack_transitions
from prefrl.store import PreferenceStore

AT_ONCE = 200  # queries whose segments are in memory
EPOCHS = 30  # at most; the held-out loss may end a fit before


def refit(
    folder: ControlFolder,
    *,
    without: Collection[str] = (),
    estimate_reliability: bool = False,
    settings: RunSettings | None = None,
    seed: int | None = None,
) -> tuple[RewardEnsemble, FitReport]:
    """Fit a reward to the answers that stand in a run's record.

    Args:
        folder: the run, finished or not.
        without: annotators whose answers are left out.
        estimate_reliability: estimate what share of each annotator's answers is not random.
        settings: in place of the run's.
        seed: of the reward, of what is held out and of the minibatches; None: one that follows from the run's.

    Raises:
        UserError: nothing to fit to, or nobody of a name in `without` answered.
    """
    settings = settings or folder.settings
    probe = make_run_env(settings)
    seed = stream_seed(settings.seed, "refit") if seed is None else seed
    reward = RewardEnsemble(probe.observation_space, probe.action_space, settings.reward, seed=seed)
    probe.close()
    fit = replace(settings.fit, estimate_reliability=estimate_reliability or settings.fit.estimate_reliability)
    with folder.open_record() as store:
        store.check()
        return reward, fit_record(store, reward, fit, without=without, seed=seed)


def fit_record(
    store: PreferenceStore, reward: RewardEnsemble, settings: FitSettings, *, without: Collection[str] = (), seed: int
) -> FitReport:
    """Fit a fresh reward to the answers that stand in a record, and normalise it on what was shown.

    Args:
        store: the record; the segments in it are of one length.
        reward: as it was made.
        settings: how to fit; the number of steps is that of up to 30 passes over the answers.
        without: annotators whose answers are left out.
        seed: of what is held out and of the minibatches.

    Of several groups of annotators the reward is then that of the group that the settings name, or else the mean by
    shares: what each gets can only be told of an agent in training.

    Raises:
        UserError: nothing to fit to, nobody of a name in `without` answered, or fewer annotators than groups.
    """
    known = store.annotators()
    for name in without:
        if name not in known:
            raise UserError(f"Nobody named {name!r} answered in {store.name}; there are: {', '.join(known) or 'none'}.")
    answers = [
        answer
        for answer in settled([a for _, a in store.answers(standing=True, repeats=False) if a.annotator not in without])
        if isinstance(answer, Answer) and answer.value is not None
    ]
    reference = _some_segments(store, answers)
    if not reference:
        raise UserError(f"The record {store.name} holds no answers about segments to fit to.")
    reward.set_input_statistics(*stack_transitions(reference))
    data = ComparisonData(
        reward, len(reference[0]),
        bootstrap=settings.bootstrap, held_out=settings.held_out, capacity=len(answers),
    )  # fmt: skip
    rng = stream(seed, "bootstrap")
    for begin in range(0, len(answers), AT_ONCE):
        part = answers[begin : begin + AT_ONCE]
        queries = {query.id: query for query in store.queries([answer.query_id for answer in part])}
        items = [data.encode(queries[answer.query_id].segments) for answer in part]
        scales = [queries[answer.query_id].scale for answer in part]
        data.add_answers(items, part, scales, data.draw_counts(len(part), rng))
    steps = EPOCHS * -(-len(data) // settings.batch_size)
    if len(data.annotators) < reward.num_groups:
        raise UserError(
            f"The reward is of {reward.num_groups} groups of annotators, and only {', '.join(data.annotators)} gave "
            "answers to learn from."
        )
    fitter = Fitter(reward, replace(settings, first_steps=steps))
    report = fitter.fit(data, torch_stream(seed, "fit"), transitions=stack_transitions(reference))
    if fitter.groups is not None:
        reward.group_weights = fitter.groups.served(reward.settings.serve)
    reward.normalise(*stack_transitions(reference))
    return report


def _some_segments(store: PreferenceStore, answers: Sequence[Answer]) -> list[Segment]:
    """Return the segments of up to `AT_ONCE` queries, spread over all."""
    names = list(dict.fromkeys(answer.query_id for answer in answers))
    chosen = {names[int(i)] for i in np.linspace(0, len(names) - 1, AT_ONCE)} if names else set()
    shown = {segment.id: segment for query in store.queries(sorted(chosen)) for segment in query.segments}
    return list(shown.values())
