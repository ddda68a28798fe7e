"""Low-rank adapters by `peft`: few weights are trained, the model without them is the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from prefrl.errors import UserError, require


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Adapters on every linear layer (Hu et al. 2021).

    Raises:
        UserError: a value out of its range.
    """

    rank: int = 0
    """0: none, all weights are trained."""
    alpha: float = 16.0
    """The adapters' product is scaled by alpha / rank."""
    save_adapters: bool = False
    """Save the adapters alone, as peft does, instead of a plain model with them merged."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0:
            raise UserError(f"rank must be at least 0 and alpha above 0. Received {self.rank} and {self.alpha}")
        if self.save_adapters and not self.rank:
            raise UserError("There are no adapters to save: --lora.save-adapters needs --lora.rank.")


def add_lora(model: Any, settings: LoraSettings, seed: int) -> Any:
    """Return the model with adapters, if the settings ask for them; they change nothing before they are trained.

    Args:
        model: a language model, or the transformer of a reward model.
        settings: of the adapters.
        seed: their first weights follow from it; the global random state is left as it was.
    """
    if not settings.rank:
        return model
    peft = require("peft", "text")
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM" if model.get_output_embeddings() is not None else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config).eval()


def has_adapters(model: Any) -> bool:
    """Tell whether a model has adapters that can be switched off."""
    return hasattr(model, "disable_adapter")


@contextmanager
def reference_of(model: Any, frozen: Any | None) -> Iterator[Any]:
    """Give the reference of a policy: a frozen copy if there is one, else the policy with its adapters switched off."""
    if frozen is not None:
        yield frozen
        return
    with model.disable_adapter():
        yield model
