"""Whose runs may name code, files and addresses: one's own, and those of others that were trusted once.

The settings of a run may name code of a user (`module:Name`, `judge.py:near`), a database or files. Going on with such
a run, or judging it, imports, connects and reads what they name. What a run of this user names is remembered in a file
of theirs when the run is made; a run that names anything else is somebody else's, or was edited, and is refused until
the user says `--trust`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefrl import seams
from prefrl.errors import UserError

VARIABLE = "PREFRL_TRUSTED"
"""Of the environment: what this process trusts, for the processes that it starts."""

_NAMES_FILES = {"instruction", "model", "from_run", "from_offline", "demonstrations", "record", "dataset", "data",
                "reward", "references", "pretraining", "proxy"}  # fmt: skip
"""Settings that may name a file, or a model of a hub, by one word."""
_OWN = {"servicedesk", "docstrings", "gold"}
"""Words that name neither, where those settings hold them: the worlds of prefrl's own, and their reward."""


def check_trust(path: Path, config: Mapping[str, Any], *, trust: bool) -> None:
    """Check that a run is this user's, or trusted, before anything that it names is used.

    Args:
        path: of the run folder, for messages.
        config: of the run.
        trust: the user trusts it from now on.

    Raises:
        UserError: it is somebody else's.
    """
    names = names_in(config.get("settings"))
    if trust:
        remember(config)
    elif names and not _is_remembered(_digest(config)):
        shown = ", ".join(without_passwords(names[:5])) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"The run in {path} was made by another user, on another machine, or its config.json was edited, and it "
            f"names what would be run, read or connected to: {shown}. Look at {path / 'config.json'} and at what it "
            "names; if you trust whoever made it, say so once: --trust with resume, evaluate, report, quality, fit, "
            "video, label or serve (docs/security.md)."
        )
    seams.consent(names)


def without_passwords(value: Any) -> Any:
    """Return settings with the passwords in addresses masked."""
    text = re.sub(r"(://[^/@\s:]*:)[^/@\s]+@", r"\1***@", json.dumps(value))
    return json.loads(re.sub(r"(://[^\s\"]*[?&]\w*pass\w*=)[^&\s\"]+", r"\1***", text))


def remember(config: Mapping[str, Any]) -> None:
    """Trust what a run names from now on, in this process and in those to come."""
    names = names_in(config.get("settings"))
    seams.consent(names)
    if names:
        _remember(_digest(config))


def allow(content: Any) -> None:
    """Note that this user asked for something that a file of a run says as well, as JSON."""
    _remember(_hash(content))


def is_allowed(content: Any) -> bool:
    """Tell whether this user asked for what a file of a run says: `allow` was called with it."""
    return _is_remembered(_hash(content))


def _remember(digest: str) -> None:
    if _is_remembered(digest):
        return
    os.environ[VARIABLE] = " ".join([*os.environ.get(VARIABLE, "").split(), digest])
    place = _place()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "a", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(digest + "\n")
    except OSError:  # a home that cannot be written to: it is asked for again
        return


def names_in(settings: Any) -> list[str]:
    """Return what settings name outside of their run: code, addresses and files, sorted."""
    return sorted({text for key, text in _texts(settings) if _leads_out(key, text)})


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)


def _leads_out(key: str, text: str) -> bool:
    """Tell whether a text may be a name of code, an address or a path, rather too often; `ALE/Pong-v5` is none."""
    if key in _NAMES_FILES and " " not in text and text and text not in _OWN:
        return True
    if re.fullmatch(r"linear:[0-9.e+-]+", text):  # a learning rate
        return False
    return ":" in text or (key != "env_id" and ("/" in text or "\\" in text))


def _digest(config: Mapping[str, Any]) -> str:
    content = [config.get("run_id"), names_in(config.get("settings"))]
    if "begun_in" in config:  # where relative names lead from
        content.append(config["begun_in"])
    return _hash(content)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_remembered(digest: str) -> bool:
    if digest in os.environ.get(VARIABLE, "").split():
        return True
    try:
        return digest in _place().read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def _place() -> Path:
    """Return the file in which this user's trust is kept."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home()) / "prefrl" / "trusted"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "prefrl" / "trusted"
