"""Learning from comparisons works, and the controls that must fail do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

from prefrl.control import TrainSettings, evaluate_run, train
from prefrl.control.run import evaluate_random

SETTINGS = TrainSettings(env_id="Pendulum-v1", labels=100, steps=120_000)


def gain(settings: TrainSettings, out: Path) -> float:
    """Return the true return from comparisons less that of random actions."""
    folder = train(settings, out, quiet=True)
    learned = evaluate_run(folder, "last", 20).mean
    return learned - evaluate_random(folder.settings, 20).mean


def test_oracle_teaches_coin_does_not_and_inverted_teaches_the_opposite(tmp_path: Path) -> None:
    oracle, inverted = (gain(replace(SETTINGS, teacher=name), tmp_path / name) for name in ("oracle", "inverted"))
    # a reward fitted to coin flips is some function of the state, and now and then swinging up happens to be good by it
    coin = median(gain(replace(SETTINGS, teacher="coin", seed=seed), tmp_path / f"coin-{seed}") for seed in range(3))
    assert oracle > 300  # random actions come to about -1200, the best policy to about -150
    assert coin < 0.5 * oracle
    assert inverted < 0
    assert inverted < coin + 200
