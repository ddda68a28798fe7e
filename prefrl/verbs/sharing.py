"""Verbs of a hub: `push`, `pull`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from prefrl.hub.client import DATASETS, PREFIX
from prefrl.hub.client import pull as bring
from prefrl.hub.client import push as share
from prefrl.verbs.common import RecordPlace, other_kind

Repo = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="USER/NAME")]]


def push(
    run: RecordPlace, repo: Repo, *, licence: str | None = None, private: bool = False, names: bool = False
) -> None:
    """Share a finished run on a hub, with a card: reward, policies or model, settings, figures, pictures and films.

    Its record of answers stays here, and so do the names of people, passwords and places of files. To share the
    answers, name a data set: datasets/USER/NAME.

    Args:
        run: folder of the run, of any kind; for its answers also a folder that export wrote, or a record.
        repo: where to: USER/NAME, or datasets/USER/NAME for the answers.
        licence: as the hub names it, e.g. mit; default: unknown.
        private: where it is new, only its owner sees it.
        names: leave people's names in.
    """
    left_out = share(run, repo.removeprefix(PREFIX), licence=licence, private=private, names=names)
    if left_out:
        print(f"prefrl: Left out: {', '.join(left_out)}.", file=sys.stderr)
    name = repo.removeprefix(PREFIX)
    use = f"prefrl {'report' if other_kind(Path(run)) else 'evaluate'} hub:{name}"
    if name.startswith(DATASETS):
        use = f"prefrl import hub:{name} --to answers.sqlite"
    print(f"Shared as {name}; others use it as hub:{name}, e.g. {use}")


def pull(repo: Repo, *, to: Path | None = None, revision: str | None = None) -> None:
    """Bring a run, or answers, from a hub. What a stranger's names is used only with --trust (docs/security.md).

    Args:
        repo: which.
        to: its folder here; default: runs/hub/USER-NAME.
        revision: branch, tag or commit.
    """
    print(f"Wrote {bring(repo.removeprefix(PREFIX), to, revision=revision)}")
