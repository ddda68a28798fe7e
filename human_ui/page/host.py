"""What the page may be asked, by whom, and what it says: no web framework, no waiting, one record.

Whoever comes with a link's token gets a signed cookie; what is handed out afterwards (a question's ticket, the name of
a clip) is signed for that person alone, so that nobody can use what is another's. Nothing of a question is kept here:
an answer that comes after a restart, an hour late or twice is recorded once.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefrl.clips.codec import FILM, FILMS
from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer, Edit
from prefrl.human_ui.markup import as_blocks, differences
from prefrl.human_ui.page import reading
from prefrl.human_ui.page.gate import Campaign, Gate
from prefrl.human_ui.page.practice import Stage, rights, stage_of
from prefrl.human_ui.page.reading import Refused
from prefrl.human_ui.page.signing import Signatures
from prefrl.human_ui.sitting import Sitting
from prefrl.store import Claim, PreferenceStore, QueryCard

LEASE_SECONDS = 150.0  # browsers let a page that nobody sees work once a minute
SEEN_SECONDS = 10.0  # how often the record is told that somebody is here
AWAY_SECONDS = 600.0  # after which somebody comes back, and is told what has changed
STANDING_SECONDS = 1.0
STUDY = "study"
MOST_AHEAD = 5  # questions that a page may hold
MOST_PAGES = 16  # of one person's that are remembered
LONGEST_SECONDS = 24 * 3600.0
LONGEST_COMMENT = 2000
LONGEST_EDIT = 20_000


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks."""

    name: str
    role: str


class Host:
    """The record as the page needs it; its methods may be called from several threads.

    Args:
        store: the record.
        run: what to call the run.
        environment: name of its environment, "" if there is none.
        instruction: what to look for.
        folder: of the run, for its curve and film; None: there is a record only.
        campaign: how questions are put.
    """

    def __init__(
        self,
        store: PreferenceStore,
        *,
        run: str,
        environment: str = "",
        instruction: str = "",
        folder: Path | None = None,
        campaign: Campaign | None = None,
    ) -> None:
        self.store, self.run, self.environment, self.instruction = store, run, environment, instruction
        self.folder, self.campaign = folder, campaign or Campaign()
        self.signatures = Signatures(store.links.secret())
        self.gate = Gate(store, self.campaign)
        self._sittings: dict[str, Sitting] = {}
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._pages: dict[str, dict[str, list[Claim] | None]] = {}  # last handed to each; None: it is closed
        self._standing: tuple[float, dict[str, Any]] = (-1e9, {})
        self._asked_at = time.monotonic()
        store.set_facts({"known_by": self.campaign.known_by})

    # ------------------------------------------------------------------------------------------------ who may

    def sign_in(self, token: object, platform: Mapping[str, Any] | None = None) -> str:
        """Exchange a link's token for a cookie.

        Args:
            token: of the link.
            platform: what a crowd platform added to the link of a study.

        Raises:
            Refused: no such link, it was revoked, or it is a study's and the platform added nothing to it.
        """
        link = self.store.links.of_token(token) if isinstance(token, str) and token else None
        if link is None:
            raise Refused(401, "This link is not valid, or not any more. Ask whoever sent it for another.")
        name = link.annotator
        if link.role == STUDY:
            try:
                name = self.store.participants.enter(platform or {})
            except UserError as error:
                raise Refused(401, str(error)) from None
        return self.signatures.cookie([link.hash, secrets.token_urlsafe(8), name])

    def who(self, cookie: str | None) -> Person | None:
        """Return whose cookie it is; None where it is nobody's, too old, or its link was revoked."""
        return self.person_of(self.signatures.of_cookie(cookie))

    def person_of(self, content: Any) -> Person | None:
        """Return whom the content of a cookie names; None where there is none, or its link was revoked."""
        if content is None:
            return None
        link = self.store.links.of_hash(str(content[0]))
        if link is None or link.role != STUDY:
            return None if link is None else Person(name=link.annotator, role=link.role)
        name = str(content[2])
        return None if self.store.participants.of(name) is None else Person(name=name, role="annotator")

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Do one thing of a person's at a time, so that nothing of theirs is written after they withdrew."""
        with self._lock:
            lock = self._turns.setdefault(name, threading.Lock())
        with lock:
            yield

    # ------------------------------------------------------------------------------------------------ asking

    def next(
        self, person: Person, held: Sequence[object] = (), want: object = 1, *, page: object = ""
    ) -> dict[str, Any]:
        """Return more questions, and how the run stands; keep those that the page holds for it.

        Args:
            person: who asks.
            held: tickets of the questions that the page holds already.
            want: how many more it would like.
            page: its name; one that was closed is given nothing, should its last request come after that.
        """
        self._asked_at = time.monotonic()
        stage = self._stage(person)
        if stage is Stage.CONSENT:  # nothing is noted of who has not agreed
            return {"questions": [], "lost": list(held), "stage": stage.value, "consent": self.gate.consent()}
        if self._pages_of(person).get(str(page), []) is None:
            return {"questions": [], "lost": list(held), "stage": stage.value}
        sitting = self._sitting(person)
        kept, lost = self._renew(person, held)
        room = min(int(want) if isinstance(want, int) else 0, MOST_AHEAD - len(kept))
        left = None if person.role == "owner" else self.gate.left(person.name)
        if left is not None:
            room = min(room, left - len(kept))
        claims: list[Claim] = []
        if stage is Stage.PRACTISING and not kept and room > 0:
            claims = self.store.claim_known(person.name, str(self.campaign.known_by), LEASE_SECONDS)
            stage = stage if claims else self._stage(person, more=False)
        if stage is Stage.PASSED:
            while len(claims) < room and (claim := self._claim(person, sitting)):
                claims.append(claim)
        self._remember(person, page, claims)
        questions = [self._question(person, claim, practice=stage is Stage.PRACTISING) for claim in claims]
        standing = self._stand(sitting)
        given = self.store.num_answers(person.name)
        finished = (
            stage is Stage.PASSED
            and not (questions or kept or standing["running"])
            and self.store.num_open(person.name) == 0
        )
        done = (stage is Stage.DONE and not kept) or (finished and given > 0 and person.role != "owner")
        return {
            "questions": questions,
            "lost": lost,
            "standing": standing,
            "stage": stage.value,
            "finished": finished,
            "given": given,
            "left": left,
            "completion": self.gate.complete(person.name) if done else None,
        }

    def answer(self, person: Person, ticket: object, said: Mapping[str, Any]) -> dict[str, Any]:
        """Record an answer; when this returns it is on the disk.

        Args:
            person: who answers.
            ticket: of the question.
            said: `order`, places in groups of equals, best first, or `grade`, or neither for "can't tell"; `seconds`
                that it took, `ago` seconds since it was given, `seen` share of the clips that was shown, `comment`,
                `reason` why they cannot tell, `flagged`.

        Raises:
            Refused: it is not a question of theirs, the clips were not seen, or the record cannot be written now.
        """
        token, query_id, shown = self._of_ticket(person, ticket)
        if person.role != "owner" and not self.gate.has_agreed(person.name):
            raise Refused(403, "Agree to what is asked of you first.")
        if self.store.answer_of_claim(token) is not None:
            return {"recorded": True, "again": True}
        cards = self.store.cards([query_id])
        if not cards:
            raise Refused(410, "This question is no longer in the record.")
        (card,) = cards
        seconds = reading.number(said, "seconds", 0, LONGEST_SECONDS)
        ago = reading.number(said, "ago", 0, 30 * LONGEST_SECONDS)
        comment = reading.text(said, "comment", LONGEST_COMMENT)
        now = time.time()
        answer = reading.answer_of(
            card,
            said,
            shown,
            annotator=person.name,
            seconds=seconds,
            shown_at=now - ago - seconds,
            answered_at=now - ago,
            comment=comment,
            reason=reading.text(said, "reason", 20),
            flagged=said.get("flagged") is True,
            claim=token,
        )
        seen = reading.number(said, "seen", 0, 1)
        if answer.value is not None and card.segment_ids and seen < self.campaign.must_see - 1e-6:
            raise Refused(422, "Look at the clips first: too little of them has been shown yet.")
        if self.store.has_answered(query_id, person.name):
            return {"recorded": True, "again": True, "notice": "You have answered this one already, in another window."}
        self.store.add_answers([answer])
        result: dict[str, Any] = {"recorded": True}
        if self._practises(card, person):
            right = self._right(person, query_id)
            if right is not None:
                result["right"] = right
        return result

    def undo(self, person: Person, ticket: object) -> dict[str, Any]:
        """Take an answer back; return its question, to be answered again.

        Raises:
            Refused: there is no such answer of theirs, or practice, which stands.
        """
        token, query_id, _ = self._of_ticket(person, ticket)
        row = self.store.answer_of_claim(token)
        cards = self.store.cards([query_id])
        if row is None or not cards:
            raise Refused(409, "That answer is not in the record.")
        return self.take_back(person, row, query_id, token=f"undo {token}")

    def take_back(self, person: Person, row: int, query_id: str, *, token: str) -> dict[str, Any]:
        """Take an answer of a person's back; return its question, to be answered again.

        Args:
            person: whose answer it is.
            row: of the answer.
            query_id: of its question.
            token: a name for this request that makes sending it twice harmless.

        Raises:
            Refused: it was taken back before, or it is of a practice question, and stands.
        """
        if self.must_stand(person, self.store.cards([query_id])[0]):
            raise Refused(409, "An answer to a practice question stands.")
        if not self.store.has_answered(query_id, person.name) and self.store.answer_of_claim(token) is None:
            raise Refused(409, "That answer was taken back already.")
        claim = self.store.undo(row, person.name, LEASE_SECONDS, token=token)
        return {"question": self._question(person, claim)}

    def must_stand(self, person: Person, card: QueryCard) -> bool:
        """Tell whether an answer of a person's was practice, which cannot be taken back."""
        return self._practises(card, person) and self._right(person, card.id) is not None

    def reopen(self, row: int, answer: Answer) -> None:
        """Take anybody's answer back, so that its question is asked again of whoever comes next."""
        claim = self.store.undo(row, answer.annotator, LEASE_SECONDS, token=f"reopen {row}")
        self.store.release([claim])

    def agree(self, person: Person, version: object) -> dict[str, Any]:
        """Note that a person agrees to what is asked of everybody.

        Raises:
            Refused: it is another version by now.
        """
        if not self.gate.agree(person.name, version):
            raise Refused(409, "The text has changed: read it again.")
        return {}

    def withdraw(self, person: Person) -> dict[str, Any]:
        """Remove what a person said, and their name and links.

        Raises:
            Refused: it is the owner.
        """
        if person.role == "owner":
            raise Refused(409, "The owner's link cannot withdraw; use: prefrl forget RUN --annotator NAME")
        with self._lock:
            self._sittings.pop(person.name, None)
        self._pages.pop(person.name, None)
        self.gate.forget(person.name)
        forgotten = self.store.forget(person.name)
        return {"cookie": "", "max_age": 0, "answers": forgotten.answers}

    def release(self, person: Person, held: Sequence[object], *, page: object = "") -> dict[str, Any]:
        """Give questions back that a page held when it was closed, and those that were still on their way to it."""
        claims = [claim for claim in self._claims_of(person, held) if claim is not None]
        claims += self._pages_of(person).get(str(page)) or []
        self._remember(person, page, None)
        self.store.release(claims)
        return {"released": len({claim.token for claim in claims})}

    def clip(self, person: Person, name: str) -> bytes:
        """Return a clip as a file, H.264 in MP4.

        Raises:
            Refused: it is not of a question of theirs, or there is none.
        """
        content = self.signatures.opened(f"clip {person.name}", name)
        cards = [] if content is None else self.store.cards([content[0]])
        if content is None or not cards:
            raise Refused(404, "There is no such clip.")
        segment_id = cards[0].segment_ids[content[1]]
        clips = self.store.clips([segment_id])
        if segment_id not in clips:
            raise Refused(404, "There is no such clip.")
        return clips[segment_id].data

    # ------------------------------------------------------------------------------------------------ what came of it

    def progress(self, person: Person) -> dict[str, Any]:
        """Return what a person's answers, and everybody's, have come to."""
        outcome = self._sitting(person).outcome(self.store)
        return {
            "lines": outcome.lines,
            "advice": outcome.advice,
            "curve": outcome.curve,
            "film": None if outcome.film is None else f"film?{int(outcome.film.stat().st_mtime)}",
            "films": [{"steps": one.num_env_steps, "film": f"films/{one.path.stem}"} for one in outcome.films],
        }

    def film(self, name: str) -> Path | None:
        """Return a film of the agent: that of the run for "", or that of the policy after some steps; None: no such."""
        if self.folder is None or not (name == "" or (name.isascii() and name.isdigit())):
            return None
        path = self.folder / (f"{FILMS}/{name}.mp4" if name else FILM)
        return path if path.is_file() else None

    def stage(self, person: Person) -> str:
        """Return what a person is to do next."""
        return self._stage(person).value

    def standing(self, person: Person) -> dict[str, Any]:
        """Return how the run and its record stand."""
        return self._stand(self._sitting(person))

    def examples(self, person: Person) -> list[dict[str, Any]]:
        """Return what the owner pinned as good and bad examples, as items of a question are shown."""
        pinned = self.store.facts().get("examples", [])
        cards = {card.id: card for card in self.store.cards([one["query"] for one in pinned])}
        return [
            {"good": one["good"], "note": one["note"], **self.items(person, cards[one["query"]], (one["item"],))[0]}
            for one in pinned
            if one["query"] in cards
        ]

    def is_asked_within(self, seconds: float) -> bool:
        """Tell whether a training runs, or somebody has asked for questions within so many seconds."""
        if time.monotonic() - self._asked_at < seconds:
            return True
        try:
            return Sitting("", run=self.run, environment="").standing(self.store).running
        except UserError:
            return True  # the record is away for now

    # ------------------------------------------------------------------------------------------------ inside

    def _sitting(self, person: Person) -> Sitting:
        now = time.monotonic()
        with self._lock:  # for no longer than it takes to look: nobody waits here for the record
            sitting = self._sittings.get(person.name)
            away = now - self._seen.get(person.name, -math.inf)
            if sitting is None:
                sitting = self._sittings[person.name] = Sitting(
                    person.name,
                    run=self.run,
                    environment=self.environment,
                    repeat_share=min(self.campaign.repeat_share, 0.99),
                    folder=self.folder,
                )
        if away > AWAY_SECONDS:
            sitting.begin(self.store)
        elif away > SEEN_SECONDS:
            sitting.note_presence(self.store)
        else:
            return sitting
        self._seen[person.name] = now
        return sitting

    def _stand(self, sitting: Sitting) -> dict[str, Any]:
        at, standing = self._standing
        if time.monotonic() - at > STANDING_SECONDS:
            found = sitting.standing(self.store)
            standing = {**asdict(found), "left": found.left}
            self._standing = time.monotonic(), standing
        return standing

    def _claim(self, person: Person, sitting: Sitting) -> Claim | None:
        known_by, share = self.campaign.known_by, self.campaign.gold_share
        claims: list[Claim] = []
        if known_by not in (None, person.name) and secrets.randbelow(10**6) < share * 10**6:
            claims = self.store.claim_known(person.name, str(known_by), LEASE_SECONDS)
        claims = claims or sitting.claim(self.store, 1, LEASE_SECONDS)
        claims = claims or sitting.claim_undrawable(self.store, LEASE_SECONDS)
        return claims[0] if claims else None

    def _stage(self, person: Person, *, more: bool = True) -> Stage:
        return self.gate.stage(person.name, owner=person.role == "owner", more=more)

    def _practises(self, card: QueryCard, person: Person) -> bool:
        """Tell whether an answer to a question is one of a person's practice, or is gold."""
        return self.campaign.known_by is not None and card.repeat_of is not None and card.reserved_for == person.name

    def _right(self, person: Person, query_id: str) -> bool | None:
        """Tell whether a practice question was answered as it is known; None if it was not practice."""
        both = self.store.known_answers(person.name, str(self.campaign.known_by))
        marks = rights(both)
        for place, (_, said) in enumerate(both):
            if said.query_id == query_id:
                before = stage_of(marks[:place], self.campaign.practice, self.campaign.pass_mark, more=True)
                return marks[place] if before is Stage.PRACTISING else None
        return None

    def _question(self, person: Person, claim: Claim, *, practice: bool = False) -> dict[str, Any]:
        card = claim.query
        kind = KINDS.find(card.kind)
        return {
            "ticket": self.signed_ticket(person, claim.token, card.id, claim.shown),
            "graded": kind.graded,
            "scale": card.scale or 5,
            "hint": kind.keys.format(scale=card.scale or 5),
            "prompt": card.responses[0].prompt if card.responses else None,
            "instruction": card.instruction,
            "items": self.items(person, card, claim.shown),
            "practice": practice,
        }

    def items(self, person: Person, card: QueryCard, shown: Sequence[int]) -> list[dict[str, Any]]:
        """Return items of a question as the page shows them, by their numbers in it."""
        if card.responses:
            texts = [card.responses[number].text for number in shown]
            both = zip(texts, differences(texts), strict=True)
            return [{"text": text, "blocks": as_blocks(text), "marks": marks} for text, marks in both]
        clips = self.store.clips(card.segment_ids)
        failures = self.store.render_failures(card.segment_ids)
        items: list[dict[str, Any]] = []
        for number in shown:
            clip = clips.get(card.segment_ids[number])
            if clip is None:
                items.append({"problem": failures.get(card.segment_ids[number], "Its clip is not in the record.")})
                continue
            name = self.signatures.signed(f"clip {person.name}", [card.id, number])
            rate = clip.frames_per_second
            size = {"width": clip.width, "height": clip.height}
            items.append({"clip": f"clips/{name}", "frames": clip.num_frames, "rate": rate, **size})
        return items

    def signed_ticket(self, person: Person, token: str, query_id: str, shown: Sequence[int]) -> str:
        """Return what allows a person to say something of a question, once."""
        return self.signatures.signed(f"ticket {person.name}", [token, query_id, list(shown)])

    def opened_ticket(self, person: Person, ticket: object) -> tuple[str, str, tuple[int, ...]]:
        """Return the name, question and order that a ticket of a person's holds.

        Raises:
            Refused: it is none of theirs.
        """
        return self._of_ticket(person, ticket)

    def edit(self, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
        """Record how a response should read, beside the answer to its question.

        Args:
            person: who wrote it.
            said: `ticket` of the question, `place` of the response, its whole new `text`, and a `comment`.

        Raises:
            Refused: it is not a question of theirs, or changes nothing.
        """
        token, query_id, shown = self._of_ticket(person, said.get("ticket"))
        text, place = reading.text(said, "text", LONGEST_EDIT), reading.whole(said.get("place"), 0, len(shown) - 1)
        cards = self.store.cards([query_id])
        if not cards or not cards[0].responses:
            raise Refused(409, "Only responses can be edited.")
        if person.role != "owner" and not self.gate.has_agreed(person.name):
            raise Refused(403, "Agree to what is asked of you first.")
        item = shown[place]
        if not text.strip() or text == cards[0].responses[item].text:
            raise Refused(422, "The edited text is empty, or the response itself.")
        name = hashlib.sha256(f"edit {token} {item} {text}".encode()).hexdigest()[:32]  # the same one sent again
        comment = reading.text(said, "comment", LONGEST_COMMENT)
        edit = Edit(
            query_id=query_id, annotator=person.name, item=item, text=text, comment=comment, shown=shown,
            answered_at=time.time(), claim=name,
        )  # fmt: skip
        self.store.add_answers([edit])
        return {"recorded": True}

    def _pages_of(self, person: Person) -> dict[str, list[Claim] | None]:
        return self._pages.setdefault(person.name, {})

    def _remember(self, person: Person, page: object, handed: list[Claim] | None) -> None:
        """Note what was last handed to a page; None: it is closed."""
        pages = self._pages_of(person)
        if isinstance(page, str) and 0 < len(page) <= 100:
            pages.pop(page, None)
            pages[page] = handed
            if len(pages) > MOST_PAGES:
                pages.pop(next(iter(pages)))

    def _of_ticket(self, person: Person, ticket: object) -> tuple[str, str, tuple[int, ...]]:
        content = self.signatures.opened(f"ticket {person.name}", ticket if isinstance(ticket, str) else "")
        if content is None:
            raise Refused(403, "This is not a question of yours.")
        return content[0], content[1], tuple(content[2])

    def _claims_of(self, person: Person, held: Sequence[object]) -> list[Claim | None]:
        opened = []
        for ticket in list(held)[: 4 * MOST_AHEAD]:
            opened.append(self._of_ticket(person, ticket))
        cards = {card.id: card for card in self.store.cards([query_id for _, query_id, _ in opened])}
        return [
            Claim(token=token, query=cards[query_id], annotator=person.name, shown=shown, expires_at=0.0)
            if query_id in cards
            else None
            for token, query_id, shown in opened
        ]

    def _renew(self, person: Person, held: Sequence[object]) -> tuple[list[Claim], list[object]]:
        """Keep what a page holds; return what it has, and the tickets of what it has lost."""
        kept, lost = [], []
        for ticket, claim in zip(held, self._claims_of(person, held), strict=False):
            if claim is not None and self.store.renew(claim, LEASE_SECONDS):
                kept.append(claim)
            else:
                lost.append(ticket)
        return kept, lost
