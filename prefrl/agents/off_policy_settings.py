"""Hyper-parameters of agents that learn from a replay buffer, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from prefrl.agents.numbers import is_number, is_whole
from prefrl.errors import UserError, near_names

RESETS = ("never", "first", "always")


@dataclass(frozen=True, kw_only=True)
class OffPolicySettings:
    """Hyper-parameters by stable-baselines3's names and with its defaults, and some of our own at the end."""

    NAME: ClassVar[str]
    """Of the algorithm."""
    UNITS: ClassVar[list[int]]
    """Of the hidden layers, where nothing else is given."""
    WHOLE: ClassVar[dict[str, int]] = {
        "buffer_size": 1, "batch_size": 1, "train_freq": 1, "gradient_steps": 0, "recent_steps": 1,
    }  # fmt: skip
    """Names of whole numbers, and the least that they may be."""
    RANGES: ClassVar[dict[str, float]] = {"learning_rate": math.inf, "tau": 1.0, "gamma": 1.0, "recent_share": 1.0}
    """Names of numbers of at least 0, and the most that they may be."""

    learning_rate: float = 3e-4
    """Of Adam, for everything that is learned."""
    buffer_size: int = 1_000_000
    """Steps kept, at most as many as the training makes."""
    batch_size: int = 256
    """Steps in a minibatch."""
    tau: float = 0.005
    """Share by which the target critics follow the critics."""
    gamma: float = 0.99
    """Discount."""
    train_freq: int = 1
    """Steps of each environment between updates."""
    gradient_steps: int = 1
    """Updates then; -1: as many as environment steps were made."""
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    """net_arch (a list of units, or {"pi": [...], "qf": [...]}), activation_fn ("relu" or "tanh"), n_critics."""
    normalize_observations: bool | None = False
    """Normalise by running statistics; None: where all observations are floats."""
    recent_share: float = 0.0
    """Share of each minibatch that is drawn from the newest `recent_steps` alone (Hu et al. 2024, "Query-policy
    misalignment": half)."""
    recent_steps: int = 10_000
    """See `recent_share`."""
    reset_critics: str = "first"
    """Critics begin anew when the reward changes: "never", the "first" time after something was learned (PEBBLE, Lee et
    al. 2021: what exploring without a reward taught), or "always"."""

    @classmethod
    def of(cls, given: dict[str, Any]) -> Self:
        """Check hyper-parameters given by name.

        Raises:
            UserError: an unknown name, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = near_names(name, known)
                raise UserError(
                    f"This {cls.NAME} has no hyper-parameter {name!r}.{near} It knows: {', '.join(known)}. "
                    f"stable-baselines3's has others: --agent sb3-{cls.NAME.lower()}."
                )
        settings = cls(**{**given, "policy_kwargs": given.get("policy_kwargs") or {}})
        for name, least in cls.WHOLE.items():
            value = getattr(settings, name)
            if not (is_whole(value) and (value >= least or (name == "gradient_steps" and value == -1))):
                or_all = ", or -1" if name == "gradient_steps" else ""
                raise UserError(f"{name} must be a whole number of at least {least}{or_all}. Received {value!r}")
        for name, most in cls.RANGES.items():
            value = getattr(settings, name)
            if not (is_number(value) and 0 <= value <= most):
                limits = f"in [0, {most:g}]" if most < math.inf else "a finite number of at least 0"
                raise UserError(f"{name} must be {limits}. Received {value!r}")
        if settings.reset_critics not in RESETS:
            raise UserError(f"reset_critics must be one of {', '.join(RESETS)}. Received {settings.reset_critics!r}")
        normalize = settings.normalize_observations
        if normalize is not None and not isinstance(normalize, bool):
            raise UserError(f"normalize_observations must be true or false. Received {normalize!r}")
        settings.check()
        settings.hidden()
        return settings

    def check(self) -> None:
        """Check what this algorithm alone has.

        Raises:
            UserError: a value out of range.
        """

    def hidden(self) -> tuple[list[int], list[int], str, int]:
        """Return the units of the actor and of the critics, the activation, and how many critics there are."""
        given, names = self.policy_kwargs, ("net_arch", "activation_fn", "n_critics")
        if not isinstance(given, dict):
            raise UserError(f"policy_kwargs must name some of {', '.join(names)}. Received {given!r}")
        for name in given:
            if name not in names:
                near = near_names(name, names)
                raise UserError(f"policy_kwargs has no {name!r} here.{near} It knows: {', '.join(names)}.")
        units = given.get("net_arch", self.UNITS)
        of_actor, of_critics = (units.get("pi"), units.get("qf")) if isinstance(units, dict) else (units, units)
        for part in (of_actor, of_critics):
            if not isinstance(part, list | tuple) or not all(is_whole(size) and size >= 1 for size in part):
                raise UserError(
                    f'net_arch must be a list of numbers of units, or {{"pi": [...], "qf": [...]}}. Received {units!r}'
                )
        num_critics = given.get("n_critics", 2)
        if not (is_whole(num_critics) and num_critics >= 1):
            raise UserError(f"n_critics must be a whole number of at least 1. Received {num_critics!r}")
        return list(of_actor or []), list(of_critics or []), given.get("activation_fn", "relu"), num_critics
