"""What jobs are made of: where they run, how policies are watched, rewards by name, what is held out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from prefrl.envs.text_rewards import TextReward
from prefrl.envs.text_worlds import TextWorld
from prefrl.errors import UserError
from prefrl.runs.running import evaluation_steps
from prefrl.runs.streams import check_seed, stream, stream_seed
from prefrl.runs.trainer import ModelTrainer
from prefrl.seams import is_function_name, load_function
from prefrl.text.data import sources
from prefrl.text.data.chat import PlainChat, chat_of
from prefrl.text.data.examples import Encoder, TooLong
from prefrl.text.data.forms import Reading, columns_of
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.running import Evaluation, run_trainer
from prefrl.text.jobs.worlds import probe, world_of
from prefrl.text.learn.classifier_reward import ClassifierReward, is_classifier
from prefrl.text.learn.policy_gradient import PolicyGradientSettings
from prefrl.text.learn.policy_measures import evaluate_policy
from prefrl.text.learn.preference import PreferenceSettings
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.reward_training import EncodedRanking, RewardTrainingSettings
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.server_reward import ServerReward
from prefrl.text.learn.sft import SFTSettings, TokenPair, encode_texts, language_model_loss
from prefrl.text.model.generation import DRAWN_TOKENS, SamplingSettings
from prefrl.text.model.lora import LoraSettings
from prefrl.text.model.models import context_length, load_model, save_model
from prefrl.text.model.tokens import Tokens

HELD_OUT_SHARE = 0.1
SUMMARISED = ("kl_nats", "kl_standard_error", "gold", "proxy", "length", "repetition", "end_rate")
"""Figures of the last evaluation that are in the summary of a policy's run."""
_Training = TypeVar(
    "_Training", bound=SFTSettings | RewardTrainingSettings | PolicyGradientSettings | PreferenceSettings
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a job runs."""

    device: str = "auto"
    """auto, cpu or cuda."""
    bf16: bool | None = None
    """Compute in bfloat16; default: on a GPU that has it."""
    shard: bool | None = None
    """Of several processes: share weights, gradients and optimiser among them (FSDP), for models that do not fit on one
    device. Default: where accelerate launch --use_fsdp started them; else each holds the whole model."""
    max_tokens: int | None = None
    """Longest response, its end included. Default: 64 of those drawn, and of those in data what the model's context has
    room for."""
    too_long: TooLong = "drop"
    """What becomes of rows of data that are longer, counted: drop, cut (the beginning of the prompt, the end of the
    response), or refuse."""
    columns: tuple[str, ...] = ()
    """For data sets with columns of other names: OURS=THEIRS, as in prompt=query chosen=good rejected=bad."""
    seed: int = 0
    """Of data and training."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def runtime(self) -> Runtime:
        """Return the device and the processes."""
        return Runtime(self.device, self.bf16, self.shard)

    @property
    def drawn_tokens(self) -> int:
        """Longest response that is drawn."""
        return DRAWN_TOKENS if self.max_tokens is None else self.max_tokens

    def encoder(self, tokens: Tokens, context: int) -> Encoder:
        """Return what turns strings into ids."""
        limit = context if self.max_tokens is None else self.max_tokens
        return Encoder(
            tokens, context, min(self.drawn_tokens, context - 1) if self.max_tokens is None else self.drawn_tokens,
            max_data_tokens=limit, too_long=self.too_long,
        )  # fmt: skip

    def reading(self, tokens: Tokens | None = None) -> Reading:
        """Return how rows of data are read for a model."""
        chat = PlainChat() if tokens is None else chat_of(tokens.tokenizer)
        return Reading(chat=chat, columns=columns_of(self.columns))

    def seeded(self, training: _Training) -> _Training:
        """Return settings of training with this seed, unless they have one of their own."""
        return training if training.seed else replace(training, seed=self.seed)


Placed = Annotated[Place, tyro.conf.arg(name="")]
"""Of a job: on the command line its options are --device, --seed, ..., as those of control runs are."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Evaluations of a policy along the way: what the curve is drawn from.

    The prompts are held-out ones of the world if it learns from one, else those of its data.
    """

    times: int = 5
    """Evaluations after the one at the start; 0: none at all. Number i of n comes after (i / n)^2 of the steps, since a
    policy goes farthest from where it was at first."""
    prompts: int = 256
    world: str | None = None
    """Whose held-out prompts are answered and whose gold reward is told: a world's name, or module:Name of your own;
    default: the world that the data name, or one that knows their prompts, if there is one."""
    world_seed: int = 0
    """Of that world."""

    def __post_init__(self) -> None:
        if self.times < 0 or self.prompts < 1:
            raise UserError("times must be at least 0 and prompts at least 1.")


def split_held_out(items: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Return items to learn from, and a tenth of them (at least one, if there are two) kept apart."""
    return split_by(items, range(len(items)), seed)


def split_by(items: Sequence[Any], keys: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Return items to learn from, and those of a tenth of the keys (at least one, if there are two) kept apart.

    Args:
        items: in any order.
        keys: one for each: items of one key stay together, as those of one prompt must, or one side tells of the other.
        seed: of the draw.
    """
    groups: dict[Any, list[Any]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    kept = list(groups.values())
    order = stream(seed, "held out").permutation(len(kept)).tolist()
    count = min(max(1, int(len(kept) * HELD_OUT_SHARE)), 512) if len(kept) > 1 else 0
    return [item for i in order[count:] for item in kept[i]], [item for i in order[:count] for item in kept[i]]


def nothing_held_out() -> None:
    """Say that the summary will judge nothing: figures on what was learned from would look better than they are."""
    warnings.warn("There is one prompt alone, so none is held out and nothing is judged.", stacklevel=2)


def prompt_key(prompt: str) -> str:
    """Return what prompts have in common that differ in case, spaces and marks alone; they are held out together."""
    return " ".join(re.findall(r"\w+", prompt.casefold())) or prompt


def split_rankings(rankings: Sequence[EncodedRanking], seed: int) -> tuple[list[Any], list[Any]]:
    """Return rankings to learn from, and those of a tenth of the prompts kept apart.

    Ties alone judge nothing, so they are learned from, unless their prompt is kept apart.

    Raises:
        UserError: no two responses are ranked apart.
    """
    apart = [row for row in rankings if len(set(row.ranks)) > 1]
    if not apart:
        raise UserError("No two responses are ranked apart: a reward cannot be learned from ties alone.")
    learned, held_out = split_by(apart, [prompt_key(row.text) for row in apart], seed)
    known = {prompt_key(row.text) for row in held_out}
    tied = [row for row in rankings if len(set(row.ranks)) == 1 and prompt_key(row.text) not in known]
    return learned + tied, held_out


def run_policy(
    trainer: ModelTrainer,
    folder: TextFolder,
    runtime: Runtime,
    tokens: Tokens,
    evaluation: Evaluation,
    times: int,
    lora: LoraSettings,
    *,
    held_out: Callable[[], dict[str, Any]] | None = None,
    quiet: bool,
) -> None:
    """Train a policy and watch it `times` times; the summary has its last evaluation and held-out figures."""

    def summary() -> dict[str, Any]:
        rows = folder.read_evaluations()
        watched = {key: rows[-1][key] for key in SUMMARISED if rows and key in rows[-1]}
        return watched | ({} if held_out is None else held_out())

    run_trainer(
        trainer,
        folder,
        runtime,
        save=lambda: save_model(folder.model_path, trainer.model, tokens, adapters=lora.save_adapters),
        evaluation=evaluation if times else None,
        evaluate_at=evaluation_steps(trainer.total_steps, times),
        summary=summary,
        quiet=quiet,
    )


def make_evaluation(
    watch: Watch,
    start: str,
    data: str,
    model: Any,
    encoder: Encoder,
    sampling: SamplingSettings,
    runtime: Runtime,
    proxy: ModelReward | None,
    reading: Reading,
) -> Evaluation:
    """Return a function that gives the figures of a policy as it is.

    Args:
        watch: how much is looked at.
        start: the model that the policy started from.
        data: what it learns from; if those are prompts of a world, held-out ones are watched, and gold is known.
        model: the policy.
        encoder: turns strings into ids.
        sampling: how responses are drawn.
        runtime: device and processes.
        proxy: a learned reward to tell as well.
        reading: how rows of data are read.
    """
    needed = watch.times and runtime.is_main  # one process evaluates
    reference = load_model(start)[0].to(runtime.device) if needed else None
    seed = watch.world_seed
    world = world_of(data, seed, watch.world, reading)
    corpus: Sequence[str] = ()
    if world is None:
        asked = sources.read_prompts(data, seed=seed, count=None, held_out=True, reading=reading)
        prompts = fitting(encoder, asked)[: watch.prompts]
    else:
        prompts = sources.prompts_of(world, watch.prompts, held_out=True)
        corpus = world.texts(200, held_out=True)
    context = context_length(model)
    blocks = encode_texts(encoder.tokens, corpus, min(96, context - 1), context) if corpus else []

    def evaluation() -> dict[str, Any]:
        with runtime.autocast():
            row = evaluate_policy(
                model, reference, encoder, prompts, sampling,
                gold=None if world is None else world.gold, proxy=proxy, seed=stream_seed(seed, "watch"),
            )  # fmt: skip
            if world is not None:
                row |= probe(world, model, encoder.tokens)
            if blocks:
                row["language_loss"] = language_model_loss(model, blocks, pad_id=encoder.tokens.pad_id)
        return row

    return evaluation


def fitting(encoder: Encoder, prompts: Sequence[str]) -> list[str]:
    """Return the prompts behind which a response has room; how many are left out is said.

    Raises:
        UserError: there is none.
    """
    found = [prompt for prompt in prompts if encoder.leaves_room(prompt)]
    if len(found) < len(prompts):
        said = (
            f"{len(prompts) - len(found):,} of {len(prompts):,} prompts leave no room for a response of "
            f"{encoder.max_response_tokens} tokens in the model's context of {encoder.context:,}, or have no token"
        )
        if not found:
            raise UserError(f"{said}. Lower --max-tokens or take a model with a longer context.")
        warnings.warn(f"{said}; they are not answered.", stacklevel=2)
    return found


def say(data: str, reading: Reading) -> None:
    """Say what was left out or guessed in reading data."""
    for line in reading.lines():
        warnings.warn(f"{data}: {line}", stacklevel=2)


def load_reward(
    names: Sequence[str], tokens: Tokens, runtime: Runtime, pessimism: float, world: TextWorld | None = None
) -> TextReward | ModelReward:
    """Return the reward that names mean: folders of reward models, one FILE.py:FUNCTION or MODULE:FUNCTION, or `gold`.

    Args:
        names: of the reward.
        tokens: of the policy.
        runtime: where it is computed.
        pessimism: of several reward models.
        world: whose gold reward `gold` means.

    Raises:
        UserError: it cannot be had, or a reward model has another tokenizer than the policy.
    """
    if not names:
        raise UserError("Name a reward: the folder of a reward model, FILE.py:FUNCTION, or gold.")
    if list(names) == ["gold"]:
        if world is None:
            raise UserError("The reward gold is the true reward of a world, and no world knows these prompts.")
        return world.gold
    if len(names) == 1 and is_function_name(names[0]):
        return cast(TextReward, load_function(names[0], "reward function", "prompts and responses"))
    if len(names) == 1 and names[0].startswith(("http://", "https://")):
        return ServerReward(names[0])
    if len(names) == 1 and is_classifier(names[0]):
        return ClassifierReward(names[0], runtime)
    members = []
    for name in names:
        member, its_tokens = RewardModel.load(Path(name))
        if its_tokens.tokenizer.get_vocab() != tokens.tokenizer.get_vocab():
            raise UserError(f"The reward model {name} has another tokenizer than the policy; train it from the policy.")
        members.append(member.to(runtime.device).requires_grad_(False))
    return ModelReward(members, tokens, pessimism=pessimism)


def load_proxy(names: Sequence[str], tokens: Tokens, runtime: Runtime, pessimism: float) -> ModelReward | None:
    """Return the learned reward that names mean, to be told beside gold; None without names.

    Raises:
        UserError: they do not name reward models.
    """
    if not names:
        return None
    others = any(name == "gold" or is_function_name(name) for name in names)
    reward = None if others else load_reward(names, tokens, runtime, pessimism)
    if not isinstance(reward, ModelReward):
        raise UserError(f"The proxy must be folders of reward models. Received {' '.join(names)}")
    return reward


def run_of(model: str, *, trust: bool = False) -> TextFolder | None:
    """Return the run that a model is the result of; None where the name is that of another folder, or of the hub."""
    is_run = (Path(model) / "config.json").is_file() and (Path(model) / "model").is_dir()
    return TextFolder.open(Path(model), trust=trust) if is_run else None


def some_blocks(tokens: Tokens, model: Any, data: str, block_tokens: int, count: int, seed: int) -> list[TokenPair]:
    """Return up to `count` blocks of pretraining text, drawn without regard to where they stand."""
    texts = sources.read_texts(data, seed=seed, count=max(64, 3 * count))
    blocks = encode_texts(tokens, texts, block_tokens, context_length(model))
    order = stream(seed, "pretraining blocks").permutation(len(blocks))[:count]
    return [blocks[int(i)] for i in order]
