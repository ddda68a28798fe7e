"""What can be swept: runs of control, offline ones, jobs of text and of images; each begun, gone on with and judged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from prefrl.control import run as control_runs
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import ABOUT_ANSWERS, TrainSettings
from prefrl.errors import ANYTHING, UserError, first_line, near_names, require
from prefrl.offline import run as offline_runs
from prefrl.offline.demonstrations import demonstrate
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.settings import OfflineSettings
from prefrl.runs import RunFolder, tracking
from prefrl.runs.codec import from_json, to_json
from prefrl.studies.report import report_run
from prefrl.sweeps.naming import default_values, get, option_paths, put

_OF_BOTH = ("demonstrations", "demonstration_pairs", "clone_demonstrations", "from_offline")
"""Settings about answers that may bring a policy to begin with, the baseline too."""


class Kind(Protocol):
    """A kind of run of which many can be made."""

    name: str
    """Of the command, without `prefrl`."""
    settings: type[Any]
    folder: type[RunFolder]
    options: Mapping[str, Any]
    """What a run can be told beside its settings, with what it is told else."""
    aliases: Mapping[str, str]
    measures: tuple[str, ...]
    """Figures at the end that say how good it is, the first that there is counting."""
    task: str
    """The setting that says what is to be learned; runs of different ones have figures on different scales."""

    def check(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings as the folder of their run will hold them.

        Raises:
            UserError: a run with them would be refused.
        """

    def begin(self, values: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> None:
        """Make a run from its beginning to its end."""

    def go_on(self, path: Path) -> None:
        """Go on with a run to its end."""

    def judge(self, path: Path) -> None:
        """Do what comes after a run: its report, and the rest for its trackers."""


class ControlKind:
    """`prefrl train`."""

    name = "train"
    settings: type[Any] = TrainSettings
    folder: type[RunFolder] = ControlFolder
    options: Mapping[str, Any] = {"baseline": False, "baseline_only": False, "track": (), "project": tracking.PROJECT}
    aliases: Mapping[str, str] = {"hyper": "hyperparameters", "env": "env_options"}
    measures: tuple[str, ...] = ("true_return_mean",)
    task = "env_id"

    def check(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Resolve the settings; see `Kind`."""
        settings: TrainSettings = from_json(TrainSettings, dict(values))
        if settings.asks_people:
            raise UserError("A sweep asks no people. Leave --annotator out.")
        if settings.record is not None:
            raise UserError("The runs of a sweep have a record each, in their folders. Leave --record out.")
        if options["baseline_only"]:
            if options["baseline"]:
                raise UserError("Runs on the true reward alone need no baseline beside them. Leave one of them out.")
            settings.refuse_answers()
        resolved: dict[str, Any] = to_json(control_runs.settle(settings))
        return resolved

    def baseline_settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the settings of a run that its baseline depends on."""
        return {name: value for name, value in values.items() if name not in ABOUT_ANSWERS or name in _OF_BOTH}

    def begin(self, values: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> None:
        """Train; see `Kind`."""
        if options["baseline_only"]:
            control_runs.train_baseline(
                from_json(TrainSettings, dict(values)), path, quiet=True, trackers=options["track"],
                project=options["project"],
            )  # fmt: skip
            return
        control_runs.train(
            from_json(TrainSettings, dict(values)), path, quiet=True, baseline=options["baseline"],
            trackers=options["track"], project=options["project"], demonstrate=demonstrate,
        )  # fmt: skip

    def go_on(self, path: Path) -> None:
        """Train on; see `Kind`."""
        control_runs.resume(path, quiet=True, demonstrate=demonstrate)

    def judge(self, path: Path) -> None:
        """Write the report of the reward; see `Kind`."""
        folder = ControlFolder.open(path)
        if folder.learns_reward:
            _report(folder)
        tracking.finish(folder)


class OfflineKind:
    """`prefrl offline`."""

    name = "offline"
    settings: type[Any] = OfflineSettings
    folder: type[RunFolder] = OfflineFolder
    options: Mapping[str, Any] = {"controls": (), "track": (), "project": tracking.PROJECT}
    aliases: Mapping[str, str] = {}
    measures: tuple[str, ...] = ("true_return_mean", "held_out_accuracy")
    task = "dataset"

    def check(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings, without the data; see `Kind`."""
        settings: OfflineSettings = from_json(OfflineSettings, dict(values))
        if settings.annotator != "teacher":
            raise UserError("A sweep asks no people. Leave --annotator out.")
        return {}

    def begin(self, values: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> None:
        """Learn; see `Kind`."""
        offline_runs.offline(
            from_json(OfflineSettings, dict(values)), path, quiet=True, controls=options["controls"],
            trackers=options["track"], project=options["project"],
        )  # fmt: skip

    def go_on(self, path: Path) -> None:
        """Learn on; see `Kind`."""
        offline_runs.resume(path, quiet=True)

    def judge(self, path: Path) -> None:
        """Write the report of the reward; see `Kind`."""
        folder = OfflineFolder.open(path)
        if folder.settings.learns_reward:
            _report(folder)
        tracking.finish(folder)


class TextKind:
    """`prefrl text VERB`."""

    options: Mapping[str, Any] = {"track": ()}
    aliases: Mapping[str, str] = {}
    measures: tuple[str, ...] = ("gold", "accuracy", "held_out_accuracy")
    task = "data"
    GIVEN_ELSEWHERE: ClassVar[tuple[tuple[str, ...], ...]] = (("training", "sampling", "max_tokens"),)
    """Settings that others fill in as settings are made."""

    def __init__(self, verb: str) -> None:
        require("transformers", "text")
        from prefrl.text.jobs.folder import TextFolder
        from prefrl.text.jobs.jobs import JOBS

        self.name, self.settings = f"text {verb}", _of_verb(JOBS, "text", verb)
        self.folder: type[RunFolder] = TextFolder

    def check(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings, without the data; see `Kind`."""
        job = from_json(self.settings, dict(values))
        method = default_values(self.settings).get("training", {}).get("method")
        if method is not None and job.training.method != method:
            raise UserError(f"The verb says the method: prefrl {self.name} trains by {method}.")
        resolved: dict[str, Any] = to_json(job)
        return resolved

    def as_given(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return settings without what was filled in from others of them, which may be varied."""
        defaults, paths = default_values(self.settings), option_paths(self.settings).values()
        for path in self.GIVEN_ELSEWHERE:
            if path in paths:
                values = put(values, path, get(defaults, path))
        return values

    def begin(self, values: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> None:
        """Train; see `Kind`."""
        from prefrl.text.jobs import commands, jobs

        commands.quieten_libraries()
        jobs.start(from_json(self.settings, dict(values)), path, trackers=options["track"], quiet=True)

    def go_on(self, path: Path) -> None:
        """Train on; see `Kind`."""
        from prefrl.text.jobs import commands, jobs

        commands.quieten_libraries()
        jobs.resume(path, quiet=True)

    def judge(self, path: Path) -> None:
        """Send the rest to trackers; see `Kind`."""
        tracking.finish(self.folder.open(path))


class ImageKind:
    """`prefrl image VERB`."""

    options: Mapping[str, Any] = {}
    aliases: Mapping[str, str] = {}
    measures: tuple[str, ...] = ("gold", "accuracy", "loss")
    task = "world"

    def __init__(self, verb: str) -> None:
        require("diffusers", "image")
        from prefrl.image.folder import ImageFolder
        from prefrl.image.jobs import JOBS

        self.name, self.settings = f"image {verb}", _of_verb(JOBS, "image", verb)
        self.folder: type[RunFolder] = ImageFolder

    def check(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings, without the data; see `Kind`."""
        from prefrl.image.jobs import with_places

        resolved: dict[str, Any] = to_json(with_places(from_json(self.settings, dict(values))))
        return resolved

    def begin(self, values: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> None:
        """Train; see `Kind`."""
        from prefrl.image import jobs

        jobs.start(from_json(self.settings, dict(values)), path, quiet=True)

    def go_on(self, path: Path) -> None:
        """Train on; see `Kind`."""
        from prefrl.image import jobs

        jobs.resume(path, quiet=True)

    def judge(self, path: Path) -> None:
        """Nothing comes after it; see `Kind`."""


def kind_named(name: str) -> Kind:
    """Return the kind of run that a command makes: `train`, `offline`, `text VERB` or `image VERB`.

    Raises:
        UserError: nothing of that name can be swept.
    """
    if name == "train":
        return ControlKind()
    if name == "offline":
        return OfflineKind()
    family, _, verb = name.partition(" ")
    if verb and family == "text":
        return TextKind(verb)
    if verb and family == "image":
        return ImageKind(verb)
    raise UserError(
        f"What can be swept is train, offline, text VERB or image VERB, e.g. prefrl sweep train ENV. Received {name!r}"
    )


def _of_verb(jobs: Mapping[str, type[Any]], family: str, verb: str) -> type[Any]:
    """Return the kind of job of a verb.

    Raises:
        UserError: there is none.
    """
    if verb not in jobs:
        raise UserError(
            f"There is no prefrl {family} {verb} to sweep; choose one of {', '.join(jobs)}.{near_names(verb, jobs)}"
        )
    return jobs[verb]


def _report(folder: ControlFolder) -> None:
    """Judge a learned reward; a failure leaves what was learned."""
    try:
        report_run(folder)
    except UserError as error:
        warnings.warn(f"No report: {error}", stacklevel=2)
    except ANYTHING as error:  # of an environment, in whatever way it fails
        warnings.warn(f"No report: {type(error).__name__}: {first_line(error)}", stacklevel=2)
