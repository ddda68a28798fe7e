"""Accuracy of a reward learned from three annotators, one of whom flips coins: without and with estimated reliability.

    python scripts/experiments/careless_annotator.py

Segments of 20 steps with 8 observations and 3 actions; the true reward is a fixed random network of them. Two
annotators answer by it under Bradley-Terry, one flips coins, a third of the comparisons each. Accuracy is on 2,000
pairs of segments that nobody was asked about; "two alone" leaves the third out by name.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box

from prefrl.feedback import Comparison, Query
from prefrl.rewards import FitSettings, RewardEnsemble
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.studies.refit import fit_record

FITS = {"plain": {}, "reliability estimated": {"estimate_reliability": True}, "two alone": {}}


def segments(num: int, rng: np.random.Generator, weights: Sequence[np.ndarray]) -> list[Segment]:
    seen, done = rng.normal(size=(num, 21, 8)), rng.uniform(-1, 1, (num, 20, 3))
    inputs = np.concatenate([seen[:, :-1], done], axis=2)
    true = np.tanh(inputs @ weights[0]) @ weights[1]
    return [Segment(observations=o, actions=a, true_rewards=r) for o, a, r in zip(seen, done, true, strict=True)]


def run(comparisons: int, seed: int) -> tuple[list[float], dict[str, float]]:
    rng, names = np.random.default_rng(seed), ("anna", "ben", "coin")
    weights = rng.normal(size=(11, 16)), rng.normal(size=16)
    pool, unseen = (segments(2 * num, rng, weights) for num in (comparisons, 2000))
    accuracies, shares = [], {}
    with tempfile.TemporaryDirectory() as folder, PreferenceStore(Path(folder) / "record.sqlite") as store:
        queries = [Query(segments=pair) for pair in zip(pool[::2], pool[1::2], strict=True)]
        store.add_queries(queries)
        answers = []
        for number, query in enumerate(queries):
            first, second = (float(segment.true_rewards.sum()) for segment in query.segments)
            chance = 0.5 if number % 3 == 2 else 1 / (1 + np.exp(second - first))
            preference = float(rng.random() < chance)
            answers.append(Comparison(query_id=query.id, preference=preference, annotator=names[number % 3]))
        store.add_answers(answers)
        for name, settings in FITS.items():
            reward = RewardEnsemble(Box(-np.inf, np.inf, (8,)), Box(-1, 1, (3,)), seed=seed)
            without = ("coin",) if name == "two alone" else ()
            report = fit_record(store, reward, FitSettings(**settings), without=without, seed=seed)
            shares = report.reliability or shares
            learned = reward.segment_returns(unseen).mean(0)
            true = np.array([segment.true_rewards.sum() for segment in unseen])
            accuracies.append(float(np.mean((learned[::2] > learned[1::2]) == (true[::2] > true[1::2]))))
    return accuracies, shares


def main(comparisons: int = 600, seeds: int = 5) -> None:
    torch.set_num_threads(1)
    runs = [run(comparisons, seed) for seed in range(seeds)]
    print(f"| {comparisons} comparisons | median | least | most |\n|---|---|---|---|")
    for name, values in zip(FITS, np.transpose([accuracies for accuracies, _ in runs]), strict=True):
        print(f"| accuracy, {name} | {np.median(values):.1%} | {values.min():.1%} | {values.max():.1%} |")
    for name in ("anna", "ben", "coin"):
        shares = [found[name] for _, found in runs]
        print(f"| reliability of {name} | {np.median(shares):.2f} | {min(shares):.2f} | {max(shares):.2f} |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
