"""Reinforcement learning from preferences: teach an agent by saying which of two clips is better.

Start at `prefrl.wrappers` (a learned reward in your own Gymnasium project), `prefrl.control` (train an agent from
comparisons) or the command `prefrl`.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("prefrl")
except PackageNotFoundError:  # an uninstalled checkout
    __version__ = "0+unknown"


def show(run: Any, **options: Any) -> Any:
    """Show a run's questions in a cell of a notebook; the options are those of `prefrl.human_ui.page.notebook.show`."""
    from prefrl.human_ui.page.notebook import show as show_page

    return show_page(run, **options)
