"""The `prefrl` command: one verb per job."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from prefrl.errors import INTERRUPTED, USER_ERROR, UserError, first_line, require, shown_once, tell

require("tyro", "train")
require("rich", "train")
import tyro  # noqa: E402

from prefrl.control.rendering import choose_gl_backend  # noqa: E402
from prefrl.cpus import refuse_several_processes  # noqa: E402
from prefrl.hub.client import with_hub_runs  # noqa: E402
from prefrl.runs.folder import RESUME  # noqa: E402
from prefrl.runs.guard import Interrupted  # noqa: E402
from prefrl.verbs import comparing, demos, judging, people, records, sharing, training  # noqa: E402


def _image_help() -> None:
    """Text-to-image models: pretraining, reward models, DDPO, DPOK, Diffusion-DPO; see prefrl image --help."""
    _image(["--help"])


def _image(arguments: Sequence[str]) -> None:
    """Run `prefrl image`, whose modules are imported for it alone."""
    from prefrl.image.commands import main as image_main

    image_main(arguments)


def _demo_help() -> None:
    """Record demonstrations by hand, or a policy's, for prefrl train --demonstrations: prefrl demo record."""
    _demo(["record", "--help"])


def _demo(arguments: Sequence[str]) -> None:
    """Run `prefrl demo record`, the one thing that it does."""
    if arguments[:1] != ["record"]:
        given = " ".join(arguments[:1]) or "nothing"
        raise UserError(f"prefrl demo can record: prefrl demo record ENV --out DIR [--policy RUN]. Received {given}")
    tyro.cli(demos.record, prog="prefrl demo record", args=list(arguments[1:]))


def _text_help() -> None:
    """Language models: fine-tuning, reward models, PPO, DPO, IPO, KTO, the curve; see prefrl text --help."""
    _text(["--help"])


def _sweep_help() -> None:
    """Make many runs, with settings varied over several seeds, here or on a cluster of Ray; see prefrl sweep --help."""
    _sweep(["--help"])


def _sweep(arguments: Sequence[str]) -> None:
    """Run `prefrl sweep`, whose modules are imported for it alone."""
    from prefrl.sweeps.command import main as sweep_main

    sweep_main(arguments)


def _text(arguments: Sequence[str]) -> None:
    """Run `prefrl text`, whose modules are imported for it alone."""
    from prefrl.text.jobs.commands import main as text_main

    text_main(arguments)


VERBS: dict[str, Callable[..., None]] = {
    "train": training.train,
    "offline": training.offline,
    "demo": _demo_help,
    "resume": training.resume,
    "evaluate": judging.evaluate,
    "report": judging.report,
    "track": judging.track,
    "quality": judging.quality,
    "fit": judging.fit,
    "export": records.export,
    "import": records.import_,
    "video": judging.video,
    "push": sharing.push,
    "pull": sharing.pull,
    "label": people.label,
    "serve": people.serve,
    "gallery": people.gallery,
    "ask": records.ask,
    "judge": records.judge,
    "invite": people.invite,
    "assign": people.assign,
    "forget": people.forget,
    "pin": people.pin,
    "show": people.show,
    "envs": comparing.envs,
    "tournament": comparing.tournament,
    "study": comparing.study,
    "sweep": _sweep_help,
    "text": _text_help,
    "image": _image_help,
}
"""As `prefrl --help` lists them."""
app = tyro.extras.SubcommandApp()
for name, verb in VERBS.items():
    app.command(name=name)(verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = shown_once(tell)
    with contextlib.suppress(UserError):  # said again when a video is asked for
        choose_gl_backend()  # before MuJoCo is imported
    try:
        if arguments[:1] != ["text"]:
            refuse_several_processes(" ".join(["prefrl", *arguments[:1]]))
        if arguments[:1] not in (["push"], ["pull"]) and any("hub:" in word for word in arguments):
            arguments = with_hub_runs(arguments)
        if arguments[:1] == ["text"]:
            _text(arguments[1:])
        elif arguments[:1] == ["image"]:
            _image(arguments[1:])
        elif arguments[:1] == ["sweep"]:
            _sweep(arguments[1:])
        elif arguments[:1] == ["demo"] and arguments[1:] not in (["--help"], ["-h"]):
            _demo(arguments[1:])
        else:
            app.cli(prog="prefrl", description="Reinforcement learning from preferences.", args=arguments)
    except UserError as error:
        tell(f"prefrl: {error}")
        return USER_ERROR
    except Interrupted as stopped:
        tell(f"\nprefrl: {stopped}")
        return INTERRUPTED
    except KeyboardInterrupt:
        if arguments[:1] == ["sweep"]:  # which has said so
            return INTERRUPTED
        tell("\nprefrl: interrupted; what the last checkpoint holds is saved.")
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        tell(f"prefrl: There is too little memory: {first_line(error)}.")
        return USER_ERROR
    except OSError as error:
        tell(f"prefrl: {error}. What was saved before is untouched; resume with: {RESUME} RUN")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
