"""Verbs of the window and the page, which read their own options: here they have their place in the list."""

from __future__ import annotations

import tyro

from prefrl.human_ui.assigning import main as assign_command
from prefrl.human_ui.command import main as viewer_command
from prefrl.human_ui.page import command as page_command
from prefrl.human_ui.page.gallery_command import main as gallery_command
from prefrl.human_ui.show import main as show_command
from prefrl.verbs.common import RunPath


def label(run: RunPath) -> None:
    """Compare clips in a window, while a run trains or after; more with: prefrl label --help.

    Args:
        run: folder of the run.
    """
    viewer_command([str(run)])


def serve(run: RunPath) -> None:
    """Let people compare clips in any browser, while a run trains or after; more with: prefrl serve --help.

    Args:
        run: folder of the run.
    """
    page_command.serve([str(run)])


def gallery(run: RunPath) -> None:
    """Look at all answers of a run with their clips, and give some again; more with: prefrl gallery --help.

    Args:
        run: folder of the run.
    """
    gallery_command([str(run)])


def invite(run: RunPath, *, name: str) -> None:
    """Make a link by which somebody may answer in the browser; more with: prefrl invite --help.

    Args:
        run: folder of the run.
        name: of the person.
    """
    page_command.invite([str(run), "--name", name])


def assign(run: RunPath, *, to: str) -> None:
    """Reserve open questions for one person; more with: prefrl assign --help.

    Args:
        run: folder of the run.
        to: who is to answer them.
    """
    assign_command([str(run), "--to", to])


def forget(run: RunPath, *, annotator: str) -> None:
    """Remove everything that a person said from a run.

    Args:
        run: folder of the run.
        annotator: who withdraws.
    """
    page_command.forget([str(run), "--annotator", annotator])


def pin(run: RunPath, query: tyro.conf.Positional[str], item: tyro.conf.Positional[int], *, good: bool) -> None:
    """Pin something that a question shows as a good or bad example; more with: prefrl pin --help.

    Args:
        run: folder of the run.
        query: name of the question.
        item: number of what it shows, from 1.
        good: it is one of what is wanted.
    """
    page_command.pin([str(run), query, str(item), "--good" if good else "--bad"])


def show(run: RunPath, query: tyro.conf.Positional[str]) -> None:
    """Show one question with its answers, and write its clips; more with: prefrl show --help.

    Args:
        run: folder of the run.
        query: its name, or the beginning of it.
    """
    show_command([str(run), query])
