"""How likely the learned reward finds each answer of a run: a process for those who show answers without torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.studies.run_quality import expectations, reward_of, write_expected


def main() -> None:
    """Compute it, and keep it in the run's folder: the argument. Nothing is told: whoever asked goes on without."""
    if sys.platform != "win32":
        os.nice(5)
    try:
        folder = ControlFolder.open(Path(sys.argv[1]))
        with folder.open_record() as store:
            standing = store.answers(standing=True)
            newest = max((row for row, _ in standing), default=0)
            reward, _ = reward_of(folder)
            found = [] if reward is None else expectations(store, reward, folder.settings.fit.error_rate, standing)
        write_expected(folder, [one for _, one in found], newest)
    except UserError:
        sys.exit(1)
