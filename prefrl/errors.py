"""Errors that are the user's to mend, and the guard for optional packages."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

USER_ERROR, INTERRUPTED = 2, 130
"""Exit statuses of the command line."""
LONGEST_MESSAGE = 4_000
"""Characters of a message that are shown."""


ANYTHING = (Exception, SystemExit)
"""What code of others may raise: its sys.exit is an error of its own, and not the end of this program."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what was expected, what came and how to mend it.

    The command line prints the message alone and exits with a non-zero status.
    """


class MissingExtraError(UserError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class BrokenExtraError(UserError, ImportError):
    """An optional package is installed and cannot be imported, as where it needs another version of a third."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: dotted name of the module, e.g. `"stable_baselines3"`.
        extra: the extra of this package that installs it, e.g. `"train"`.

    Raises:
        MissingExtraError: the module is not installed.
        BrokenExtraError: it is, and cannot be imported.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == package:
            raise MissingExtraError(
                f"This needs the package {package!r}, which is not installed. "
                f'Install it with: pip install "prefrl[{extra}]"'
            ) from None
        raise BrokenExtraError(
            f"This needs the package {package!r}, which is installed but cannot be imported: "
            f"{first_line(error).rstrip('.')}. Install versions that go together, e.g. the newest: "
            f'pip install --upgrade --upgrade-strategy eager "prefrl[{extra}]"'
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or what kind of error it is where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def near_names(name: str, known: Iterable[str], how_many: int = 3) -> str:
    """Return `" Did you mean 'a' or 'b'?"` for names close to `name`, or an empty string."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower[candidate.lower()] = candidate  # the last wins: newest version of an environment
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=how_many, cutoff=0.6)
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(by_lower[c]) for c in close) + "?"


def refuse_unused(options: Mapping[str, object], whom: str) -> None:
    """Refuse options that would do nothing.

    Args:
        options: by name; those that were given are true.
        whom: what they are for.

    Raises:
        UserError: one was given.
    """
    if given := [name for name, value in options.items() if value]:
        raise UserError(f"{', '.join(given)} would do nothing here: it is for {whom}. Leave it out.")


def tell(message: object) -> None:
    """Print a message for the user on the standard error; where that is closed, on the standard output.

    What data say in it can do nothing to a terminal, nor fill it: characters that are not printed are shown by their
    numbers, and what is longer than `LONGEST_MESSAGE` is cut.
    """
    text = str(message)
    cut = f"{text[:LONGEST_MESSAGE]} ..." if len(text) > LONGEST_MESSAGE else text
    streams = [stream for stream in (sys.stderr, sys.stdout) if not getattr(stream, "closed", False)]
    if streams:
        print(printable(cut), file=streams[0])


def shown_once(show: Callable[[str], object]) -> Callable[..., None]:
    """Return a `warnings.showwarning` that shows the package's own warnings, each once, and none of other packages.

    Python alone would show them again wherever a package in between has caught warnings.

    Args:
        show: is given the line.
    """
    shown: set[str] = set()

    def show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        line = f"prefrl: {message}"
        if category is UserWarning and f"{os.sep}prefrl{os.sep}" in filename and line not in shown:
            shown.add(line)
            show(line)

    return show_warning


def printable(text: str) -> str:
    """Return a text of data as a terminal may be given it: what it would obey is shown as the number of a character."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
