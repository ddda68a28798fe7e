"""How many games tell who is better: pairs that are chosen beside pairs at random.

Players of known strength, whose games are answered as Bradley-Terry says, by an annotator who is not always right. The
same way to choose pairs, ratings and intervals as in `prefrl tournament`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREY, ORANGE, set_style
from prefrl.theory.linear import Floats
from prefrl.theory.ratings import Game, is_certain, next_pair, rate
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRENGTHS = np.array([1.2, 0.6, 0.0, -0.6, -1.2])
"""In nats: the better of two neighbours wins 65 % of their games."""
GAMES, FIRST, EVERY, MOST = 300, 20, 10, 1500


def play(first: int, second: int, rng: np.random.Generator) -> Game:
    """Return a game of two players."""
    chance = 1 / (1 + np.exp(STRENGTHS[second] - STRENGTHS[first]))
    return Game(first, second, float(rng.random() < chance))


def ask(games: list[Game], rng: np.random.Generator, *, chosen: bool) -> None:
    """Add one game, of a pair that was chosen, or of any two."""
    num = len(STRENGTHS)
    first, second = next_pair(games, num, rng) if chosen else rng.choice(num, 2, replace=False).tolist()
    games.append(play(first, second, rng))


def games_until_certain(rng: np.random.Generator, *, chosen: bool) -> int:
    """Return after how many games the order of all neighbours is beyond doubt, `MOST` if it is not by then."""
    games: list[Game] = []
    while len(games) < MOST:
        ask(games, rng, chosen=chosen)
        if len(games) >= FIRST and len(games) % EVERY == 0 and is_certain(rate(games, len(STRENGTHS), draws=0)):
            break
    return len(games)


def run(repetitions: int, seed: int) -> Finding:
    """Hold tournaments again and again."""
    num = len(STRENGTHS)
    needed: dict[str, Floats] = {}
    for name, chosen in (("chosen", True), ("at random", False)):
        streams = (np.random.default_rng([seed, chosen, repetition]) for repetition in range(repetitions))
        needed[name] = np.array([games_until_certain(rng, chosen=chosen) for rng in streams], dtype=np.float64)
    right, covered = [], []
    for repetition in range(repetitions):
        rng, games = np.random.default_rng([seed, 2, repetition]), list[Game]()
        while len(games) < GAMES:
            ask(games, rng, chosen=True)
        found = rate(games, num, seed=repetition)
        right.append(np.argsort(-found.ratings).tolist() == list(range(num)))
        covered += ((found.low <= STRENGTHS) & (found.high >= STRENGTHS)).tolist()
    share = needed["chosen"].mean() / needed["at random"].mean()
    rows = []
    for name, values in needed.items():
        mean, half = mean_and_interval(values)
        rows.append((name, f"{mean:.0f} ± {half:.0f}", f"{np.median(values):.0f}", f"{values.max():.0f}"))
    checks = [
        Check(
            claim="chosen pairs need at most two thirds of the games for the same certainty",
            measured=f"{share:.2f} of them",
            holds=bool(share <= 2 / 3),
        ),
        Check(
            claim=f"after {GAMES} games the order is the true one in 19 of 20",
            measured=f"in {np.mean(right):.0%} of {repetitions}",
            holds=float(np.mean(right)) >= 0.95,
        ),
        Check(
            claim="the 95 % intervals hold the true ratings in 90 to 98 %, though pairs were chosen by the answers",
            measured=f"{np.mean(covered):.1%} of {len(covered)}",
            holds=0.9 <= float(np.mean(covered)) <= 0.98,
        ),
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), colour in zip(needed.items(), (BLUE, ORANGE), strict=True):
            places = np.arange(1, repetitions + 1) / repetitions
            axes.step(np.sort(values), places, where="post", color=colour, label=f"pairs {name}")
        axes.axvline(GAMES, color=GREY, linewidth=1, linestyle=":")
        set_style(axes, "Games until the order of all five is certain", "games", "share of tournaments that are done")
        axes.legend(fontsize=9, frameon=False)

    columns = ("pairs", "games until certain", "median", "most")
    return Finding(columns=columns, rows=rows, checks=checks, draw=draw)


STUDY = Study(
    name="tournament",
    question="How many games tell who is better, and do the intervals hold?",
    source="Bradley and Terry 1952; Chiang et al. 2024",
    run=run,
    repetitions=40,
)
