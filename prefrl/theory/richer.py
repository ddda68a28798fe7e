"""Answers that carry more than the score: where the score is sparse or wrong, preferences teach and it does not.

A walk on a grid from one corner to the opposite one. In the sparse world the score counts only steps at the goal, which
an agent that has seen none reaches by chance: how often is known exactly. In the wrong world a coin beside the start
scores each time it is entered, so that the walk with the greatest score goes to and fro there and never arrives. A
person who compares pieces of walks sees which is nearer the goal (Christiano et al. 2017, s. 3.1: on Enduro and Ant the
agents taught so did better than those given the score). The same agent is given the score, a reward learned from
answers, or the score with the distance added, for comparison; and as a control answers of somebody who looks at the
score alone, which carry no more than it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, set_style
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Integers = NDArray[np.integer[Any]]

SIDE, HORIZON = 12, 48
START, COIN, GOAL = 0, SIDE + 1, SIDE * SIDE - 1
MOVES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
EPISODES, LAST = 160, 30
"""Of a training, and those of them by which it is judged."""
EXPLORES = 0.1
DISCOUNT = 0.97
SWEEPS = 30
PIECE, FIRST_ASKED, EVERY = 8, 5, 5
ANSWERS = (25, 50, 100, 200)
PER_STEP, ARRIVED = 0.5, 1.0  # of a person, in nats: for each step nearer the goal, for each step there, on average
RIDGE = 0.1

SCORE, TAUGHT, GUIDED, NO_MORE = (
    "the score",
    "answers",
    "the score and the distance",
    "answers of who looks at the score",
)
WORLDS = ("sparse", "wrong")


def _next_cells() -> Integers:
    places = np.stack(np.divmod(np.arange(SIDE * SIDE), SIDE), axis=1)
    moved = np.clip(places[:, None] + MOVES[None], 0, SIDE - 1)
    cells = moved[..., 0] * SIDE + moved[..., 1]
    cells[GOAL] = GOAL  # who has arrived stays: an episode that ended would tell the task by its length
    return cells


NEXT = _next_cells()
"""`(cells, 4)`: where each move leads."""
DISTANCE = (2 * (SIDE - 1) - np.add(*np.divmod(np.arange(SIDE * SIDE), SIDE))).astype(np.float64)
"""Of each cell from the goal, in steps."""
_ROWS, _COLUMNS = np.array(np.divmod(np.arange(SIDE * SIDE), SIDE)) / (SIDE - 1)
FEATURES = np.stack([_ROWS, _COLUMNS, _ROWS**2, _COLUMNS**2, _ROWS * _COLUMNS], axis=1)
"""`(cells, 5)`: what a learned reward sees of a cell: where it is, with squares."""


def score_of(world: str) -> Floats:
    """Return the score for entering each cell, `(cells,)`."""
    score = np.zeros(SIDE * SIDE)
    score[GOAL] = 1.0
    if world == "wrong":
        score[COIN] = 3.0
    return score


def chance_by_chance() -> float:
    """Return the probability that an episode of random moves reaches the goal."""
    places = np.zeros(SIDE * SIDE)
    places[START] = 1.0
    for _ in range(HORIZON):
        after = np.zeros_like(places)
        for move in range(len(MOVES)):
            np.add.at(after, NEXT[:, move], places / len(MOVES))
        places = after
    return float(places[GOAL])


def best_walk(score: Floats) -> tuple[float, bool]:
    """Return the greatest score of an episode, by backward induction, and whether its walk arrives."""
    values = np.zeros((HORIZON + 1, SIDE * SIDE))
    for step in reversed(range(HORIZON)):
        values[step] = (score[NEXT] + values[step + 1][NEXT]).max(axis=1)
    cell = START
    for step in range(HORIZON):
        cell = int(NEXT[cell, (score[NEXT[cell]] + values[step + 1][NEXT[cell]]).argmax()])
    return float(values[0, START]), cell == GOAL


@dataclass(kw_only=True)
class Walker:
    """An agent that knows where the moves lead that it has tried, and plans by the reward that it is given."""

    rng: np.random.Generator
    tried: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(NEXT.shape, bool))
    values: Floats = field(default_factory=lambda: np.zeros(NEXT.shape))

    def walk(self) -> Integers:
        """Return the cells of an episode, `(HORIZON + 1,)`."""
        noise, random_moves = self.rng.random((HORIZON, len(MOVES))), self.rng.random(HORIZON) < EXPLORES
        cells = np.full(HORIZON + 1, START)
        for step in range(HORIZON):
            wanted = 0.0 if random_moves[step] else 1e6  # ties at random
            move = int((wanted * self.values[cells[step]] + noise[step]).argmax())
            self.tried[cells[step], move] = True
            cells[step + 1] = NEXT[cells[step], move]
        return cells

    def plan(self, reward: Floats) -> None:
        """Find the worth of each move that was tried; of others it is 0, the least that there is.

        Args:
            reward: `(cells,)` float, of entering each, 0 or more.
        """
        for _ in range(SWEEPS):
            self.values = np.where(self.tried, reward[NEXT] + DISCOUNT * self.values.max(axis=1)[NEXT], 0.0)


def seems_near(piece: Integers, score: Floats) -> float:
    """Return what a piece of a walk is worth to somebody who sees where it is."""
    return float(np.mean(-PER_STEP * DISTANCE[piece] + ARRIVED * (piece == GOAL)))


def seems_scored(piece: Integers, score: Floats) -> float:
    """Return what it is worth to somebody who looks at the score alone."""
    return float(score[piece].sum())


def train(world: str, way: str, num_answers: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which episodes of a training arrived, `(EPISODES,)`."""
    score = score_of(world)
    walker, walks, ranked = Walker(rng=rng), list[Integers](), list[Floats]()
    reward = score
    if way == GUIDED:
        reward = score + PER_STEP * (DISTANCE.max() - DISTANCE)
    asks = {TAUGHT: seems_near, NO_MORE: seems_scored}.get(way)
    if asks is not None:
        reward = np.zeros_like(score)
    arrived = np.zeros(EPISODES, bool)
    sessions = range(FIRST_ASKED, EPISODES - LAST, EVERY)
    for episode in range(EPISODES):
        walks.append(walker.walk())
        arrived[episode] = walks[-1][-1] == GOAL
        if asks is not None and episode in sessions:
            number = sessions.index(episode) + 1
            due = round(num_answers * number / len(sessions)) - len(ranked)
            ranked += [_ask(walks, score, asks, rng) for _ in range(due)]
            if ranked:
                learned = FEATURES @ fit_rankings(np.stack(ranked), ridge=RIDGE).theta
                reward = learned - learned.min()
        walker.plan(reward)
    return arrived


def _ask(
    walks: list[Integers], score: Floats, seems: Callable[[Integers, Floats], float], rng: np.random.Generator
) -> Floats:
    """Return mean features of two pieces of late walks, `(2, 2 SIDE)`, the preferred first."""
    pieces = []
    for _ in range(2):
        walk = walks[len(walks) - 1 - int(rng.integers(min(len(walks), 2 * EVERY)))]
        begin = int(rng.integers(HORIZON - PIECE + 1))
        pieces.append(walk[begin + 1 : begin + 1 + PIECE])
    felt = np.array([[seems(piece, score)] for piece in pieces])
    shown = np.array([FEATURES[piece].mean(axis=0) for piece in pieces])
    marked = np.concatenate([shown, felt], axis=1)[None]
    return sample_rankings(marked, np.append(np.zeros(shown.shape[1]), 1.0), rng)[0, :, :-1]


def run(repetitions: int, seed: int) -> Finding:
    """Train the same agent on scores and on answers, in both worlds."""
    kinds: list[tuple[str, str, int]] = [(world, SCORE, 0) for world in WORLDS]
    kinds += [(world, GUIDED, 0) for world in WORLDS]
    kinds += [(world, NO_MORE, ANSWERS[-1]) for world in WORLDS]
    kinds += [("either", TAUGHT, number) for number in ANSWERS]  # who sees the walk does not look at the score
    arrived = {
        kind: np.array(
            [train(*kind, np.random.default_rng([seed, place, repetition])) for repetition in range(repetitions)]
        )
        for place, kind in enumerate(kinds)
    }
    late = {kind: found[:, -LAST:].mean(axis=1) for kind, found in arrived.items()}
    rows = []
    for kind in kinds:
        mean, half = mean_and_interval(late[kind])
        ever = arrived[kind].any(axis=1).mean()
        rows.append((kind[0], kind[1], kind[2] or "", f"{mean:.0%} ± {half:.0%}", f"{ever:.0%}"))
    chance = 1 - (1 - chance_by_chance()) ** EPISODES
    seen = float(arrived["sparse", SCORE, 0].any(axis=1).mean())
    most = {world: best_walk(score_of(world)) for world in WORLDS}
    taught = late["either", TAUGHT, ANSWERS[-1]]
    gains = {world: mean_and_interval(taught - late[world, SCORE, 0]) for world in WORLDS}
    enough = next((n for n in ANSWERS if late["either", TAUGHT, n].mean() > 0.5), None)
    blind = [mean_and_interval(late[world, NO_MORE, ANSWERS[-1]]) for world in WORLDS]
    checks = [
        Check(
            claim=f"where the score is sparse, {chance:.0%} of trainings reach the goal by chance (exact), and only "
            "these can learn from it",
            measured=f"{seen:.0%} of {repetitions}; arrive in the end {late['sparse', SCORE, 0].mean():.0%}",
            holds=abs(seen - chance) < 3 * np.sqrt(chance * (1 - chance) / repetitions),
        ),
        Check(
            claim="where it is wrong, the walk with the greatest score does not arrive (by backward induction)",
            measured=f"its score is {most['wrong'][0]:.0f}; that of the sparse one, {most['sparse'][0]:.0f}, arrives",
            holds=most["sparse"][1] and not most["wrong"][1],
        ),
        *(
            Check(
                claim=f"the agent that is taught by {ANSWERS[-1]} answers arrives more often than the one given the "
                f"{world} score",
                measured=f"{taught.mean():.0%} beside {late[world, SCORE, 0].mean():.0%}: {gain:+.0%} ± {half:.0%}",
                holds=gain > half,
            )
            for world, (gain, half) in gains.items()
        ),
        Check(
            claim="it needs no more than 50 answers to arrive more often than not",
            measured=f"{enough}" if enough else "more",
            holds=enough is not None and enough <= 50,
        ),
        Check(
            claim="it is what the answers tell: of somebody who looks at the score alone they do not help",
            measured=", ".join(f"{mean:.0%} ± {half:.0%}" for mean, half in blind) + " (sparse, wrong)",
            holds=all(mean + half < taught.mean() / 2 for mean, half in blind),
        ),
    ]
    guided = ", ".join(f"{late[world, GUIDED, 0].mean():.0%} ({world})" for world in WORLDS)
    notes = [f"Who can write down what the answers tell need not ask: the score and the distance give {guided}."]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.3, 1))
        figure.subplots_adjust(left=0.07, right=0.98, bottom=0.14, wspace=0.08)
        shown = (
            (("either", TAUGHT, ANSWERS[-1]), BLUE, f"{ANSWERS[-1]} answers", "-"),
            (("sparse", SCORE, 0), ORANGE, "sparse score", "-"),
            (("wrong", SCORE, 0), PURPLE, "wrong score", "-"),
            (("sparse", NO_MORE, ANSWERS[-1]), GREEN, f"{ANSWERS[-1]} answers by the score alone", "-"),
            (("sparse", GUIDED, 0), GREY, "score and distance", "--"),
        )
        for kind, colour, label, style in shown:
            blocks = arrived[kind].reshape(repetitions, -1, 10).mean(axis=2)
            found = np.array([mean_and_interval(column) for column in blocks.T])
            at = 10 * np.arange(len(found)) + 5
            left.plot(at, found[:, 0], color=colour, linestyle=style, label=label)
            low, high = found[:, 0] - found[:, 1], found[:, 0] + found[:, 1]
            left.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        set_style(left, "A walk to the far corner", "episodes", "share that arrives")
        left.legend(fontsize=8, frameon=False)
        found = np.array([mean_and_interval(late["either", TAUGHT, number]) for number in ANSWERS])
        right.errorbar(ANSWERS, found[:, 0], found[:, 1], color=BLUE, marker="o", markersize=4)
        right.set_xscale("log")
        right.set_xticks(ANSWERS, [str(number) for number in ANSWERS])
        right.set_xticks([], minor=True)
        right.set_ylim(-0.05, 1.08)
        set_style(right, f"In the last {LAST} episodes", "answers", "")

    columns = ("score", "taught by", "answers", "arrives in the end", "arrived ever")
    return Finding(columns=columns, rows=rows, checks=checks, notes=notes, draw=draw)


STUDY = Study(
    name="richer",
    question="When do answers teach more than the score?",
    source="Christiano et al. 2017, s. 3.1",
    run=run,
    repetitions=40,
)
