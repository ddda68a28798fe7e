"""Runs to a hub and from one, by `huggingface_hub`: `HF_ENDPOINT` and `HF_TOKEN` say which and who."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefrl.errors import UserError, first_line, require
from prefrl.files import read_json, write_atomically, write_json
from prefrl.hub.card import card_of
from prefrl.hub.packing import KINDS, SHARED_NAMES, open_finished, pack, people_of

PREFIX, MARK = "hub:", ".hub.json"
_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


def push(run: Path, repo: str, *, licence: str | None = None, private: bool = False, names: bool = False) -> list[str]:
    """Share a run that is over, with a card; its record stays here.

    Args:
        run: its folder.
        repo: USER/NAME.
        licence: as hubs name it, e.g. `mit`; None: unknown.
        private: where it is new, only its owner sees it.
        names: leave people's names in.

    Returns:
        What was left out.

    Raises:
        UserError: there is no such run, or the hub refuses.
    """
    check_repo(repo)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UserError(f"A licence is named as hubs do, e.g. mit or apache-2.0. Received {licence!r}")
    hub = require("huggingface_hub", "hub")
    folder = open_finished(run)
    with tempfile.TemporaryDirectory(prefix="prefrl-push-") as temporary:
        place = Path(temporary)
        left_out = pack(folder, place, names=names)
        packed = type(folder)(place)
        num_people = len(people_of(folder))
        write_atomically(place / "README.md", card_of(packed, repo, licence=licence, num_people=num_people))
        with _said(hub, f"{repo} cannot be written"):
            api = hub.HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=place, commit_message=f"A run of {folder.COMMAND}")
    return left_out


def pull(repo: str, to: Path | None = None, *, revision: str | None = None) -> Path:
    """Bring a run from a hub; it is a stranger's, so what it names is used only once it is trusted.

    Args:
        repo: USER/NAME.
        to: its folder here; None: `runs/hub/USER-NAME`, which is brought up to date.
        revision: branch, tag or commit.

    Raises:
        UserError: there is none, it is no run, or something else lies in the folder.
    """
    check_repo(repo)
    hub = require("huggingface_hub", "hub")
    place = to or Path("runs/hub") / repo.replace("/", "-")
    if place.exists() and (not place.is_dir() or (any(place.iterdir()) and _origin(place) != repo)):
        raise UserError(f"{place} exists already and is not what was brought from {repo}. Choose another folder.")
    with _said(hub, f"{repo} cannot be had"):
        commit = hub.HfApi().repo_info(repo, revision=revision).sha
        if not _is_there(place, commit):
            hub.snapshot_download(repo, revision=commit, local_dir=place, allow_patterns=list(SHARED_NAMES))
    config = read_json(place / "config.json") if (place / "config.json").is_file() else None
    if not isinstance(config, dict) or config.get("format") not in KINDS:
        raise UserError(f"{repo} holds no run of prefrl: it has no config.json of one.")
    write_json(place / MARK, {"repo": repo, "commit": commit})
    return place


def with_hub_runs(arguments: Sequence[str]) -> list[str]:
    """Return words of a command line with each `hub:USER/NAME` or `hub:USER/NAME@REVISION` brought here.

    Raises:
        UserError: one cannot be had.
    """
    found = []
    for word in arguments:
        option, equals, name = word.rpartition("=") if word.startswith("--") else ("", "", word)
        if name.startswith(PREFIX):
            repo, _, revision = name.removeprefix(PREFIX).partition("@")
            name = str(pull(repo, revision=revision or None))
        found.append(f"{option}{equals}{name}")
    return found


def check_repo(repo: str) -> None:
    """Check a name on a hub.

    Raises:
        UserError: it is none.
    """
    if not re.fullmatch(_NAME, repo) or ".." in repo or len(repo) > 96:
        raise UserError(f"A run on a hub is named USER/NAME. Received {repo!r}")


def _origin(place: Path) -> str | None:
    mark = read_json(place / MARK) if (place / MARK).is_file() else {}
    return mark.get("repo") if isinstance(mark, dict) else None


def _is_there(place: Path, commit: str) -> bool:
    mark = read_json(place / MARK) if (place / MARK).is_file() else {}
    return isinstance(mark, dict) and mark.get("commit") == commit


@contextmanager
def _said(hub: Any, what: str) -> Iterator[None]:
    """Say in one sentence what a hub refuses."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the network, of many kinds
        where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise UserError(
            f"{what} at {where}: {first_line(error)[:200]} Is the name right, and are you logged in (hf auth login, or "
            "HF_TOKEN)?"
        ) from error
