"""Hyper-parameters of our PPO, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from prefrl.agents.numbers import is_number, is_whole
from prefrl.errors import UserError, near_names


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """Hyper-parameters; a number or `"linear:X"`, which falls from X to 0, where it says so."""

    learning_rate: float | str = 3e-4
    """Of Adam; or linear."""
    n_steps: int = 2048
    """Steps of each environment between updates."""
    batch_size: int = 64
    """Steps in a minibatch."""
    n_epochs: int = 10
    """Passes over each rollout."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Of the generalised advantage estimate (Schulman et al. 2016)."""
    clip_range: float | str = 0.2
    """Of the probability ratio; or linear."""
    clip_range_vf: float | str | None = None
    """Of the change of values; or linear; None: not clipped."""
    normalize_advantage: bool = True
    """To mean 0 and standard deviation 1 in each minibatch."""
    ent_coef: float = 0.0
    """Weight of the entropy."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients longer than this are shortened."""
    target_kl: float | None = None
    """The update ends early beyond 1.5 times this divergence."""
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    """net_arch (a list of units, or {"pi": [...], "vf": [...]}), activation_fn ("tanh" or "relu"), log_std_init."""
    scale_actions: bool = False
    """Box actions in units of half their range, 0 in its middle, where it is bounded; so is then their noise."""
    normalize_observations: bool | None = None
    """Normalise by running statistics; None: where all observations are floats."""
    normalize_until: float = 1.0
    """Share of the training after which these statistics are frozen."""
    normalize_returns: bool = False
    """Centre rewards and divide them by the running standard deviation of the discounted return."""

    @classmethod
    def of(cls, given: dict[str, Any]) -> PpoSettings:
        """Check hyper-parameters given by name.

        Raises:
            UserError: an unknown name, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = near_names(name, known)
                raise UserError(f"PPO has no hyper-parameter {name!r} here.{near} It knows: {', '.join(known)}.")
        settings = cls(**{**given, "policy_kwargs": given.get("policy_kwargs") or {}})
        for name in ("n_steps", "batch_size", "n_epochs"):
            value = getattr(settings, name)
            if not is_whole(value) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1. Received {value!r}")
        for name, least, most in _RANGES:
            value = getattr(settings, name)
            if name == "target_kl" and value is None:
                continue
            if not (is_number(value) and least <= value <= most):
                limits = f"in [{least}, {most}]" if most < math.inf else f"a finite number of at least {least}"
                raise UserError(f"{name} must be {limits}. Received {value!r}")
        if settings.max_grad_norm == 0:
            raise UserError("max_grad_norm must be positive. Received 0")
        for name in ("normalize_advantage", "normalize_returns", "scale_actions", "normalize_observations"):
            value = getattr(settings, name)
            if not isinstance(value, bool) and (value is not None or name != "normalize_observations"):
                raise UserError(f"{name} must be true or false. Received {value!r}")
        _check_policy_kwargs(settings.policy_kwargs)
        return settings


_RANGES = (
    ("gamma", 0, 1),
    ("gae_lambda", 0, 1),
    ("normalize_until", 0, 1),
    ("ent_coef", 0, math.inf),
    ("vf_coef", 0, math.inf),
    ("max_grad_norm", 0, math.inf),
    ("target_kl", 0, math.inf),
)


def _check_policy_kwargs(given: Any) -> None:
    names = ("net_arch", "activation_fn", "log_std_init")
    if not isinstance(given, dict):
        raise UserError(f"policy_kwargs must name some of {', '.join(names)}. Received {given!r}")
    for name in given:
        if name not in names:
            raise UserError(
                f"policy_kwargs has no {name!r} here.{near_names(name, names)} It knows: {', '.join(names)}."
            )
    if not is_number(given.get("log_std_init", 0.0)):
        raise UserError(f"log_std_init must be a finite number. Received {given['log_std_init']!r}")
    units = given.get("net_arch", [])
    parts = [units.get("pi"), units.get("vf")] if isinstance(units, dict) else [units]
    for part in parts:
        if not isinstance(part, list | tuple) or not all(isinstance(size, int) and size >= 1 for size in part):
            raise UserError(
                f'net_arch must be a list of numbers of units, or {{"pi": [...], "vf": [...]}}. Received {units!r}'
            )
