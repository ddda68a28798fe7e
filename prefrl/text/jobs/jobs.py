"""What `prefrl text` trains, one frozen dataclass a verb: it holds all settings, and `run` does the work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from prefrl.envs.text_rewards import TextReward
from prefrl.envs.text_worlds import DEFAULT_WORLD, TextWorld
from prefrl.errors import UserError
from prefrl.files import text_or_file
from prefrl.runs import tracking
from prefrl.runs.codec import to_json
from prefrl.runs.guard import enough_memory
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.streams import stream_seed
from prefrl.runs.trainer import ModelTrainer
from prefrl.seams import Named
from prefrl.text.data import sources
from prefrl.text.data.asking import PeopleComparing
from prefrl.text.data.examples import Encoder, check_no_ties, texts_of
from prefrl.text.data.judge import DEFAULT_CONSTITUTION, ServerJudge, make_judge
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import check_inputs, digests_of, keep_digests, settings_of
from prefrl.text.jobs.parts import (
    Place,
    Placed,
    Watch,
    fitting,
    load_proxy,
    load_reward,
    make_evaluation,
    nothing_held_out,
    prompt_key,
    run_policy,
    say,
    some_blocks,
    split_by,
    split_held_out,
    split_rankings,
)
from prefrl.text.jobs.running import LESS_MEMORY, run_trainer
from prefrl.text.jobs.worlds import probe, world_of
from prefrl.text.learn.estimating import EstimatorSettings, EstimatorTrainer, grpo_settings, reinforce_settings
from prefrl.text.learn.implied_reward import ImpliedReward
from prefrl.text.learn.online import OnlineSettings, OnlineTrainer
from prefrl.text.learn.ppo import PPOTrainer, TextPPOSettings
from prefrl.text.learn.preference import PreferenceSettings, PreferenceTrainer, simpo_settings
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.reward_training import (
    RewardTrainer,
    RewardTrainingSettings,
    encode_rankings,
    judge_reward,
    score_rankings,
)
from prefrl.text.learn.runtime import Runtime, on_main_process
from prefrl.text.learn.sft import SFTSettings, SFTTrainer, TokenPair, encode_examples, encode_texts, language_model_loss
from prefrl.text.model.generation import DRAWN_TOKENS, SamplingSettings
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import build_model, context_length, load_model, num_parameters, preset, save_model
from prefrl.text.model.options import NoOption
from prefrl.text.model.tokens import Tokens, train_tokenizer


@dataclass(frozen=True, kw_only=True)
class PretrainJob:
    """Train a small language model and its tokenizer from nothing, on texts."""

    verb: ClassVar[str] = "pretrain"
    data: str = DEFAULT_WORLD
    """servicedesk, a world of your own as module:Name, or a JSONL or Parquet file with a column `text`."""
    size: str = "demo"
    """tiny, demo (0.4 M parameters), small (3 M) or medium (20 M)."""
    architecture: str = "llama"
    """llama, gpt2 or qwen3."""
    paragraphs: int = 60_000
    """Of a world."""
    block_tokens: int = 96
    place: Placed = field(default_factory=Place)
    training: SFTSettings = field(
        default_factory=lambda: SFTSettings(
            batch_size=16,
            optimiser=OptimiserSettings(learning_rate=3e-3, warmup_share=0.05, decay="cosine", adam_eps=1e-8),
        )
    )

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Train the model on the texts and save it, with its figures, in the run's folder."""
        runtime, seed = self.place.runtime(), self.place.seed
        reading = self.place.reading()
        texts = sources.read_texts(self.data, seed=seed, count=self.paragraphs, reading=reading)
        say(self.data, reading)
        shape = preset(self.size)
        tokens = Tokens(train_tokenizer(texts, shape.vocab_size))
        learned, held_out = split_held_out(encode_texts(tokens, texts, self.block_tokens, shape.context), seed)
        model = build_model(shape, tokens, architecture=self.architecture, seed=stream_seed(seed, "weights"))
        model.to(runtime.device)
        trainer = SFTTrainer(model, learned, self.place.seeded(self.training), pad_id=tokens.pad_id, runtime=runtime)
        trainer.name = "pretraining"

        def summary() -> dict[str, Any]:
            figures: dict[str, Any] = {"parameters": num_parameters(model)}
            if held_out:
                figures["held_out_loss"] = language_model_loss(model, held_out, pad_id=tokens.pad_id)
            world = sources.world_named(self.data)
            return figures if world is None else figures | probe(sources.make_world(world, seed), model, tokens)

        run_trainer(
            trainer,
            folder,
            runtime,
            save=lambda: save_model(folder.model_path, model, tokens),
            summary=summary,
            quiet=quiet,
        )


@dataclass(frozen=True, kw_only=True)
class SFTJob:
    """Fine-tune a language model on examples: the loss is on responses only."""

    verb: ClassVar[str] = "sft"
    model: str
    """Folder, run, or id of the hub."""
    data: str = DEFAULT_WORLD
    """servicedesk, a world of your own as module:Name, a record, or a JSONL or Parquet file with prompt and
    response."""
    examples: int = 8_000
    """Of a world."""
    pretraining: str | None = None
    """Texts (as for pretrain) to mix in, so that what they taught is kept (InstructGPT, app. C.3, mixes in a tenth)."""
    pretraining_share: float = 0.1
    """Blocks of pretraining text for each example."""
    block_tokens: int = 96
    lora: LoraSettings = field(default_factory=LoraSettings)
    place: Placed = field(default_factory=Place)
    training: SFTSettings = field(default_factory=SFTSettings)

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Fine-tune the model on the examples and save it, with its figures, in the run's folder."""
        runtime, seed = self.place.runtime(), self.place.seed
        model, tokens = load_model(self.model)
        encoder, reading = self.place.encoder(tokens, context_length(model)), self.place.reading(tokens)
        examples = sources.read_examples(self.data, seed=seed, count=self.examples, reading=reading)
        say(self.data, reading)
        rows = encoder.rows([(example.prompt, (example.response,)) for example in examples])
        fit = [(example, row) for example, row in zip(examples, rows, strict=True) if row is not None]
        pairs = [(row.prompt, row.responses[0]) for _, row in fit]
        learned, held_out = split_by(pairs, [prompt_key(example.prompt) for example, _ in fit], seed)
        if self.pretraining is not None:
            count = int(self.pretraining_share * len(learned))
            learned += some_blocks(tokens, model, self.pretraining, self.block_tokens, count, seed)
        model = add_lora(model, self.lora, stream_seed(seed, "lora")).to(runtime.device)
        trainer = SFTTrainer(model, learned, self.place.seeded(self.training), pad_id=tokens.pad_id, runtime=runtime)

        def summary() -> dict[str, Any]:
            figures: dict[str, Any] = {}
            if held_out:
                figures["held_out_loss"] = language_model_loss(model, held_out, pad_id=tokens.pad_id)
            else:
                nothing_held_out()
            figures["examples"] = len(learned)
            world = None if self.pretraining is None else sources.world_named(self.pretraining)
            return figures if world is None else figures | probe(sources.make_world(world, seed), model, tokens)

        run_trainer(
            trainer,
            folder,
            runtime,
            save=lambda: save_model(folder.model_path, model, tokens, adapters=self.lora.save_adapters),
            summary=summary,
            quiet=quiet,
        )


@dataclass(frozen=True, kw_only=True)
class RewardJob:
    """Fit a reward model to comparisons and rankings."""

    verb: ClassVar[str] = "reward"
    model: str
    """The fine-tuned model it starts from."""
    data: str
    """A record, or a JSONL or Parquet file: prompt, chosen, rejected; or prompt, responses, ranking."""
    references: str | None = None
    """Examples whose responses score 0 on average, as for sft; default: the best responses of the data."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    place: Placed = field(default_factory=Place)
    training: RewardTrainingSettings = field(default_factory=RewardTrainingSettings)

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Fit the reward model, normalise it, read back what was saved, and write how it orders held-out answers."""
        runtime, seed = self.place.runtime(), self.place.seed
        training = self.place.seeded(self.training)
        policy, tokens = load_model(self.model)
        encoder, reading = self.place.encoder(tokens, context_length(policy)), self.place.reading(tokens)
        ranked = sources.read_rankings(self.data, reading)
        say(self.data, reading)
        if training.plackett_luce:
            check_no_ties(ranked)
        rankings = encode_rankings(encoder, ranked)
        # Members of an ensemble differ in the seed of their training, not in what is held out.
        learned, held_out = split_rankings(rankings, seed)
        if self.lora.save_adapters:
            raise UserError("A reward model is saved whole, its adapters merged. Leave --lora.save-adapters out.")
        model = RewardModel.from_policy(policy, stream_seed(training.seed, "head"))
        model.add_lora(self.lora, stream_seed(training.seed, "lora"))
        model.to(runtime.device)
        trainer = RewardTrainer(model, learned, training, pad_id=tokens.pad_id, runtime=runtime)

        def save() -> None:
            if self.references is None:
                pairs = [(row.prompt, row.responses[row.ranks.index(min(row.ranks))]) for row in learned]
            else:
                given = sources.read_examples(self.references, seed=seed, count=512, reading=self.place.reading(tokens))
                pairs = encode_examples(encoder, given)
            model.recentre([prompt for prompt, _ in pairs[:512]], [r for _, r in pairs[:512]], tokens.pad_id)
            model.save(folder.model_path, tokens)

        def summary() -> dict[str, Any]:
            if not held_out:
                nothing_held_out()
                return {"rankings": len(learned)}
            report = judge_reward(score_rankings(model, held_out, tokens.pad_id), [row.ranks for row in held_out])
            return report.to_json() | {"rankings": len(learned)}

        run_trainer(trainer, folder, runtime, save=save, summary=summary, quiet=quiet)


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
    """Prompts: servicedesk, a world of your own as module:Name, a record, or a JSONL or Parquet file with a column
    `prompt`."""
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


@dataclass(frozen=True, kw_only=True)
class DPOJob:
    """Train a policy on preferences without a reward model: DPO, on pairs or whole rankings."""

    verb: ClassVar[str] = "dpo"
    model: str
    """The fine-tuned model, which is also the reference."""
    data: str
    """A record, or a JSONL or Parquet file of comparisons, rankings, or likes."""
    proxy: tuple[str, ...] = ()
    """Reward models to draw beside the gold reward in the curve; training does not read them."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    training: PreferenceSettings = field(default_factory=PreferenceSettings)

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Train the policy on the pairs or likes and save it, with its held-out figures, in the run's folder."""
        if self.training.method != self.verb:
            raise UserError(f"{self.verb} was asked to train by {self.training.method}; leave training.method out.")
        runtime = self.place.runtime()
        model, tokens = load_model(self.model)
        encoder, reading = self.place.encoder(tokens, context_length(model)), self.place.reading(tokens)
        read = sources.read_likes if self.training.method == "kto" else sources.read_rankings
        data: list[Any] = read(self.data, reading)
        say(self.data, reading)
        if self.training.rankings:
            check_no_ties(data)
        rows = encoder.rows([(item.prompt, texts_of(item)) for item in data])
        data = [item for item, row in zip(data, rows, strict=True) if row is not None]
        learned, held_out = split_by(data, [prompt_key(item.prompt) for item in data], self.place.seed)
        model = add_lora(model, self.lora, stream_seed(self.place.seed, "lora")).to(runtime.device)
        with enough_memory(LESS_MEMORY):  # the reference's pass over all of the data
            trainer = PreferenceTrainer(model, encoder, learned, self.place.seeded(self.training), runtime=runtime)
            per_token = self.training.method == "simpo"
            implied = (
                ImpliedReward(model, encoder, held_out, self.training.beta, runtime, per_token=per_token)
                if held_out
                else None
            )
        proxy = load_proxy(self.proxy, tokens, runtime, 0.0)
        sampling = SamplingSettings(max_tokens=encoder.max_response_tokens)
        watched = make_evaluation(self.watch, self.model, self.data, model, encoder, sampling, runtime, proxy, reading)
        if implied is None:
            nothing_held_out()
        told = None if implied is None else implied.figures
        run_policy(trainer, folder, runtime, tokens, watched, self.watch.times, self.lora, held_out=told, quiet=quiet)


@dataclass(frozen=True, kw_only=True)
class IPOJob(DPOJob):
    """Train a policy by identity preference optimisation."""

    verb: ClassVar[str] = "ipo"
    training: PreferenceSettings = field(default_factory=lambda: PreferenceSettings(method="ipo"))


@dataclass(frozen=True, kw_only=True)
class SimPOJob(DPOJob):
    """Train a policy by simple preference optimisation, which has no reference."""

    verb: ClassVar[str] = "simpo"
    training: PreferenceSettings = field(default_factory=simpo_settings)


@dataclass(frozen=True, kw_only=True)
class KTOJob(DPOJob):
    """Train a policy from likes and dislikes."""

    verb: ClassVar[str] = "kto"
    training: PreferenceSettings = field(default_factory=lambda: PreferenceSettings(method="kto"))


Job = PretrainJob | SFTJob | RewardJob | PPOJob | DPOJob
JOBS: dict[str, type[Any]] = {
    kind.verb: kind
    for kind in (
        PretrainJob,
        SFTJob,
        RewardJob,
        PPOJob,
        RLOOJob,
        GRPOJob,
        ReinforceJob,
        EstimatorJob,
        OnlineDPOJob,
        OnlineIPOJob,
        DPOJob,
        IPOJob,
        SimPOJob,
        KTOJob,
    )
}


def start(job: Job, out: Path, *, trackers: Sequence[str] = (), quiet: bool = False) -> TextFolder:
    """Run a job in a new folder; one that was refused before anything happened leaves none behind.

    Of several processes the main one makes the folder, and takes it back.

    Args:
        job: what to do.
        out: the folder.
        trackers: experiment trackers that take its figures, by name (`prefrl.runs.trackers`).
        quiet: no progress.

    Raises:
        UserError: the job cannot be done.
        Interrupted: the user stopped it; `resume` goes on.
    """
    runtime, folder, settings = job.place.runtime(), TextFolder(out), to_json(job)

    def begin() -> None:
        digests = digests_of(settings)
        keep_digests(made := TextFolder.create(out, job.verb, settings), digests)
        if trackers:
            tracking.track(made, trackers)

    runtime.on_main(begin)
    try:
        _run(job, folder, quiet)
    except Exception:
        trained = folder.metrics_path.exists() and folder.metrics_path.stat().st_size
        if not trained and not (folder.path / "record.sqlite").exists():  # in which people's answers may be
            remove_untouched(folder, runtime)
        raise
    return folder


def resume(path: Path, *, quiet: bool = False, trust: bool = False, accept_changed: bool = False) -> TextFolder:
    """Go on with a job that was stopped or killed, from whatever working directory.

    Raises:
        UserError: there is none, it is finished, or what it learns from is not what it was.
        Interrupted: the user stopped it again.
    """
    folder = TextFolder.open(path, trust=trust)
    folder.accept_changed = accept_changed
    folder.refuse_if_finished()
    job = folder.read_settings(job_of(folder), settings_of(folder))
    job.place.runtime().on_main(lambda: check_inputs(folder))
    _run(job, folder, quiet)
    return folder


def _run(job: Job, folder: TextFolder, quiet: bool) -> None:
    with tracking.followed(folder) if on_main_process() else nullcontext():
        job.run(folder, quiet=quiet)


def job_of(folder: TextFolder) -> type[Any]:
    """Return the kind of job that a folder is of.

    Raises:
        UserError: none that is known here.
    """
    verb = folder.config["command"]
    if verb not in JOBS:
        raise UserError(f"{folder.config_path} names a command that is not one of {', '.join(JOBS)}: {verb[:60]!r}.")
    return JOBS[verb]


def remove_untouched(folder: TextFolder, runtime: Runtime) -> None:
    """Take back the folder of a run in which nothing was trained."""
    if runtime.is_main:
        shutil.rmtree(folder.path, ignore_errors=True)
