"""How a run is judged that people or a function taught: by the answers, not by the environment's reward."""

from __future__ import annotations

from rich.console import Console

from prefrl.control.folder import ControlFolder
from prefrl.control.settings import RunSettings
from prefrl.quality import duels
from prefrl.shares import Share
from prefrl.studies.tables import told_agreement


def against_of(settings: RunSettings) -> str:
    """Return what a report card holds the learned reward against, in words."""
    if settings.reward_function is not None:
        return "the reward function"
    return "the environment's own reward" if settings.asks_people or settings.panel else "the true reward"


def print_own_measure(folder: ControlFolder, agreement: Share | None, console: Console) -> None:
    """Print how a run does by the answers, where its teacher's measure is not the environment's reward."""
    if not folder.settings.by_own_measure or folder.config["baseline"]:
        return
    console.print(f"The learned reward agrees with {told_agreement(agreement)}.")
    with folder.open_record() as store:
        judged = duels(store)
        asked = store.num_judging()
    if judged is not None:
        console.print(f"Before training against after: the trained agent was preferred in {judged}.")
    elif asked:
        console.print(f"{asked} duels of before training against after wait to be judged: prefrl label {folder.path}")
