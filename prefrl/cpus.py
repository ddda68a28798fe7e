"""How many processors there are for this process, and whether a launcher started others beside it."""

from __future__ import annotations

import os

from prefrl.errors import UserError


def available_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_several_processes(command: str) -> None:
    """Raise if `torchrun` or `accelerate launch` started this process as one of several.

    Args:
        command: what each of them would do by itself, into the same files.

    Raises:
        UserError: they did.
    """
    number = os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and number.isdecimal() and int(number) > 1:
        raise UserError(
            f"{command} is for one process, and {number} were started, each of which would do all of it and write the "
            "same files. Start it without torchrun and accelerate launch; the trainings of prefrl text share the work."
        )
