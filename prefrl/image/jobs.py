"""What `prefrl image` trains, one frozen dataclass a verb: it holds all settings, and `run` does the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro
from numpy.typing import NDArray

from prefrl.envs.image_worlds import DEFAULT_IMAGE_WORLD, IMAGE_WORLDS, ImageWorld
from prefrl.errors import UserError, require
from prefrl.files import digest_of_files, read_json, write_json
from prefrl.image.data import read_rankings
from prefrl.image.denoising import DenoisingSettings, DenoisingTrainer, Pictures, reward_weights
from prefrl.image.direct import DiffusionDPOSettings, DiffusionDPOTrainer, ReFLSettings, ReFLTrainer
from prefrl.image.evaluation import draw, evaluate_model, grid
from prefrl.image.folder import ImageFolder
from prefrl.image.lora import LoraSettings, add_lora, merge_lora
from prefrl.image.model import SHAPES, ImageModel, build_model
from prefrl.image.people import digest_of_answers, read_answers
from prefrl.image.policy import PolicySettings, PolicyTrainer
from prefrl.image.reward_model import Ranked, RewardModel, RewardTrainer, RewardTrainingSettings, judge_reward
from prefrl.image.scoring import load_reward
from prefrl.runs.codec import to_json
from prefrl.runs.device import choose_device
from prefrl.runs.folder import is_record
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.running import Alone, evaluation_steps, run_trainer
from prefrl.runs.streams import check_seed, stream, stream_seed
from prefrl.runs.trainer import ModelTrainer
from prefrl.seams import is_function_name

LESS_MEMORY = "Use a smaller --training.minibatch-size or --training.batch-size, or fewer --training.prompts."
INPUTS = "inputs.json"
NAMED = ("model", "reward", "data")
"""Settings that may name a file or a folder."""
SUMMARISED = ("kl_nats", "kl_standard_error", "gold", "proxy", "diversity")
"""Figures of the last evaluation that are in the summary."""

SAMPLED_COLUMNS = 16  # of the grids of pictures that runs leave


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job runs, and how pictures are drawn."""

    device: str = "auto"
    """auto, cpu or cuda."""
    sampling_steps: int = 20
    """Steps from noise to a picture."""
    guidance: float | None = None
    """Weight of the prompt over none; default: the model's own (1 for ours, 7.5 for pipelines of diffusers)."""
    world: str = DEFAULT_IMAGE_WORLD
    """Whose prompts are drawn and whose gold reward is told: scenes, or module:Name of your own."""
    seed: int = 0
    """Of the world, the data and the training."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def make_world(self) -> ImageWorld:
        """Return the world."""
        return IMAGE_WORLDS.find(self.world)(self.seed)

    def load(self, name: str) -> ImageModel:
        """Return a model on the device."""
        device = choose_device(self.device, prefer_gpu=True)
        model: ImageModel = ImageModel.load(name, guidance=self.guidance).to(device)
        model.eval()
        return model


Placed = Annotated[Place, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Evaluations along the way, from which curves are drawn; each leaves a grid of pictures in samples/."""

    times: int = 4
    """After the one at the start; 0: none at all. Number i of n comes after (i / n)^2 of the steps."""
    prompts: int = 32
    """Held-out prompts of the world."""
    images: int = 4
    """For each."""
    proxy: str | None = None
    """A reward model to tell as well; default: the one that the policy is trained on, if it is one."""

    def __post_init__(self) -> None:
        if self.times < 0 or min(self.prompts, self.images) < 1:
            raise UserError("times must be at least 0, prompts and images at least 1.")


@dataclass(frozen=True, kw_only=True)
class PretrainJob:
    """Train a small text-to-image model from nothing, on the captioned pictures of a world."""

    verb: ClassVar[str] = "pretrain"
    size: str = "demo"
    """tiny, demo (1 M parameters) or small (8 M, on smaller patches)."""
    pictures: int = 20_000
    """Of the world."""
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    training: DenoisingSettings = field(
        default_factory=lambda: DenoisingSettings(
            epochs=8,
            batch_size=32,
            ema=0.999,
            optimiser=OptimiserSettings(learning_rate=2e-3, warmup_share=0.05, decay="cosine", adam_eps=1e-8),
        )
    )

    def __post_init__(self) -> None:
        if self.size not in SHAPES:
            raise UserError(f"size must be one of {', '.join(SHAPES)}. Received {self.size!r}")
        if self.pictures < 1:
            raise UserError(f"pictures must be at least 1. Received {self.pictures}")

    def run(self, folder: ImageFolder, *, quiet: bool) -> None:
        """Train the model and save it, with its figures."""
        world, seed = self.place.make_world(), self.place.seed
        captions, pixels = world.examples(self.pictures)
        words = [*captions, *world.prompts(200, held_out=True)]
        if pixels.shape[1] != pixels.shape[2]:
            raise UserError(
                f"Models of ours draw square pictures; those of {self.place.world} are {pixels.shape[1:3]}."
            )
        model = build_model(SHAPES[self.size], words, pixels.shape[1], seed=stream_seed(seed, "weights"))
        model.to(choose_device(self.place.device, prefer_gpu=True))
        training = _seeded(self.training, seed)
        trainer = DenoisingTrainer(model, Pictures(captions, pixels), training, text_too=True)
        watching = _Watching(self.place, self.watch, folder, model, None, world)
        watching.average = lambda: trainer.average  # that of now: a resumed trainer takes over another
        _run(trainer, folder, watching, finish=trainer.finish, quiet=quiet)


@dataclass(frozen=True, kw_only=True)
class RewardJob:
    """Fit a reward model to comparisons and rankings of pictures."""

    verb: ClassVar[str] = "reward"
    model: str
    """The model that drew: its text encoder reads prompts, and its pictures score 0 on average."""
    data: str
    """Rankings: what prefrl image compare wrote, a JSONL file of the same form, or a record of people's answers."""
    captions: int = 20_000
    """Captioned pictures of the world, which the network learns to tell apart before it sees rankings; 0: none."""
    references: int = 256
    """Pictures of the model that fix where 0 is."""
    place: Placed = field(default_factory=Place)
    training: RewardTrainingSettings = field(default_factory=RewardTrainingSettings)

    def __post_init__(self) -> None:
        if self.captions < 0 or self.references < 2:
            raise UserError("captions must be at least 0 and references at least 2.")

    def run(self, folder: ImageFolder, *, quiet: bool) -> None:
        """Fit the reward model, normalise it, and judge it on held-out prompts."""
        seed, model = self.place.seed, self.place.load(self.model)
        rows = [row for row in read_data(self.data, model) if len(set(row.ranks)) > 1]
        learned, held_out = split_held_out(rows, seed)
        world = self.place.make_world()
        known = [row.prompt for row in rows]
        captioned = None
        if world.knows(known[0]):
            known = list(world.prompts(self.references))
            if self.captions and tuple(world.shape) == model.picture_shape:
                captioned = world.examples(self.captions)
        training = replace(self.training, seed=self.training.seed or seed)
        trainer = RewardTrainer(model, learned, training, captioned=captioned)
        if self.captions and not trainer.caption_steps and self.training.caption_epochs:
            warnings.warn(
                f"The prompts are not those of {self.place.world}, or its pictures have another size, so the reward "
                "learns from the rankings alone, without captioned pictures first.",
                stacklevel=2,
            )
        prompts = [known[i % len(known)] for i in range(self.references)]

        def save() -> None:
            pictures, _ = draw(model, prompts, self.place.sampling_steps, seed=stream_seed(seed, "references"))
            trainer.normalise(prompts, pictures)
            trainer.model.save(folder.model_path)

        def summary() -> dict[str, Any]:
            if not held_out:
                warnings.warn("There is one prompt alone, so none is held out and nothing is judged.", stacklevel=2)
            return {"rankings": len(learned), **judge_reward(RewardModel.load(str(folder.model_path)), held_out)}

        run_trainer(trainer, folder, Alone(), save=save, summary=summary, less_memory=LESS_MEMORY, quiet=quiet)


@dataclass(frozen=True, kw_only=True)
class PolicyJob:
    """What the jobs that train a model on a reward share."""

    verb: ClassVar[str] = ""
    model: str
    """The model to start from: a run of prefrl image, a folder, or a pipeline's folder or id."""
    reward: str
    """A reward model, gold (of the world), or FILE.py:FUNCTION of prompts and pictures."""
    pessimism: float = 0.0
    """Deviations of the members of a reward model that are subtracted."""
    prompts: int = 1000
    """Of the world, to learn from."""
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    lora: LoraSettings = field(default_factory=LoraSettings)

    def made(self) -> tuple[ImageModel, ImageWorld, Any, list[str]]:
        """Return the model, the world, the reward and the prompts."""
        if self.prompts < 1 or self.pessimism < 0:
            raise UserError("prompts must be at least 1 and pessimism at least 0.")
        world = self.place.make_world()
        model = self.place.load(self.model)
        reward = load_reward(self.reward, world, self.pessimism)
        if isinstance(reward, RewardModel):
            reward = reward.to(model.device)
        return model, world, reward, list(world.prompts(self.prompts))

    def train(
        self, trainer: ModelTrainer, folder: ImageFolder, reference: ImageModel, reward: Any, quiet: bool
    ) -> None:
        """Train and watch."""
        proxy = reward if isinstance(reward, RewardModel) else None
        watching = _Watching(self.place, self.watch, folder, trainer.model, reference, self.place.make_world(), proxy)
        _run(trainer, folder, watching, finish=lambda: merge_lora(trainer.model), quiet=quiet)


@dataclass(frozen=True, kw_only=True)
class DDPOJob(PolicyJob):
    """Train a model on a reward by DDPO: clipped policy gradient on denoising, rewards against their prompt's mean."""

    verb: ClassVar[str] = "ddpo"
    training: PolicySettings = field(default_factory=PolicySettings)

    def run(self, folder: ImageFolder, *, quiet: bool) -> None:
        """Train the model and save it, with its figures."""
        model, _, reward, prompts = self.made()
        reference = model.copy()
        add_lora(model, self.lora, stream_seed(self.place.seed, "lora"))
        trainer = PolicyTrainer(
            model, prompts, reward, _seeded(self.training, self.place.seed), self.place.sampling_steps,
            reference=reference,
        )  # fmt: skip
        self.train(trainer, folder, reference, reward, quiet)


@dataclass(frozen=True, kw_only=True)
class DPOKJob(DDPOJob):
    """Train a model on a reward by DPOK: policy gradient on denoising with a KL penalty and a learned value."""

    verb: ClassVar[str] = "dpok"
    training: PolicySettings = field(default_factory=lambda: PolicySettings(baseline="value", beta=0.01))


@dataclass(frozen=True, kw_only=True)
class RWRJob(PolicyJob):
    """Fine-tune a model on its own pictures, weighted by their rewards, and on pretraining pictures."""

    verb: ClassVar[str] = "rwr"
    images: int = 4
    """Drawn for each prompt."""
    temperature: float = 0.5
    """Weights are exp(reward / temperature), rewards in deviations of the pictures drawn."""
    kept: int = 4000
    """Pretraining pictures whose loss is added; 0: none."""
    kept_weight: float = 1.0
    training: DenoisingSettings = field(default_factory=lambda: DenoisingSettings(epochs=4))

    def run(self, folder: ImageFolder, *, quiet: bool) -> None:
        """Draw, weight, fine-tune."""
        model, world, reward, prompts = self.made()
        if self.images < 1 or self.kept < 0:
            raise UserError("images must be at least 1 and kept at least 0.")
        seed = self.place.seed
        asked = [prompt for prompt in prompts for _ in range(self.images)]
        pixels, _ = draw(model, asked, self.place.sampling_steps, seed=stream_seed(seed, "own pictures"))
        scores = np.asarray(reward(asked, pixels), np.float64)
        weights = reward_weights((scores - scores.mean()) / max(scores.std(), 1e-6), self.temperature)
        reference = model.copy()
        add_lora(model, self.lora, stream_seed(seed, "lora"))
        trainer = DenoisingTrainer(
            model, Pictures(asked, pixels, weights), _seeded(self.training, seed), name="rwr",
            kept=Pictures(*world.examples(self.kept)) if self.kept else None, kept_weight=self.kept_weight,
        )  # fmt: skip
        self.train(trainer, folder, reference, reward, quiet)


@dataclass(frozen=True, kw_only=True)
class ReFLJob(PolicyJob):
    """Train a model by the gradient of a reward model through one late step (ReFL)."""

    verb: ClassVar[str] = "refl"
    kept: int = 4000
    """Pretraining pictures whose loss is added."""
    training: ReFLSettings = field(default_factory=ReFLSettings)

    def run(self, folder: ImageFolder, *, quiet: bool) -> None:
        """Train the model and save it, with its figures."""
        model, world, reward, prompts = self.made()
        if not isinstance(reward, RewardModel):
            raise UserError(
                f"ReFL follows the gradient of a reward model, and {self.reward} gives numbers alone. Train one with: "
                "prefrl image reward"
            )
        reference = model.copy()
        add_lora(model, self.lora, stream_seed(self.place.seed, "lora"))
        pretraining = Pictures(*world.examples(self.kept)) if self.kept else None
        training = _seeded(self.training, self.place.seed)
        trainer = ReFLTrainer(
            model, prompts, reward, training, self.place.sampling_steps, pretraining, reference=reference
        )
        self.train(trainer, folder, reference, reward, quiet)


@dataclass(frozen=True, kw_only=True)
class DPOJob:
    """Train a model from comparisons and rankings alone (Diffusion-DPO)."""

    verb: ClassVar[str] = "dpo"
    model: str
    """The model to start from."""
    data: str
    """Rankings, as for prefrl image reward."""
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    lora: LoraSettings = field(default_factory=LoraSettings)
    training: DiffusionDPOSettings = field(default_factory=DiffusionDPOSettings)

    def run(self, folder: ImageFolder, *, quiet: bool) -> None:
        """Train the model and save it, with its figures."""
        model, world = self.place.load(self.model), self.place.make_world()
        rows = read_data(self.data, model)
        reference = model.copy()
        add_lora(model, self.lora, stream_seed(self.place.seed, "lora"))
        trainer = DiffusionDPOTrainer(model, rows, _seeded(self.training, self.place.seed), reference=reference)
        watching = _Watching(self.place, self.watch, folder, model, reference, world)
        _run(trainer, folder, watching, finish=lambda: merge_lora(model), quiet=quiet)


JOBS: dict[str, Any] = {
    job.verb: job for job in (PretrainJob, RewardJob, DDPOJob, DPOKJob, RWRJob, ReFLJob, DPOJob)
}  # fmt: skip


def start(job: Any, out: Path, *, quiet: bool = False) -> ImageFolder:
    """Run a job in a new folder."""
    require("diffusers", "image")
    job = with_places(job)
    folder = _prepared(job, out)
    job.run(folder, quiet=quiet)
    return folder


def prepare(job: Any, out: Path) -> ImageFolder:
    """Make the folder of a job that `resume` then runs."""
    return _prepared(with_places(job), out)


def _prepared(job: Any, out: Path) -> ImageFolder:
    folder = ImageFolder.create(out, job.verb, to_json(job))
    write_json(folder.path / INPUTS, digests_of(job))
    return folder


def resume(path: Path, *, quiet: bool = False, trust: bool = False, accept_changed: bool = False) -> ImageFolder:
    """Go on with a run that was stopped or killed.

    Raises:
        UserError: it is finished, or its settings cannot be read.
    """
    require("diffusers", "image")
    folder = ImageFolder.open(path, trust=trust)
    folder.accept_changed = accept_changed
    verb = folder.config["command"]
    if verb not in JOBS:
        raise UserError(f"{folder.config_path} is damaged: there is no job {verb!r}. Restore it from a copy.")
    folder.refuse_if_finished()
    job = folder.read_settings(JOBS[verb])
    check_inputs(folder, job)
    job.run(folder, quiet=quiet)
    return folder


def with_places(job: Any) -> Any:
    """Return a job whose files and folders are named so that they are found from any directory."""
    found = {}
    for name in NAMED:
        value = getattr(job, name, None) or ""
        path, code, function = value.rpartition(":") if is_function_name(value) else (value, "", "")
        if path and Path(path).exists():
            found[name] = f"{Path(path).resolve()}{code}{function}"
    return replace(job, **found)


def digests_of(job: Any) -> dict[str, str]:
    """Return a digest of each file and folder that a job learns from, by its name; of runs, of their models."""
    found = {}
    for name in NAMED:
        value = getattr(job, name, None)
        if not value:  # an empty path would be the working directory
            continue
        if name == "data" and is_record(value):
            found[name] = digest_of_answers(value)
            continue
        place = Path(value.rpartition(":")[0] if is_function_name(value) and not Path(value).exists() else value)
        place = place / "model" if (place / "config.json").is_file() and (place / "model").is_dir() else place
        files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        if files and files[0].is_file():
            found[name] = digest_of_files(files)
    return found


def check_inputs(folder: ImageFolder, job: Any) -> None:
    """Refuse to go on with data or models that are others than when the run began, unless that is accepted.

    Raises:
        UserError: one was changed or is gone.
    """
    path = folder.path / INPUTS
    known = read_json(path) if path.is_file() else {}
    now = digests_of(job)
    changed = [name for name in known if now.get(name) != known[name]] if isinstance(known, dict) else ["inputs.json"]
    if changed and not folder.accept_changed:
        places = ", ".join(f"{name} {getattr(job, name, '')}" for name in changed)
        raise UserError(
            f"What the run in {folder.path} learns from was changed or is gone since it began: {places}. Restore it, "
            "or go on knowingly with --accept-changed."
        )


def read_data(place: str, model: ImageModel) -> list[Ranked]:
    """Return the rankings of a file, a folder or a record."""
    return read_answers(place, model.picture_shape) if is_record(place) else read_rankings(place, model.picture_shape)


def split_held_out(rows: Sequence[Ranked], seed: int) -> tuple[list[Ranked], list[Ranked]]:
    """Return rankings to learn from and those of a tenth of the prompts, at least one where there are two."""
    prompts = sorted({row.prompt for row in rows})
    order = stream(seed, "held out").permutation(len(prompts))
    count = max(1, len(prompts) // 10) if len(prompts) > 1 else 0
    kept = {prompts[i] for i in order[:count]}
    return [row for row in rows if row.prompt not in kept], [row for row in rows if row.prompt in kept]


class _Watching:
    """Evaluations of a model along the way, each with a grid of its pictures."""

    def __init__(
        self, place: Place, watch: Watch, folder: ImageFolder, model: ImageModel, reference: ImageModel | None,
        world: ImageWorld, proxy: Any = None,
    ) -> None:  # fmt: skip
        self.place, self.watch, self.folder, self.model, self.world = place, watch, folder, model, world
        self.reference = reference
        self.proxy = RewardModel.load(watch.proxy).to(model.device) if watch.proxy is not None else proxy
        self.prompts = [prompt for prompt in world.prompts(watch.prompts, held_out=True) for _ in range(watch.images)]
        self.average: Callable[[], dict[str, Any] | None] = lambda: None

    def __call__(self) -> dict[str, Any]:
        model = self.model
        average = self.average()
        if average is not None:
            model = model.copy()
            model.load_state_dict(average)
        seed = stream_seed(self.place.seed, "watch")
        figures, pictures = evaluate_model(
            model, self.reference or model, self.prompts, self.place.sampling_steps, seed=seed, world=self.world,
            proxy=self.proxy,
        )  # fmt: skip
        if self.reference is None:
            figures = {name: value for name, value in figures.items() if not name.startswith("kl_")}
        count = len(self.folder.read_evaluations()) if self.folder.evaluations_path.is_file() else 0
        save_picture(self.folder.path / "samples" / f"{count:02d}.png", grid(pictures[:64], SAMPLED_COLUMNS))
        return figures


def _run(
    trainer: ModelTrainer, folder: ImageFolder, watching: _Watching, *, finish: Callable[[], None], quiet: bool
) -> None:
    times = watching.watch.times

    def save() -> None:
        finish()
        trainer.model.save(folder.model_path)

    def summary() -> dict[str, Any]:
        rows = folder.read_evaluations()
        return {key: rows[-1][key] for key in SUMMARISED if rows and key in rows[-1]}

    run_trainer(
        trainer,
        folder,
        Alone(),
        save=save,
        evaluation=watching if times else None,
        evaluate_at=evaluation_steps(trainer.total_steps, times),
        summary=summary,
        less_memory=LESS_MEMORY,
        quiet=quiet,
    )


def save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture as PNG."""
    require("PIL", "image")
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _seeded(training: Any, seed: int) -> Any:
    return training if training.seed else replace(training, seed=seed)
