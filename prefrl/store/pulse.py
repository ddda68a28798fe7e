"""Whether a program that asks questions is at work: it says so in its record every few seconds, until it ends or dies.

What it does between two questions may take minutes (the first steps of a slow simulator, a fit on images, the update of
a language model), and whoever answers must not be told meanwhile that nothing more will come.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from prefrl.errors import UserError
from prefrl.store.record import PreferenceStore

BEAT_SECONDS = 4.0
SILENT_SECONDS = 20.0  # a program that has said nothing for so long is not at work
RUNNING = "running"


class Pulse:
    """Says that a program is at work from now on, until `stop`.

    Args:
        store: the record, which may be used by others meanwhile.
        facts: what else those who answer are told at once.
    """

    def __init__(self, store: PreferenceStore, facts: Mapping[str, Any]) -> None:
        self._store, self._over = store, threading.Event()
        store.set_facts({**facts, "training_state": RUNNING, "seen_at": store.now()})
        self._thread = threading.Thread(target=self._beat, name="prefrl-pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Say nothing more; what the program came to is for it to tell."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with suppress(UserError):  # whoever works with the record says what is wrong with it
                self._store.set_facts({"seen_at": self._store.now()})


def is_running(store: PreferenceStore, facts: Mapping[str, Any]) -> bool:
    """Tell whether the program that asks is at work, as far as `facts`, those of its record, say."""
    heard = store.now() - facts.get("seen_at", 0.0) <= SILENT_SECONDS
    return bool(facts.get("training_state") == RUNNING and heard)
