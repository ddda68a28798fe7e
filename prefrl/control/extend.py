"""Other labels for a run that is over, or on its way: more of them, with the steps to learn from them, or no more."""

from __future__ import annotations

from dataclasses import replace

from prefrl.control.folder import ControlFolder
from prefrl.control.settings import RunSettings
from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.runs.checkpoint import change_settings
from prefrl.runs.codec import to_json
from prefrl.runs.guard import locked


def extend(folder: ControlFolder, labels: str, steps: str | None = None) -> str:
    """Change how many labels a run asks for, and how long it trains; one that was over is so no longer.

    Args:
        folder: the run; nothing works on it.
        labels: "+200" for so many more, or how many in all, no fewer than were given.
        steps: likewise, of the training; None: with more labels, more steps in proportion.

    Returns:
        What the run is planned for now, in words.

    Raises:
        UserError: no such number, or fewer than were given.
    """
    with locked(folder.path):
        settings = folder.settings
        rows = folder.read_metrics()
        given, made = (int(rows[-1].get(name) or 0) if rows else 0 for name in ("labels", "num_env_steps"))
        wanted = _number("--labels", labels, settings.labels)
        if wanted < max(1, given):
            raise UserError(f"--labels cannot be less than the {given} that were given already. Received {labels}")
        begin = max(settings.steps, made) if folder.finished else settings.steps
        more = max(0, wanted - settings.labels) / settings.labels
        total = begin + round(more * settings.steps) if steps is None else _number("--steps", steps, begin)
        if total < min(made, settings.steps):
            raise UserError(f"--steps cannot be less than the {made:,} that were made already. Received {steps}")
        changed = replace(settings, labels=wanted, steps=total, wait=min(settings.wait, wanted))
        _write(folder, changed)
    return f"{wanted} labels ({given} given) and {total:,} steps ({made:,} made)"


def _number(option: str, text: str, now: int) -> int:
    bare = text.removeprefix("+")
    if not (bare.isascii() and bare.isdigit()):
        raise UserError(f"{option} is a number, or +NUMBER for that many more. Received {text!r}")
    return int(bare) + (now if text.startswith("+") else 0)


def _write(folder: ControlFolder, settings: RunSettings) -> None:
    """Put other settings in place of a run's; killed in between, it is as it was, but has to be finished again."""
    folder.digests_path.unlink(missing_ok=True)
    folder.summary_path.unlink(missing_ok=True)
    (folder.policies / "last.pt").unlink(missing_ok=True)
    config = folder.config
    changes = {name: to_json(settings)[name] for name in ("labels", "steps", "wait")}
    config["settings"] |= changes
    write_json(folder.config_path, config, private=folder.config_path.stat().st_mode & 0o077 == 0)
    change_settings(folder, changes)
