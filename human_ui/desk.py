"""Between the window and the record: claims questions ahead, decodes their clips, records answers, in its own threads.

The window never waits for it. An answer is kept until the record has it, however long that takes: the claim that it
answers makes sure that it is recorded once.
"""

from __future__ import annotations

import math
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prefrl.clips.codec import Pictures, decode_clip
from prefrl.errors import UserError
from prefrl.feedback import Answer
from prefrl.human_ui.gallery import Expected, Wanted, find_entries
from prefrl.human_ui.questions import Item, Past, Question, Result, Standing
from prefrl.human_ui.sitting import Sitting
from prefrl.store import Claim, PreferenceStore

AHEAD = 3  # questions claimed and decoded before they are needed
LEASE_SECONDS = 30.0  # a viewer that was killed gives its questions back after this
POLL_SECONDS = 0.25
STANDING_SECONDS = 1.0
TRY_SECONDS = 2.0  # how often questions are looked for whose clips could not be drawn
SEEN_SECONDS = 4.0  # how often the record is told that this viewer is open
KEPT_QUESTIONS = 4  # answered questions whose clips are still decoded, for undo
KEPT_BYTES = 250_000_000  # of their frames and those of the questions ahead; the newest is kept in any case

FILM_WIDTH = 640  # pixels that a film is made smaller to
STRIP = 8  # pictures of the agent along its training
LOOK_SECONDS = 10.0  # how often the outcome is looked for once nothing more will come

News = Question | Standing | str | bool | Result | Past | None
"""A question that is ready, how the run stands, a problem ("": none any more), whether nothing more will come, what the
answers have come to, an answer to look at again (None: there is none)."""


class Desk:
    """The record as one person's window needs it.

    Args:
        open_record: opens the record; each thread has its own.
        annotator: the person's name.
        run: what to call the run.
        environment: name of its environment, "" if there is none.
        repeat_share: share of the questions that are earlier ones of this person's, with the sides swapped.
        folder: of the run; None: there is a record only.
    """

    def __init__(
        self,
        open_record: Callable[[], PreferenceStore],
        annotator: str,
        *,
        run: str,
        environment: str,
        repeat_share: float = 0.1,
        folder: Path | None = None,
    ) -> None:
        self._open_record, self.annotator, self._folder = open_record, annotator, folder
        self._sitting = Sitting(
            annotator, run=run, environment=environment, repeat_share=repeat_share, folder=folder, in_window=True
        )
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[tuple[str, Answer | None, str]] = queue.SimpleQueue()
        self._num_unsaved = 0
        self._lock = threading.Lock()
        self._claims: dict[str, Claim] = {}  # by query: claimed and not answered
        self._renewed: dict[str, float] = {}
        self._rows: dict[str, int] = {}  # by query: row of this session's answer
        self._to_bring: deque[Claim] = deque()  # claimed, not handed to the window yet
        self._kept: deque[Question] = deque(maxlen=KEPT_QUESTIONS + AHEAD)
        self._seen_at = self._tried_at = -math.inf
        self._wishes: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()  # None: the outcome
        self._expected = Expected(folder)
        self._looked_at = -math.inf
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._load)]

    def start(self) -> None:
        """Note the annotator in the record and begin to work.

        Raises:
            UserError: the record cannot be opened or written to.
        """
        with self._open_record() as store:
            self._sitting.begin(store)
        self._seen_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def num_unsaved(self) -> int:
        """Answers that the record does not have yet."""
        return self._num_unsaved

    def save(self, answer: Answer) -> None:
        """Record an answer, as soon as may be."""
        with self._lock:
            self._num_unsaved += 1
        self._work.put(("save", answer, ""))

    def take_back(self, answer: Answer) -> None:
        """Take an answer back in the record; its question is news again then."""
        with self._lock:
            self._num_unsaved += 1
        self._work.put(("undo", answer, uuid.uuid4().hex))

    def take_back_row(self, row: int) -> None:
        """Take the answer of a row back, of whatever session; its question is news again then."""
        with self._lock:
            self._num_unsaved += 1
        self._work.put((f"row {row}", None, f"again {row}"))

    def browse(self, index: int, order: str) -> None:
        """Bring an answer that was given, by its number in an order of `prefrl.human_ui.gallery`."""
        self._wishes.put((index, order))

    def look(self) -> None:
        """Bring what the answers have come to."""
        self._wishes.put(None)

    def close(self, patience_seconds: float = 5.0) -> int:
        """Finish what is to be recorded, give back what was claimed; return how many answers could not be recorded."""
        deadline = time.monotonic() + patience_seconds
        while self._num_unsaved and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=max(0.1, deadline - time.monotonic()))
        try:
            with self._open_record() as store:
                self._sitting.end(store, list(self._claims.values()))
        except UserError:
            pass  # they come back by themselves
        return self._num_unsaved

    # ------------------------------------------------------------------------------------------------ writing

    def _write(self) -> None:
        store: PreferenceStore | None = None
        while not self._stop.is_set():
            try:
                what, answer, token = self._work.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            while not self._stop.is_set():
                try:
                    store = store or self._open_record()
                    if answer is None:
                        row = int(what.split()[1])
                        if store.answer(row) is None and store.answer_of_claim(token) is None:
                            self.news.put(None)  # it was taken back meanwhile
                        else:
                            self._undo_row(store, row, token)
                    elif what == "save":
                        self._record(store, answer)
                    else:
                        self._undo(store, answer, token)
                    break
                except UserError as error:
                    kept = f"{self._num_unsaved} not recorded yet; they are kept here and tried again"
                    self.news.put(f"{error} ({kept})")
                    self._stop.wait(1.0)
            else:
                return
            self.news.put("")
            with self._lock:
                self._num_unsaved -= 1
        if store is not None:
            store.close()

    def _record(self, store: PreferenceStore, answer: Answer) -> None:
        (self._rows[answer.query_id],) = store.add_answers([answer])
        with self._lock:
            self._claims.pop(answer.query_id, None)

    def _undo(self, store: PreferenceStore, answer: Answer, token: str) -> None:
        query_id = answer.query_id
        row = self._rows.get(query_id)
        if row is None:
            return
        self._undo_row(store, row, token)

    def _undo_row(self, store: PreferenceStore, row: int, token: str) -> None:
        claim = store.undo(row, self.annotator, LEASE_SECONDS, token=token)
        query_id = claim.query.id
        self._rows.pop(query_id, None)
        with self._lock:
            self._claims[query_id] = claim
            self._renewed[query_id] = time.monotonic()
            self._to_bring.append(claim)

    # ------------------------------------------------------------------------------------------------ loading

    def _load(self) -> None:
        store: PreferenceStore | None = None
        told, next_standing = False, 0.0
        while not self._stop.is_set():
            try:
                store = store or self._open_record()
                self._fulfil(store)
                worked = self._fetch(store)
                self._renew(store)
                if time.monotonic() >= next_standing:
                    self._report(store)
                    next_standing = time.monotonic() + STANDING_SECONDS
                if told:
                    told = False
                    self.news.put("")
            except UserError as error:
                told, worked = True, False
                self.news.put(str(error))
                self._stop.wait(1.0)
            if not worked:
                self._stop.wait(POLL_SECONDS)
        if store is not None:
            store.close()

    def _fulfil(self, store: PreferenceStore) -> None:
        """Bring what was wished for, of several wishes of one kind the last."""
        wishes = []
        while not self._wishes.empty():
            wishes.append(self._wishes.get())
        if None in wishes:
            self.news.put(self._result(store))
        if browsed := [wish for wish in wishes if wish is not None]:
            self.news.put(self._past(store, *browsed[-1]))

    def _past(self, store: PreferenceStore, index: int, order: str) -> Past | None:
        entries = find_entries(store, Wanted(order=order), self._expected.read())
        if not entries:
            return None
        self._expected.refresh(max(entry.row for entry in entries))
        index = min(index, len(entries) - 1)
        entry = entries[index]
        claim = Claim(token="", query=entry.card, annotator=self.annotator, shown=entry.shown, expires_at=0.0)
        return Past(
            question=_question(store, claim),
            row=entry.row,
            told=entry.told,
            index=index,
            total=len(entries),
            mine=entry.answer.annotator == self.annotator,
        )

    def _result(self, store: PreferenceStore) -> Result:
        outcome = self._sitting.outcome(store)
        lines = (*outcome.lines, *([outcome.advice] if outcome.advice else []))
        films = outcome.films[:: max(1, -(-len(outcome.films) // STRIP))]
        newest = outcome.films[-1] if outcome.films else None
        path = outcome.film or (None if newest is None else newest.path)
        title = "Before, during and after training" if outcome.film else ""
        if newest is not None and outcome.film is None:
            title = f"The newest behaviour, after {newest.num_env_steps:,} steps"
        strip = []
        for one in films:
            if (pictures := _film(one.path, FILM_WIDTH // 4)) is not None:
                strip.append((f"{one.num_env_steps:,}", pictures.frames[-1]))
        film = None if path is None else _film(path, FILM_WIDTH)
        return Result(lines=lines, film=film, film_title=title if film is not None else "", strip=tuple(strip))

    def _fetch(self, store: PreferenceStore) -> bool:
        """Bring one question, if one is wanted and there is one; return whether."""
        if not self._to_bring and len(self._claims) <= AHEAD:
            claims = self._sitting.claim(store, 1, LEASE_SECONDS) or self._claim_undrawable(store)
            if not claims:
                return False
            (claim,) = claims
            with self._lock:
                self._claims[claim.query.id] = claim
                self._renewed[claim.query.id] = time.monotonic()
                self._to_bring.append(claim)
        if not self._to_bring:
            return False
        claim = self._to_bring[0]  # until it is news: the record may go away meanwhile
        kept = next((question for question in self._kept if question.query_id == claim.query.id), None)
        if kept is None or kept.order != claim.shown:
            kept = _question(store, claim)
            self._kept.append(kept)
            while len(self._kept) > 1 and sum(question.num_bytes for question in self._kept) > KEPT_BYTES:
                self._kept.popleft()  # decoded again if it is taken back
        self._to_bring.popleft()
        self.news.put(replace(kept, claim=claim.token))  # another one, where it was taken back
        return True

    def _claim_undrawable(self, store: PreferenceStore) -> list[Claim]:
        """Claim a question whose clips could not be drawn, not too often."""
        if time.monotonic() - self._tried_at < TRY_SECONDS:
            return []
        self._tried_at = time.monotonic()
        return self._sitting.claim_undrawable(store, LEASE_SECONDS)

    def _renew(self, store: PreferenceStore) -> None:
        now = time.monotonic()
        for query_id, claim in list(self._claims.items()):
            if now - self._renewed.get(query_id, 0.0) > LEASE_SECONDS / 3:
                store.renew(claim, LEASE_SECONDS)
                self._renewed[query_id] = now

    def _report(self, store: PreferenceStore) -> None:
        if time.monotonic() - self._seen_at > SEEN_SECONDS:
            self._sitting.note_presence(store)
            self._seen_at = time.monotonic()
        standing = self._sitting.standing(store)
        self.news.put(standing)
        over = self._sitting.is_over(store, standing, len(self._claims))
        self.news.put(over)
        if over and time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self.look()


def _film(path: Path, width: int) -> Pictures | None:
    """Return a film, made smaller; None where it cannot be shown, or is being written anew."""
    try:
        return decode_clip(path.read_bytes(), width)
    except (OSError, UserError):
        return None


def _question(store: PreferenceStore, claim: Claim) -> Question:
    card = claim.query
    clips = store.clips(card.segment_ids)
    failures = store.render_failures(card.segment_ids)
    items = []
    for name in card.segment_ids:
        try:
            if name in clips:
                items.append(Item(clip=decode_clip(clips[name].data)))
            else:
                items.append(Item(problem=failures.get(name, "Its clip is not in the record.")))
        except UserError as error:
            items.append(Item(problem=str(error)))
    items += [Item(text=response.text) for response in card.responses]
    return Question(
        query_id=card.id,
        kind=card.kind,
        annotator=claim.annotator,
        claim=claim.token,
        items=tuple(items),
        order=claim.shown,
        prompt=card.responses[0].prompt if card.responses else None,
        scale=card.scale or 5,
        instruction=card.instruction,
    )
