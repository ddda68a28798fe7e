"""Several runs beside each other, each in a process of its own that `prefrl resume` is: what stops goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prefrl.cpus import available_cpus
from prefrl.errors import INTERRUPTED, UserError
from prefrl.runs.guard import Interrupted, stopping

SECONDS_BETWEEN_LOOKS = 0.2


def places(wanted: int | None, device: str) -> int:
    """Return how many runs go side by side: as many as wanted; None: one to each core, or one in all on a GPU."""
    return wanted or (available_cpus() if device == "cpu" else 1)


def finish_runs(
    folders: Sequence[Path], *, at_once: int, logs: Path, again: str, done: Callable[[Path, float], None]
) -> None:
    """Bring runs to their end, so many at once, each on one thread of the processor.

    Ctrl-C and a request to terminate stop them all, with what they came to saved.

    Args:
        folders: of runs that were begun and are not finished; the first are started first.
        at_once: processes.
        logs: folder for what each says.
        again: the command that goes on, for messages.
        done: told of each that is finished, with the seconds it took.

    Raises:
        UserError: one failed; the others that were begun are finished first.
        Interrupted: they were stopped.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, failed, stop = list(folders), list[str](), [False]
    running: dict[Path, tuple[subprocess.Popen[bytes], float]] = {}
    try:
        with stopping(lambda: stop.__setitem__(0, True)):
            while running or (waiting and not failed and not stop[0]):
                while waiting and len(running) < at_once and not failed and not stop[0]:
                    path = waiting.pop(0)
                    running[path] = _begin(path, logs / f"{path.name}.log"), time.monotonic()
                if stop[0]:
                    for process, _ in running.values():
                        process.send_signal(signal.SIGINT)
                    for process, _ in running.values():
                        process.wait()
                for path, (process, begun) in list(running.items()):
                    status = process.poll()
                    if status is None:
                        continue
                    del running[path]
                    if status == 0:
                        done(path, time.monotonic() - begun)
                    elif status == INTERRUPTED:
                        stop[0] = True
                    else:
                        failed.append(f"{path} {_last_words(logs / f'{path.name}.log', status)}")
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for process, _ in running.values():
            process.kill()
    if failed:
        raise UserError(f"{' '.join(failed)} What is finished is kept; this goes on: {again}")
    if stop[0]:
        raise Interrupted(f"Stopped; everything is saved. Resume with: {again}")


def _begin(path: Path, log: Path) -> subprocess.Popen[bytes]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("ab") as said:
        return subprocess.Popen(  # noqa: S603  (this program again, without a shell)
            [sys.executable, "-m", "prefrl", "resume", str(path), "--quiet"],
            stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=settings,
            start_new_session=True,  # Ctrl-C reaches them from here, once
        )  # fmt: skip


def _last_words(log: Path, status: int) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1].strip().removeprefix("prefrl: ")[:500] if lines else "it said nothing."
    return f"ended with status {status} (see {log}): {said}"
