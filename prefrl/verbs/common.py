"""What several verbs need: the kinds of run, JSON."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

import tyro

from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError, first_line, require
from prefrl.offline.folder import OfflineFolder
from prefrl.runs.folder import format_of
from prefrl.text.jobs.folder import TextFolder

IMAGE_FORMAT = "prefrl.image_run"
"""Known here without what `prefrl.image` needs."""
T = TypeVar("T")
RunPath = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
RecordPlace = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
"""A run folder, a file or a URL: a `Path` would make one slash of the two."""


def is_text(path: Path) -> bool:
    return format_of(path) == TextFolder.FORMAT


def is_image(path: Path) -> bool:
    """Tell whether a folder holds an image run."""
    return format_of(path) == IMAGE_FORMAT


def is_offline(path: Path) -> bool:
    return format_of(path) == OfflineFolder.FORMAT


def other_kind(path: Path) -> str | None:
    """Return what made a run that is not a control run; None where it is one, or none is there."""
    made_by = {folder.FORMAT: folder.COMMAND for folder in (TextFolder, OfflineFolder)}
    return (made_by | {IMAGE_FORMAT: "prefrl image"}).get(format_of(path) or "")


def image_jobs() -> ModuleType:
    """Return `prefrl.image.jobs`, whose packages are imported for image runs alone."""
    require("diffusers", "image")
    return importlib.import_module("prefrl.image.jobs")


def open_run(path: Path, *, trust: bool) -> ControlFolder:
    """Open a control run or an offline one."""
    return (OfflineFolder if is_offline(path) else ControlFolder).open(path, trust=trust)


def or_warn(what: str, make: Callable[[], T]) -> T | None:
    """Return what a function makes; where it fails, for a user's environment may raise anything, warn and go on."""
    try:
        return make()
    except UserError as error:
        warnings.warn(f"{what}: {error}", stacklevel=2)
    except Exception as error:
        warnings.warn(f"{what}: {type(error).__name__}: {first_line(error)}", stacklevel=2)
    return None


@contextlib.contextmanager
def words_apart(as_json: bool) -> Iterator[None]:
    """Let what environments print go to the standard error where one JSON object is to be all of the output."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False))
