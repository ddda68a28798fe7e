"""Somebody who does something beside a test, in a thread that neither dies unseen nor keeps the tests from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(work: Callable[[threading.Event], object], seconds: float = 120.0) -> Iterator[None]:
    """Run `work` in a thread until the block ends: it is told by the event, and what it raised is raised then."""
    over, raised = threading.Event(), []

    def run() -> None:
        try:
            work(over)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(seconds)
    if raised:
        raise raised[0]
    assert not thread.is_alive(), f"it was told to end {seconds:.0f} seconds ago"
