"""Runs, and data sets of answers, to a hub and from one, by `huggingface_hub`.

`HF_ENDPOINT` and `HF_TOKEN` say which and who. A name `datasets/USER/NAME` is that of a data set, as on the hub itself.
"""

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
from prefrl.hub.card import card_of, card_of_answers
from prefrl.hub.packing import ANSWERS, KINDS, SHARED_NAMES, open_finished, pack, pack_answers, people_of

PREFIX, MARK, DATASETS = "hub:", ".hub.json", "datasets/"
_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


def push(
    source: str, repo: str, *, licence: str | None = None, private: bool = False, names: bool = False
) -> list[str]:
    """Share a run that is over, or its answers, with a card.

    Args:
        source: folder of the run; for a data set also one that export wrote, or a record: a file or a URL.
        repo: USER/NAME for the run, without its record; datasets/USER/NAME for its answers.
        licence: as hubs name it, e.g. `mit`; None: unknown.
        private: where it is new, only its owner sees it.
        names: leave people's names in.

    Returns:
        What was left out.

    Raises:
        UserError: there is no such run, nothing was answered, or the hub refuses.
    """
    kind, name = check_repo(repo)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UserError(f"A licence is named as hubs do, e.g. mit or apache-2.0. Received {licence!r}")
    hub = require("huggingface_hub", "hub")
    with tempfile.TemporaryDirectory(prefix="prefrl-push-") as temporary:
        place = Path(temporary)
        if kind == "dataset":
            told, left_out = pack_answers(source, place, names=names)
            card, message = card_of_answers(told, name, licence=licence), "Answers of prefrl"
        else:
            folder = open_finished(Path(source))
            left_out = pack(folder, place, names=names)
            card = card_of(type(folder)(place), name, licence=licence, num_people=len(people_of(folder)))
            message = f"A run of {folder.COMMAND}"
        write_atomically(place / "README.md", card)
        with _said(hub, f"{repo} cannot be written"):
            api = hub.HfApi()
            api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, repo_type=kind, folder_path=place, commit_message=message)
    return left_out


def pull(repo: str, to: Path | None = None, *, revision: str | None = None) -> Path:
    """Bring a run or a data set from a hub; it is a stranger's, so what it names is used only once it is trusted.

    Args:
        repo: USER/NAME, or datasets/USER/NAME.
        to: its folder here; None: `runs/hub/USER-NAME` or `runs/hub/datasets-USER-NAME`, which is brought up to date.
        revision: branch, tag or commit.

    Raises:
        UserError: there is none, it is not what it should be, or something else lies in the folder.
    """
    kind, name = check_repo(repo)
    hub = require("huggingface_hub", "hub")
    place = to or Path("runs/hub") / repo.replace("/", "-")
    if place.exists() and (not place.is_dir() or (any(place.iterdir()) and _origin(place) != repo)):
        raise UserError(f"{place} exists already and is not what was brought from {repo}. Choose another folder.")
    taken = ANSWERS if kind == "dataset" else SHARED_NAMES
    with _said(hub, f"{repo} cannot be had"):
        commit = hub.HfApi().repo_info(name, repo_type=kind, revision=revision).sha
        if not _is_there(place, commit):
            hub.snapshot_download(name, repo_type=kind, revision=commit, local_dir=place, allow_patterns=list(taken))
    if kind == "dataset":
        if not (place / "dataset.json").is_file():
            raise UserError(f"{repo} holds no answers that prefrl wrote: it has no dataset.json.")
    else:
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


def check_repo(repo: str) -> tuple[str, str]:
    """Check a name on a hub; return whether it is that of a "model" (a run) or a "dataset", and USER/NAME.

    Raises:
        UserError: it is none.
    """
    name = repo.removeprefix(DATASETS)
    if not re.fullmatch(_NAME, name) or ".." in name or len(name) > 96:
        raise UserError(f"A run on a hub is named USER/NAME, and its answers datasets/USER/NAME. Received {repo!r}")
    return ("model" if name == repo else "dataset"), name


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
        reason = first_line(error)[:200].rstrip(".")
        raise UserError(
            f"{what} at {where}: {reason}. Is the name right, and are you logged in (hf auth login, or HF_TOKEN)?"
        ) from error
