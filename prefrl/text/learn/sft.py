"""Supervised fine-tuning and pretraining: cross-entropy of responses, or of blocks of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from prefrl.envs.text_tokens import TextTokenizer
from prefrl.errors import UserError
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream_seed
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer, micro_batches
from prefrl.text.data.examples import Encoder, Example, language_model_blocks
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import batches_by_length, make_sequences, response_log_probs

TokenPair = tuple[list[int], list[int]]
"""Prompt and response as ids."""


@dataclass(frozen=True, kw_only=True)
class SFTSettings:
    """Fine-tuning on examples.

    One epoch by default: a reward model started from an overfitted model is worse (Stiennon et al. 2020, app. B.1).

    Raises:
        UserError: a value out of its range.
    """

    epochs: int = 1
    batch_size: int = 32
    micro_batch_size: int = 0
    """So many of them go through the model at once, the gradients adding up to those of the batch; 0: all. Smaller, it
    takes less memory."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=1e-5, warmup_share=0.05, decay="cosine", adam_eps=1e-8)
    )
    seed: NoOption[int] = 0
    """In a run 0 means that of --seed."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.micro_batch_size < 0:
            raise UserError("epochs and batch_size must be at least 1, micro_batch_size at least 0.")


def encode_examples(encoder: Encoder, examples: Sequence[Example]) -> list[TokenPair]:
    """Return the ids of prompts and responses that fit, the responses with their end; how many are left out is said.

    Raises:
        UserError: there are none, or one is too long and such ones are refused.
    """
    if not examples:
        raise UserError("There are no examples to learn from; the data set is empty.")
    rows = encoder.rows([(example.prompt, (example.response,)) for example in examples])
    return [(row.prompt, row.responses[0]) for row in rows if row is not None]


def encode_texts(tokens: TextTokenizer, texts: Sequence[str], block_tokens: int, context: int) -> list[TokenPair]:
    """Return blocks of text for pretraining: after an end token, every token of the block is predicted.

    Raises:
        UserError: a block and the end token do not fit into the context, or the texts do not fill one block.
    """
    if block_tokens >= context:
        raise UserError(
            f"Blocks of {block_tokens} tokens after an end token do not fit into the model's context of {context}. "
            f"Use --block-tokens {context - 1} or less."
        )
    return [([tokens.end_id], block) for block in language_model_blocks(tokens, texts, block_tokens)]


class SFTTrainer(ModelTrainer):
    """Fits a model to responses: the loss is the mean cross-entropy per response token of a batch, prompts left out.

    Args:
        model: a causal language model; it is trained in place, its dropout on if it has any.
        data: prompts and responses as ids; `encode_examples` or `encode_texts` make them.
        settings: of the run.
        pad_id: fills up the arrays.
        runtime: device and processes.
    """

    def __init__(
        self, model: Any, data: Sequence[TokenPair], settings: SFTSettings, *, pad_id: int, runtime: Runtime
    ) -> None:
        super().__init__()
        if not data:
            raise UserError("There are no examples to learn from; the data set is empty.")
        self.name = "fine-tuning"
        self.model, self.data, self.settings, self.pad_id, self.runtime = model, data, settings, pad_id, runtime
        runtime.shard(model)
        self._epochs = Epochs(len(data), settings.batch_size, settings.seed, "sft")
        self.total_steps = settings.epochs * self._epochs.steps_per_epoch
        self.optimiser = Optimiser(model.parameters(), settings.optimiser, self.total_steps, runtime)

    def step(self) -> Metrics:
        """Make one update on one batch."""
        index = self._epochs.batch(self.num_steps)
        num_tokens = sum(len(self.data[i][1]) for i in index)
        loss = torch.zeros((), device=self.runtime.device)
        self.model.train()
        with self._dropout_stream():
            parts = micro_batches(self.runtime.share(index), self.settings.micro_batch_size)
            idle = self.runtime.idle_parts(len(parts))
            for part in parts:
                loss += add_language_gradient(self.model, [self.data[i] for i in part], self, num_tokens)
            for _ in range(idle):
                add_language_gradient(self.model, [self.data[index[0]]], self, num_tokens, 0.0)
        norm = self.optimiser.step()
        self.model.eval()
        self.num_steps += 1
        self.num_examples += len(index)
        return {"loss": self.runtime.total(loss).item(), "grad_norm": norm}

    @contextmanager
    def _dropout_stream(self) -> Iterator[None]:
        """Have dropout draw from a stream of this step instead of the global one."""
        devices = [self.runtime.device] if self.runtime.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(stream_seed(self.settings.seed, "dropout", self.num_steps, self.runtime.index))
            yield


class Reader(Protocol):
    """What pads a batch and places it."""

    pad_id: int
    runtime: Runtime


def add_language_gradient(
    model: Any, rows: Sequence[TokenPair], reader: Reader, num_tokens: int, weight: float = 1.0
) -> Tensor:
    """Add the gradient of `weight` times the cross-entropy of responses over `num_tokens`; return the loss, `()`.

    Args:
        model: in training or evaluation mode.
        rows: prompts and responses, a part of a batch.
        reader: gives padding, device and precision.
        num_tokens: response tokens of the whole batch, over all processes.
        weight: of the gradient, not of the loss that is returned.
    """
    batch = make_sequences([p for p, _ in rows], [r for _, r in rows], reader.pad_id).to(reader.runtime.device)
    with reader.runtime.autocast():
        loss = -response_log_probs(model, batch).sum() / num_tokens
    (loss if weight == 1.0 else weight * loss).backward()
    return loss.detach()


@torch.no_grad()
def language_model_loss(model: Any, data: Sequence[TokenPair], *, pad_id: int, batch_size: int = 64) -> float:
    """Return the mean cross-entropy per response token over data, in nats."""
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for index in batches_by_length([len(p) + len(r) for p, r in data], batch_size):
        batch = make_sequences([data[i][0] for i in index], [data[i][1] for i in index], pad_id).to(device)
        total -= float(response_log_probs(model, batch).sum())
        count += int(batch.response_mask.sum())
    return total / count
