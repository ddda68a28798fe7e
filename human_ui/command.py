"""`prefrl label RUN`: what its arguments mean. Neither torch nor a simulator is imported: the window is up quickly."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefrl.errors import UserError, require
from prefrl.files import read_json, text_or_file
from prefrl.seams import trust_data
from prefrl.trust import check_trust

DESCRIPTION = """\
Say which of two clips, or responses, is better, in a window, while the training goes on (or after it was stopped).
H shows all keys. Nothing answered is ever lost; several people may answer at once, each under their own --name.
"""


def main(arguments: Sequence[str]) -> int:
    """Open the window and return the exit status when it is closed.

    Raises:
        UserError: no such run, no screen, a record that cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="prefrl label", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of the run, or a record (a file, or a postgresql:// URL)")
    parser.add_argument("--name", default=None, help="your name in the record; default: the name you are logged in by")
    parser.add_argument("--instruction", default=None, help="what to look for: a text, or a file that holds it")
    parser.add_argument(
        "--repeat-share",
        type=float,
        default=0.1,
        help="share of questions that are earlier ones with their sides swapped (default: 0.1)",
    )
    parser.add_argument(
        "--must-see",
        type=float,
        default=0.0,
        help="share of the clips' length that must have been shown before an answer counts (default: 0)",
    )
    parser.add_argument(
        "--break-after",
        type=float,
        default=20.0,
        metavar="MINUTES",
        help="suggest a rest after so long (default: 20; 0: never)",
    )
    parser.add_argument("--high-contrast", action="store_true", help="white on black; the key C changes it too")
    parser.add_argument("--size", default=None, metavar="WIDTHxHEIGHT", help="of the window, e.g. 1280x800")
    parser.add_argument("--trust", action="store_true", help="let the record name a user's code: a kind of answer")
    given = parser.parse_args(arguments)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    require("pygame", "ui")
    require("av", "ui")
    size = _size(given.size)
    where, run, config = find_record(given.run, trust=given.trust)
    name = given.name or login_name()
    if not 0 <= given.repeat_share < 1:
        raise UserError(f"--repeat-share must be at least 0 and less than 1. Received {given.repeat_share}")
    if not 0 <= given.must_see <= 1:
        raise UserError(f"--must-see is a share, from 0 to 1. Received {given.must_see}")
    if not given.break_after >= 0:
        raise UserError(f"--break-after is a number of minutes, 0 for never. Received {given.break_after}")
    _check_screen()

    from prefrl.human_ui.desk import Desk
    from prefrl.human_ui.examples import read_examples
    from prefrl.human_ui.questions import Standing
    from prefrl.human_ui.session import Session
    from prefrl.human_ui.window import Window
    from prefrl.store import PreferenceStore

    environment = str(config.get("env_id", ""))
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        facts = store.facts()
        examples = read_examples(store)
    instruction = find_instruction(given.instruction, facts, config)
    desk = Desk(
        lambda: PreferenceStore(where, patience_seconds=2.0, create=False),
        name,
        run=run,
        environment=environment,
        repeat_share=given.repeat_share,
        folder=Path(given.run) if Path(given.run).is_dir() else None,
    )
    session = Session(
        Standing(run=run, environment=environment), instruction, must_see=given.must_see,
        break_after=60 * given.break_after, examples=examples,
    )  # fmt: skip
    session.high_contrast = given.high_contrast
    title = " - ".join(part for part in ("prefrl", environment, run, name) if part)
    window = Window(session, desk, title, size)
    try:
        desk.start()
        window.run()
    finally:
        lost = desk.close()
    if lost:
        raise UserError(f"{lost} answers could not be recorded: {session.problem or 'the record did not respond'}")
    print(f"{len(session.given)} answers given as {name!r}; all are in the record.")  # noqa: T201
    return 0


def find_record(run: str, *, trust: bool = False) -> tuple[Path | str, str, dict[str, Any]]:
    """Return where the record is, what to call the run, and its settings; `trust` is that of `prefrl.trust`."""
    if trust:
        trust_data()
    if "://" in run:
        return run, urlsplit(run).path.rpartition("/")[2], {}  # without what may be a password
    path = Path(run)
    if path.is_file():
        return path, path.stem, {}
    config_path = path / "config.json"
    if not config_path.is_file():
        raise UserError(f"There is no run in {path}: it has no config.json. Give the folder of a run of prefrl train.")
    config = read_json(config_path)
    settings = config.get("settings") if isinstance(config, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("record") or "", str):
        raise UserError(f"{config_path} is damaged: it holds no settings of a run. Restore it from a copy.")
    check_trust(path, config, trust=trust)
    where: Path | str = settings.get("record") or path / "record.sqlite"
    if isinstance(where, Path) and not where.is_file():
        if config.get("baseline"):
            raise UserError(
                f"The run in {path} was trained on the environment's own reward alone: nobody was asked, so it has no "
                f"record. Put questions about what it does into one with: prefrl ask {path} --of {path}"
            )
        raise UserError(
            f"The run in {path} has no record yet. Its first queries come when the training has begun: "
            f"prefrl resume {path}"
        )
    return where, path.resolve().name, settings


def find_instruction(option: str | None, facts: dict[str, Any], config: dict[str, Any]) -> str:
    """Return what to look for: by the option, or what the run told, which read its file where it was started."""
    return text_or_file(option or "") or facts.get("instruction") or text_or_file(config.get("instruction") or "")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UserError(f"--size is given as WIDTHxHEIGHT, e.g. 1280x800. Received {text!r}") from None
    if width < 640 or height < 480:
        raise UserError(f"The window must be at least 640x480. Received {text!r}")
    return width, height


def login_name() -> str:
    """Return the name that somebody is logged in by."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "person"


def _check_screen() -> None:
    if not has_screen():
        raise UserError(
            "There is no screen here to show clips on (neither DISPLAY nor WAYLAND_DISPLAY is set). Run this where "
            "there is one, e.g. on your own machine with the run's folder, or through ssh -X."
        )


def has_screen() -> bool:
    """Tell whether a window can be expected to open here."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
