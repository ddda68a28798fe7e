"""What `prefrl resume`, `evaluate` and `report` do with a run of `prefrl text`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefrl.errors import UserError, require


def resume(path: Path, *, quiet: bool, trust: bool = False, accept_changed: bool = False) -> dict[str, Any]:
    """Go on with a text run; return its summary.

    Raises:
        UserError: there is none, or it is finished.
        Interrupted: the user stopped it again.
    """
    _commands().resume(path, quiet=quiet, trust=trust, accept_changed=accept_changed)
    return _folder(path).read_summary()


def evaluate(path: Path, *, seed: int | None, as_json: bool, trust: bool = False) -> None:
    """Measure the policy that a text run ended with on prompts of what it was trained on, and print the figures.

    Raises:
        UserError: it is not finished, or what it ended with is no policy.
    """
    folder = _folder(path)
    folder.read_summary()  # refuses where it is not finished
    verb = folder.config["command"]
    if verb in ("reward", "bestofn"):
        what = "a reward model" if verb == "reward" else "responses, no policy"
        raise UserError(f"The run in {path} made {what}; look at its figures with: prefrl report {path}")
    _commands().evaluate(str(path), seed=seed or 0, json=as_json, trust=trust)


def report(path: Path) -> dict[str, Any]:
    """Return the figures of a text run: its summary, and the rows of its evaluations.

    Raises:
        UserError: it is not finished.
    """
    folder = _folder(path)
    rows = [{key: value for key, value in row.items() if key != "gold_each"} for row in folder.read_evaluations()]
    return {"verb": folder.config["command"], **folder.read_summary(), "evaluations": rows}


def _folder(path: Path) -> Any:
    require("transformers", "text")
    from prefrl.text.jobs.folder import TextFolder

    return TextFolder.open(path, reads_only=True)


def _commands() -> Any:
    require("transformers", "text")
    from prefrl.text.jobs import commands

    commands.quieten_libraries()
    return commands
