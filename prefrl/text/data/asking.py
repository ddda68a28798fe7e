"""People who compare what a policy writes while it is trained: questions open in a record, answers as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prefrl.feedback import Answer, Edit, Undo
from prefrl.runs.folder import record_place
from prefrl.store import PreferenceStore
from prefrl.store.pulse import Pulse
from prefrl.text.data.recorded import ask_people

Said = float | tuple[int, ...]
"""Of two responses the probability that the first is better; of more the rank of each, 1 the best, equal for ties."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Responses to a prompt, and what somebody said of them."""

    prompt: str
    responses: tuple[str, ...]
    said: Said
    asked_at: int
    """Steps that the policy had made when it wrote them."""


class PeopleComparing:
    """Questions about responses, in the record of a run, and the answers that have not been learned from yet.

    A comparison or ranking teaches once, when it is read; a response that somebody rewrote teaches that the new text is
    better than the old. "Can't tell" teaches nothing. An answer that is taken back after it was read has been learned
    from: those are counted.

    Args:
        record: file of the record; made if it is missing.
        instruction: what people are told to look for.
    """

    def __init__(self, record: str, instruction: str = "") -> None:
        self.record, self.instruction = record, instruction
        self.last_row = 0
        """The last answer of the record that was read."""
        self.num_untold = 0
        """Answers that said nothing to learn from: somebody could not tell."""
        self.num_late = 0
        """Answers taken back after they were learned from."""
        with self._opened() as store:
            store.set_facts({"instruction": instruction})

    def _opened(self) -> PreferenceStore:
        return PreferenceStore(record_place(self.record))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Tell those who answer that a policy is trained meanwhile, so that more questions will come."""
        with self._opened() as store:
            pulse = Pulse(store, {"training": "the model writes answers to compare, and learns from yours"})
            state, told = "stopped", "training was stopped"
            try:
                yield
                state, told = "finished", "training has ended"
            finally:
                pulse.stop()
                store.set_facts({"training": told, "training_state": state})

    def counts(self) -> tuple[int, int]:
        """Return how many questions wait for an answer, and how many were asked in all."""
        with self._opened() as store:
            return store.num_open(), len(store.query_ids())

    def ask(self, prompts: Sequence[str], responses: Sequence[Sequence[str]], num_steps: int) -> int:
        """Put responses to prompts into the record; return how many questions that made.

        Raises:
            UserError: no prompt has two different responses.
        """
        return ask_people(self.record, prompts, responses, instruction=self.instruction, num_steps=num_steps)

    def num_new(self) -> int:
        """Return how many comparisons can be taken."""
        return len(self._read(None)[0])

    def take(self, count: int) -> list[Compared]:
        """Return the next comparisons, at most so many, in the order in which they were made; they are not given again.

        What comes behind the last of them stays for the next time.
        """
        found, self.last_row, untold, late = self._read(count)
        self.num_untold += untold
        self.num_late += late
        return found

    def _read(self, count: int | None) -> tuple[list[Compared], int, int, int]:
        """Return comparisons, the row of the last entry among them, and how many said nothing or were too late."""
        with self._opened() as store:
            entries = store.answers(after=self.last_row, repeats=False)
            undone = {entry.undoes for _, entry in entries if isinstance(entry, Undo)}
            names = list(dict.fromkeys(entry.query_id for _, entry in entries))
            queries = {query.id: query for query in store.queries(names)}
        found, row, untold, late = list[Compared](), self.last_row, 0, 0
        for number, entry in entries:
            if count is not None and len(found) == count:
                break
            row = number
            if isinstance(entry, Undo):
                late += entry.undoes <= self.last_row
                continue
            query = queries[entry.query_id]
            if number in undone or not query.responses:
                continue
            texts, said = tuple(response.text for response in query.responses), _said(entry, len(query.responses))
            if isinstance(entry, Edit):
                texts = (entry.text, texts[entry.item])
            if said is None:
                untold += 1
                continue
            found.append(
                Compared(
                    prompt=query.responses[0].prompt, responses=texts, said=said, asked_at=query.num_env_steps
                )
            )  # fmt: skip
        return found, row, untold, late


def _said(entry: object, num_responses: int) -> Said | None:
    if isinstance(entry, Edit):
        return 1.0
    assert isinstance(entry, Answer)
    if num_responses > 2:
        return entry.order
    return next((preference for _, _, preference in entry.pairs(num_responses)), None)
