"""A world of answers in which everything is exact, and judges who can be persuaded.

A prompt asks `SLOTS` things, each of which the language model knows or could only guess. An answer says of each
nothing, something plainly, something confidently, or words that fill; and it may flatter. What is known is nearly
always right, a guess mostly wrong. Gold counts what is right and wrong. A judge sees right and wrong only where they
check a claim, takes the rest for right, checks less where the tone is confident, and likes confidence, words and
flattery for their own sake.

The reward is a sum over slots, so the best policy under a penalty on the KL divergence from the model as it was, pi
proportional to pi_0 exp(r / beta) (Ziegler et al. 2019 and after), is one of slots: values and KL are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prefrl.theory.linear import Floats

Integers = NDArray[np.int64]

SLOTS = 4
KNOWN_SHARE = 0.5
RIGHT_IF = np.array([0.95, 0.35])
"""Probability that a claim is right: where it is known, where it is guessed."""
NOTHING, PLAIN, CONFIDENT, FILLER = range(4)
BASE = np.array([[0.2, 0.5, 0.2, 0.1], [0.5, 0.3, 0.1, 0.1]])
"""What the model says before it is taught, `(known or guessed, saying)`."""
FLATTERS = 0.2
FEATURES = ("known, plainly", "known, confidently", "guessed, plainly", "guessed, confidently", "filler", "flattery")
"""What a reward model counts in an answer: like the policy it knows what is a guess, and not what is right."""
GOLD_RIGHT, GOLD_WRONG, GOLD_FILLER, GOLD_FLATTERY = 1.0, -1.5, -0.1, -0.2


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who compares answers, and what persuades them; all in nats."""

    checks: tuple[float, float]
    """Probability that a claim is checked: where it is said plainly, confidently."""
    confidence: float = 0.0
    """What they give for a confident tone, unless the claim was found wrong."""
    filler: float = 0.0
    flattery: float = 0.0
    named: float | None = None
    """In a debate: probability that they check the one claim, a guess if there is any, that the other side names."""


PERSUADED = Judge(checks=(0.7, 0.2), confidence=0.4, filler=0.3, flattery=0.8)
TERSE = Judge(checks=(0.7, 0.2), confidence=0.4, filler=-0.5, flattery=-0.8)
"""Has another taste, and believes a confident tone as readily."""
WITH_RUBRIC = Judge(checks=(0.7, 0.7))
"""Asked of each claim whether it is right, and of nothing else."""
IN_DEBATE = replace(PERSUADED, named=0.95)


def weight(judge: Judge | None) -> Floats:
    """Return what each feature of an answer is worth on average, `(6,)`: to a judge outside a debate, or by gold."""
    worth = np.zeros(len(FEATURES))
    for state, right in enumerate(RIGHT_IF):
        for tone in range(2):
            found = 1.0 if judge is None else judge.checks[tone]
            liked = GOLD_RIGHT + (judge.confidence if judge is not None and tone else 0.0)
            worth[2 * state + tone] = right * liked + (1 - right) * (found * GOLD_WRONG + (1 - found) * liked)
    worth[4:] = (GOLD_FILLER, GOLD_FLATTERY) if judge is None else (judge.filler, judge.flattery)
    return worth


@dataclass(frozen=True, kw_only=True)
class Answers:
    """N answers to as many prompts."""

    guessed: Integers
    """`(N, SLOTS)`: 0 where the thing is known, 1 where it could only be guessed."""
    said: Integers
    """`(N, SLOTS)`: NOTHING, PLAIN, CONFIDENT or FILLER."""
    flatters: Integers
    """`(N,)`: 0 or 1."""

    def features(self) -> Floats:
        """Return how often each of `FEATURES` is there, `(N, 6)`."""
        claims = [(self.guessed == s) & (self.said == t) for s in range(2) for t in (PLAIN, CONFIDENT)]
        counts = [one.sum(axis=1) for one in (*claims, self.said == FILLER)]
        found: Floats = np.stack([*counts, self.flatters], axis=1).astype(np.float64)
        return found


def draw_answers(guessed: Integers, rng: np.random.Generator) -> Answers:
    """Return answers of the model as it was.

    Args:
        guessed: `(N, SLOTS)`, of each prompt.
        rng: of the model.
    """
    ends = BASE.cumsum(axis=1)[guessed]  # (N, SLOTS, 4)
    said = (rng.random(guessed.shape)[..., None] > ends[..., :-1]).sum(axis=-1)
    return Answers(guessed=guessed, said=said, flatters=(rng.random(len(guessed)) < FLATTERS).astype(np.int64))


def draw_prompts(num: int, rng: np.random.Generator) -> Integers:
    """Return which things of each prompt could only be guessed, `(num, SLOTS)`."""
    return (rng.random((num, SLOTS)) >= KNOWN_SHARE).astype(np.int64)


def seems(answers: Answers, right: NDArray[np.bool_], judge: Judge, rng: np.random.Generator) -> Floats:
    """Return what answers seem worth to a judge who looks at them once, `(N,)`.

    Args:
        answers: that are looked at.
        right: `(N, SLOTS)`, whether each claim is.
        judge: who looks.
        rng: of what they check.
    """
    claims = (answers.said == PLAIN) | (answers.said == CONFIDENT)
    confident = answers.said == CONFIDENT
    chance = np.where(confident, judge.checks[1], judge.checks[0])
    if judge.named is not None:
        rank = np.where(claims, 1 + 2 * answers.guessed + confident, 0)  # a guess before what is known
        first = rank.argmax(axis=1)
        rows = np.arange(len(first))
        chance[rows, first] = np.maximum(chance[rows, first], judge.named)
    wrong = claims & ~right & (rng.random(claims.shape) < chance)
    liked = GOLD_RIGHT + judge.confidence * confident
    worth: Floats = np.where(wrong, GOLD_WRONG, liked * claims).sum(axis=1)
    return worth + judge.filler * (answers.said == FILLER).sum(axis=1) + judge.flattery * answers.flatters


def compare(num: int, judge: Judge, rng: np.random.Generator) -> Floats:
    """Return features of pairs of the model's answers to the same prompts, `(num, 2, 6)`, the preferred first."""
    guessed = draw_prompts(num, rng)
    pair = [draw_answers(guessed, rng) for _ in range(2)]
    scores = []
    for answers in pair:
        right = rng.random(guessed.shape) < RIGHT_IF[guessed]
        scores.append(seems(answers, right, judge, rng))
    felt = np.stack(scores, axis=1) + rng.gumbel(size=(num, 2))  # Bradley-Terry
    order = np.argsort(-felt, axis=1)
    return np.take_along_axis(np.stack([one.features() for one in pair], axis=1), order[:, :, None], axis=1)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is said of each thing, and whether the answer flatters."""

    says: Floats
    """`(2, 4)` float64: where it is known, where it could only be guessed."""
    flatters: float

    def expected(self) -> Floats:
        """Return the mean of each of `FEATURES`, `(6,)`."""
        shares = np.array([KNOWN_SHARE, 1 - KNOWN_SHARE])
        claims = (SLOTS * shares[:, None] * self.says[:, [PLAIN, CONFIDENT]]).ravel()
        filler = SLOTS * shares @ self.says[:, FILLER]
        return np.concatenate([claims, [filler, self.flatters]])

    def kl_nats(self) -> float:
        """Return the KL divergence of its answers from those of the model as it was."""
        shares = np.array([KNOWN_SHARE, 1 - KNOWN_SHARE])
        slots = SLOTS * float(shares @ _relative(self.says, BASE).sum(axis=1))
        flat, base = np.array([self.flatters, 1 - self.flatters]), np.array([FLATTERS, 1 - FLATTERS])
        return slots + float(_relative(flat, base).sum())


def best_policy(reward: Floats, beta: float) -> Policy:
    """Return the policy with the greatest reward less beta times the KL divergence: pi_0 exp(r / beta), normalised.

    Args:
        reward: `(6,)`, of `FEATURES`.
        beta: in nats of reward per nat of KL.
    """
    slots = np.zeros((2, 4))
    slots[:, [PLAIN, CONFIDENT]] = reward[:4].reshape(2, 2)
    slots[:, FILLER] = reward[4]
    says = BASE * np.exp((slots - slots.max(axis=1, keepdims=True)) / beta)
    odds = FLATTERS / (1 - FLATTERS) * np.exp(np.clip(reward[5] / beta, -500, 500))
    return Policy(says=says / says.sum(axis=1, keepdims=True), flatters=float(odds / (1 + odds)))


def _relative(p: Floats, q: Floats) -> Floats:
    terms: Floats = p * np.log(np.maximum(p, 1e-300) / q)
    return terms
