"""What stable-baselines3 logs of its updates, under the names that every agent here uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefrl.errors import require

logger = require("stable_baselines3.common.logger", "train")

NAMES: Mapping[str, tuple[str, float]] = {
    "train/policy_gradient_loss": ("policy_loss", 1.0),
    "train/policy_loss": ("policy_loss", 1.0),
    "train/value_loss": ("value_loss", 1.0),
    "train/approx_kl": ("approx_kl", 1.0),
    "train/clip_fraction": ("clip_share", 1.0),
    "train/entropy_loss": ("entropy", -1.0),
    "train/explained_variance": ("explained_variance", 1.0),
    "train/critic_loss": ("critic_loss", 1.0),
    "train/actor_loss": ("actor_loss", 1.0),
    "train/ent_coef": ("alpha", 1.0),
}
"""stable-baselines3's names: ours, and the factor."""
ONLY_LOSS = "train/loss"  # of one critic where there is no actor (DQN); with PPO the sum of the others


class UpdateLogger(logger.Logger):  # type: ignore[misc, name-defined]
    """Writes nothing; keeps the figures of updates until they are taken."""

    def __init__(self) -> None:
        super().__init__(folder=None, output_formats=[])
        self._logged: dict[str, list[float]] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        """Keep a figure, if it is one of an update."""
        if key in NAMES or key == ONLY_LOSS:
            self._logged.setdefault(key, []).append(float(value))

    def take(self) -> dict[str, float]:
        """Return each figure's mean over the updates since the last call."""
        means = {key: sum(values) / len(values) for key, values in self._logged.items()}
        self._logged = {}
        figures = {NAMES[key][0]: NAMES[key][1] * value for key, value in means.items() if key in NAMES}
        if not figures and ONLY_LOSS in means:
            figures["critic_loss"] = means[ONLY_LOSS]
        return figures
