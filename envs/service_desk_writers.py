"""People who write example answers for ServiceDesk: some thorough, some brief, some careless, some chatty.

A model fine-tuned on them answers like all of them by turns, so that it can be told apart what is better: that is what
comparisons are then for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prefrl.envs.service_desk import FILLERS, MOODS, ORDER_FORMS, PRODUCTS, REMEDIES, TONES, Message


@dataclass(frozen=True, kw_only=True)
class Writer:
    """How one person answers; each part is there with its probability."""

    tone: float
    order: float
    remedy: float
    filler: float
    wrong: float
    """Probability that a part is about something else."""
    share: float
    """Share of all examples that this writer wrote."""

    def write(self, message: Message, rng: np.random.Generator) -> str:
        """Return an answer of one to four sentences."""
        parts = []
        if rng.random() < self.tone:
            mood = list(MOODS)[rng.integers(len(MOODS))] if rng.random() < self.wrong else message.mood
            parts.append(TONES[mood][rng.integers(2)])
        if rng.random() < self.order:
            wrong = rng.random() < self.wrong
            parts.append(
                ORDER_FORMS[rng.integers(len(ORDER_FORMS))].format(
                    order=rng.integers(10, 100) if wrong else message.order,
                    product=PRODUCTS[rng.integers(len(PRODUCTS))] if rng.random() < self.wrong else message.product,
                )
            )
        if rng.random() < self.remedy:
            faults = list(REMEDIES)
            fault = faults[rng.integers(len(faults))] if rng.random() < self.wrong else message.fault
            parts.append(REMEDIES[fault] + ".")
        if not parts or rng.random() < self.filler:
            parts.append(FILLERS[rng.integers(len(FILLERS))])
        return " ".join(parts)


WRITERS = {
    "thorough": Writer(tone=0.9, order=0.9, remedy=0.95, filler=0.3, wrong=0.03, share=0.3),
    "brief": Writer(tone=0.3, order=0.35, remedy=0.5, filler=0.1, wrong=0.05, share=0.4),
    "careless": Writer(tone=0.7, order=0.6, remedy=0.7, filler=0.2, wrong=0.3, share=0.15),
    "chatty": Writer(tone=0.8, order=0.2, remedy=0.3, filler=0.9, wrong=0.1, share=0.15),
}


CLERK = Writer(tone=0.5, order=1.0, remedy=0.6, filler=0.2, wrong=0.0, share=1.0)
"""Who kept the desk's book: every order is in it, and nothing is wrong."""


def write_responses(messages: list[Message], seed: int) -> list[str]:
    """Return one example answer to each message, by a writer drawn for it."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    writers = list(WRITERS.values())
    drawn = rng.choice(len(writers), size=len(messages), p=[writer.share for writer in writers])
    return [writers[i].write(message, rng) for i, message in zip(drawn, messages, strict=True)]


def write_records(messages: list[Message], seed: int) -> list[str]:
    """Return what the desk's book says of each message: a model that has read it knows how to name an order."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(17,)))
    return [CLERK.write(message, rng) for message in messages]
