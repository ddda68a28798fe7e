"""What is learned from texts and answers alone: a language model, a fine-tuned one, a reward model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from prefrl.envs.text_worlds import DEFAULT_WORLD
from prefrl.errors import UserError
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.streams import stream_seed
from prefrl.text.data import sources
from prefrl.text.data.examples import check_no_ties
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import (
    Place,
    Placed,
    nothing_held_out,
    prompt_key,
    say,
    some_blocks,
    split_by,
    split_held_out,
    split_rankings,
)
from prefrl.text.jobs.running import run_trainer
from prefrl.text.jobs.worlds import probe
from prefrl.text.learn.reward_model import RewardModel
from prefrl.text.learn.reward_training import (
    RewardTrainer,
    RewardTrainingSettings,
    encode_rankings,
    judge_reward,
    score_rankings,
)
from prefrl.text.learn.sft import SFTSettings, SFTTrainer, encode_examples, encode_texts, language_model_loss
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import build_model, context_length, load_model, num_parameters, preset, save_model
from prefrl.text.model.tokens import Tokens, train_tokenizer


@dataclass(frozen=True, kw_only=True)
class PretrainJob:
    """Train a small language model and its tokenizer from nothing, on texts."""

    verb: ClassVar[str] = "pretrain"
    data: str = DEFAULT_WORLD
    """servicedesk, docstrings, a world of your own as module:Name, or a JSONL or Parquet file with a column `text`."""
    size: str = "demo"
    """tiny, demo (0.4 M parameters), words (0.5 M, for real text), small (3 M) or medium (20 M)."""
    architecture: str = "llama"
    """llama, gpt2 or qwen3."""
    paragraphs: int = 60_000
    """Of a world."""
    block_tokens: int = 96
    place: Placed = field(default_factory=Place)
    training: SFTSettings = field(
        default_factory=lambda: SFTSettings(
            batch_size=8,
            optimiser=OptimiserSettings(learning_rate=1.5e-3, warmup_share=0.05, decay="cosine", adam_eps=1e-8),
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
    """servicedesk, docstrings, a world of your own as module:Name, a record, or a JSONL or Parquet file with prompt and
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
