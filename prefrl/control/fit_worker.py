"""The process that fits the reward of a run, while the agent goes on.

It is given a whole fit, the answers and the reward and optimiser of before, and gives back those of after; it keeps
nothing. Where it is not there, or ends, the training makes the fit itself, with the same result. A thread would not do:
it takes Python's lock from the agent's small steps.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import gymnasium
import numpy as np

from prefrl.rewards import ComparisonData, FitReport, Fitter
from prefrl.runs.streams import torch_stream
from prefrl.segments import Transitions
from prefrl.threads import torch_threads

SIZE = struct.Struct("<Q")  # of what follows it in a pipe, in bytes

PROGRAM = """
import sys
sys.path[:] = {path!r}
import signal
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
from prefrl.control.fit_worker import main
main()
"""
"""Signals are left to the training, which ends this process, already while the imports take their seconds."""


@dataclass(frozen=True, kw_only=True)
class FitDone:
    """What came of a fit in another process."""

    report: FitReport
    reward: dict[str, Any]
    """Of `RewardEnsemble.state_dict`."""
    fitter: dict[str, Any]
    """Of `Fitter.state`."""


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """A fit, with all that it reads."""

    fitter: Fitter
    """Its ensemble is what is fitted."""
    data: ComparisonData
    seed: int
    """Of the run."""
    recently: Transitions | None
    """What the agent did lately, that the scales of the inputs follow; None: they stay."""
    transitions: Transitions | None
    """What a network that knows the dynamics learns from first; None: it does not."""
    reference: Transitions | None
    """What the reward is normalised on; None: on segments that were asked about."""
    num_reference: int
    """How many of these."""
    draw: np.random.Generator
    """Draws them."""

    def run(self) -> FitReport:
        """Fit and normalise the ensemble."""
        ensemble = self.fitter.ensemble
        if self.recently is not None:
            ensemble.follow_inputs(*self.recently)
        generator = torch_stream(self.seed, "fit", self.fitter.num_fits)
        report = self.fitter.fit(self.data, generator, transitions=self.transitions)
        if self.reference is not None:
            ensemble.normalise(*self.reference)
        else:
            asked = self.data.sample_features(self.num_reference, self.draw)
            ensemble.normalise_on_asked(asked, self.data.length)
        return report

    @property
    def can_move(self) -> bool:
        """Another process knows everything in it: nothing is of a user's own making."""
        ensemble = self.fitter.ensemble
        seen = ensemble.observation_space
        leaves = seen.spaces.values() if isinstance(seen, gymnasium.spaces.Dict) else ()
        parts = [seen, *leaves, ensemble.action_space, *self.data.answers]
        return all(type(part).__module__.partition(".")[0] in ("gymnasium", "prefrl") for part in parts)


class FitWorker:
    """The process, as the training sees it. It begins at once and is `ready` some seconds later.

    Raises:
        OSError: no process can be begun.
    """

    def __init__(self) -> None:
        # This program again, without a shell.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PROGRAM.format(path=sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._jobs, self._results = self._process.stdin, self._process.stdout
        self._thread = ThreadPoolExecutor(1, "fit")  # it waits for the pipes
        self._begun = self._thread.submit(_read, self._results)

    @property
    def ready(self) -> bool:
        """Whether it takes fits by now."""
        return self._begun.done()

    def submit(self, job: FitJob) -> Future[FitDone]:
        """Begin a fit; its result raises an error where the process ended before it was over, or gave no result."""
        return self._thread.submit(self._exchange, pickle.dumps(job))

    def _exchange(self, job: bytes) -> FitDone:
        _write(self._jobs, job)
        done = pickle.loads(_read(self._results))  # noqa: S301  (of our own process)
        assert isinstance(done, FitDone), done
        return done

    def close(self) -> None:
        """End the process, which keeps nothing, whatever it is at."""
        self._process.kill()
        self._process.wait()
        self._thread.shutdown(cancel_futures=True)
        for pipe in (self._jobs, self._results):
            with suppress(OSError):
                pipe.close()


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(SIZE.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    """Return what was written with `_write`.

    Raises:
        EOFError: the other end is closed.
    """
    head = pipe.read(SIZE.size)
    if len(head) < SIZE.size:
        raise EOFError("the process ended")
    (size,) = SIZE.unpack(head)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the process ended")
    return data


def work(jobs: IO[bytes], results: IO[bytes]) -> None:
    """Make the fits that come until no more can come."""
    _write(results, b"")
    while True:
        try:
            job = pickle.loads(_read(jobs))  # noqa: S301  (of the process that started this one)
            report = job.run()
        except Exception:  # no more can come; or whatever it is comes to the training too, which says it
            return
        fitter = job.fitter
        _write(
            results,
            pickle.dumps(FitDone(report=report, reward=fitter.ensemble.state_dict(), fitter=fitter.state())),
        )


def main() -> None:
    """Run the process: it ends with the one that started it."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not come between, libraries in C among it
    sys.stdout = sys.stderr
    with torch_threads(1), suppress(BrokenPipeError):
        work(sys.stdin.buffer, results)
