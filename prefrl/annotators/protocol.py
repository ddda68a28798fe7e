"""The seam between whoever answers queries and the loop that asks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from prefrl.feedback import Answer, Query
from prefrl.history import Episode


class Annotator(Protocol):
    """Whoever compares, ranks and rates segments: a person, a simulated teacher, a language model."""

    name: str
    """Goes into the record with each answer."""

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Take note of training episodes that just ended, in the order they ended; most annotators need none."""

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        """Return answers to those queries that can be answered now; the others stay open."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, as JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
