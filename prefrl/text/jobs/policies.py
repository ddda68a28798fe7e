"""Policies that learn from their own samples: by a policy gradient on a reward, or by comparing them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from prefrl.envs.text_rewards import TextReward
from prefrl.envs.text_worlds import DEFAULT_WORLD, TextWorld
from prefrl.errors import UserError
from prefrl.files import text_or_file
from prefrl.runs.streams import stream_seed
from prefrl.runs.trainer import ModelTrainer
from prefrl.seams import Named
from prefrl.text.data import sources
from prefrl.text.data.asking import PeopleComparing
from prefrl.text.data.examples import Encoder
from prefrl.text.data.judge import DEFAULT_CONSTITUTION, ServerJudge, make_judge
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import (
    Place,
    Placed,
    Watch,
    fitting,
    load_reward,
    make_evaluation,
    run_policy,
    say,
    some_blocks,
)
from prefrl.text.jobs.worlds import world_of
from prefrl.text.learn.estimating import EstimatorSettings, EstimatorTrainer, grpo_settings, reinforce_settings
from prefrl.text.learn.online import OnlineSettings, OnlineTrainer
from prefrl.text.learn.ppo import PPOTrainer, TextPPOSettings
from prefrl.text.learn.reward_model import ModelReward
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import TokenPair
from prefrl.text.model.generation import DRAWN_TOKENS
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import context_length, load_model
from prefrl.text.model.options import NoOption
from prefrl.text.model.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class PPOJob:
    """Train a policy on a reward by PPO, tied to where it started by a KL penalty; PPO-ptx with --pretraining."""

    verb: ClassVar[str] = "ppo"
    model: str
    """The fine-tuned model."""
    reward: tuple[str, ...]
    """Folder of a reward model (several are an ensemble), or of a sequence classifier of transformers with one label;
    or an http address, FILE.py:FUNCTION of (prompts, responses), or gold, the world's own."""
    data: str = DEFAULT_WORLD
    """Prompts: servicedesk, docstrings, a world of your own as module:Name, a record, or a JSONL or Parquet file with a
    column `prompt`."""
    prompts: int | None = None
    """How many; default: 4,000 of a world, all of a file or a record."""
    pessimism: float = 1.0
    """With an ensemble: the reward is the mean less this many standard deviations over its members."""
    pretraining: str | None = None
    """Texts for PPO-ptx (as for pretrain); their weight is --training.ptx-coefficient."""
    block_tokens: int = 96
    lora: LoraSettings = field(default_factory=LoraSettings)
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    training: TextPPOSettings = field(default_factory=TextPPOSettings)

    def __post_init__(self) -> None:
        limit, sampling = self.place.max_tokens, self.training.sampling
        if limit is None or limit == sampling.max_tokens:
            return
        if sampling.max_tokens != DRAWN_TOKENS:
            raise UserError(
                f"The longest response is given twice: {limit} by place.max_tokens, {sampling.max_tokens} by "
                "training.sampling.max_tokens. Leave the second out."
            )
        training = replace(self.training, sampling=replace(sampling, max_tokens=limit))
        object.__setattr__(self, "training", training)

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Train the policy and save it, with the curve of its rewards, in the run's folder."""
        runtime, seed = self.place.runtime(), self.place.seed
        model, tokens = load_model(self.model)
        reading = self.place.reading(tokens)
        world = world_of(self.data, seed, self.watch.world, self.place.reading(tokens))
        reward = self._annotator(folder, tokens, runtime, world)
        context = context_length(model)
        if isinstance(reward, ModelReward):  # it and the value model read what the policy reads
            context = min(context, reward.context)
        encoder = Encoder(tokens, context, self.training.sampling.max_tokens)
        blocks: list[TokenPair] = []
        if self.training.ptx_coefficient:
            if self.pretraining is None:
                raise UserError("PPO-ptx (--training.ptx-coefficient above 0) needs text: give --pretraining.")
            blocks = some_blocks(tokens, model, self.pretraining, self.block_tokens, 4_000, seed)
        model = add_lora(model, self.lora, stream_seed(seed, "lora")).to(runtime.device)
        prompts = fitting(encoder, sources.read_prompts(self.data, seed=seed, count=self.prompts, reading=reading))
        say(self.data, reading)
        trainer = self._trainer(model, encoder, prompts, reward, blocks, runtime)
        proxy = reward if isinstance(reward, ModelReward) else None
        sampling = self.training.sampling
        watched = make_evaluation(self.watch, self.model, self.data, model, encoder, sampling, runtime, proxy, reading)
        with reward.at_work() if isinstance(reward, PeopleComparing) else nullcontext():
            run_policy(trainer, folder, runtime, tokens, watched, self.watch.times, self.lora, quiet=quiet)

    def _annotator(self, folder: TextFolder, tokens: Tokens, runtime: Runtime, world: TextWorld | None) -> Any:
        """Return what is learned from: here a reward."""
        return load_reward(self.reward, tokens, runtime, self.pessimism, world)

    def _trainer(
        self, model: Any, encoder: Encoder, prompts: list[str], reward: TextReward | ModelReward,
        blocks: list[TokenPair], runtime: Runtime,
    ) -> ModelTrainer:  # fmt: skip
        training = self.place.seeded(self.training)
        return PPOTrainer(model, encoder, prompts, reward, training, runtime=runtime, pretraining=blocks)


@dataclass(frozen=True, kw_only=True)
class EstimatorJob(PPOJob):
    """Train a policy on a reward by a policy gradient with an estimator of your own instead of a value model."""

    verb: ClassVar[str] = "rl"
    estimator: Named
    """module:NAME or FILE.py:NAME, a function of (episodes, settings) that returns advantages."""
    training: EstimatorSettings = field(default_factory=EstimatorSettings)  # type: ignore[assignment]
    """A policy gradient without a value model; the defaults are those of RLOO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "training", replace(self.training, estimator=self.estimator))
        object.__setattr__(self, "estimator", self.training.estimator)

    def _trainer(
        self, model: Any, encoder: Encoder, prompts: list[str], reward: TextReward | ModelReward,
        blocks: list[TokenPair], runtime: Runtime,
    ) -> ModelTrainer:  # fmt: skip
        training = self.place.seeded(self.training)
        return EstimatorTrainer(model, encoder, prompts, reward, training, runtime=runtime, pretraining=blocks)


@dataclass(frozen=True, kw_only=True)
class RLOOJob(EstimatorJob):
    """Train a policy on a reward by REINFORCE with leave-one-out baselines."""

    verb: ClassVar[str] = "rloo"
    estimator: NoOption[Named] = "rloo"


@dataclass(frozen=True, kw_only=True)
class GRPOJob(EstimatorJob):
    """Train a policy on a reward by group-relative policy optimisation."""

    verb: ClassVar[str] = "grpo"
    estimator: NoOption[Named] = "grpo"
    training: EstimatorSettings = field(default_factory=grpo_settings)


@dataclass(frozen=True, kw_only=True)
class ReinforceJob(EstimatorJob):
    """Train a policy on a reward by REINFORCE with a baseline."""

    verb: ClassVar[str] = "reinforce"
    estimator: NoOption[Named] = "reinforce"
    training: EstimatorSettings = field(default_factory=reinforce_settings)


@dataclass(frozen=True, kw_only=True)
class OnlineDPOJob(PPOJob):
    """Train a policy on comparisons of its own samples: by a reward, a judge, or people while it is trained."""

    verb: ClassVar[str] = "online-dpo"
    reward: tuple[str, ...] = ()
    """Who compares, one of three. A reward, as for ppo."""
    judge: str | None = None
    """A judge, as for judge: rule, a folder or hub id of a causal language model, or URL#MODEL."""
    annotator: Literal["human"] | None = None
    """People: they answer with prefrl label RUN or prefrl serve RUN while the policy is trained."""
    constitution: str = DEFAULT_CONSTITUTION
    """Of a judge: a text, or a file that holds it."""
    instruction: str = ""
    """What people are told to look for: a text, or a file that holds it."""
    training: OnlineSettings = field(default_factory=OnlineSettings)  # type: ignore[assignment]
    """Online DPO or IPO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("reward", "judge", "annotator") if getattr(self, name)]
        if len(given) != 1:
            raise UserError(
                "Say who compares by one of --reward R, --judge J and --annotator human. Received "
                + (" and ".join(f"--{name}" for name in given) or "none of them")
            )
        for name in ("constitution", "instruction"):  # as it is now, wherever the run goes on
            object.__setattr__(self, name, text_or_file(getattr(self, name)))

    def _annotator(self, folder: TextFolder, tokens: Tokens, runtime: Runtime, world: TextWorld | None) -> Any:
        if self.judge is not None:
            judge = make_judge(self.judge, self.constitution, device=self.place.device)
            if isinstance(judge, ServerJudge):
                judge.keep_answers(folder.path / f"judged-{runtime.index}.jsonl")
            return judge
        if self.annotator is not None:
            return PeopleComparing(str(folder.path / "record.sqlite"), self.instruction)
        return super()._annotator(folder, tokens, runtime, world)

    def _trainer(
        self, model: Any, encoder: Encoder, prompts: list[str], reward: Any, blocks: list[TokenPair], runtime: Runtime
    ) -> ModelTrainer:
        training = self.place.seeded(self.training)
        return OnlineTrainer(model, encoder, prompts, reward, training, runtime=runtime, pretraining=blocks)


@dataclass(frozen=True, kw_only=True)
class OnlineIPOJob(OnlineDPOJob):
    """Train a policy on comparisons of its own samples by identity preference optimisation."""

    verb: ClassVar[str] = "online-ipo"
    training: OnlineSettings = field(default_factory=lambda: OnlineSettings(loss="ipo"))
