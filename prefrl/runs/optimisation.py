"""Adam with warm-up, decay and clipping, for any trainer of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from prefrl.errors import UserError
from prefrl.runs.sharding import full, gathered, part_of


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """How weights are updated.

    Raises:
        UserError: a value out of its range.
    """

    learning_rate: float = 3e-6
    """The peak."""
    warmup_share: float = 0.0
    """Share of all steps over which it rises from 0."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How it falls, to 0 at the last step."""
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    adam_eps: float = 1e-5
    """1e-5 is the reference implementations' (Huang et al. 2024)."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be above 0. Received {self.learning_rate}")
        if not 0 <= self.warmup_share < 1:
            raise UserError(f"warmup_share must be in [0, 1). Received {self.warmup_share}")
        if self.max_grad_norm <= 0 or self.weight_decay < 0 or self.adam_eps <= 0:
            raise UserError("max_grad_norm and adam_eps must be above 0, weight_decay at least 0.")


class AddsGradients(Protocol):
    """What adds up the gradients of several processes."""

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add them up, in place."""


class Optimiser:
    """AdamW on the weights that are trained.

    Args:
        parameters: the weights; those that need no gradient are left out.
        settings: how they are updated.
        total_steps: steps of the whole run, for warm-up and decay.
        runtime: adds up gradients over processes; None: there is one.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        settings: OptimiserSettings,
        total_steps: int,
        runtime: AddsGradients | None = None,
    ) -> None:
        self.settings, self.total_steps, self.runtime = settings, max(1, total_steps), runtime
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.adam = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            eps=settings.adam_eps,
            betas=(0.9, 0.999),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.num_steps = 0

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        done = self.num_steps / self.total_steps
        rate, warmup = self.settings.learning_rate, self.settings.warmup_share
        if warmup and done < warmup:
            return rate * (self.num_steps + 1) / (warmup * self.total_steps + 1)
        left = 1 - min(1.0, (done - warmup) / (1 - warmup))
        if self.settings.decay == "linear":
            return rate * left
        if self.settings.decay == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * (1 - left)))
        return rate

    def step(self) -> float:
        """Clip the gradients, update the weights, clear the gradients; return the norm before clipping.

        Raises:
            UserError: a gradient is not finite: the weights are left as they were.
        """
        if self.runtime is not None:
            self.runtime.add_gradients(self.parameters)
        norm = float(full(torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)))
        if not math.isfinite(norm):
            self.adam.zero_grad(set_to_none=True)
            raise UserError(
                f"The gradient is not finite at update {self.num_steps}. Lower the learning rate "
                f"({self.settings.learning_rate}) or look for broken rewards."
            )
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.num_steps += 1
        return norm

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; where the processes share the weights, all of them call it together."""
        return {"adam": gathered(self.adam.state_dict()), "num_steps": self.num_steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        adam = dict(state["adam"])
        adam["state"] = {
            number: {name: part_of(value, self.parameters[number]) for name, value in of_weight.items()}
            for number, of_weight in adam["state"].items()
        }
        self.adam.load_state_dict(adam)
        self.num_steps = int(state["num_steps"])
