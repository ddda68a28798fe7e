"""Hyper-parameters of our PPO, checked."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

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
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1. Received {value!r}")
        for name in ("gamma", "gae_lambda", "normalize_until"):
            if not 0 <= getattr(settings, name) <= 1:
                raise UserError(f"{name} must be in [0, 1]. Received {getattr(settings, name)}")
        if settings.max_grad_norm <= 0:
            raise UserError(f"max_grad_norm must be positive. Received {settings.max_grad_norm}")
        for name in settings.policy_kwargs:
            names = ("net_arch", "activation_fn", "log_std_init")
            if name not in names:
                near = near_names(name, names)
                raise UserError(f"policy_kwargs has no {name!r} here.{near} It knows: {', '.join(names)}.")
        return settings
