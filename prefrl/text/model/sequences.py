"""Prompts with responses as arrays, and what a language model says about them.

Prompts are padded on the left and responses on the right, so that every response begins in the same column: the head of
the language model is then applied to the columns of responses only, and log-probabilities never shift by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefrl.errors import UserError
from prefrl.text.model import lean_llama
from prefrl.text.model.inputs import accepts, model_inputs
from prefrl.text.model.traits import reads_padding


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """B prompts with their responses."""

    prompt_ids: Tensor
    """`(B, P)` int64, padded on the left."""
    prompt_mask: Tensor
    """`(B, P)` bool."""
    response_ids: Tensor
    """`(B, R)` int64, padded on the right; the end token, where there is one, is the last of the response."""
    response_mask: Tensor
    """`(B, R)` bool; at least one token in each row."""

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def lengths(self) -> Tensor:
        """`(B,)` int64: tokens of each response, its end included."""
        return self.response_mask.sum(1)

    def ended(self, end_id: int | Collection[int]) -> Tensor:
        """Return `(B,)` bool: whether the last token of each response is the end, or one of several."""
        rows = torch.arange(len(self), device=self.response_ids.device)
        ends = torch.tensor([end_id] if isinstance(end_id, int) else sorted(end_id), device=rows.device)
        return torch.isin(self.response_ids[rows, self.lengths - 1], ends)

    def to(self, device: torch.device | str) -> Sequences:
        """Return the arrays on a device."""
        return Sequences(**{name: getattr(self, name).to(device) for name in _FIELDS})

    def rows(self, index: Tensor) -> Sequences:
        """Return some rows, without the columns that hold only padding then."""
        prompt_mask, response_mask = self.prompt_mask[index], self.response_mask[index]
        start = self.prompt_mask.shape[1] - int(prompt_mask.sum(1).max())
        width = int(response_mask.sum(1).max())
        return Sequences(
            prompt_ids=self.prompt_ids[index][:, start:],
            prompt_mask=prompt_mask[:, start:],
            response_ids=self.response_ids[index][:, :width],
            response_mask=response_mask[:, :width],
        )

    def token_lists(self) -> list[list[int]]:
        """Return the ids of each response, its end included."""
        return [ids[:n] for ids, n in zip(self.response_ids.tolist(), self.lengths.tolist(), strict=True)]


_FIELDS = ("prompt_ids", "prompt_mask", "response_ids", "response_mask")


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids `(B, P)` and their mask, padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.arange(width) >= width - torch.tensor([len(row) for row in rows])[:, None]
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids `(B, R)` and their mask, padded on the right."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    return ids, mask


def make_sequences(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int) -> Sequences:
    """Pad token ids of prompts and responses into arrays.

    Raises:
        UserError: a prompt or a response is empty.
    """
    if not prompts or not all(prompts) or not all(responses):
        raise UserError(
            "Every prompt and every response must have at least one token (a response may be its end alone)."
        )
    prompt_ids, prompt_mask = pad_left(prompts, pad_id)
    response_ids, response_mask = pad_right(responses, pad_id)
    return Sequences(
        prompt_ids=prompt_ids, prompt_mask=prompt_mask, response_ids=response_ids, response_mask=response_mask
    )


def joined(parts: Sequence[Sequences], pad_id: int) -> Sequences:
    """Return several batches as one, filled up to the widest."""
    prompts = max(part.prompt_ids.shape[1] for part in parts)
    responses = max(part.response_ids.shape[1] for part in parts)
    fill = {"prompt_ids": pad_id, "prompt_mask": False, "response_ids": pad_id, "response_mask": False}
    arrays = {}
    for name, value in fill.items():
        of_parts = []
        for part in parts:
            array = getattr(part, name)
            more = (prompts - array.shape[1], 0) if name.startswith("prompt") else (0, responses - array.shape[1])
            of_parts.append(pad(array, more, value=value))
        arrays[name] = torch.cat(of_parts)
    return Sequences(**arrays)


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return indices in batches of similar length, so that little of a batch is padding; longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def by_prompt_length(model: Any, batch: Sequences, read: Callable[[Sequences], Tensor]) -> Tensor:
    """Return what a model says of a batch, `(B, R, ...)`, where it must not be given prompts that are padded.

    Args:
        model: whether it reads padding is asked.
        batch: B prompts with responses of R columns.
        read: gives `(B, R', ...)` of a batch whose responses have R' columns, at most R.
    """
    lengths = batch.prompt_mask.sum(1)
    if bool((lengths == lengths[0]).all()) or reads_padding(model):
        return read(batch)
    found = [(rows := (lengths == length).nonzero().squeeze(1), read(batch.rows(rows))) for length in lengths.unique()]
    whole = found[0][1].new_zeros(len(batch), batch.response_ids.shape[1], *found[0][1].shape[2:])
    for rows, said in found:
        whole = whole.index_put((rows[:, None], torch.arange(said.shape[1], device=rows.device)[None]), said)
    return whole


def response_logits(model: Any, batch: Sequences, temperature: float = 1.0) -> Tensor:
    """Return `(B, R, V)` float32 logits of each response token, divided by the temperature.

    The head is applied to the columns of responses only, where the model offers that.
    """
    logits = by_prompt_length(model, batch, lambda part: _logits(model, part))
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def _logits(model: Any, batch: Sequences) -> Tensor:
    width = batch.response_ids.shape[1]
    # The last token of a response predicts nothing that is needed.
    ids = torch.cat([batch.prompt_ids, batch.response_ids[:, :-1]], 1)
    mask = torch.cat([batch.prompt_mask, batch.response_mask[:, :-1]], 1)
    backbone = lean_llama.backbone_of(model)
    if backbone is not None:
        columns = torch.arange(ids.shape[1] - width, ids.shape[1]).expand(len(ids), -1)
        return model.lm_head(lean_llama.hidden_states(backbone, ids, mask, columns))
    inputs = model_inputs(model, ids, mask)
    if accepts(model, "logits_to_keep"):
        inputs["logits_to_keep"] = width
    return model(**inputs).logits[:, -width:]


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return `(B, R)` log-probabilities of tokens under logits `(B, R, V)`."""
    return torch.log_softmax(logits, -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def response_log_probs(model: Any, batch: Sequences, temperature: float = 1.0) -> Tensor:
    """Return `(B, R)` float32 log-probabilities of the tokens of responses, 0 outside their mask."""
    log_probs = token_log_probs(response_logits(model, batch, temperature), batch.response_ids)
    return torch.where(batch.response_mask, log_probs, torch.zeros_like(log_probs))


@torch.no_grad()
def sequence_log_probs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int = 64,
    temperature: float = 1.0,
) -> Tensor:
    """Return `(B,)` float32 log-probabilities of whole responses, on the CPU, computed in batches of similar length."""
    total = torch.zeros(len(prompts))
    device = next(model.parameters()).device
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    for index in batches_by_length(lengths, batch_size):
        batch = make_sequences([prompts[i] for i in index], [responses[i] for i in index], pad_id).to(device)
        total[index] = response_log_probs(model, batch, temperature).sum(1).cpu()
    return total
