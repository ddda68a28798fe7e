"""Low-rank adapters (Hu et al. 2021) on the attention of the network, by `peft`: merged when the training ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prefrl.errors import UserError, require
from prefrl.image.model import ImageModel

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Adapters in place of all weights."""

    rank: int = 0
    """0: all weights of the network are trained."""
    alpha: float = 16.0
    """Scale: alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0:
            raise UserError("rank must be at least 0 and alpha above 0.")


def add_lora(model: ImageModel, settings: LoraSettings, seed: int) -> None:
    """Put adapters into the network, and train those alone; with rank 0, nothing changes."""
    if settings.rank == 0:
        return
    peft = require("peft", "image")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(TARGETS))
        model.denoiser.requires_grad_(False)
        peft.inject_adapter_in_model(config, model.denoiser)


def merge_lora(model: ImageModel) -> None:
    """Add adapters to the weights that they adapt, and take them out: the model is then as one without."""
    peft = require("peft", "image")
    for name, module in list(model.denoiser.named_modules()):
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.merge()
            parent = model.denoiser.get_submodule(name.rpartition(".")[0]) if "." in name else model.denoiser
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    model.denoiser.requires_grad_(True)
