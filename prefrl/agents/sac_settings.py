"""Hyper-parameters of our SAC, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from prefrl.errors import UserError, near_names

RESETS = ("never", "first", "always")


@dataclass(frozen=True, kw_only=True)
class SacSettings:
    """Hyper-parameters by stable-baselines3's names and with its defaults, and some of our own at the end."""

    learning_rate: float = 3e-4
    """Of Adam, for actor, critics and entropy weight."""
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
    ent_coef: float | str = "auto"
    """Weight of the entropy; "auto": learned, from 1; "auto_0.1": learned, from 0.1."""
    target_entropy: float | str = "auto"
    """Entropy in nats that the learned weight aims at; "auto": minus the numbers of an action."""
    target_update_interval: int = 1
    """Updates between those of the target critics."""
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
    def of(cls, given: dict[str, Any]) -> SacSettings:
        """Check hyper-parameters given by name.

        Raises:
            UserError: an unknown name, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = near_names(name, known)
                raise UserError(
                    f"This SAC has no hyper-parameter {name!r}.{near} It knows: {', '.join(known)}. "
                    "stable-baselines3's has others: --agent sb3-sac."
                )
        settings = cls(**{**given, "policy_kwargs": given.get("policy_kwargs") or {}})
        for name in (
            "buffer_size",
            "batch_size",
            "train_freq",
            "gradient_steps",
            "target_update_interval",
            "recent_steps",
        ):
            value = getattr(settings, name)
            least = 0 if name == "gradient_steps" else 1
            if not (_is_whole(value) and (value >= least or (name == "gradient_steps" and value == -1))):
                or_all = ", or -1" if name == "gradient_steps" else ""
                raise UserError(f"{name} must be a whole number of at least {least}{or_all}. Received {value!r}")
        for name, most in (("learning_rate", math.inf), ("tau", 1.0), ("gamma", 1.0), ("recent_share", 1.0)):
            value = getattr(settings, name)
            if not (_is_number(value) and 0 <= value <= most):
                limits = f"in [0, {most:g}]" if most < math.inf else "a finite number of at least 0"
                raise UserError(f"{name} must be {limits}. Received {value!r}")
        if settings.reset_critics not in RESETS:
            raise UserError(f"reset_critics must be one of {', '.join(RESETS)}. Received {settings.reset_critics!r}")
        normalize = settings.normalize_observations
        if normalize is not None and not isinstance(normalize, bool):
            raise UserError(f"normalize_observations must be true or false. Received {normalize!r}")
        if settings.target_entropy != "auto" and not _is_number(settings.target_entropy):
            raise UserError(f'target_entropy must be a number or "auto". Received {settings.target_entropy!r}')
        settings.first_entropy_weight()
        settings.hidden()
        return settings

    def first_entropy_weight(self) -> tuple[float, bool]:
        """Return the weight of the entropy at the start, and whether it is learned."""
        given = self.ent_coef
        if isinstance(given, str) and given.startswith("auto"):
            try:
                first = float(given.removeprefix("auto").removeprefix("_") or 1.0)
            except ValueError:
                first = math.nan
            if math.isfinite(first) and first > 0 and given in ("auto", f"auto_{given[5:]}"):
                return first, True
        elif _is_number(given) and float(given) >= 0:
            return float(given), False
        raise UserError(f'ent_coef must be a number of at least 0, "auto" or e.g. "auto_0.1". Received {given!r}')

    def hidden(self) -> tuple[list[int], list[int], str, int]:
        """Return the units of the actor and of the critics, the activation, and how many critics there are."""
        given, names = self.policy_kwargs, ("net_arch", "activation_fn", "n_critics")
        if not isinstance(given, dict):
            raise UserError(f"policy_kwargs must name some of {', '.join(names)}. Received {given!r}")
        for name in given:
            if name not in names:
                near = near_names(name, names)
                raise UserError(f"policy_kwargs has no {name!r} here.{near} It knows: {', '.join(names)}.")
        units = given.get("net_arch", [256, 256])
        of_actor, of_critics = (units.get("pi"), units.get("qf")) if isinstance(units, dict) else (units, units)
        for part in (of_actor, of_critics):
            if not isinstance(part, list | tuple) or not all(_is_whole(size) and size >= 1 for size in part):
                raise UserError(
                    f'net_arch must be a list of numbers of units, or {{"pi": [...], "qf": [...]}}. Received {units!r}'
                )
        num_critics = given.get("n_critics", 2)
        if not (_is_whole(num_critics) and num_critics >= 1):
            raise UserError(f"n_critics must be a whole number of at least 1. Received {num_critics!r}")
        return list(of_actor or []), list(of_critics or []), given.get("activation_fn", "relu"), num_critics


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
