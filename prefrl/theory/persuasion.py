"""A judge who can be persuaded, and a policy that learns to: what pleases and what is right come apart.

Answers of the model are compared by a judge who likes a confident tone, many words and flattery, and checks claims less
the surer they sound (Wen et al. 2024 and Sharma et al. 2023 find people and models so). A reward is learned from these
answers, and the policy is the best one for it at each distance from the model as it was: first the gold value rises
along with the judge's, then it falls while the judge's goes on rising (Gao et al. 2022). What may help is put to the
same number of answers: a second judge, a rubric that asks of each claim alone, and a debate in which the other side
names a claim to check (Irving, Christiano and Amodei 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, set_style
from prefrl.theory.judges import (
    IN_DEBATE,
    PERSUADED,
    TERSE,
    WITH_RUBRIC,
    Policy,
    best_policy,
    compare,
    draw_answers,
    draw_prompts,
    weight,
)
from prefrl.theory.linear import Floats, fit_rankings
from prefrl.theory.overfitting import best_of
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANSWERS = 1000
RIDGE = 0.1
BETAS = tuple(np.geomspace(30.0, 0.1, 18))
BEST_OF = (1, 4, 16, 64, 256)
POOL = 2000
"""Answers of a prompt that the best of N is taken from."""
ONE, SAME, TASTES, RUBRIC, DEBATE, GOLD = (
    "the judge",
    "twice as many answers",
    "two judges of opposite tastes",
    "with a rubric",
    "in a debate",
    "gold itself",
)
WAYS: dict[str, Callable[[np.random.Generator], Floats]] = {
    ONE: lambda rng: compare(ANSWERS, PERSUADED, rng),
    SAME: lambda rng: compare(2 * ANSWERS, PERSUADED, rng),
    TASTES: lambda rng: np.concatenate([compare(ANSWERS // 2, judge, rng) for judge in (PERSUADED, TERSE)]),
    RUBRIC: lambda rng: compare(ANSWERS, WITH_RUBRIC, rng),
    DEBATE: lambda rng: compare(ANSWERS, IN_DEBATE, rng),
}


def best_of_n(reward: Floats, rng: np.random.Generator) -> Floats:
    """Return gold value and judge's value of the best of N answers by a reward, `(2, len(BEST_OF))`, over prompts."""
    found = []
    for prompt in draw_prompts(12, rng):
        features = draw_answers(np.tile(prompt, (POOL, 1)), rng).features()
        by = features @ reward + 1e-9 * rng.random(POOL)  # ties at random
        found.append([best_of(features @ weight(judge), by, BEST_OF) for judge in (None, PERSUADED)])
    values: Floats = np.mean(found, axis=0)
    return values


def run(repetitions: int, seed: int) -> Finding:
    """Learn rewards from the answers of each way to judge, and optimise each ever harder."""
    gold, judged = weight(None), weight(PERSUADED)
    values = {name: np.zeros((repetitions, len(BETAS), 3)) for name in (*WAYS, GOLD)}  # sqrt(KL), gold, judge
    learned = {name: np.zeros((repetitions, len(gold))) for name in WAYS}
    ends: dict[str, list[Policy]] = {name: [] for name in WAYS}
    chosen = np.zeros((repetitions, 2, len(BEST_OF)))
    for repetition in range(repetitions):
        for number, (name, answers) in enumerate(WAYS.items()):
            rng = np.random.default_rng([seed, number, repetition])
            learned[name][repetition] = reward = fit_rankings(answers(rng), ridge=RIDGE).theta
            policies = [best_policy(reward, beta) for beta in BETAS]
            values[name][repetition] = [_values(policy, gold, judged) for policy in policies]
            ends[name].append(policies[-1])
            if name == ONE:
                chosen[repetition] = best_of_n(reward, rng)
        values[GOLD][repetition] = [_values(best_policy(gold, beta), gold, judged) for beta in BETAS]

    rows: list[tuple[str, ...]] = []
    for name in (*WAYS, GOLD):
        curve = values[name].mean(axis=0)
        top = int(curve[:, 1].argmax())
        mean, half = mean_and_interval(values[name][:, -1, 1])
        rows.append(
            (
                name,
                f"{curve[top, 1]:.2f} at {curve[top, 0] ** 2:.1f} nats",
                f"{mean:.2f} ± {half:.2f}",
                f"{curve[-1, 2]:.2f}",
                *(_shares(ends[name]) if name in ends else ("", "")),
            )
        )
    base, plain = values[GOLD][0, 0, 1], values[ONE].mean(axis=0)
    top = int(plain[:, 1].argmax())
    final = {name: mean_and_interval(values[name][:, -1, 1]) for name in (*WAYS, GOLD)}
    best = chosen.mean(axis=0)
    peak = int(best[0].argmax())
    guesses = np.array([policy.says[1, 2] for policy in ends[ONE]])
    same = mean_and_interval(values[SAME][:, -1, 1] - values[ONE][:, -1, 1])
    goldest = values[GOLD].mean(axis=0)
    share = (
        _share_of_gain(values[RUBRIC].mean(axis=0)[-1], goldest),
        _share_of_gain(values[DEBATE].mean(axis=0)[-1], goldest),
    )
    gains = {name: mean_and_interval(values[name][:, -1, 1] - values[ONE][:, -1, 1]) for name in (TASTES, DEBATE)}
    gold_at, judge_at = (", ".join(f"{plain[at, column]:.2f}" for at in (0, top, -1)) for column in (1, 2))
    checks = [
        Check(
            claim="optimised harder, the policy pleases the judge ever more, and is right more often, then less",
            measured=f"gold {gold_at} and judge {judge_at} at KL 0, {plain[top, 0] ** 2:.1f}, {plain[-1, 0] ** 2:.1f}",
            holds=bool((np.diff(plain[:, 2]) > 0).all() and plain[top, 1] > plain[0, 1] + 0.1 > plain[-1, 1] + 0.2),
        ),
        Check(
            claim="the best of N does the same",
            measured=f"gold {best[0, 0]:.2f}, {best[0, peak]:.2f} at {BEST_OF[peak]}, {best[0, -1]:.2f} at "
            f"{BEST_OF[-1]}, judge {best[1, 0]:.2f} to {best[1, -1]:.2f}",
            holds=bool(best[0, peak] - best[0, -1] > 0.1 and (np.diff(best[1]) > 0).all()),
        ),
        Check(
            claim="what it has learned is to guess, confidently",
            measured=f"in {guesses.mean():.0%} of what it does not know; in the beginning 10%",
            holds=bool(guesses.mean() > 0.7),
        ),
        Check(
            claim="more answers of the same judge do not help",
            measured=f"gold {same[0]:+.2f} ± {same[1]:.2f}",
            holds=same[0] < 0.1 + same[1],
        ),
        Check(
            claim="a second judge of the opposite taste helps against words and flattery, not where both err",
            measured=f"gold {gains[TASTES][0]:+.2f} ± {gains[TASTES][1]:.2f}, {final[TASTES][0]:.2f} in the end; "
            f"confident guesses {np.mean([policy.says[1, 2] for policy in ends[TASTES]]):.0%}",
            holds=gains[TASTES][0] > gains[TASTES][1] and final[TASTES][0] < base,
        ),
        Check(
            claim="a debate helps",
            measured=f"gold {gains[DEBATE][0]:+.2f} ± {gains[DEBATE][1]:.2f}, {final[DEBATE][0]:.2f} in the end: "
            f"{share[1]:.0%} of what gold itself gains at the same distance",
            holds=gains[DEBATE][0] > gains[DEBATE][1] and final[DEBATE][0] > base,
        ),
        Check(
            claim="with a rubric that asks about each claim alone gold does not fall, and gains more than half of what "
            "gold itself does at the same distance",
            measured=f"{share[0]:.0%} ({final[RUBRIC][0]:.2f} ± {final[RUBRIC][1]:.2f} in the end)",
            holds=share[0] > 0.5 and bool((np.diff(values[RUBRIC].mean(axis=0)[:, 1]) > -0.01).all()),
        ),
    ]
    checked = WITH_RUBRIC.checks[1]
    notes = [
        "What a rubric and a debate bring follows from what they are taken to do: with the rubric a claim is checked "
        f"as often whatever its tone ({checked:.0%}) and nothing else counts; in the debate one claim of each answer, "
        f"a guess where there is any, is checked in {IN_DEBATE.named:.0%}. By the rubric a guess is worth "
        f"{weight(WITH_RUBRIC)[2]:.2f} to the judge, hardly less than saying nothing; by gold {gold[2]:.2f}."
    ]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.98, bottom=0.14, wspace=0.2)
        for column, (colour, label) in enumerate(((GREEN, "gold"), (ORANGE, "judge")), start=1):
            left.plot(plain[:, 0], plain[:, column], color=colour, label=f"{label}, best policy")
            spread = np.array([mean_and_interval(one)[1] for one in values[ONE][:, :, column].T])
            left.fill_between(
                plain[:, 0], plain[:, column] - spread, plain[:, column] + spread, color=colour, alpha=0.2
            )
            distance = [math.sqrt(math.log(size) - (size - 1) / size) for size in BEST_OF]
            left.plot(distance, best[column - 1], color=colour, marker="o", markersize=4, linestyle=":",
                      label=f"{label}, best of N")  # fmt: skip
        set_style(left, "A reward learned from a judge who can be persuaded", "sqrt(KL), nats", "value of an answer")
        left.legend(fontsize=8, frameon=False)
        for name, colour in zip((*WAYS, GOLD), (ORANGE, SKY, PURPLE, BLUE, GREEN, GREY), strict=True):
            curve = values[name].mean(axis=0)
            right.plot(curve[:, 0], curve[:, 1], color=colour, label=name, linestyle="--" if name == GOLD else "-")
        set_style(right, "Gold value by who judges", "sqrt(KL), nats", "")
        right.legend(fontsize=8, frameon=False, loc="lower left")

    columns = (
        "learned from",
        "gold at its best",
        "gold in the end",
        "judge in the end",
        "guesses confidently",
        "flatters",
    )
    return Finding(columns=columns, rows=rows, checks=checks, notes=notes, draw=draw)


def _values(policy: Policy, gold: Floats, judged: Floats) -> tuple[float, float, float]:
    expected = policy.expected()
    return math.sqrt(max(policy.kl_nats(), 0.0)), float(expected @ gold), float(expected @ judged)


def _share_of_gain(end: Floats, goldest: Floats) -> float:
    """Return what share of the gain of gold's own best policy at the same distance is reached."""
    at_best = float(np.interp(end[0], goldest[:, 0], goldest[:, 1]))
    return float((end[1] - goldest[0, 1]) / (at_best - goldest[0, 1]))


def _shares(policies: list[Policy]) -> tuple[str, str]:
    guesses, flatters = ([policy.says[1, 2] for policy in policies], [policy.flatters for policy in policies])
    return f"{np.mean(guesses):.0%}", f"{np.mean(flatters):.0%}"


STUDY = Study(
    name="persuasion",
    question="What does a policy learn from a judge who can be persuaded, and what helps?",
    source="Gao et al. 2022; Wen et al. 2024; Irving et al. 2018",
    run=run,
    repetitions=60,
)
