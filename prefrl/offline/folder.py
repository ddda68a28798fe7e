"""The folder of an offline run: that of a control run, with what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from prefrl.control.offline_start import OfflineStart
from prefrl.control.settings import RunSettings
from prefrl.offline.data import NO_ENVIRONMENT
from prefrl.offline.settings import CONTROLS, OfflineRunSettings


class OfflineFolder(OfflineStart):
    """Paths of an offline run, its configuration and its metrics."""

    SETTINGS: ClassVar[type[RunSettings]] = OfflineRunSettings

    @property
    def settings(self) -> OfflineRunSettings:
        """The settings of the run.

        Raises:
            UserError: what the configuration holds are none.
        """
        return self.read_settings(OfflineRunSettings, self._as_meant())

    @property
    def has_environment(self) -> bool:
        """Whether there is an environment in which a return can be measured."""
        return self.settings.env_id != NO_ENVIRONMENT

    @property
    def learns_reward(self) -> bool:
        """Whether a learned reward is there when the run is over."""
        return self.settings.learns_reward

    @property
    def controls(self) -> dict[str, OfflineFolder]:
        """The controls beside this run, by name."""
        paths = {name: self.control_path(name) for name in CONTROLS}
        return {
            name: OfflineFolder.open(path).take_part_in(self)
            for name, path in paths.items()
            if (path / "config.json").is_file()
        }

    def control_path(self, name: str) -> Path:
        """Return where a control lies, or would lie."""
        return self.path / "controls" / name
