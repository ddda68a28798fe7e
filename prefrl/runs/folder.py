"""What the folders of runs of every kind share: the configuration, the metrics, the figures at the end."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import uuid
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from prefrl.errors import UserError, first_line
from prefrl.files import read_json, write_json
from prefrl.runs.codec import from_json
from prefrl.runs.metrics import finite, read_rows
from prefrl.trust import check_trust, remember

_Settings = TypeVar("_Settings")
PACKAGES = (
    "prefrl",
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "mujoco",
    "ale-py",
    "transformers",
    "tokenizers",
)
RESUME = "prefrl resume"
"""What goes on with a run of any kind."""
_KINDS = {int: "a whole number", str: "a text", dict: "an object", bool: "true or false"}


class RunFolder:
    """Paths and files of one run; each kind of run has a subclass with what is its own.

    Args:
        path: the folder. `create` makes a new one, `open` takes one that is there.
    """

    FORMAT: ClassVar[str]
    FORMAT_VERSION: ClassVar[int] = 1
    COMMAND: ClassVar[str]
    """What makes such folders."""
    COUNTER: ClassVar[str]
    """The figure of a row of metrics that counts how far the run has come."""
    FIELDS: ClassVar[dict[str, type]]
    """What the configuration of this kind of run holds beside that of all kinds."""
    ROWS: ClassVar[tuple[str, ...]] = ("metrics.jsonl",)
    """Files of rows of figures that are as they will stay once the run is over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.metrics_path = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.summary_path = path / "summary.json"
        self.digests_path = path / "digests.json"
        self.accept_lost = False
        """The user goes on without what was lost since the last checkpoint, knowingly."""
        self.accept_changed = False
        """And with settings that were changed since then."""
        self.whole = path
        """What is resumed: the folder of the run that this one is a part of."""

    def take_part_in(self, whole: RunFolder) -> Self:
        """Be a part of another run, which is resumed with it, and of which the user accepted what they did."""
        self.whole, self.accept_lost, self.accept_changed = whole.path, whole.accept_lost, whole.accept_changed
        return self

    @classmethod
    def _create(cls, path: Path, **described: Any) -> Self:
        """Make the folder and write its configuration.

        Raises:
            UserError: there is something already, or it cannot be written.
        """
        folder = cls(path)
        if folder.config_path.is_file():
            raise UserError(
                f"There is a run in {path} already. Resume it with: {RESUME} {path} - or choose another --out."
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already and is not a run folder. Choose another --out.")
        config = {
            "format": cls.FORMAT,
            "version": cls.FORMAT_VERSION,
            "made_by": cls.COMMAND,
            "run_id": uuid.uuid4().hex,
            **described,
            "versions": installed_versions(),
        }
        remember(config)  # before it can be killed with a configuration that is not trusted
        write_json(folder.config_path, config, private=_holds_password(described))
        return folder

    @classmethod
    def open(cls, path: Path, *, trust: bool = False, reads_only: bool = False) -> Self:
        """Open the folder of a run.

        Args:
            path: the folder.
            trust: use from now on what its settings name, code among it, though somebody else made it.
            reads_only: nothing that its settings name will be used.

        Raises:
            UserError: there is no run of this kind, its configuration cannot be read, or it is somebody else's and
                names code, files or addresses (`prefrl.trust`).
        """
        folder = cls(path)
        if not folder.config_path.is_file():
            raise UserError(
                f"There is no run in {path}: it has no config.json. Give the folder of a run made by {cls.COMMAND}."
            )
        config = folder.config
        if config.get("format") != cls.FORMAT:
            maker = str(config.get("made_by", config.get("format", "another program")))[:60]
            if maker == cls.COMMAND:
                raise UserError(f"{folder.config_path} is damaged: its format is not {cls.FORMAT}. Restore it.")
            raise UserError(
                f"{folder.config_path} was not written by {cls.COMMAND}, but by {maker}. Give the folder of a run made "
                f"by {cls.COMMAND}."
            )
        kinds = {"version": int, "run_id": str, "settings": dict} | cls.FIELDS
        for name, kind in kinds.items():
            if type(config.get(name)) is not kind:
                raise UserError(
                    f"{folder.config_path} is damaged: its {name} should be {_KINDS[kind]}. "
                    f"Received {str(config.get(name))[:60]!r}. Restore it from a copy."
                )
        if config["version"] > cls.FORMAT_VERSION:
            raise UserError(f"{path} was written by a newer prefrl (format {config['version']}). Upgrade prefrl.")
        if not reads_only:
            check_trust(path, config, trust=trust)
        return folder

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was written."""
        return read_config(self.config_path)

    def read_settings(self, kind: type[_Settings], values: dict[str, Any] | None = None) -> _Settings:
        """Return the settings of the run.

        Args:
            kind: of settings.
            values: in place of those in the configuration.

        Raises:
            UserError: what the configuration holds are none of that kind.
        """
        try:
            return from_json(kind, self.config["settings"] if values is None else values)
        except (UserError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(
                f"The settings in {self.config_path} cannot be read: {first_line(error).rstrip('.')}. If nobody meant "
                "to change them, restore the file from a copy."
            ) from error

    def settings_as_json(self) -> Any:
        """Return the settings of the run as JSON values: as they are written, or as this version would write them."""
        return self.config.get("settings")

    @property
    def run_id(self) -> str:
        """The name that checkpoints and records know the run by."""
        return str(self.config["run_id"])

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self._summary())

    def refuse_if_finished(self) -> None:
        """Refuse to go on with a run that is over.

        Raises:
            UserError: it is.
        """
        if self.finished:
            raise UserError(f"The run in {self.path} is finished; look at it with: prefrl evaluate {self.path}")
        if self.summary_path.exists() or self.summary_path.name in self._digests():
            what = "holds no figures" if self.summary_path.exists() else "is missing, and the run had come to its end"
            warnings.warn(f"{self.summary_path} {what}: that end is made again.", stacklevel=2)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the figures at the end, and before that digests by which a later change of figures shows."""
        summary = json.loads(json.dumps(finite(summary)))
        digests = {name: _digest(self.path / name) for name in self.ROWS if (self.path / name).is_file()}
        write_json(self.digests_path, {**digests, self.summary_path.name: _digest_of(summary)})
        write_json(self.summary_path, summary)

    def read_summary(self) -> dict[str, Any]:
        """Return the figures at the end.

        Raises:
            UserError: the run is not finished, or they are not those that it wrote.
        """
        if not self.finished:
            raise UserError(f"The run in {self.path} is not finished. Resume it with: {RESUME} {self.path}")
        summary = self._summary()
        if self._digests().get(self.summary_path.name) not in (None, _digest_of(summary)):
            raise UserError(f"The figures in {self.summary_path} are not those that the run wrote. Restore the file.")
        return summary

    def tell_changed_rows(self, path: Path) -> None:
        """Warn where a file of rows of a finished run is not what the run left."""
        known = self._digests().get(path.name) if self.finished else None
        if known is not None and (not path.is_file() or _digest(path) != known):
            warnings.warn(
                f"{path} was changed since the run ended: curves and figures are of what it holds now.", stacklevel=3
            )

    def _digests(self) -> dict[str, Any]:
        """Return the digests of figures; none where an earlier version made the run."""
        found = read_json(self.digests_path) if self.digests_path.exists() else {}
        if not isinstance(found, dict):
            raise UserError(f"{self.digests_path} is damaged: it should hold digests by name. Restore it from a copy.")
        return found

    def _summary(self) -> dict[str, Any]:
        """Return the figures at the end; nothing where there are none, or the file is empty or damaged."""
        try:
            summary = read_json(self.summary_path)
        except UserError:
            return {}
        return summary if isinstance(summary, dict) else {}

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics; a last line that a kill cut short is left out.

        Of a finished run it is said where they do not reach its end.
        """
        self.tell_changed_rows(self.metrics_path)
        rows = read_rows(self.metrics_path, self.COUNTER)
        end, last = self._summary().get("steps"), rows[-1].get(self.COUNTER) if rows else 0
        if end is not None and end != last:
            warnings.warn(
                f"{self.metrics_path} ends at {last}, and the run ended at {end}: what is missing is missing from "
                "curves and figures too.",
                stacklevel=2,
            )
        return rows


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _holds_password(value: Any) -> bool:
    """Tell whether settings hold the address of a database with a password in it."""
    return re.search(r"://[^/@\s]*:[^/@\s]+@|://[^\s]*[?&]\w*pass\w*=", json.dumps(value)) is not None


def read_config(path: Path) -> dict[str, Any]:
    """Return what `config.json` of a run says.

    Raises:
        UserError: it cannot be read.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} is not the configuration of a run.")
    return config


def record_place(place: str) -> Path | str:
    """Return where the record lies that is named by a run folder, a file (also as `sqlite:FILE`) or a URL.

    Raises:
        UserError: a folder that holds no run, or somebody else's whose record lies on a server (`prefrl.trust`).
    """
    if "://" in place:
        return place
    path = Path(place.removeprefix("sqlite:"))
    if not path.is_dir():
        return path
    if not (path / "config.json").is_file():
        raise UserError(f"There is no run in {path}: it has no config.json. Give a run, the file of a record or a URL.")
    config = read_config(path / "config.json")
    settings = config.get("settings")
    where = settings.get("record") if isinstance(settings, dict) else None
    if where is None:
        return path / "record.sqlite"
    if not isinstance(where, str):
        raise UserError(f"{path / 'config.json'} is damaged: its record should be a text. Restore it from a copy.")
    check_trust(path, config, trust=False)
    return where


def is_record(data: str) -> bool:
    """Tell whether data names a record of answers: a database file, or the address of one."""
    return data.endswith((".sqlite", ".db")) or data.startswith(("sqlite:", "postgresql"))


def format_of(path: Path) -> str | None:
    """Return the format of the run in a folder, None where there is no run.

    Raises:
        UserError: its configuration cannot be read.
    """
    config_path = path / "config.json"
    found = read_config(config_path).get("format") if config_path.is_file() else None
    return found if isinstance(found, str) else None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to a run."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
