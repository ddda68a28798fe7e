"""Hyper-parameters of our TD3, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from prefrl.agents.off_policy_settings import OffPolicySettings


@dataclass(frozen=True, kw_only=True)
class Td3Settings(OffPolicySettings):
    """Hyper-parameters of `OffPolicySettings`, and those of TD3 alone."""

    NAME = "TD3"
    UNITS: ClassVar[list[int]] = [400, 300]
    WHOLE: ClassVar[dict[str, int]] = {**OffPolicySettings.WHOLE, "policy_delay": 1}
    RANGES: ClassVar[dict[str, float]] = {
        **OffPolicySettings.RANGES,
        "target_policy_noise": math.inf,
        "target_noise_clip": math.inf,
        "action_noise_std": math.inf,
    }

    learning_rate: float = 1e-3
    """Of Adam, for actor and critics."""
    policy_delay: int = 2
    """Updates of the critics for each of the actor and of all targets."""
    target_policy_noise: float = 0.2
    """Standard deviation of the noise on the target actor's actions, which are in [-1, 1]."""
    target_noise_clip: float = 0.5
    """Most that this noise is."""
    action_noise_std: float = 0.0
    """Standard deviation of the normal noise with which it explores, on actions in [-1, 1]."""
