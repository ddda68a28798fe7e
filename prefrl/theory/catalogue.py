"""All studies by name, and the command that runs one."""

from __future__ import annotations

from pathlib import Path

from prefrl.errors import UserError
from prefrl.runs.streams import check_seed
from prefrl.seams import Registry
from prefrl.theory import (
    bias,
    convergence,
    k_wise,
    memory,
    minority,
    optimism,
    overfitting,
    persuasion,
    pessimism,
    reliability,
    richer,
    tournaments,
)
from prefrl.theory.study import Finding, Study, write_finding


def _adopt(given: object, named: str) -> Study:
    if not isinstance(given, Study):
        raise UserError(f"The {named} must be a prefrl.theory.study.Study. Received {type(given).__name__}")
    return given


_MODULES = (
    convergence,
    k_wise,
    pessimism,
    optimism,
    memory,
    minority,
    reliability,
    bias,
    overfitting,
    persuasion,
    richer,
    tournaments,
)
STUDIES: Registry[Study] = Registry("study", {module.STUDY.name: module.STUDY for module in _MODULES}, _adopt)


def run_study(study: Study, out: Path, *, repetitions: int | None = None, seed: int = 0) -> Finding:
    """Run a study, and write `figure.png` and `finding.json` into a folder.

    Args:
        study: one of `STUDIES`, or a user's own.
        out: the folder, made if it is missing.
        repetitions: default: the study's own number.
        seed: of everything drawn.

    Raises:
        UserError: fewer than two repetitions, of which there is no spread, or the folder cannot be written.
    """
    repetitions = study.repetitions if repetitions is None else repetitions
    if repetitions < min(2, study.repetitions):
        raise UserError(f"A study needs two repetitions or more. Received {repetitions}")
    check_seed(seed)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; the figure and the table of a study are written into a folder.")
    finding = study.run(repetitions, seed)
    write_finding(study, finding, out, repetitions=repetitions, seed=seed)
    return finding
