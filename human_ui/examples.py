"""Good and bad examples beside what to look for: what the owner pins of the questions in a record."""

from __future__ import annotations

from typing import Any

from prefrl.clips.codec import decode_clip
from prefrl.errors import UserError
from prefrl.human_ui.questions import Example, Item
from prefrl.store import PreferenceStore

MOST_EXAMPLES = 12
LONGEST_NOTE = 300
EXAMPLES = "examples"
"""The fact of a record that holds them."""


def pin_example(
    store: PreferenceStore, query_id: str, item: int, good: bool | None, note: str = ""
) -> list[dict[str, Any]]:
    """Pin one item of a question as a good or bad example; return all examples.

    Args:
        store: the record.
        query_id: of the question.
        item: number of the item in it, from 0.
        good: what it is an example of; None takes it down.
        note: a few words on it.

    Raises:
        UserError: no such item, a note that is too long, or too many examples.
    """
    cards = store.cards([query_id])
    if not cards or not 0 <= item < cards[0].num_items:
        raise UserError(f"The record {store.name} shows no item {item + 1} in a question {query_id!r}.")
    if len(note) > LONGEST_NOTE:
        raise UserError(f"A note on an example has at most {LONGEST_NOTE} characters. Received {len(note)}")
    examples = [e for e in store.facts().get(EXAMPLES, []) if (e["query"], e["item"]) != (query_id, item)]
    if good is not None:
        examples.append({"query": query_id, "item": item, "good": good, "note": note})
    if len(examples) > MOST_EXAMPLES:
        raise UserError(f"There are {MOST_EXAMPLES} examples already, which is a lot to look at. Remove one first.")
    store.set_facts({EXAMPLES: examples})
    return examples


def read_examples(store: PreferenceStore) -> list[Example]:
    """Return what is pinned in a record, decoded for a window."""
    pinned = store.facts().get(EXAMPLES, [])
    cards = {card.id: card for card in store.cards([one["query"] for one in pinned])}
    found = []
    for one in pinned:
        card = cards.get(one["query"])
        if card is None:
            continue
        if card.responses:
            item = Item(text=card.responses[one["item"]].text)
        else:
            name = card.segment_ids[one["item"]]
            clips = store.clips([name])
            item = Item(clip=decode_clip(clips[name].data)) if name in clips else Item(problem="Its clip is not here.")
        found.append(Example(item=item, good=one["good"], note=one["note"]))
    return found
