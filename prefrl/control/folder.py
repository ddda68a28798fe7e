"""The folder of a control run: where everything about it lies."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from prefrl.control.settings import RunSettings
from prefrl.errors import UserError, first_line
from prefrl.files import read_plain, write_atomically
from prefrl.rewards import RewardEnsemble
from prefrl.runs import RunFolder
from prefrl.runs.codec import to_json
from prefrl.runs.tensors import read_tensors
from prefrl.store import PreferenceStore


class ControlFolder(RunFolder):
    """Paths of a run, its configuration and its metrics.

    Args:
        path: the folder. Use `create` for a new run and `open` for one that is there.
    """

    FORMAT, COMMAND, COUNTER = "prefrl.run", "prefrl train", "num_env_steps"
    FORMAT_VERSION = 4
    FIELDS = {"baseline": bool}  # noqa: RUF012  (as the class has them)
    SETTINGS: ClassVar[type[RunSettings]] = RunSettings
    """What the settings of this kind of run are."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.record_path = path / "record.sqlite"
        self.policies = path / "policies"
        self.reward_path = path / "reward.safetensors"
        self.videos = path / "videos"

    @classmethod
    def create(cls, path: Path, settings: RunSettings, *, baseline: bool, beside: bool = False) -> Self:
        """Make the folder and write its configuration.

        Args:
            path: where; it must not exist, or be empty.
            settings: resolved settings.
            baseline: the run trains on the environment's own reward.
            beside: a baseline is to be made beside the run, in a folder within.

        Raises:
            UserError: there is something at `path` already, or it cannot be written.
        """
        return cls._create(path, baseline=baseline, with_baseline=beside, settings=to_json(settings))

    @classmethod
    def open(cls, path: Path, *, trust: bool = False, reads_only: bool = False) -> Self:
        """Open the folder of a run, and trust its baseline and controls as the run itself; see `RunFolder.open`."""
        for part in (path / "baseline", path / "demonstrations", *path.glob("controls/*")) if trust else ():
            if (part / "config.json").is_file():
                super().open(part, trust=True)
        return super().open(path, trust=trust, reads_only=reads_only)

    @property
    def settings(self) -> RunSettings:
        """The resolved settings of the run.

        Raises:
            UserError: what the configuration holds are none.
        """
        return self.read_settings(self.SETTINGS, self._as_meant())

    def _as_meant(self) -> Any:
        """Return the settings as they were written, what meant something else then as it is said now."""
        values, version = self.config.get("settings"), self.config["version"]
        if not isinstance(values, dict):
            return values
        agent, fit = values.get("agent"), values.get("fit")
        for name, since in (("sac", 2), ("td3", 3)):  # before there was stable-baselines3's alone
            if agent == name and version < since:
                values = {**values, "agent": f"sb3-{name}"}
        if isinstance(fit, dict) and version < 4:  # before folds were the default
            bootstrap = fit.get("bootstrap", True)
            held_out = None if bootstrap and not fit.get("held_out") else fit.get("held_out", 0.0)
            values = {**values, "fit": {**fit, "bootstrap": bootstrap, "held_out": held_out}}
        return values

    def settings_as_json(self) -> Any:
        """Return what this version would write: what is new since with its default, what has another name with that."""
        return to_json(self.settings)

    @property
    def record(self) -> Path | str:
        """Where the record of the run lies: a file in the folder, or the URL that the settings name."""
        return self.config["settings"].get("record") or self.record_path

    def open_record(self, *, begins: bool = False) -> PreferenceStore:
        """Open the record of the run.

        Args:
            begins: the training opens it, which makes it before it writes anything else, and never later.

        Raises:
            UserError: it is not there, or a database on a server holds the record of another run.
        """
        if self.config.get("baseline") and isinstance(self.record, Path) and not self.record.is_file():
            raise UserError(
                f"The run in {self.path} is trained on the environment's own reward alone: nobody is asked, so it has "
                "no record of answers."
            )
        may_be_new = begins and (self.accept_lost or not self.metrics_path.exists())
        store, run_id = PreferenceStore(self.record, create=may_be_new), self.run_id
        if isinstance(self.record, str):  # a file in the folder can only be its own
            owner = store.facts().get("run_id")
            if owner not in (None, run_id):
                store.close()
                raise UserError(
                    f"The database {store.name} holds the record of another run. Create one for "
                    "this run, or give it a schema of its own in this one: add ?schema=NAME to the address."
                )
            if owner is None:  # who may only read can look at it too
                store.set_facts({"run_id": run_id})
        return store

    @property
    def baseline(self) -> ControlFolder | None:
        """The run on the true reward beside this one, if there is one."""
        path = self.path / "baseline"
        return ControlFolder.open(path).take_part_in(self) if (path / "config.json").is_file() else None

    @property
    def learns_reward(self) -> bool:
        """Whether a learned reward is there when the run is over."""
        return not self.config["baseline"]

    def load_reward(self) -> RewardEnsemble | None:
        """Return the learned reward; None before it is saved, at the end, and of a run without one.

        A warning tells of one that should be there and is not.

        Raises:
            UserError: it is damaged.
        """
        if self.reward_path.is_file():
            return RewardEnsemble.load(self.reward_path)
        if self.finished and self.learns_reward:
            warnings.warn(f"{self.reward_path} is missing: what the learned reward says is left out.", stacklevel=2)
        return None

    def save_policy(self, name: str, state: dict[str, Any]) -> None:
        """Keep a policy under `policies/NAME.pt`."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.policies / f"{name}.pt", buffer.getvalue())

    def load_policy(self, name: str) -> dict[str, Any]:
        """Read a policy that `save_policy` kept.

        Raises:
            UserError: there is none of that name, or it cannot be read.
        """
        path = self.policies / f"{name}.pt"
        if not path.is_file():
            kept = ", ".join(sorted(p.stem for p in self.policies.glob("*.pt"))) or "none"
            raise UserError(f"The run in {self.path} has no policy {name!r}; it has: {kept}.")
        try:
            data = read_plain(path)
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                damaged = file.testzip()  # torch reads on where a checksum does not fit
            state: Any = {} if damaged else read_tensors(data)
        except Exception as error:  # of zipfile and torch: many kinds
            raise UserError(
                f"The policy {path} cannot be read: {first_line(error)}. Restore it from a copy."
            ) from error
        if damaged or not isinstance(state, dict):
            raise UserError(f"The policy {path} is damaged: a checksum does not fit. Restore it from a copy.")
        if not has_no_nan(state):
            raise UserError(f"The policy {path} holds weights that are not numbers (NaN), so it cannot be used.")
        return state


def has_no_nan(state: Any) -> bool:
    """Tell whether all floating-point tensors of a nested state are numbers."""
    if isinstance(state, torch.Tensor):
        return not state.is_floating_point() or not bool(state.isnan().any())
    if isinstance(state, dict):
        return all(has_no_nan(one) for one in state.values())
    return all(has_no_nan(one) for one in state) if isinstance(state, list | tuple) else True
