"""What code of others changes for the whole program and must not keep: where words and files go, what warns."""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from prefrl.errors import UserError

_TOLD: tuple[tuple[ModuleType, str], ...] = ((sys, "stdout"), (sys, "stderr"), (builtins, "print"))
_SILENT: tuple[tuple[ModuleType, str], ...] = ((warnings, "warn"), (warnings, "showwarning"))


@contextlib.contextmanager
def own_program() -> Iterator[None]:
    """Put back what code of others changes within it: the working directory, and what `put_back` says."""
    with own_folder():
        before = program_state()
        try:
            yield
        finally:
            put_back(before)


@contextlib.contextmanager
def own_folder() -> Iterator[None]:
    """Come back to the working directory after code of others that may leave it, as to find its files.

    A run, its record and what the user named lie where they were named from.
    """
    try:
        here = os.getcwd()
    except OSError:  # it is gone
        yield
        return
    try:
        yield
    finally:
        if os.getcwd() != here:
            os.chdir(here)


def program_state() -> tuple[Any, ...]:
    """Return what `put_back` puts back; the two take two or three microseconds, so that every step is looked after."""
    return (
        sys.stdout,
        sys.stderr,
        builtins.print,
        warnings.warn,
        warnings.showwarning,
        sys.getrecursionlimit(),
        warnings.filters[:],
        list(sys.path or ()),  # None where somebody's code says so
        np.geterr(),
        getattr(sys.stdout, "closed", False),
        getattr(sys.stderr, "closed", False),
    )


def put_back(before: tuple[Any, ...]) -> None:
    """Put back where words go and how deep calls may be nested, and say so; and which warnings are shown.

    Filters of warnings, which many set when they are imported, would hide what a run has to say, or end it; so would
    errors in place of NumPy's warnings, since numbers too small to be told from 0 are no fault here. A limit of calls
    that was raised stays, and so does what was added to where modules are looked for.

    Args:
        before: what `program_state` gave before code of others ran.

    Raises:
        UserError: it has closed the standard output or the standard error.
    """
    if program_state() == before:
        return
    *held, limit, filters, places, numpy_errors, out_closed, err_closed = before
    did = [
        f"put another {name} in place ({module.__name__}.{name})"
        for (module, name), value in zip(_TOLD, held, strict=False)
        if getattr(module, name) is not value
    ]
    if sys.getrecursionlimit() < limit:
        sys.setrecursionlimit(limit)
        did.append("let calls be nested less deeply (sys.setrecursionlimit)")
    found = list(sys.path or ())
    if not set(places) <= set(found):
        sys.path = [*(place for place in found if place not in places), *places]
        did.append("removed places where modules are looked for (sys.path)")
    now: dict[str, Any] = dict(np.geterr())
    strict = [name for name, was in numpy_errors.items() if now[name] == "raise" != was]
    if strict:
        np.seterr(**{name: numpy_errors[name] for name in strict})
        did.append(f"made NumPy's warnings of {', '.join(strict)} errors (numpy.seterr)")
    for (module, name), value in zip((*_TOLD, *_SILENT), held, strict=True):
        setattr(module, name, value)
    warnings.filters[:] = filters  # type: ignore[index]  # a list, which is changed in its place
    for one in did:
        warnings.warn(
            f"The environment, or what it imports, {one} for the whole program. That was undone: let it do so only "
            "where it computes, as with contextlib.redirect_stdout.",
            stacklevel=1,  # a place in this package, whose warnings are shown
        )
    for name, was_closed in (("stdout", out_closed), ("stderr", err_closed)):
        if getattr(getattr(sys, name), "closed", False) and not was_closed:
            raise UserError(
                f"The environment, or what it imports, closed sys.{name}, in which a run says what came of it. Let it "
                "open a file of its own and close that."
            )
