"""One person's sitting at a record, whatever shows it: what to claim next, how the run stands, that somebody is there.

The window (through `desk`) and the page (through `page.host`) put the same questions by it and count the same answers.
Nothing here waits, and nothing is kept: whoever owns it opens the record and holds the claims.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from prefrl.human_ui.outcome import Outcome, learned_returns, look, mark
from prefrl.human_ui.questions import Standing
from prefrl.shares import Share
from prefrl.store import Claim, PreferenceStore
from prefrl.store.pulse import RUNNING, is_running

LAST_BYTES = 20_000  # of the metrics: a few rows


class Sitting:
    """The record as one person sees it.

    Args:
        annotator: the person's name.
        run: what to call the run.
        environment: name of its environment, "" if there is none.
        repeat_share: share of the questions that are earlier ones of this person's, with the sides swapped.
        folder: of the run; None: there is a record only.
        in_window: it is in a window of their own, which is missed when it is gone.
    """

    def __init__(
        self, annotator: str, *, run: str, environment: str, repeat_share: float = 0.1, folder: Path | None = None,
        in_window: bool = False,
    ) -> None:  # fmt: skip
        self.annotator, self.run, self.environment, self._in_window = annotator, run, environment, in_window
        self._repeat_share, self._folder = repeat_share, folder
        self._before: dict[str, Any] | None = None  # how things stood when they left
        self.failures = False
        """Clips could not be drawn, as far as `standing` has heard."""

    def begin(self, store: PreferenceStore) -> None:
        """Note the person in the record; what a viewer of theirs that was killed here had claimed comes back."""
        store.add_annotator(self.annotator, "person")
        self._before = store.facts().get(self._left)
        if _was_killed(store.facts().get(self._fact)):
            store.release_all(self.annotator)
        self.note_presence(store)

    def claim(self, store: PreferenceStore, limit: int, lease_seconds: float) -> list[Claim]:
        """Claim up to `limit` questions whose clips are drawn."""
        return store.claim(
            self.annotator, limit, lease_seconds=lease_seconds, with_clips=True, repeat_share=self._repeat_share
        )

    def claim_undrawable(self, store: PreferenceStore, lease_seconds: float) -> list[Claim]:
        """Claim a question whose clips could not be drawn, so that the person learns why; give any other back."""
        if not self.failures:
            return []
        claims = store.claim(self.annotator, 1, lease_seconds=lease_seconds, repeat_share=0.0)
        for claim in claims:
            if not store.render_failures(claim.query.segment_ids):
                store.release(claims)
                return []
        return claims

    def standing(self, store: PreferenceStore) -> Standing:
        """Return how the run and its record stand."""
        facts = store.facts()
        self.failures = bool(facts.get("render_failure"))
        running, training = is_running(store, facts), str(facts.get("training", ""))
        if not running and facts.get("training_state") == RUNNING:
            training = "training is not running"
        agreement = facts.get("held_out_agreement")
        return Standing(
            run=self.run,
            environment=self.environment,
            answered=store.num_answers(teaching=True) - int(facts.get("labels_before", 0)),
            wanted=int(facts.get("labels_wanted", 0)),
            open=store.num_open(),
            agreement=None if agreement is None else Share(**agreement),
            num_env_steps=int(facts.get("num_env_steps", 0)),
            training=training,
            running=running,
        )

    def is_over(self, store: PreferenceStore, standing: Standing, num_claimed: int) -> bool:
        """Tell whether nothing more will come for this person, who holds `num_claimed` questions."""
        return not standing.running and num_claimed == 0 and store.num_open(self.annotator) == 0

    def outcome(self, store: PreferenceStore) -> Outcome:
        """Return what the answers have come to, and what has changed since the person left."""
        return look(store, self.standing(store), self.annotator, self._folder, self._before)

    def note_presence(self, store: PreferenceStore) -> None:
        """Tell those who watch the record that somebody answers, and how things stand in case they leave now."""
        present = {"at": store.now(), "pid": os.getpid(), "host": platform.node(), "window": self._in_window}
        newest = () if self._folder is None else learned_returns(self._folder / "metrics.jsonl", LAST_BYTES)
        store.set_facts({self._fact: present, self._left: mark(self.standing(store), newest)})

    def end(self, store: PreferenceStore, held: list[Claim]) -> None:
        """Give back what is held, and say that nobody is there any more."""
        store.release(held)
        store.set_facts({self._fact: None})

    @property
    def _fact(self) -> str:
        return f"viewer {self.annotator}"

    @property
    def _left(self) -> str:
        return f"left {self.annotator}"


def _was_killed(presence: dict[str, Any] | None) -> bool:
    """Tell whether the viewer that last said that it is open was on this machine and is gone."""
    if not presence or presence["host"] != platform.node() or sys.platform == "win32":  # signal 0 is no question there
        return False
    try:
        os.kill(presence["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
