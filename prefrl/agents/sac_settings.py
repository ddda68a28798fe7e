"""Hyper-parameters of our SAC, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from prefrl.agents.numbers import is_number
from prefrl.agents.off_policy_settings import OffPolicySettings
from prefrl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SacSettings(OffPolicySettings):
    """Hyper-parameters of `OffPolicySettings`, and those of SAC alone."""

    NAME = "SAC"
    UNITS: ClassVar[list[int]] = [256, 256]
    WHOLE: ClassVar[dict[str, int]] = {**OffPolicySettings.WHOLE, "target_update_interval": 1}

    ent_coef: float | str = "auto"
    """Weight of the entropy; "auto": learned, from 1; "auto_0.1": learned, from 0.1."""
    target_entropy: float | str = "auto"
    """Entropy in nats that the learned weight aims at; "auto": minus the numbers of an action."""
    target_update_interval: int = 1
    """Updates between those of the target critics."""

    def check(self) -> None:
        """See `OffPolicySettings.check`."""
        if self.target_entropy != "auto" and not is_number(self.target_entropy):
            raise UserError(f'target_entropy must be a number or "auto". Received {self.target_entropy!r}')
        self.first_entropy_weight()

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
        elif is_number(given) and float(given) >= 0:
            return float(given), False
        raise UserError(f'ent_coef must be a number of at least 0, "auto" or e.g. "auto_0.1". Received {given!r}')
