"""Runs of a sweep as tasks of Ray: on the processors of this machine, or on a cluster whose nodes may come and go.

Ray starts a task elsewhere when its process or its node dies; the task finds the run's folder, on storage that all
nodes share, and goes on from its checkpoint.
"""

from __future__ import annotations

import os
import secrets
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrl.cpus import available_cpus
from prefrl.errors import UserError, first_line, require
from prefrl.sweeps.cells import Outcome, make_cell
from prefrl.sweeps.plan import Cell, Plan

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_STOP = 300.0
OBJECT_STORE_BYTES = 100 << 20  # nothing large goes through it


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each run is given, and where all of them are."""

    address: str | None = None
    """Of a cluster of Ray: auto for the one that this machine belongs to, or HOST:PORT; None: this machine alone."""
    cpus: float = 1.0
    """Processors of each run, and so its threads."""
    gpus: float = 0.0
    """GPUs of each run; 0.5: two runs share one."""
    memory_gb: float = 0.0
    """Memory that each run is counted for; 0: it is not."""
    retries: int = 20
    """How often a run goes on elsewhere after its process or its node died."""

    def __post_init__(self) -> None:
        for name, least in (("cpus", 0.0), ("gpus", 0.0), ("memory_gb", 0.0), ("retries", 0)):
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise UserError(f"{name} must be at least {least:g} and finite. Received {value}")
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            if value > 1 and value != int(value):
                raise UserError(f"{name} above 1 must be a whole number. Received {value}")


def log_of(out: Path, cell: Cell) -> Path:
    """Return the file of what a run says."""
    return out / "logs" / f"{cell.name.replace('/', '_')}.log"


class Runs:
    """Runs of a sweep on Ray, as many at a time as there is room for.

    Args:
        ray: the package.
        plan: whose they are.
        out: folder of the sweep, the same on every node.
        resources: of each run.
    """

    def __init__(self, ray: Any, plan: Plan, out: Path, resources: Resources) -> None:
        self._ray, self._plan, self._out, self._begun_in = ray, plan, out.resolve(), os.getcwd()
        self._task = ray.remote(
            num_cpus=resources.cpus, num_gpus=resources.gpus, memory=resources.memory_gb * 2**30 or None,
            max_retries=resources.retries, max_calls=1,
        )(make_cell)  # fmt: skip
        self._waiting: dict[Any, str] = {}
        at_once = (
            ray.cluster_resources().get(name, 0.0) / wanted
            for name, wanted in (("CPU", resources.cpus), ("GPU", resources.gpus))
            if wanted
        )
        self.at_once = max(1, int(min(at_once, default=1.0)))
        """How many there is room for now."""

    @property
    def num_open(self) -> int:
        """How many were started and are not over."""
        return len(self._waiting)

    def start(self, cell: Cell) -> None:
        """Have a run made, or gone on with, as soon as there is room for it."""
        place = {
            "begun_in": self._begun_in,
            "path": str(self._out / cell.name),
            "log": str(log_of(self._out, cell)),
        }
        plan = self._plan
        begun = self._task.remote(plan.kind.name, cell.settings, cell.expected, plan.options_of(cell), place)
        self._waiting[begun] = cell.name

    def collect(self, seconds: float = SECONDS_BETWEEN_LOOKS) -> dict[str, Outcome]:
        """Wait a moment; return the outcomes of the runs that are over since, by name."""
        found: dict[str, Outcome] = {}
        if not self._waiting:
            return found
        over, _ = self._ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=seconds)
        for reference in over:
            name = self._waiting.pop(reference)
            try:
                found[name] = self._ray.get(reference)
            except self._ray.exceptions.TaskCancelledError:
                found[name] = "stopped", ""
            except self._ray.exceptions.RayError as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                found[name] = "failed", f"its process died again and again ({reason})"
        return found

    def stop(self, names: Collection[str]) -> None:
        """Ask runs to save what they came to and to stop, as Ctrl-C does; their outcomes come in `collect`."""
        for reference, name in self._waiting.items():
            if name in names:
                self._ray.cancel(reference, force=False)

    def stop_all(self) -> None:
        """Stop all runs, and wait until they have saved what they came to, for some minutes at most."""
        self.stop(set(self._waiting.values()))
        left = SECONDS_TO_STOP
        while self._waiting and left > 0:
            self.collect()
            left -= SECONDS_BETWEEN_LOOKS


@contextmanager
def runs_of(plan: Plan, out: Path, resources: Resources) -> Iterator[Runs]:
    """Start Ray, or be part of a cluster, and hand out what makes runs; on Ctrl-C they save and stop.

    Args:
        plan: whose they are.
        out: folder of the sweep, the same on every node.
        resources: of each run.

    Raises:
        UserError: there is no cluster, or no node of it has room for a run.
        KeyboardInterrupt: the user stopped it, and all runs have saved what they came to.
    """
    ray = _import_ray(resources)
    with _connected(ray, resources):
        _check_room(ray, resources)
        runs = Runs(ray, plan, out, resources)
        try:
            yield runs
        except KeyboardInterrupt:
            runs.stop_all()
            raise


def run_cells(
    plan: Plan, cells: list[Cell], out: Path, resources: Resources, on_look: Callable[[Mapping[str, Outcome]], None]
) -> dict[str, Outcome]:
    """Make runs to their ends; return how each ended, by name.

    Args:
        plan: whose they are.
        cells: those to make.
        out: folder of the sweep, the same on every node.
        resources: of each run.
        on_look: called again and again with the outcomes there are by name.

    Raises:
        UserError: there is no cluster, or no node of it has room for a run.
        KeyboardInterrupt: the user stopped it, and all runs have saved what they came to.
    """
    outcomes: dict[str, Outcome] = {}
    with runs_of(plan, out, resources) as runs:
        for cell in cells:
            runs.start(cell)
        while runs.num_open:
            outcomes |= runs.collect()
            on_look(outcomes)
    return outcomes


def _import_ray(resources: Resources) -> Any:
    """Import Ray, which reads these as it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it sends its makers figures otherwise
    if resources.address is None and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # else whoever reaches its ports can run code here
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return require("ray", "sweep")


@contextmanager
def _connected(ray: Any, resources: Resources) -> Iterator[None]:
    """Be part of the cluster, or start one of this machine alone, which ends with the sweep."""
    if ray.is_initialized():  # of whoever calls this from Python
        yield
        return
    own: dict[str, Any] = {}
    if resources.address is None:
        own = {
            "num_cpus": max(available_cpus(), int(resources.cpus)), "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES, "_node_ip_address": "127.0.0.1",
        }  # fmt: skip
    try:
        ray.init(address=resources.address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = "Ray could not be started" if resources.address is None else f"There is no Ray at {resources.address}"
        raise UserError(
            f"{where}: {first_line(error)} Start a cluster with: ray start --head - and give --address auto on one of "
            "its machines."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_room(ray: Any, resources: Resources) -> None:
    """Refuse what this machine does not have, for which Ray would wait for ever; a cluster may grow, so it is said."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory_gb * 2**30}
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
    message = (
        f"No machine has room for a run with --cpus {resources.cpus:g} --gpus {resources.gpus:g} --memory-gb "
        f"{resources.memory_gb:g}: the most on one are {most['CPU']:g} processors, {most['GPU']:g} GPUs and "
        f"{most['memory'] / 2**30:.1f} GB."
    )
    if resources.address is None:
        raise UserError(message)
    warnings.warn(f"{message} The runs wait until the cluster has one.", stacklevel=2)
