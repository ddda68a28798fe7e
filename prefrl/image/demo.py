"""The whole claim from nothing: a model, comparisons of its pictures, every method, and gold against KL.

Aligning a text-to-image model with a reward that is learned from preferences makes its pictures better until the reward
is over-optimised; the KL to the model at the start delays that (DPOK, Fan et al. 2023, section 5).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from prefrl.errors import UserError
from prefrl.files import read_json, write_json
from prefrl.image import jobs
from prefrl.image.data import FILE, write_rankings
from prefrl.image.denoising import DenoisingSettings
from prefrl.image.direct import DiffusionDPOSettings, ReFLSettings
from prefrl.image.evaluation import draw, grid
from prefrl.image.folder import ImageFolder
from prefrl.image.jobs import SAMPLED_COLUMNS, Place, Watch, save_picture
from prefrl.image.policy import PolicySettings
from prefrl.image.quality import Features
from prefrl.image.reward_model import RewardModel, rank_by_scores
from prefrl.runs.beside import finish_runs, places
from prefrl.runs.codec import to_json
from prefrl.runs.device import choose_device
from prefrl.runs.guard import Interrupted
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.plotting import make_figure, save_figure, set_style
from prefrl.runs.streams import stream_seed
from prefrl.tables import Table

AGAIN = "the same command"
ROWS = ("base", "dpok", "dpok-no-kl", "ddpo", "ddpo-kl", "rwr", "refl", "dpo")
"""Of the picture of all."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How much of everything."""

    seed: int = 0
    size: str = "demo"
    """Of the model, as for prefrl image pretrain."""
    pictures: int = 20_000
    """Of the world, which the model and the reward's first look learn from."""
    pretraining_epochs: float = 6.0
    """Over these pictures."""
    comparisons: int = 1000
    """Pairs of the pretrained model's pictures that the reward is learned from."""
    steps: int = 120
    """Batches of DDPO and DPOK."""
    learning_rate: float = 1e-4
    """Of DDPO and DPOK."""
    beta: float = 0.02
    """Weight of the KL divergence in DPOK, and in DDPO with KL."""
    sampling_steps: int = 12
    judge_temperature: float = 0.1
    """Of the judge that compares: its gold rewards over this are logits."""
    device: str = "auto"
    jobs: int | None = None
    """Methods trained side by side; None: one to each core, or one in all on a GPU."""
    watch: Watch = field(default_factory=lambda: Watch(times=5, prompts=32, images=4))

    def __post_init__(self) -> None:
        if min(self.comparisons, self.steps) < 1 or self.pretraining_epochs <= 0:
            raise UserError("comparisons and steps must be at least 1, pretraining_epochs above 0.")
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"jobs must be at least 1. Received {self.jobs}")


class Demo:
    """The chain, each part in a folder of its own below `out`; what is finished is not made again.

    Args:
        settings: how much.
        out: folder.
        quiet: no progress.
    """

    def __init__(self, settings: DemoSettings, out: Path, *, quiet: bool) -> None:
        self.settings, self.out, self.quiet = settings, out, quiet
        self.place = Place(seed=settings.seed, sampling_steps=settings.sampling_steps, device=settings.device)
        self.console = Console(quiet=quiet)

    def run(self) -> None:
        """Make what is missing."""
        settings = self.settings
        base, data = str(self.out / "base"), str(self.out / "comparisons")
        pretraining = replace(jobs.PretrainJob().training, epochs=settings.pretraining_epochs)
        base_job = jobs.PretrainJob(
            size=settings.size, pictures=settings.pictures, place=self.place, watch=settings.watch, training=pretraining
        )
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is a file. Give --out a folder.")
        self.out.mkdir(parents=True, exist_ok=True)
        self._check_settings()
        self._make("base", base_job)
        if not (self.out / "comparisons" / FILE).is_file():
            shutil.rmtree(self.out / "comparisons", ignore_errors=True)  # begun, and killed before it was whole
            self._timed("comparisons", lambda: self._compare(base))
        self._make("reward", jobs.RewardJob(model=base, data=data, captions=settings.pictures, place=self.place))
        made = self._methods(base, str(self.out / "reward"), data)
        self._make_beside(made)
        self._timed("best of n", lambda: self._best_of_n(base, str(self.out / "reward")))
        self._timed("quality", lambda: self._judge_quality())
        self._draw()

    def _methods(self, base: str, reward: str, data: str) -> dict[str, Any]:
        """Return the job of each method, all from the same model, reward and answers."""
        settings, place = self.settings, self.place
        watch = replace(settings.watch, proxy=reward)
        shared: dict[str, Any] = {"model": base, "reward": reward, "place": place, "watch": watch}
        rate = OptimiserSettings(learning_rate=settings.learning_rate)
        policy = PolicySettings(steps=settings.steps, prompts=16, images=4, minibatch_size=256, optimiser=rate)
        value, kept = replace(policy, baseline="value"), min(4000, settings.pictures)
        return {
            "dpok": jobs.DPOKJob(**shared, training=replace(value, beta=settings.beta)),
            "dpok-no-kl": jobs.DPOKJob(**shared, training=replace(value, beta=0.0)),
            "ddpo": jobs.DDPOJob(**shared, training=policy),
            "ddpo-kl": jobs.DDPOJob(**shared, training=replace(policy, beta=settings.beta)),
            "rwr": jobs.RWRJob(  # as many pictures as the policy gradients draw
                **shared, prompts=16 * settings.steps, kept=kept, training=DenoisingSettings(epochs=6)
            ),
            "refl": jobs.ReFLJob(**shared, kept=kept, training=ReFLSettings(steps=3 * settings.steps, weight=1e-2)),
            "dpo": jobs.DPOJob(
                model=base, data=data, place=place, watch=watch, training=DiffusionDPOSettings(epochs=6, beta=500)
            ),
        }  # fmt: skip

    def _check_settings(self) -> None:
        path, now = (
            self.out / "demo.json",
            to_json(replace(self.settings, jobs=None)),
        )  # how many at once changes nothing
        if path.is_file() and read_json(path) != now:
            raise UserError(f"{self.out} holds a demo with other settings. Choose another --out.")
        write_json(path, now)

    def _make(self, name: str, job: Any) -> None:
        path = self.out / name
        if (path / "config.json").is_file() and ImageFolder.open(path).finished:
            return
        begun = time.monotonic()
        try:
            if (path / "config.json").is_file():
                jobs.resume(path, quiet=self.quiet)
            else:
                jobs.start(job, path, quiet=self.quiet)
        except Interrupted:
            raise Interrupted(f"Stopped; everything is saved. Resume with: {AGAIN}") from None
        self._tell(name, time.monotonic() - begun)

    def _make_beside(self, made: dict[str, Any]) -> None:
        at_once = places(self.settings.jobs, choose_device(self.place.device, prefer_gpu=True))
        paths = [self.out / name for name in made]
        for path, job in zip(paths, made.values(), strict=True):
            if not (path / "config.json").is_file():
                jobs.prepare(job, path)
        finish_runs(
            [path for path in paths if not ImageFolder.open(path).finished], at_once=at_once, logs=self.out / "logs",
            again=AGAIN, done=lambda path, seconds: self._tell(path.name, seconds),
        )  # fmt: skip

    def _timed(self, name: str, make: Callable[[], None]) -> None:
        begun = time.monotonic()
        make()
        self._tell(name, time.monotonic() - begun)

    def _tell(self, name: str, seconds: float) -> None:
        self.console.print(f"{name}: {seconds:.0f} s", highlight=False)

    def _compare(self, base: str) -> None:
        settings, world = self.settings, self.place.make_world()
        prompts = list(world.prompts(settings.comparisons))
        asked = [prompt for prompt in prompts for _ in range(2)]
        pictures, _ = draw(
            self.place.load(base), asked, settings.sampling_steps, seed=stream_seed(settings.seed, "compare")
        )
        scores = np.asarray(world.gold(asked, pictures)).reshape(-1, 2)
        pairs = pictures.reshape(-1, 2, *pictures.shape[1:])
        rows = rank_by_scores(prompts, pairs, scores, settings.judge_temperature, settings.seed)
        write_rankings(self.out / "comparisons", rows)

    def _best_of_n(self, base: str, reward: str) -> None:
        """Measure best of n for several n; its KL is log n - (n - 1) / n at most (Beirami et al. 2024)."""
        path = self.out / "best-of-n.json"
        if path.is_file():
            return
        world, model, proxy = self.place.make_world(), self.place.load(base), RewardModel.load(reward)
        watch = self.settings.watch
        asked = [prompt for prompt in world.prompts(watch.prompts, held_out=True) for _ in range(watch.images)]
        rows = []
        for n in (1, 2, 4, 8, 16):
            pictures, _ = draw(
                model, asked, self.settings.sampling_steps, seed=stream_seed(self.settings.seed, "best of", n),
                best_of=n, reward=proxy,
            )  # fmt: skip
            rows.append(
                {
                    "n": n,
                    "kl_nats": math.log(n) - (n - 1) / n,
                    "gold": float(np.mean(world.gold(asked, pictures))),
                    "proxy": float(np.mean(proxy(asked, pictures))),
                }
            )
        write_json(path, rows)

    def _judge_quality(self) -> None:
        """Measure how far the pictures of each method's end are from those of the world."""
        path = self.out / "quality.json"
        if path.is_file():
            return
        world, found = self.place.make_world(), {}
        features = Features(world, seed=self.settings.seed)
        asked = world.prompts(256)
        for name in ROWS:
            pictures, _ = draw(
                self.place.load(str(self.out / name)), asked, self.settings.sampling_steps,
                seed=stream_seed(self.settings.seed, "quality"),
            )  # fmt: skip
            found[name] = features.distance(pictures)
        write_json(path, found)

    def _draw(self) -> None:
        figure = make_figure(12, 5)
        both = figure.subplots(1, 2)
        for name, rows in curves(self.out).items():
            x = [math.sqrt(max(0.0, row["kl_nats"])) for row in rows]
            for axis, what in zip(both, ("gold", "proxy"), strict=True):
                axis.plot(x, [row[what] for row in rows], marker="o", label=name)
        for axis, title in zip(both, ("Gold reward", "What the reward model says"), strict=True):
            set_style(axis, title, "square root of the KL divergence from the pretrained model (nats)", "mean reward")
        both[0].legend(fontsize=8)
        save_figure(figure, self.out / "curve.png")
        asked = [prompt for prompt in self.place.make_world().prompts(8, held_out=True) for _ in range(2)]
        shown = []
        for name in ROWS:
            pictures, _ = draw(
                self.place.load(str(self.out / name)), asked, self.settings.sampling_steps, seed=self.settings.seed + 1
            )
            shown.append(pictures)
        save_picture(self.out / "pictures.png", grid(np.concatenate(shown), len(asked)))
        self._draw_at_equal_kl()

    def _draw_at_equal_kl(self) -> None:
        """Put a row of each method's pictures where it was about as far from the pretrained model as the others."""
        chosen = at_equal_kl(curves(self.out))
        rows: list[NDArray[np.uint8]] = []
        for name in ROWS[1:]:
            if name in chosen:
                if not rows:
                    rows.append(_first_row(self.out / name / "samples" / "00.png"))  # before anything was trained
                rows.append(_first_row(self.out / name / "samples" / f"{chosen[name]:02d}.png"))
        if rows:
            save_picture(self.out / "equal_kl.png", np.concatenate(rows))


def _first_row(path: Path) -> NDArray[np.uint8]:
    """Return the first row of pictures of a grid that a run left."""
    whole = np.asarray(Image.open(path).convert("RGB"))
    return whole[: whole.shape[1] // SAMPLED_COLUMNS]


def at_equal_kl(found: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Return for each method the number of the evaluation at which its KL is nearest to what all of them reach.

    Args:
        found: the evaluations of each method, as `curves` returns them; best of n, which trains nothing, is left out.
    """
    learned = {name: rows for name, rows in found.items() if name != "best of n" and len(rows) > 1}
    if not learned:
        return {}
    reached = min(max(row["kl_nats"] for row in rows) for rows in learned.values())
    return {
        name: min(range(1, len(rows)), key=lambda number: abs(rows[number]["kl_nats"] - reached))
        for name, rows in learned.items()
    }


def curves(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the evaluations of each method, and best of n."""
    found = {}
    for path in sorted(out.iterdir()):
        if path.is_dir() and (path / "evaluations.jsonl").is_file():
            rows = ImageFolder.open(path, reads_only=True).read_evaluations()
            if rows and "kl_nats" in rows[-1] and "proxy" in rows[-1]:
                found[path.name] = rows
    if (out / "best-of-n.json").is_file():
        found["best of n"] = read_json(out / "best-of-n.json")
    return found


def show_results(out: Path) -> None:
    """Print for each method where it began, its best point, and its end."""
    names = ("method", "gold at first", "best gold", "at sqrt(KL)", "gold at the end", "sqrt(KL)", "proxy", "Fréchet")
    table = Table(*names, title=str(out))
    quality = read_json(out / "quality.json") if (out / "quality.json").is_file() else {}
    for name, rows in curves(out).items():
        best = max(rows, key=lambda row: row["gold"])
        last = rows[-1]
        table.add_row(
            name, *(f"{value:.3f}" for value in (
                rows[0]["gold"], best["gold"], math.sqrt(max(0.0, best["kl_nats"])), last["gold"],
                math.sqrt(max(0.0, last["kl_nats"])), last["proxy"],
            )),
            f"{quality[name]:.3f}" if name in quality else "-",
        )  # fmt: skip
    Console().print(table)
    for sentence in conclusions(curves(out), quality):
        print(sentence)
    drawn = curves(out)
    nats = {name: drawn[name][number]["kl_nats"] for name, number in at_equal_kl(drawn).items()}
    told = ", ".join(f"{name} at {nats[name]:.0f} nats" for name in ROWS if name in nats)
    print(f"Look at: {out / 'curve.png'}, {out / 'pictures.png'} (rows: {', '.join(ROWS)})")
    print(f"At the nearest to equal KL: {out / 'equal_kl.png'} (rows: the pretrained model, {told})")


def conclusions(found: dict[str, list[dict[str, Any]]], quality: dict[str, float]) -> list[str]:
    """Return what the figures of one demo say, in sentences; nothing is claimed that they do not hold.

    Args:
        found: the evaluations of each method, as `curves` returns them.
        quality: Fréchet distance of each method's end, and of `base`.
    """
    said: list[str] = []
    learned = {name: rows for name, rows in found.items() if name != "best of n"}
    if not learned:
        return said
    start = next(iter(learned.values()))[0]["gold"]
    better = [name for name, rows in learned.items() if max(row["gold"] for row in rows[1:] or rows) > start]
    worse = sorted(set(learned) - set(better))
    said.append(
        f"Gold of the pretrained model is {start:.2f}; {_names(better)} came above it at {_their(better)} best point"
        + (f", {_names(worse)} did not." if worse else ".")
    )
    tops = {name: max(row["gold"] for row in rows) for name, rows in found.items()}
    order = sorted(tops, key=lambda name: -tops[name])
    said.append(f"Best gold, from the highest: {', '.join(f'{name} {tops[name]:.2f}' for name in order)}.")
    for method, with_kl, without in (("DPOK", "dpok", "dpok-no-kl"), ("DDPO", "ddpo-kl", "ddpo")):
        if with_kl in learned and without in learned:
            one, other = learned[with_kl][-1], learned[without][-1]
            more = "higher" if one["gold"] > other["gold"] else "not higher"
            said.append(
                f"{method} with KL ends at gold {one['gold']:.2f}, without at {other['gold']:.2f}: {more} with it, at "
                f"{one['kl_nats']:.0f} against {other['kl_nats']:.0f} nats."
            )
    falls = {
        name: max(row["gold"] for row in rows) - rows[-1]["gold"]
        for name, rows in learned.items()
        if rows[-1]["proxy"] >= max(row["proxy"] for row in rows) - 0.05
    }
    over = sorted((name for name, fall in falls.items() if fall > 0.05), key=lambda name: -falls[name])
    if over:
        said.append(f"The reward rose to the end while gold fell by {falls[over[0]]:.2f} at most: {_names(over)}.")
    else:
        said.append("Nowhere did gold fall by more than 0.05 while the reward still rose: no over-optimisation yet.")
    if "base" in quality:
        drift = {name: value - quality["base"] for name, value in quality.items() if name in learned}
        if drift:
            most = max(drift, key=lambda name: drift[name])
            said.append(
                f"Fréchet distance from the world's pictures: {quality['base']:.2f} of the pretrained model, "
                f"{quality[most]:.2f} of {most}, the farthest."
            )
    return said


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _their(names: list[str]) -> str:
    return "its" if len(names) == 1 else "their"
