"""What a language model of any architecture can do, found by trying it once: architectures do not say it reliably.

A model whose layers are recurrent may take no notice of the mask, so that what fills up a row on the left changes what
the row says: `reads_padding`. One that looks ahead is no causal language model, whatever it is called:
`refuse_not_causal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.text.model import lean_llama
from prefrl.text.model.inputs import inner_model, model_inputs

_Found = TypeVar("_Found")
_known: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
TOLERANCE = 1e-3
"""Share of the spread of what a model says that rounding may change."""
LENGTH = 6


def once(model: Any, name: str, find: Callable[[], _Found]) -> _Found:
    """Return what `find` finds about a model, asked once for each."""
    known = _known.setdefault(inner_model(model), {})
    if name not in known:
        with torch.no_grad(), _evaluating(model):
            known[name] = find()
    found: _Found = known[name]
    return found


def reads_padding(model: Any) -> bool:
    """Tell whether a row that is filled up on the left, and masked there, says what it says alone."""
    return lean_llama.backbone_of(model) is not None or once(model, "padding", lambda: _reads_padding(model))


def refuse_not_causal(model: Any, name: str) -> None:
    """Raise if a model is no causal language model.

    Raises:
        UserError: it has an encoder, or a later token changes what it says of an earlier one.
    """
    kind = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UserError(
            f"{name} is a {kind} with an encoder; prefrl text trains causal language models, which read a prompt and "
            "go on. Give one of those, e.g. of the kinds Llama, Qwen or GPT-2."
        )
    if lean_llama.backbone_of(model) is None and not once(model, "causal", lambda: _is_causal(model)):
        raise UserError(
            f"{name} is a {kind} that looks ahead: a later token changes what it says of an earlier one. prefrl text "
            "trains causal language models only; give one of those, e.g. of the kinds Llama, Qwen or GPT-2."
        )


def some_ids(model: Any, rows: int, length: int) -> Tensor:
    """Return `(rows, length)` ids of a model's vocabulary, the same each time."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = (3 + 5 * torch.arange(rows * length).view(rows, length)) % size
    return ids.to(next(model.parameters()).device)


def same(first: Tensor, second: Tensor) -> bool:
    """Tell whether what a model said twice is the same up to rounding."""
    return bool((first - second).abs().max() <= TOLERANCE * first.std() + 1e-7)


def said(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return logits `(B, S, V)` of a language model, or the hidden states of one without a head, `(B, S, H)`."""
    out = model(**model_inputs(model, ids, torch.ones_like(ids) if mask is None else mask))
    given: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return given.float()


def _is_causal(model: Any) -> bool:
    ids = some_ids(model, 1, LENGTH)
    other = ids.clone()
    other[:, -2:] = ids[:, :2]
    return same(said(model, ids)[:, :-2], said(model, other)[:, :-2])


def _reads_padding(model: Any) -> bool:
    ids = some_ids(model, 1, LENGTH)
    padded = torch.cat([ids[:, :3], ids], 1)
    mask = torch.arange(padded.shape[1], device=ids.device)[None] >= 3
    return same(said(model, ids), said(model, padded, mask)[:, 3:])


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
