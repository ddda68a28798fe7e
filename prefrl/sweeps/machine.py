"""What a sweep was begun on, so that its figures can be made again: the machine and the commit of the code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

from prefrl.cpus import available_cpus

SECONDS_FOR_GIT = 5.0


def described_machine() -> dict[str, Any]:
    """Return the processor and how many there are, the system, and the commit; of a cluster, those of its head."""
    return {
        "processor": processor(), "processors": available_cpus(), "system": platform.platform(terse=True),
        "commit": commit_of(Path(__file__).parents[1]),
    }  # fmt: skip


def processor() -> str:
    """Return the name of the processor, or what kind it is where it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def commit_of(folder: Path) -> str | None:
    """Return the commit of a checkout, with `-dirty` where files that it knows were changed; None where it is none."""
    try:
        known = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") if known else None
    except (OSError, subprocess.SubprocessError):  # there is no git, no checkout, or it is somebody else's around this
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_FOR_GIT, check=True)  # noqa: S603
    return done.stdout.strip()
