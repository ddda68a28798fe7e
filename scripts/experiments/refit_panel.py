r"""Settings of the reward compared in minutes: fitted anew to the answers of finished runs, without training an agent.

    prefrl sweep train Reacher-v5 --labels 100 --seeds 5 --out runs/sweeps/reacher
    python scripts/experiments/refit_panel.py runs/sweeps/reacher/*/seed-* --variants \
        '{"as it was": {}, "ten members": {"reward.num_members": 10}}'

How well a reward correlates with the true one on 300 segments of what the run's agent did last: of each step, of whole
segments, and the share of pairs of segments that it has in order. Means over the runs, each with as many seeds as asked
for; beside them the difference to the first variant in correlation of segments, paired by runs, with its 95 % interval.
It is a lead and no more: what a reward is worth to an agent shows in training.
"""

import itertools
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from prefrl.aggregate import Interval, interval_of
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import RunSettings
from prefrl.errors import UserError
from prefrl.files import parse_json
from prefrl.history import History
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.runs.codec import from_json, to_json
from prefrl.segments import Segment, stack_transitions
from prefrl.spaces import Array
from prefrl.studies.refit import refit
from prefrl.sweeps.naming import option_paths, place_of, put
from prefrl.threads import torch_threads

SEGMENTS, LAST_STEPS = 300, 30_000


def main(runs: tyro.conf.Positional[tuple[Path, ...]], variants: str, seeds: int = 2) -> None:
    """Print the table.

    Args:
        runs: finished runs of one environment.
        variants: JSON: for each name the settings that are other than the run's, `reward.NAME` or `fit.NAME`, as
            the options are called.
        seeds: fits of each variant to each run.
    """
    try:
        asked = parse_json(variants)
    except ValueError as error:
        raise UserError(f"--variants is no JSON: {error}") from None
    if not (isinstance(asked, dict) and asked and all(isinstance(changes, dict) for changes in asked.values())):
        raise UserError(f"Expected variants by name, each an object of settings. Received {variants}")
    for path, changes in itertools.product(runs, asked.values()):
        varied(ControlFolder.open(path).settings, changes)  # refused before anything is fitted
    found: dict[str, list[Array]] = {name: [] for name in asked}
    for path in runs:
        folder = ControlFolder.open(path)
        segments = last_segments(folder)
        for name, changes in asked.items():
            found[name].append(np.mean([judged(folder, changes, segments, seed) for seed in range(seeds)], axis=0))
        print(f"{path}: {len(segments)} segments")
    first = next(iter(found.values()))
    print(f"\n{'variant':24} {'steps':>7} {'segments':>9} {'pairs':>7}   segments beside the first")
    for name, rows in found.items():
        of_steps, of_segments, of_pairs = np.mean(rows, axis=0)
        apart = difference(rows, first).text("{:+.3f}")
        print(f"{name:24} {of_steps:7.3f} {of_segments:9.3f} {of_pairs:7.3f}   {apart}")


def last_segments(folder: ControlFolder) -> list[Segment]:
    """Return segments of what the agent of a run did last, of the length that was asked about."""
    checkpoint, refused = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(" ".join([f"The run in {folder.path} has no readable checkpoint.", *refused]))
    part = checkpoint.state.part("history")
    history = History.restore(part.arrays, part.values)
    length = folder.settings.segment_length
    return history.sample(SEGMENTS, length, np.random.default_rng(0), last_steps=LAST_STEPS)


def varied(settings: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """Return the settings of a run with what a variant changes in them."""
    values = to_json(settings)
    for name, value in changes.items():
        place = place_of(name, option_paths(RunSettings), {})
        if place[0] not in ("reward", "fit"):
            raise UserError(f"{name} changes nothing in how a reward is fitted: give settings of reward or fit.")
        values = put(values, place, value)
    return from_json(RunSettings, values)


def judged(
    folder: ControlFolder, changes: Mapping[str, Any], segments: list[Segment], seed: int
) -> tuple[float, float, float]:
    """Fit a reward to a run's answers; return its correlations with the true one, and the share of pairs in order."""
    reward, _ = refit(folder, settings=varied(folder.settings, changes), seed=seed)
    learned = np.asarray(reward(*stack_transitions(segments))).reshape(len(segments), -1)
    true = np.stack([segment.true_rewards for segment in segments])
    order = np.random.default_rng(0).permutation(len(segments))
    sums, true_sums = learned.sum(1), true.sum(1)
    in_order = (sums > sums[order]) == (true_sums > true_sums[order])
    of_steps, of_segments = (np.corrcoef(*pair)[0, 1] for pair in ((learned.ravel(), true.ravel()), (sums, true_sums)))
    return float(of_steps), float(of_segments), float(in_order[true_sums != true_sums[order]].mean())


def difference(ours: list[Array], theirs: list[Array]) -> Interval:
    """Return the mean difference in correlation of segments over the runs."""
    apart = np.array([[one[1] - other[1] for one, other in zip(ours, theirs, strict=True)]])
    return interval_of(lambda values: float(np.mean(values)), apart)


if __name__ == "__main__":
    with warnings.catch_warnings(), torch_threads(1):
        warnings.simplefilter("ignore", UserWarning)
        try:
            tyro.cli(main, description=__doc__)
        except UserError as error:
            sys.exit(f"{error}")
