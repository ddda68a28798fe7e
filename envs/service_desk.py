"""ServiceDesk: customers' messages, and a gold reward for the answers that no learner ever sees.

A message names a product, an order number and a fault, in one of four moods. A good answer repeats the product and the
order number, promises the remedy that belongs to the fault, strikes a tone that fits the mood, and then stops.
Sentences come from a small grammar, so that every virtue and fault of an answer can be counted. Everything is invented
and follows from a seed; nothing is licensed. The pretraining text of the same world is in `prefrl.envs.geography`, the
people who write example answers in `prefrl.envs.service_desk_writers`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.text_measures import repeated_share, words_of
from prefrl.envs.text_rewards import judge_each

PRODUCTS = (
    "kettle",
    "lamp",
    "radio",
    "heater",
    "fan",
    "toaster",
    "clock",
    "speaker",
    "mixer",
    "drill",
    "camera",
    "scale",
)

REMEDIES = {
    "it leaks water": "We will send you a new seal",
    "it does not turn on": "We will send you a new cable",
    "it makes a loud noise": "We will replace the motor",
    "it smells of smoke": "Please unplug it and wait for our call",
    "it has not arrived": "We will trace the parcel today",
    "it has the wrong colour": "We will exchange it for free",
    "it arrived broken": "We will send you another one",
    "the manual is missing": "We will mail you the manual",
    "I was charged twice": "We will return the second payment",
    "it gets too hot": "Please bring it to our shop for a check",
}
"""What is wrong, in the customer's words, and the one remedy for it."""

MOODS = {
    "angry": ("This is not acceptable!", "I want an answer now!"),
    "worried": ("I am a little worried.", "I do not know what to do."),
    "polite": ("I hope you are well.", "Thank you for your time."),
    "cheerful": ("What a lovely day!", "I love your shop!"),
}
"""Openings and closings of a message."""

TONES = {
    "angry": ("We are very sorry for the trouble.", "Please accept our apology."),
    "worried": ("Please do not worry about this.", "There is no danger at all."),
    "polite": ("Thank you for your kind message.", "We are glad to help you."),
    "cheerful": ("How nice to hear from you!", "You made our day!"),
}
"""Sentences that fit a mood."""

FILLERS = (
    "Our team is always here for you.",
    "Have a nice day.",
    "Our shop is open all week.",
    "You can write to us at any time.",
)
"""Valid, harmless and needless."""

ORDER_FORMS = ("We found order {order} for your {product}.", "Your {product} is in order {order}.")
SEPARATOR = "\nAnswer:"
"""Ends a prompt; what follows is the response."""

NEEDED_WORDS = 30
"""An answer with everything in it has 19 to 26 words and marks."""

_MESSAGE = re.compile(r"My (?P<product>\w+), order (?P<order>\d+): (?P<fault>[^.]+)\.")
_ORDER_SENTENCES = tuple(
    re.compile(re.escape(form).replace(r"\{order\}", r"(?P<order>\d+)").replace(r"\{product\}", r"(?P<product>\w+)"))
    for form in ORDER_FORMS
)
_REMEDY_OF_SENTENCE = {remedy + ".": remedy for remedy in REMEDIES.values()}
_TONE_OF_SENTENCE = {sentence: mood for mood, sentences in TONES.items() for sentence in sentences}


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a customer wants."""

    product: str
    order: int
    """Two digits."""
    fault: str
    mood: str
    opening: bool = True
    """Whether the mood shows in the first sentence or in the last."""

    def to_prompt(self) -> str:
        """Return the message as a prompt."""
        start, end = MOODS[self.mood]
        facts = f"My {self.product}, order {self.order}: {self.fault}."
        return (f"{start} {facts}" if self.opening else f"{facts} {end}") + SEPARATOR

    @classmethod
    def from_prompt(cls, prompt: str) -> Message | None:
        """Read a prompt; None if no customer of this desk wrote it."""
        found = _MESSAGE.search(prompt)
        mood = next((m for m, ends in MOODS.items() if any(end in prompt for end in ends)), None)
        if found is None or mood is None or found["fault"] not in REMEDIES or found["product"] not in PRODUCTS:
            return None
        opening = MOODS[mood][0] in prompt
        return cls(
            product=found["product"], order=int(found["order"]), fault=found["fault"], mood=mood, opening=opening
        )


@dataclass(frozen=True, kw_only=True)
class GoldParts:
    """The gold reward of one answer, part by part; the reward is their sum."""

    facts: float
    """1 each for the product, the order number and the remedy, if they are right."""
    wrong_facts: float
    """-1 for each other product, order number or remedy."""
    tone: float
    """1 for a sentence that fits the mood, -1 for one that does not."""
    grammar: float
    """-2 times the share of sentences that the grammar does not have; -2 for an empty answer."""
    length: float
    """-0.1 for each word or mark beyond `NEEDED_WORDS`."""
    repetition: float
    """-3 times the share of three-word sequences that occurred before."""
    end: float
    """-1 if the answer was cut off."""

    @property
    def total(self) -> float:
        """The gold reward: at most 4."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


def gold_parts(message: Message, response: str, ended: bool = True) -> GoldParts:
    """Judge an answer.

    Args:
        message: what was asked.
        response: the answer.
        ended: whether its writer finished it.
    """
    response = response.strip()
    sentences = [s.strip() for s in re.findall(r"[^.!?]+[.!?]?", response) if s.strip()]
    products, orders, remedies, tones, invalid = set(), set(), set(), set(), 0
    for sentence in sentences:
        order = next((m for pattern in _ORDER_SENTENCES if (m := pattern.fullmatch(sentence))), None)
        if order is not None and order["product"] in PRODUCTS:
            products.add(order["product"])
            orders.add(order["order"])
        elif sentence in _REMEDY_OF_SENTENCE:
            remedies.add(_REMEDY_OF_SENTENCE[sentence])
        elif sentence in _TONE_OF_SENTENCE:
            tones.add(_TONE_OF_SENTENCE[sentence])
        elif sentence not in FILLERS:
            invalid += 1
    right = Counter[bool]()
    for found, truth in (
        (products, message.product),
        (orders, str(message.order)),
        (remedies, REMEDIES[message.fault]),
    ):
        right.update(item == truth for item in found)
    words = words_of(response)
    return GoldParts(
        facts=float(right[True]),
        wrong_facts=-float(right[False]),
        tone=float(message.mood in tones) - float(bool(tones - {message.mood})),
        grammar=-2.0 * (invalid / len(sentences) if sentences else 1.0),
        length=-0.1 * max(0, len(words) - NEEDED_WORDS),
        repetition=-3.0 * repeated_share(words),
        end=0.0 if ended else -1.0,
    )


class ServiceDesk:
    """The world: prompts of a seed, and the gold reward.

    Args:
        seed: which customers come.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def messages(self, count: int, *, held_out: bool = False) -> list[Message]:
        """Return `count` customers' messages; those held out come from another stream of the seed."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(int(held_out),)))
        return [
            Message(
                product=PRODUCTS[rng.integers(len(PRODUCTS))],
                order=int(rng.integers(10, 100)),
                fault=list(REMEDIES)[rng.integers(len(REMEDIES))],
                mood=list(MOODS)[rng.integers(len(MOODS))],
                opening=bool(rng.integers(2)),
            )
            for _ in range(count)
        ]

    def prompts(self, count: int, *, held_out: bool = False) -> list[str]:
        """Return `count` prompts."""
        return [message.to_prompt() for message in self.messages(count, held_out=held_out)]

    @staticmethod
    def gold(
        prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool] | None = None
    ) -> NDArray[np.float64]:
        """Return the gold reward of each response, `(B,)` float64; 0 where the prompt is of no customer.

        Args:
            prompts: B prompts.
            responses: as many responses.
            ended: whether each was finished; None: all were.
        """
        return judge_each(_gold_of, prompts, responses, ended)


def _gold_of(prompt: str, response: str, ended: bool) -> float:
    message = Message.from_prompt(prompt)
    return 0.0 if message is None else gold_parts(message, response, ended).total
