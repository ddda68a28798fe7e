"""`prefrl image`: one verb per job, from pretraining to the whole demo."""

from __future__ import annotations

import json as json_module
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from prefrl.errors import UserError, require
from prefrl.files import text_or_file
from prefrl.image import jobs
from prefrl.image.data import write_rankings
from prefrl.image.demo import Demo, DemoSettings, show_results
from prefrl.image.evaluation import draw, evaluate_model, grid
from prefrl.image.folder import ImageFolder
from prefrl.image.jobs import Place, save_picture, start
from prefrl.image.judge import CONSTITUTION, rank_pictures
from prefrl.image.model import is_there
from prefrl.image.people import INSTRUCTION, ask_people
from prefrl.image.reward_model import RewardModel, rank_by_scores
from prefrl.image.scoring import load_reward
from prefrl.runs.streams import stream_seed
from prefrl.tables import Table
from prefrl.vision import VisionJudge

Whole = tyro.conf.arg(name="")
Folder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
Placed = Annotated[Place, tyro.conf.arg(name="")]


def pretrain(job: Annotated[jobs.PretrainJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a small text-to-image model from nothing, on captioned pictures."""
    _tell(start(job, out, quiet=quiet), quiet)


def reward(job: Annotated[jobs.RewardJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Fit a reward model to comparisons and rankings of pictures."""
    _tell(start(job, out, quiet=quiet), quiet)


def ddpo(job: Annotated[jobs.DDPOJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a model on a reward by DDPO: clipped policy gradient on denoising, without KL unless --training.beta."""
    _tell(start(job, out, quiet=quiet), quiet)


def dpok(job: Annotated[jobs.DPOKJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a model on a reward by DPOK: policy gradient on denoising with a KL penalty and a learned value."""
    _tell(start(job, out, quiet=quiet), quiet)


def rwr(job: Annotated[jobs.RWRJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Fine-tune a model on its own pictures, weighted by their rewards."""
    _tell(start(job, out, quiet=quiet), quiet)


def refl(job: Annotated[jobs.ReFLJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a model by the gradient of a reward model through one late step."""
    _tell(start(job, out, quiet=quiet), quiet)


def dpo(job: Annotated[jobs.DPOJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a model from comparisons alone (Diffusion-DPO)."""
    _tell(start(job, out, quiet=quiet), quiet)


def resume(run: Folder, *, quiet: bool = False, trust: bool = False, accept_changed: bool = False) -> None:
    """Go on with a run that was stopped or killed.

    Args:
        run: its folder.
        quiet: no progress.
        trust: it was made by another user or on another machine: use what its config.json names.
        accept_changed: go on with settings that were changed since.
    """
    _tell(jobs.resume(run, quiet=quiet, trust=trust, accept_changed=accept_changed), quiet)


def compare(
    model: Model, *, out: Path, num: int = 500, images: int = 2, judge: str = "gold", temperature: float = 0.1,
    constitution: str = CONSTITUTION, place: Placed = Place(),  # noqa: B008  (frozen)
) -> None:  # fmt: skip
    """Draw pictures for prompts of the world, have a judge rank them, and write the rankings as a data set.

    Args:
        model: what draws.
        out: folder to write.
        num: prompts.
        images: drawn for each, 2 to 9.
        judge: gold, a reward model, FILE.py:FUNCTION of prompts and pictures, or a vision-language model as URL#MODEL.
        temperature: of a judge that scores: it draws rankings from Plackett-Luce of its scores over this; 0: the best
            is first.
        constitution: of a vision-language model: what it judges by, a text or a file that holds it.
        place: where it runs.
    """
    if not 2 <= images <= 9 or num < 1 or temperature < 0:
        raise UserError("--images must be from 2 to 9, --num at least 1 and --temperature at least 0.")
    if judge.startswith(("http://", "https://")):
        asker = VisionJudge(judge, text_or_file(constitution))
        asker.server.keep_answers(out.with_name(out.name + ".answers.jsonl"))
        rows, left_out = rank_pictures(asker, *_drawn(model, num, images, place))
        if not rows:
            raise UserError(f"The judge told no pictures apart: {_counted(left_out)}.")
        path = write_rankings(out, rows)
        print(f"Wrote {len(rows)} rankings of {images} pictures each to {path}")
        if left_out:
            print(f"Left out: {_counted(left_out)}.")
        return
    world = place.make_world()
    scores_of = load_reward(judge, world)
    prompts, pictures = _drawn(model, num, images, place)
    asked = [prompt for prompt in prompts for _ in range(images)]
    scores = np.asarray(scores_of(asked, pictures.reshape(-1, *pictures.shape[2:])), np.float64).reshape(num, images)
    path = write_rankings(out, rank_by_scores(prompts, pictures, scores, temperature, place.seed))
    print(f"Wrote {num} rankings of {images} pictures each to {path}")


def ask(
    model: Model, *, record: str, num: int = 100, images: int = 2, instruction: str = INSTRUCTION, overlap: int = 1,
    place: Placed = Place(),  # noqa: B008
) -> None:  # fmt: skip
    """Draw pictures and put them into a record as questions for people.

    Args:
        model: what draws.
        record: file (.sqlite) or URL of a database.
        num: questions.
        images: of each: 2 to compare, 3 to 9 to rank.
        instruction: what people are told; {} stands for the prompt.
        overlap: people to ask each of.
        place: where it runs.
    """
    require("av", "ui")
    if not 2 <= images <= 9 or min(num, overlap) < 1:
        raise UserError("--images must be from 2 to 9, --num and --overlap at least 1.")
    prompts, pictures = _drawn(model, num, images, place)
    added = ask_people(record, prompts, list(pictures), instruction=instruction, overlap=overlap)
    print(f"Added {added} questions. Answer them with: prefrl label {record} - or: prefrl serve {record}")


def sample(
    model: Model, prompts: tuple[str, ...] = (), *, num: int = 8, images: int = 8, out: Path = Path("samples.png"),
    best_of: int = 1, reward: str | None = None, place: Placed = Place(),  # noqa: B008
) -> None:  # fmt: skip
    """Draw pictures: a row for each prompt.

    Args:
        model: what draws.
        prompts: default: held-out ones of the world.
        num: of those.
        images: for each prompt.
        out: PNG to write.
        best_of: draw so many for each picture, and keep that which --reward likes best.
        reward: for --best-of: a reward model, gold, or FILE.py:FUNCTION.
        place: where it runs.
    """
    if min(num, images, best_of) < 1:
        raise UserError("--num, --images and --best-of must be at least 1.")
    if best_of > 1 and reward is None:
        raise UserError("--best-of needs --reward: a reward model, gold, or FILE.py:FUNCTION.")
    world = place.make_world()
    rows = list(prompts or world.prompts(num, held_out=True))
    asked = [prompt for prompt in rows for _ in range(images)]
    scores = None if reward is None else load_reward(reward, world)
    pictures, _ = draw(
        place.load(model), asked, place.sampling_steps, seed=place.seed, best_of=best_of, reward=scores
    )  # fmt: skip
    save_picture(out, grid(pictures, images, scale=max(1, 64 // pictures.shape[1])))
    for number, prompt in enumerate(rows, 1):
        print(f"row {number}: {prompt}")
    print(f"Wrote {out}")


def evaluate(
    model: Model, *, reference: str | None = None, proxy: str | None = None, prompts: int = 64, images: int = 4,
    json: bool = False, place: Placed = Place(),  # noqa: B008
) -> None:  # fmt: skip
    """Measure a model on held-out prompts: gold, proxy, KL from the model at its start, diversity.

    Args:
        model: a run or a model.
        reference: what the KL is taken from; default: what the run started from.
        proxy: a reward model to tell as well.
        prompts: held-out ones of the world.
        images: for each.
        json: print one JSON object.
        place: where it runs.
    """
    if min(prompts, images) < 1:
        raise UserError("--prompts and --images must be at least 1.")
    world = place.make_world()
    start_of = reference or _start_of(model)
    trained = place.load(model)
    other = trained if start_of is None else place.load(start_of)
    asked = [prompt for prompt in world.prompts(prompts, held_out=True) for _ in range(images)]
    found, _ = evaluate_model(
        trained, other, asked, place.sampling_steps, seed=stream_seed(place.seed, "evaluate"), world=world,
        proxy=None if proxy is None else RewardModel.load(proxy),
    )  # fmt: skip
    if start_of is None:
        found = {name: value for name, value in found.items() if not name.startswith("kl_")}
    if json:
        print(json_module.dumps(found))
        return
    _show(found, f"{model}, {len(asked)} pictures")


def report(run: Folder, *, json: bool = False) -> None:
    """Tell the figures of a run along its way.

    Args:
        run: its folder.
        json: print one JSON object.
    """
    show_report(ImageFolder.open(run, reads_only=True), as_json=json)


def show_report(folder: ImageFolder, *, as_json: bool) -> None:
    """Print the evaluations of a run and what it came to."""
    rows = folder.read_evaluations() if folder.evaluations_path.is_file() else []
    summary = folder.read_summary() if folder.finished else {}
    if as_json:
        print(json_module.dumps({"evaluations": rows, "summary": summary}))
        return
    if rows:
        names = [name for name in rows[-1] if name not in ("examples",)]
        table = Table(*names, title=str(folder.path))
        for row in rows:
            table.add_row(*(f"{row[name]:.4g}" if name in row else "-" for name in names))
        Console().print(table)
    if summary:
        print(", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in summary.items()))
    else:
        print(f"The run is not finished. Resume it with: prefrl resume {folder.path}")


def demo(settings: Annotated[DemoSettings, Whole], *, out: Path = Path("runs/image-demo"), quiet: bool = False) -> None:
    """Make the whole chain from nothing, with every method, and draw the curve; it goes on where it stopped."""
    require("diffusers", "image")
    Demo(settings, out, quiet=quiet).run()
    show_results(out)


VERBS = (
    pretrain, compare, ask, reward, ddpo, dpok, rwr, refl, dpo, resume, evaluate, sample, report, demo,
)  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Run `prefrl image`."""
    if not {"-h", "--help"} & set(arguments):  # help need not wait for the libraries
        _quieten_libraries()
    app = tyro.extras.SubcommandApp()
    for verb in VERBS:
        app.command(verb)
    app.cli(prog="prefrl image", description="Text-to-image models from preferences.", args=list(arguments))


def _quieten_libraries() -> None:
    for name in ("diffusers", "transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    diffusers, transformers = require("diffusers", "image"), require("transformers", "image")
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _counted(left_out: Counter[str]) -> str:
    return "; ".join(f"{count} where {reason}" for reason, count in left_out.items())


def _drawn(model: str, num: int, images: int, place: Place) -> tuple[list[str], Any]:
    """Return prompts of the world and `(num, images, H, W, 3)` pictures for them."""
    prompts = list(place.make_world().prompts(num))
    asked = [prompt for prompt in prompts for _ in range(images)]
    pictures, _ = draw(place.load(model), asked, place.sampling_steps, seed=stream_seed(place.seed, "compare"))
    return prompts, pictures.reshape(num, images, *pictures.shape[1:])


def _start_of(model: str) -> str | None:
    """Return the model that a run started from; None where it is none, or was trained from nothing."""
    path = Path(model)
    if not (path / "config.json").is_file() or not (path / "model").is_dir():
        return None
    found = ImageFolder.open(path, reads_only=True).config["settings"].get("model")
    if isinstance(found, str) and not is_there(found):
        print(f"prefrl: {found}, which the run started from, is not there: no KL is told.", file=sys.stderr)
        return None
    return found if isinstance(found, str) else None


def _tell(folder: ImageFolder, quiet: bool) -> None:
    if quiet:
        return
    _show(folder.read_summary(), str(folder.path))
    if folder.evaluations_path.is_file():
        print(f"Look at: {folder.path / 'samples'}")


def _show(figures: dict[str, Any], title: str) -> None:
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
