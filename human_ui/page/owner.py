"""What the owner's link opens: how everybody answers, what they disagree about or remarked, and what the owner settles.

The owner's word is an answer that adjudicates: it counts in place of the others', which are kept. Examples are what the
owner pins: everybody sees them beside what to look for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer
from prefrl.human_ui.examples import pin_example
from prefrl.human_ui.page.host import Host, Person
from prefrl.human_ui.page.reading import Refused
from prefrl.human_ui.show import in_words
from prefrl.quality import measure_quality
from prefrl.store import PreferenceStore, QueryCard

MOST_SHOWN = 50


def overview(host: Host, person: Person) -> dict[str, Any]:
    """Return everybody's figures, links and consents.

    Raises:
        Refused: somebody else than the owner asks.
    """
    _check(person)
    store = host.store
    links: dict[str, dict[str, Any]] = {}
    for link in store.links.all():
        links.setdefault(link.annotator, {"links": 0, "revoked": 0, "role": link.role})
        links[link.annotator]["links" if link.revoked_at is None else "revoked"] += 1
    quality = measure_quality(store)
    found = {one.name: asdict(one) | {"warnings": list(one.warnings)} for one in quality.annotators}
    known = {one.annotator: asdict(one) for one in store.participants.all()}
    consents = store.participants.consents()
    names = sorted({*links, *found, *known})
    people = [
        {
            "name": name,
            **links.get(name, {}),
            **known.get(name, {}),
            **found.get(name, {"num_answers": 0, "warnings": []}),
            "consent": next(reversed(consents.get(name, {})), None),
        }
        for name in names
    ]
    return {"people": people, "alpha": quality.alpha_comparisons, "standing": host.standing(person)}


def disagreements(host: Host, person: Person) -> dict[str, Any]:
    """Return the questions that people answered differently, those nobody settled first.

    Raises:
        Refused: somebody else than the owner asks.
    """
    _check(person)
    by_query = _answers_by_query(host.store)
    found = [name for name, rows in by_query.items() if _differ([a for _, a in rows if not a.adjudicates])]
    open_first = sorted(found, key=lambda name: any(a.adjudicates for _, a in by_query[name]))
    cards = {card.id: card for card in host.store.cards(open_first[:MOST_SHOWN])}
    shown = [_shown(host, person, cards[name], by_query[name]) for name in open_first[:MOST_SHOWN] if name in cards]
    return {"questions": shown, "num": len(found)}


def remarks(host: Host, person: Person) -> dict[str, Any]:
    """Return the newest questions that somebody flagged, commented on, or gave a reason for not answering.

    Raises:
        Refused: somebody else than the owner asks.
    """
    _check(person)
    by_query = _answers_by_query(host.store, repeats=True)
    said = [(max(row for row, _ in rows), name) for name, rows in by_query.items() if any(_remarks(a) for _, a in rows)]
    names = [name for _, name in sorted(said, reverse=True)]
    cards = {card.id: card for card in host.store.cards(names[:MOST_SHOWN])}
    shown = [_shown(host, person, cards[name], by_query[name]) for name in names[:MOST_SHOWN] if name in cards]
    return {"questions": shown, "num": len(names)}


def adjudicate(host: Host, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
    """Settle a question: what one of those who answered said is right, or nobody can tell.

    Args:
        host: of the record.
        person: the owner.
        said: `ticket` of the question, and `row` of the answer that is right, None for "nobody can tell".

    Raises:
        Refused: somebody else asks, or there is no such answer.
    """
    _check(person)
    token, query_id, shown = host.opened_ticket(person, said.get("ticket"))
    row = said.get("row")
    rows = dict(_answers_by_query(host.store).get(query_id, []))
    card = next(iter(host.store.cards([query_id])), None)
    if card is None or (row is not None and row not in rows):
        raise Refused(409, "That answer is not in the record any more: look again.")
    value = None if row is None else rows[row].value
    now = time.time()
    answer = KINDS.find(card.kind).saying(
        value, query_id=query_id, annotator=person.name, shown=shown, answered_at=now, claim=token, adjudicates=True
    )
    host.store.add_annotator(person.name, "person")
    host.store.add_answers([answer])
    return {"recorded": True}


def pin(host: Host, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
    """Pin something shown as an example, or take it down.

    Args:
        host: of the record.
        person: the owner.
        said: `ticket` of the question, `item` of it, `good`: true, false or null to take it down, and a `note`.

    Raises:
        Refused: somebody else asks, or it cannot be done.
    """
    _check(person)
    _, query_id, _ = host.opened_ticket(person, said.get("ticket"))
    note, item, good = said.get("note", ""), said.get("item"), said.get("good")
    if not isinstance(note, str) or type(item) is not int or not (good is None or isinstance(good, bool)):
        raise Refused(422, "An example is an item of a question that is good, bad or neither, with a note.")
    try:
        return {"examples": len(pin_example(host.store, query_id, item, good, note))}
    except UserError as error:
        raise Refused(422, str(error)) from None


# ---------------------------------------------------------------------------------------------------- inside


def _check(person: Person) -> None:
    if person.role != "owner":
        raise Refused(403, "Only the owner's link opens this.")


def _answers_by_query(store: PreferenceStore, *, repeats: bool = False) -> dict[str, list[tuple[int, Answer]]]:
    found: dict[str, list[tuple[int, Answer]]] = {}
    for row, answer in store.answers(standing=True, repeats=repeats):
        if isinstance(answer, Answer):
            found.setdefault(answer.query_id, []).append((row, answer))
    return found


def _differ(answers: Sequence[Answer]) -> bool:
    """Tell whether people said what cannot both be so; "can't tell" differs from nothing."""
    said = [answer for answer in answers if answer.value is not None]
    if len({answer.annotator for answer in said}) < 2:
        return False
    if said[0].order is None:
        grades = [answer.grade for answer in said]
        return bool(max(grades) - min(grades) > 1) if said[0].graded else len({a.value for a in said}) > 1
    return len({answer.order for answer in said}) > 1


def _remarks(answer: Answer) -> bool:
    return bool(answer.comment or answer.reason or answer.flagged)


def _shown(host: Host, person: Person, card: QueryCard, rows: Sequence[tuple[int, Answer]]) -> dict[str, Any]:
    order = tuple(range(card.num_items))
    return {
        "ticket": host.signed_ticket(person, secrets.token_hex(16), card.id, order),
        "query": card.id,
        "kind": card.kind,
        "prompt": card.responses[0].prompt if card.responses else None,
        "items": host.items(person, card, order),
        "answers": [
            {
                "row": row,
                "annotator": answer.annotator,
                "said": in_words(answer),
                "seconds": answer.seconds,
                "reason": answer.reason,
                "flagged": answer.flagged,
                "comment": answer.comment,
                "adjudicates": answer.adjudicates,
            }
            for row, answer in rows
        ],
    }
