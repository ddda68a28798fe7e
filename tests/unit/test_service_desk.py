"""The gold reward of ServiceDesk, part by part, and the people who write for it."""

from __future__ import annotations

import numpy as np
import pytest

from prefrl.envs.geography import COUNTRIES, Geography
from prefrl.envs.service_desk import (
    FILLERS,
    ORDER_FORMS,
    REMEDIES,
    TONES,
    Message,
    ServiceDesk,
    gold_parts,
)
from prefrl.envs.service_desk_writers import WRITERS, write_responses
from prefrl.envs.text_measures import repeated_share

MESSAGE = Message(product="kettle", order=47, fault="it leaks water", mood="angry")
PERFECT = "We are very sorry for the trouble. We found order 47 for your kettle. We will send you a new seal."


def test_a_perfect_answer_earns_four() -> None:
    parts = gold_parts(MESSAGE, PERFECT)
    assert (parts.facts, parts.tone, parts.total) == (3.0, 1.0, 4.0)
    assert parts.wrong_facts == parts.grammar == parts.length == parts.repetition == parts.end == 0


@pytest.mark.parametrize(
    ("response", "part", "value"),
    [
        ("We found order 48 for your kettle.", "wrong_facts", -1.0),
        ("We found order 48 for your lamp.", "wrong_facts", -2.0),
        ("We will replace the motor.", "wrong_facts", -1.0),
        ("Please do not worry about this.", "tone", -1.0),
        ("Please accept our apology.", "tone", 1.0),
        ("Kettle kettle.", "grammar", -2.0),
        ("We will send you a new seal. So", "grammar", -1.0),
        ("", "grammar", -2.0),
        (" ".join([PERFECT, FILLERS[0], FILLERS[2]]), "length", -0.1 * (8 + 8 + 8 + 8 + 7 - 30)),
    ],
)
def test_faults_cost(response: str, part: str, value: float) -> None:
    assert getattr(gold_parts(MESSAGE, response), part) == pytest.approx(value)


def test_a_missing_end_and_repetition_cost() -> None:
    assert gold_parts(MESSAGE, PERFECT, ended=False).end == -1.0
    twice = f"{PERFECT} {PERFECT}"
    assert gold_parts(MESSAGE, twice).repetition < -1.0
    assert gold_parts(MESSAGE, twice).facts == 3.0, "what is said twice counts once"


def test_repeated_share_counts_sequences_that_were_there_before() -> None:
    assert repeated_share(list("abcabc")) == pytest.approx(1 / 4)
    assert repeated_share(["a", "b"]) == 0.0


def test_prompts_are_read_back_as_the_messages_they_were() -> None:
    for message in ServiceDesk(5).messages(300):
        assert Message.from_prompt(message.to_prompt()) == message
    assert Message.from_prompt("What is the capital of Varnia?") is None
    assert ServiceDesk.gold(["What?"], ["That."]).tolist() == [0.0]


def test_customers_follow_from_the_seed_and_held_out_ones_are_others() -> None:
    assert ServiceDesk(1).prompts(50) == ServiceDesk(1).prompts(50)
    assert ServiceDesk(1).prompts(50) != ServiceDesk(2).prompts(50)
    assert ServiceDesk(1).prompts(50) != ServiceDesk(1).prompts(50, held_out=True)


def test_every_writer_writes_grammatical_sentences_of_different_worth() -> None:
    messages = ServiceDesk(0).messages(400)
    rng = np.random.default_rng(0)
    worth = {}
    for name, writer in WRITERS.items():
        parts = [gold_parts(message, writer.write(message, rng)) for message in messages]
        assert all(p.grammar == 0 for p in parts)
        worth[name] = np.mean([p.total for p in parts])
    assert worth["thorough"] > 3 > worth["brief"] > worth["careless"]
    assert sum(writer.share for writer in WRITERS.values()) == pytest.approx(1)
    gold = ServiceDesk.gold([m.to_prompt() for m in messages], write_responses(messages, 0))
    assert 1.0 < gold.mean() < 2.5
    assert gold.std() > 1.0


def test_all_sentences_are_told_apart() -> None:
    tones = [sentence for both in TONES.values() for sentence in both]
    sentences = [*tones, *FILLERS, *[remedy + "." for remedy in REMEDIES.values()], *ORDER_FORMS]
    assert len(sentences) == len(set(sentences))


def test_the_geography_is_a_map_and_follows_from_its_seed() -> None:
    world = Geography(0)
    assert sorted(world.capital) == sorted(COUNTRIES)
    assert len(set(world.capital.values())) == len(COUNTRIES)
    assert len(world.questions()) == 48
    assert world.corpus(50) == Geography(0).corpus(50)
    assert world.corpus(50) != Geography(1).corpus(50)
    text = " ".join(world.corpus(2000))
    assert all(f"{start} {word}." in text for start, word in world.questions())
