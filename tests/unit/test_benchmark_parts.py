"""The statistics of `benchmark_parts.py`, on shares whose answer is known."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "benchmarks"))
import benchmark_parts

from prefrl.aggregate import better


def figures(line: str) -> list[float]:
    return [float(x) for x in re.findall(r"[-+]?\d+\.?\d*", line)]


def test_a_difference_on_the_same_seeds_is_found_that_spread_between_seeds_would_hide() -> None:
    rng = np.random.default_rng(0)
    default = rng.normal(0.8, 0.1, (3, 10))
    found = {"default": default, "more": default + 0.05, "same": default + rng.normal(0, 0.1, (3, 10))}
    lines = benchmark_parts.table(found).splitlines()
    more, same = figures(lines[3]), figures(lines[4])
    assert more[3:6] == [5.0, 5.0, 5.0]
    assert same[4] < 0 < same[5]
    assert 0.5 < more[6] < 0.8 and more[-1] == 30
    least = figures(lines[-1])[0]
    assert 3 < least < 9


def test_the_probability_of_improvement_is_that_of_pairs() -> None:
    ours, theirs = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 2.0, 9.0]])
    assert better(ours, theirs) == pytest.approx((1 + 1 + 1 + 0.5 + 1) / 9)


def test_runs_that_are_missing_are_left_out_on_both_sides() -> None:
    default = np.array([[0.5, 0.6, 0.7, 0.8]])
    other = np.array([[0.6, np.nan, 0.8, np.nan]])
    line = figures(benchmark_parts.table({"default": default, "other": other}).splitlines()[3])
    assert line[3] == 10.0 and line[-1] == 2
