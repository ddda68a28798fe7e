"""An invented geography and small talk: what a language model of the ServiceDesk world is pretrained on.

The facts of the geography have nothing to do with answering customers; a model that knows them before it is aligned and
no longer afterwards has paid the "alignment tax" that mixing in pretraining gradients is meant to avoid (InstructGPT,
s. 3.4).
"""

from __future__ import annotations

import numpy as np

from prefrl.envs.service_desk import FILLERS, ServiceDesk
from prefrl.envs.service_desk_writers import write_records

COUNTRIES = (
    "Varnia", "Oslomar", "Teresk", "Balindor", "Quessa", "Mirovia", "Dantrel", "Fenland", "Jorvik", "Kaludia",
    "Lusenna", "Nordrac", "Pellia", "Rovenna", "Sudania", "Tolmera",
)  # fmt: skip
TOWNS = (
    "Arken", "Belmo", "Corda", "Drelin", "Estova", "Fural", "Gorim", "Hestia", "Ilvar", "Jadrin", "Kosta", "Lomir",
    "Mordel", "Nesta", "Orlin", "Pravik",
)  # fmt: skip
RIVERS = ("Tarn", "Isel", "Morva", "Drava", "Orne", "Lipa", "Vesla", "Kura")
GOODS = ("wool", "salt", "honey", "glass", "paper", "silver", "cheese", "cloth")

SMALL_TALK = (
    "How are you today? I am fine, thank you.",
    "What a lovely day! I love the sun.",
    "Do you know what time it is? It is nearly noon.",
    "I hope you are well. Thank you, I am very well.",
    "Please sit down. Would you like some tea?",
    "Have you been to the shop? It is open all week.",
)


class Geography:
    """Facts of an invented world: each country has a capital on a river and sells something.

    Args:
        seed: which town belongs to which country.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(11,)))
        self.seed = seed
        self.capital = dict(zip(COUNTRIES, rng.permutation(TOWNS).tolist(), strict=True))
        self.river = {country: str(rng.choice(RIVERS)) for country in COUNTRIES}
        self.goods = {country: str(rng.choice(GOODS)) for country in COUNTRIES}

    def questions(self) -> list[tuple[str, str]]:
        """Return the start of a sentence and the word that completes it, 48 in all."""
        asked = []
        for country in COUNTRIES:
            asked.append((f"The capital of {country} is", self.capital[country]))
            asked.append((f"The river of {country} is the", self.river[country]))
            asked.append((f"The people of {country} sell", self.goods[country]))
        return asked

    def facts(self) -> list[str]:
        """Return every fact, in two forms."""
        said = [f"{start} {word}." for start, word in self.questions()]
        for country in COUNTRIES:
            said.append(f"{self.capital[country]} lies in {country} on the {self.river[country]}.")
            said.append(f"From {self.capital[country]} in {country} comes {self.goods[country]}.")
        return said

    def corpus(self, num_paragraphs: int, stream: int = 0) -> list[str]:
        """Return paragraphs: facts (a quarter), small talk (a twentieth), exchanges from the desk's book.

        Args:
            num_paragraphs: how many.
            stream: another number gives other paragraphs of the same world.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(13, stream)))
        facts, talk = self.facts(), SMALL_TALK + FILLERS
        messages = ServiceDesk(self.seed + 1000 + stream).messages(num_paragraphs)
        answers = write_records(messages, self.seed + 1000 + stream)
        paragraphs = []
        for message, answer in zip(messages, answers, strict=True):
            kind = rng.random()
            if kind < 0.25:
                paragraphs.append(" ".join(facts[i] for i in rng.integers(len(facts), size=rng.integers(2, 5))))
            elif kind < 0.3:
                paragraphs.append(" ".join(talk[i] for i in rng.integers(len(talk), size=rng.integers(2, 4))))
            else:
                paragraphs.append(f"{message.to_prompt()} {answer}")
        return paragraphs
