"""Stopping a run when the user asks, keeping two processes out of one folder, and saying which settings to lower."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from prefrl.errors import UserError, first_line
from prefrl.gpu import enough_gpu_memory


class Interrupted(Exception):
    """The user stopped a run; everything is saved."""


class BeingTrained(UserError):
    """Another process trains in the folder of a run."""


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """On Ctrl-C, or a request to terminate, ask the run to stop; a second Ctrl-C stops at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: nobody to interrupt it
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep two processes from training in one folder.

    Raises:
        BeingTrained: another one does.
    """
    try:
        with FileLock(path / ".lock", blocking=False):
            yield
    except Timeout:
        raise BeingTrained(f"The run in {path} is being trained by another process.") from None


@contextmanager
def enough_memory(mend: str, mend_gpu: str | None = None) -> Iterator[None]:
    """Say which settings to lower where the memory of the machine or of the GPU does not suffice.

    Args:
        mend: a sentence that says so.
        mend_gpu: for the memory of the GPU, if it is another one.

    Raises:
        UserError: there was too little.
    """
    try:
        with enough_gpu_memory(mend_gpu or mend):
            yield
    except MemoryError as error:
        raise UserError(f"There is too little memory: {first_line(error)}. {mend}") from error
