"""The page of sweeps: its statistics on shares whose answer is known, and the file that makes a sweep again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "benchmarks"))
import benchmark_page

from prefrl.aggregate import better
from prefrl.errors import UserError
from prefrl.sweeps.plan import Plan, Sweep, read_sweep


def figures(line: str) -> list[float]:
    return [float(x) for x in re.findall(r"[-+]?\d+\.?\d*", line)]


def test_a_difference_on_the_same_seeds_is_found_that_spread_between_seeds_would_hide() -> None:
    rng = np.random.default_rng(0)
    default = rng.normal(0.8, 0.1, (3, 10))
    found = {"default": default, "more": default + 0.05, "same": default + rng.normal(0, 0.1, (3, 10))}
    lines = benchmark_page.differences(found).splitlines()
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
    line = figures(benchmark_page.differences({"default": default, "other": other}).splitlines()[3])
    assert line[3] == 10.0 and line[-1] == 2


def test_the_page_holds_the_file_that_makes_the_sweep_again_and_where_it_was_made(tmp_path: Path) -> None:
    settings = {"env_id": "Pendulum-v1", "labels": 20, "seed": 7, "reward": {"num-members": 2}}
    sweep = Sweep(settings=settings, vary={"teacher": ["oracle", "noisy"]}, seeds=2, options={"baseline": True})
    plan, out = Plan.of(sweep), tmp_path / "pendulum"
    plan.begin(out)
    with pytest.raises(UserError, match="has no results yet"):
        benchmark_page.section(out)
    figures = {"true_return_mean": -200.0, "random_true_return_mean": -1200.0, "baseline_true_return_mean": -150.0}
    figures |= {"share": 0.9, "steps": 1000, "measures/upright": 0.8}
    rows = [
        {"task": "Pendulum-v1", "variant": cell.variant, "seed": cell.seed, "state": "done", "figures": figures}
        for cell in plan.cells
    ]
    (out / "results.json").write_text(json.dumps({"measure": "share", "runs": rows}))
    page = benchmark_page.section(out)
    block = [line.removeprefix("    ") for line in page.splitlines() if line.startswith("    ")]
    (tmp_path / "again.toml").write_text("\n".join(block))
    assert Plan.of(read_sweep(tmp_path / "again.toml")).described == plan.described
    assert re.search(r"4 of 4 runs done, .* \d+ processors \(.+\), commit [0-9a-f]{12}", page)
    assert "| Pendulum-v1 (1,000 steps) | teacher=oracle | -1200 | -150 (-150 to -150; 2) | -200 (" in page
    assert "| Pendulum-v1 | teacher=noisy | upright |  |  | 80% 80% |" in page
