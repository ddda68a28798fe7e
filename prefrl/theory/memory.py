"""Why the best policy may need memory: preferences over whole trajectories (Pacchiano, Saha and Lee 2023).

A T-maze: a cue is shown at the start, then comes a corridor that looks the same whatever the cue, and at its end a turn
left or right. People compare whole walks and like those that turn to where the cue pointed. That reward is linear in
features of the trajectory, but no sum over states and actions, and a policy that sees the present state alone cannot
tell the cues apart: it is right half the time, whatever it does. All policies are enumerated, so the optima are exact.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CUES, TURNS, LENGTH = 2, 2, 2  # cues shown, ways to go, steps after the cue
CUE_SHARE = 0.5
SCALE = 3.0  # of the true reward, in nats: how sure people are
SIZES = (10, 30, 100, 300, 1000)
MAX_NORM = 10.0

Walk = tuple[int, tuple[int, ...]]
"""The cue, and the action of each step; the last is the turn."""
WALKS: list[Walk] = [(cue, way) for cue in range(CUES) for way in itertools.product(range(TURNS), repeat=LENGTH)]


def trajectory_features(walk: Walk) -> Floats:
    """Return features of the whole walk, `(4,)`: which cue with which turn."""
    features = np.zeros(CUES * TURNS)
    features[walk[0] * TURNS + walk[1][-1]] = 1.0
    return features


def additive_features(walk: Walk) -> Floats:
    """Return features whose reward is a sum over states and actions, `(2 + 2 LENGTH,)`: the corridor hides the cue."""
    features = np.zeros(CUES + LENGTH * TURNS)
    features[walk[0]] = 1.0
    for step, action in enumerate(walk[1]):
        features[CUES + step * TURNS + action] = 1.0
    return features


THETA = SCALE * np.array([1.0, 0.0, 0.0, 1.0])  # of `trajectory_features`: turn to where the cue pointed


def value(policy: dict[tuple[int, ...], int], rewards: dict[Walk, float], *, remembers: bool) -> float:
    """Return what a policy earns on average.

    Args:
        policy: action by (step,), or with memory by (step, cue); the way through the corridor changes nothing that a
            policy could not choose for itself, so it need not be remembered.
        rewards: of each walk.
        remembers: the policy is told the cue at each step.
    """
    total = 0.0
    for cue in range(CUES):
        way = tuple(policy[(step, cue) if remembers else (step,)] for step in range(LENGTH))
        total += CUE_SHARE * rewards[cue, way]
    return total


def best_policy(rewards: dict[Walk, float], *, remembers: bool) -> tuple[dict[tuple[int, ...], int], float]:
    """Return the best policy and its value; a random one is a mixture of these and no better."""
    seen = [(s, c) for s in range(LENGTH) for c in range(CUES)] if remembers else [(s,) for s in range(LENGTH)]
    policies = (dict(zip(seen, actions, strict=True)) for actions in itertools.product(range(TURNS), repeat=len(seen)))
    return max(((one, value(one, rewards, remembers=remembers)) for one in policies), key=lambda found: found[1])


def run(repetitions: int, seed: int) -> Finding:
    """Enumerate the optima, and learn rewards and policies from comparisons of walks drawn at random."""
    rewards = {walk: float(trajectory_features(walk) @ THETA) for walk in WALKS}
    unit = max(rewards.values())
    blind = best_policy(rewards, remembers=False)[1] / unit
    seeing = best_policy(rewards, remembers=True)[1] / unit
    kinds = (
        ("of trajectories, policy with memory", trajectory_features, True, BLUE),
        ("of trajectories, policy without", trajectory_features, False, ORANGE),
        ("sum over steps, policy with memory", additive_features, True, GREEN),
    )
    reached = {name: np.zeros((repetitions, len(SIZES))) for name, *_ in kinds}
    for repetition in range(repetitions):
        for column, n in enumerate(SIZES):
            rng = np.random.default_rng([seed, repetition, n])
            pairs = rng.integers(len(WALKS), size=(n, 2))
            features = np.stack([trajectory_features(walk) for walk in WALKS])
            marked = np.concatenate([features, np.arange(len(WALKS))[:, None]], axis=1)  # which walk it is
            ranked = sample_rankings(marked[pairs], np.append(THETA, 0.0), rng)[..., -1].astype(int)
            for name, embed, remembers, _ in kinds:
                given = np.stack([embed(walk) for walk in WALKS])
                theta = fit_rankings(given[ranked], max_norm=MAX_NORM).theta
                learned = {walk: float(embed(walk) @ theta) for walk in WALKS}
                policy, _ = best_policy(learned, remembers=remembers)
                reached[name][repetition, column] = value(policy, rewards, remembers=remembers) / unit
    rows = []
    for column, n in enumerate(SIZES):
        found = (mean_and_interval(reached[name][:, column]) for name, *_ in kinds)
        rows.append((n, *(f"{mean:.3f} ± {half:.3f}" for mean, half in found)))
    ends = [float(reached[name][:, -1].mean()) for name, *_ in kinds]
    checks = [
        Check(
            claim="the best policy with memory earns all, the best without one half (enumerated)",
            measured=f"{seeing:.3f} and {blind:.3f}",
            holds=seeing == 1.0 and blind == 0.5,
        ),
        Check(
            claim="learned from comparisons of trajectories, a policy with memory gets there",
            measured=f"{ends[0]:.3f} from {SIZES[-1]} answers",
            holds=ends[0] > 0.99,
        ),
        Check(
            claim="one without memory stays at its own optimum",
            measured=f"{ends[1]:.3f}",
            holds=abs(ends[1] - blind) < 1e-9,
        ),
        Check(
            claim="a reward that is a sum over steps cannot say what is wanted: memory then does not help",
            measured=f"{ends[2]:.3f}",
            holds=abs(ends[2] - 0.5) < 0.1,
        ),
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, _, _, colour in kinds:
            found = np.array([mean_and_interval(values) for values in reached[name].T])
            axes.errorbar(
                SIZES, found[:, 0], found[:, 1], color=colour, marker="o", markersize=4, label=f"reward {name}"
            )
        axes.axhline(seeing, color=GREY, linestyle="--", linewidth=1)
        axes.axhline(blind, color=GREY, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_ylim(0.0, 1.08)
        set_style(axes, "A T-maze learned from comparisons; exact optima dashed", "answers n", "share of the reward")
        axes.legend(fontsize=9, frameon=False, loc="lower right")

    return Finding(columns=("n", *(name for name, *_ in kinds)), rows=rows, checks=checks, draw=draw)


STUDY = Study(
    name="memory",
    question="When does the best policy depend on history?",
    source="Pacchiano, Saha and Lee 2023",
    run=run,
    repetitions=50,
)
