"""The whole chain from nothing: pretraining, fine-tuning, comparisons, reward models, every method, and the curve.

Each stage is a job in a folder of its own under one folder, so that a demo that was stopped goes on where it was. Jobs
that do not wait for each other run side by side, a process and a core each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from prefrl.envs.text_worlds import DEFAULT_WORLD
from prefrl.errors import UserError
from prefrl.files import read_json, write_json
from prefrl.runs.beside import finish_runs, places
from prefrl.runs.codec import to_json
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.streams import stream_seed
from prefrl.text.data import sources
from prefrl.text.data.annotating import draw_responses, rank_by
from prefrl.text.data.examples import Encoder
from prefrl.text.jobs import answers, direct, jobs, policies, supervised
from prefrl.text.jobs.bestofn import BestOfNJob
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import Place, Watch
from prefrl.text.jobs.rejection import RejectionJob
from prefrl.text.learn.estimating import EstimatorSettings, grpo_settings
from prefrl.text.learn.online import OnlineSettings
from prefrl.text.learn.ppo import TextPPOSettings
from prefrl.text.learn.preference import PreferenceSettings, simpo_settings
from prefrl.text.learn.reward_training import RewardTrainingSettings
from prefrl.text.learn.sft import SFTSettings
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model

DRAWS_TO_REJECT = 8
"""Responses to a prompt of which rejection sampling keeps one."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How large the demo is.

    Raises:
        UserError: a value out of its range.
    """

    world: str = DEFAULT_WORLD
    """Of texts, examples, prompts and gold reward; module:Name for one of your own."""
    size: str = "demo"
    architecture: str = "llama"
    paragraphs: int = 60_000
    """Of pretraining text."""
    examples: int = 12_000
    """Of answers to imitate."""
    comparisons: int = 1_500
    """Prompts whose responses are ranked."""
    responses_per_prompt: int = 4
    """K: how many are ranked together."""
    annotator_temperature: float = 0.5
    """Noise of whoever ranks: Plackett-Luce on the gold reward over this."""
    members: int = 3
    """Reward models of the ensemble; the first one is the proxy of everything else."""
    episodes: int = 4_096
    """Responses that each method which learns from a reward draws."""
    betas: tuple[float, ...] = (0.02, 0.2)
    """Of PPO."""
    best_of: int = 64
    """Responses drawn to each prompt for best of n."""
    evaluations: int = 5
    """Points of each curve."""
    evaluation_prompts: int = 192
    max_tokens: int = 64
    seed: int = 0
    device: str = "auto"
    jobs: int | None = None
    """Jobs side by side; None: one to each core, or one in all on a GPU."""

    def __post_init__(self) -> None:
        if not 4 <= self.responses_per_prompt <= 9:
            raise UserError(f"responses_per_prompt must be 4 to 9. Received {self.responses_per_prompt}")
        if self.members < 1 or not self.betas:
            raise UserError("The demo needs at least one reward model and one beta.")
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"jobs must be at least 1. Received {self.jobs}")


class Demo:
    """The stages of the demo, each made once.

    Args:
        settings: its size.
        out: folder of all stages.
        quiet: no progress.
    """

    def __init__(self, settings: DemoSettings, out: Path, *, quiet: bool = False) -> None:
        self.settings, self.out, self.quiet = settings, out, quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.seconds: dict[str, float] = _seconds_before(out / "seconds.json")
        """That each stage took, over all times that the demo was gone on with."""
        self.place = Place(device=settings.device, max_tokens=settings.max_tokens, seed=settings.seed)
        self.watch = Watch(
            times=settings.evaluations,
            prompts=settings.evaluation_prompts,
            world=settings.world,
            world_seed=settings.seed,
        )

    def run(self) -> None:
        """Make every stage that is not there yet."""
        settings = self.settings
        pretrained = self._job("pretrain", self._pretrain())
        sft = self._job("sft", self._sft(pretrained))
        comparisons = self._once("comparisons.jsonl", lambda path: self._compare(sft, path))
        numbers = range(settings.members)
        rewards = tuple(self._side_by_side({f"reward-{i}": self._reward(sft, comparisons, i) for i in numbers}))
        least = min(settings.betas)
        made = self._side_by_side(
            {
                "ppo-ensemble": self._ppo(sft, rewards, least),
                "ppo-ptx": self._ppo(sft, rewards[:1], least, ptx=1.0),
                **{f"ppo-beta{beta:g}": self._ppo(sft, rewards[:1], beta) for beta in settings.betas},
                **self._by_estimators(sft, rewards[0], least),
                "online-dpo": self._online(sft, rewards[0]),
                "rejection": self._rejection(sft, rewards[0]),
                **{
                    name: self._preference(sft, comparisons, rewards[0], training)
                    for name, training in self._preferences().items()
                },
                "bestofn": self._best_of_n(sft, rewards[0]),
            }
        )
        trained = {Path(folder).name: folder for folder in (sft, *sorted(made)) if (Path(folder) / "model").is_dir()}
        self._once(answers.FILE, lambda path: self._answer(trained, path))

    # ------------------------------------------------------------------------------------------------ stages

    def _pretrain(self) -> supervised.PretrainJob:
        settings = self.settings
        return supervised.PretrainJob(
            data=settings.world,
            size=settings.size,
            architecture=settings.architecture,
            paragraphs=settings.paragraphs,
            place=self.place,
            training=replace(supervised.PretrainJob().training, seed=settings.seed),
        )

    def _sft(self, pretrained: str) -> supervised.SFTJob:
        rate = OptimiserSettings(learning_rate=1e-3, warmup_share=0.05, decay="cosine", adam_eps=1e-8)
        return supervised.SFTJob(
            model=pretrained,
            examples=self.settings.examples,
            data=self.settings.world,
            pretraining=self.settings.world,
            place=self.place,
            training=SFTSettings(batch_size=16, optimiser=rate, seed=self.settings.seed),
        )

    def _compare(self, sft: str, path: Path) -> None:
        settings = self.settings
        model, tokens = load_model(sft)
        model.to(self.place.runtime().device)
        encoder = Encoder(tokens, context_length(model), settings.max_tokens)
        world = sources.make_world(settings.world, settings.seed + 1)
        prompts = sources.prompts_of(world, settings.comparisons)
        seed = stream_seed(settings.seed, "comparisons")
        sampling = SamplingSettings(max_tokens=settings.max_tokens)
        drawn = draw_responses(model, encoder, prompts, settings.responses_per_prompt, sampling, seed=seed)
        shown = [
            [text for text in row if encoder.fits(prompt, text)]
            for prompt, row in zip(prompts, drawn.texts, strict=True)
        ]
        ranked = rank_by(world.gold, prompts, shown, temperature=settings.annotator_temperature, seed=seed)
        sources.write_rows(path, sources.ranking_rows(ranked))

    def _reward(self, sft: str, comparisons: Path, number: int) -> supervised.RewardJob:
        rate = OptimiserSettings(learning_rate=5e-4, warmup_share=0.1, decay="cosine", adam_eps=1e-8)
        return supervised.RewardJob(
            model=sft,
            data=str(comparisons),
            references=self.settings.world,
            place=self.place,
            training=RewardTrainingSettings(
                epochs=2, batch_size=16, bootstrap=number > 0, optimiser=rate, seed=self.settings.seed * 100 + number
            ),
        )

    def _answer(self, models: dict[str, str], path: Path) -> None:
        sources.write_rows(path, answers.draw_answers(models, self.settings.world, self.place))

    def _best_of_n(self, sft: str, reward: str) -> BestOfNJob:
        return BestOfNJob(
            model=sft,
            data=self.settings.world,
            reward=(reward,),
            draws=self.settings.best_of,
            prompts=128,
            place=self.place,
        )

    def _ppo(self, sft: str, rewards: tuple[str, ...], beta: float, ptx: float = 0.0) -> policies.PPOJob:
        settings = self.settings
        return policies.PPOJob(
            model=sft,
            data=settings.world,
            reward=rewards,
            pretraining=settings.world if ptx else None,
            place=self.place,
            watch=self.watch,
            training=TextPPOSettings(
                episodes=settings.episodes,
                batch_size=64,
                minibatch_size=64,
                epochs=2,
                beta=beta,
                ptx_coefficient=ptx,
                ptx_batch_size=8,
                missing_end="subtract",
                sampling=SamplingSettings(max_tokens=settings.max_tokens),
                optimiser=OptimiserSettings(learning_rate=5e-4),
                seed=settings.seed,
            ),
        )

    def _by_estimators(self, sft: str, reward: str, beta: float) -> dict[str, policies.EstimatorJob]:
        """Return RLOO and GRPO, on as many responses as PPO has."""
        settings = self.settings
        shared: dict[str, Any] = {"model": sft, "data": settings.world, "reward": (reward,), "place": self.place}
        same: dict[str, Any] = {
            "episodes": settings.episodes,
            "missing_end": "subtract",
            "sampling": SamplingSettings(max_tokens=settings.max_tokens),
            "optimiser": OptimiserSettings(learning_rate=5e-4),
            "seed": settings.seed,
        }
        of_grpo = replace(grpo_settings(), **same)
        return {
            "rloo": policies.RLOOJob(watch=self.watch, training=EstimatorSettings(beta=beta, **same), **shared),
            "grpo": policies.GRPOJob(watch=self.watch, training=of_grpo, **shared),
        }

    def _online(self, sft: str, reward: str) -> policies.OnlineDPOJob:
        settings = self.settings
        return policies.OnlineDPOJob(
            model=sft,
            data=settings.world,
            reward=(reward,),
            place=self.place,
            watch=self.watch,
            training=OnlineSettings(
                episodes=settings.episodes,
                missing_end="subtract",
                sampling=SamplingSettings(max_tokens=settings.max_tokens),
                optimiser=OptimiserSettings(learning_rate=5e-4, warmup_share=0.1, adam_eps=1e-8),
                seed=settings.seed,
            ),
        )

    def _rejection(self, sft: str, reward: str) -> RejectionJob:
        settings = self.settings
        rate = OptimiserSettings(learning_rate=5e-4, warmup_share=0.05, decay="cosine", adam_eps=1e-8)
        return RejectionJob(
            model=sft,
            data=settings.world,
            reward=(reward,),
            prompts=max(1, settings.episodes // DRAWS_TO_REJECT),
            draws=DRAWS_TO_REJECT,
            place=self.place,
            watch=self.watch,
            training=SFTSettings(batch_size=16, optimiser=rate, seed=settings.seed),
        )

    def _preferences(self) -> dict[str, PreferenceSettings]:
        rate = OptimiserSettings(learning_rate=3e-4, warmup_share=0.1, decay="constant", adam_eps=1e-8)
        seed = self.settings.seed
        gentle = replace(rate, learning_rate=1e-4)  # nothing else holds SimPO near its start
        return {
            "dpo": PreferenceSettings(beta=0.1, epochs=1, batch_size=64, optimiser=rate, seed=seed),
            "dpo-rankings": PreferenceSettings(
                beta=0.1, rankings=True, epochs=2, batch_size=16, optimiser=rate, seed=seed
            ),
            "ipo": PreferenceSettings(method="ipo", beta=0.1, epochs=1, batch_size=64, optimiser=rate, seed=seed),
            "simpo": replace(simpo_settings(), epochs=1, batch_size=64, optimiser=gentle, seed=seed),
            "kto": PreferenceSettings(method="kto", beta=0.1, epochs=2, batch_size=64, optimiser=rate, seed=seed),
        }

    def _preference(self, sft: str, comparisons: Path, proxy: str, training: PreferenceSettings) -> direct.DPOJob:
        kind: type[direct.DPOJob] = jobs.JOBS[training.method]
        return kind(
            model=sft,
            data=str(comparisons),
            proxy=(proxy,),
            place=self.place,
            watch=self.watch,
            training=training,
        )

    # ------------------------------------------------------------------------------------------------ making

    def _job(self, name: str, job: Any) -> str:
        folder = TextFolder(self.out / name)
        started = time.monotonic()
        if not folder.config_path.is_file():
            jobs.start(job, folder.path, quiet=True)
        elif not folder.finished:
            jobs.resume(folder.path, quiet=True)
        self._tell(name, time.monotonic() - started)
        return str(folder.path)

    def _side_by_side(self, made: dict[str, Any]) -> list[str]:
        """Do jobs that do not wait for each other, a process and a core each."""
        at_once = places(self.settings.jobs, self.place.runtime().device.type)
        if at_once == 1:
            return [self._job(name, job) for name, job in made.items()]
        folders = [TextFolder(self.out / name) for name in made]
        for folder, job in zip(folders, made.values(), strict=True):
            if not folder.config_path.is_file():
                TextFolder.create(folder.path, job.verb, to_json(job))
        finish_runs(
            [folder.path for folder in folders if not folder.finished], at_once=at_once, logs=self.out / "logs",
            again=f"prefrl text demo --out {self.out}", done=lambda path, seconds: self._tell(path.name, seconds),
        )  # fmt: skip
        return [str(folder.path) for folder in folders]

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        path, started = self.out / name, time.monotonic()
        if not path.is_file():
            make(path)
        self._tell(name, time.monotonic() - started)
        return path

    def _tell(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 1)
        write_json(self.out / "seconds.json", self.seconds)
        self.console.print(f"{name}: {seconds:.0f} s", highlight=False)


def _seconds_before(path: Path) -> dict[str, float]:
    """Return what stages took before, if any was made.

    Raises:
        UserError: the file is damaged.
    """
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(type(value) in (int, float) for value in found.values()):
        raise UserError(
            f"{path} is damaged: it should hold the seconds of each stage. Restore it from a copy, or remove it: only "
            "these times are lost."
        )
    return found
