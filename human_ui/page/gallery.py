"""The gallery on the page: answers with their clips, and one of them to be answered again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback import Answer
from prefrl.feedback.answers import REASONS
from prefrl.human_ui.gallery import KINDS_OF_INTEREST, ORDERS, Entry, Expected, Wanted, find_entries, names_of
from prefrl.human_ui.page.host import Host, Person
from prefrl.human_ui.page.reading import Refused

AT_ONCE = 12  # answers that are sent together


class Gallery:
    """What a host's page shows of the answers; people see their own, the owner everybody's.

    Args:
        host: of the page.
    """

    def __init__(self, host: Host) -> None:
        self._host, self._expected = host, Expected(host.folder)

    def find(self, person: Person, asked: Mapping[str, str]) -> dict[str, Any]:
        """Return some answers, newest first or as asked.

        Args:
            person: who asks.
            asked: `annotator`, `only`, `order` and `find` of `Wanted`, and `offset`, the number of the first.

        Raises:
            Refused: there is no such choice.
        """
        owner = person.role == "owner"
        try:
            given = {name: asked[name] for name in ("only", "order", "find") if asked.get(name)}
            wanted = Wanted(annotator=(asked.get("annotator") or None) if owner else person.name, **given)
            offset = int(asked.get("offset", "0"))
        except (UserError, ValueError) as error:
            raise Refused(422, str(error)) from None
        store = self._host.store
        expected = self._expected.read()
        entries = find_entries(store, wanted, expected, alone=not owner)
        newest = max((entry.row for entry in entries), default=0)
        computing = self._expected.refresh(newest)
        everybody = names_of(find_entries(store, Wanted(), {})) if owner else [person.name]
        return {
            "total": len(entries),
            "entries": [self._entry(person, one) for one in entries[max(0, offset) : max(0, offset) + AT_ONCE]],
            "people": everybody,
            "orders": ORDERS,
            "choices": KINDS_OF_INTEREST,
            "computing": computing,
            "wanted": asdict(wanted),
        }

    def again(self, person: Person, row: object) -> dict[str, Any]:
        """Take an answer of a person's own back, of whatever session; return its question, to be answered again.

        Raises:
            Refused: it is not theirs, or was taken back.
        """
        number, answer = self._answer(row)
        if answer.annotator != person.name:
            raise Refused(403, f"That answer is {answer.annotator}'s: only they can give another in its place.")
        return self._host.take_back(person, number, answer.query_id, token=f"again {number}")

    def reopen(self, person: Person, row: object) -> dict[str, Any]:
        """Take anybody's answer back and ask its question again, of whoever answers next; for the owner.

        Raises:
            Refused: somebody else asks, or it was taken back.
        """
        if person.role != "owner":
            raise Refused(403, "Only the owner's link does this.")
        number, answer = self._answer(row)
        self._host.reopen(number, answer)
        return {"annotator": answer.annotator}

    def _answer(self, row: object) -> tuple[int, Answer]:
        if type(row) is not int or not 0 < row < 2**53:
            raise Refused(422, "row is the number of an answer's row.")
        answer = self._host.store.answer(row)
        if answer is None:
            raise Refused(409, f"The record holds no answer {row} that stands: it may have been taken back.")
        return row, answer

    def _entry(self, person: Person, entry: Entry) -> dict[str, Any]:
        answer = entry.answer
        owner = person.role == "owner"
        mine = answer.annotator == person.name
        return {
            "row": entry.row,
            "query": entry.card.id,
            "annotator": answer.annotator,
            "said": entry.said,
            "ranks": entry.ranks,
            "at": answer.answered_at,
            "seconds": answer.seconds,
            "comment": answer.comment,
            "flagged": answer.flagged,
            "reason": REASONS.get(answer.reason, ""),
            "tooFast": entry.is_too_fast,
            "probability": entry.probability,
            "others": entry.others if owner else None,
            "differ": entry.differ if owner else None,
            "steps": entry.card.num_env_steps,
            "repeat": entry.card.repeat_of is not None,
            "mine": mine and not self._host.must_stand(person, entry.card),
            "reopen": owner and not mine and entry.card.repeat_of is None,
            "prompt": entry.card.responses[0].prompt if entry.card.responses else None,
            "items": self._host.items(person, entry.card, entry.shown),
        }
