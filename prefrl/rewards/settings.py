"""What a reward ensemble is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prefrl.errors import UserError
from prefrl.rewards.registry import NETWORKS
from prefrl.seams import Named

INPUTS = ("s", "sa", "ss", "sas")
READ_NEXT = ("ss", "sas")
"""Those that read the observation after the step too."""
MOST_GROUPS = 10
BONUS_DECAY = 1e-5
MOST_MEMBERS, MOST_UNITS = 1_000, 100_000  # files name them too: memory is taken after they are checked


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What a reward ensemble is made of."""

    num_members: int | None = None
    """Members of the ensemble, M; default: what suits the environment, mostly 5 (Christiano et al. 2017: 3)."""
    inputs: str = "auto"
    """"s" for r(s), "sa" for r(s, a), "ss" for r(s, s'), "sas" for r(s, a, s'); "auto": "s" for images, else
    "sa"."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of the multilayer perceptron (Christiano et al. 2017, app. A.1)."""
    network: Named = "auto"
    """auto (cnn for images, else mlp), mlp, cnn, transformer (rewards that depend on the steps before: for prefrl
    offline), dynamics (a perceptron that learns from unanswered steps too: Metcalf et al. 2024), or module:Name for
    your own (see `prefrl.rewards.registry`)."""
    encoders: tuple[int, int] = (20, 10)
    """Units that encode the state and the action in the network dynamics, before its hidden layers."""
    target_std: float = 1.0
    """Standard deviation of each member's rewards after normalisation (Christiano et al. 2017: 1, Atari 0.05)."""
    centre: bool = True
    """Shift each member's rewards to mean 0. Without it they are only scaled."""
    pessimism: float = 0.0
    """Standard deviations over members that are taken off their mean: above 0 where members disagree the reward is less
    (Zhu et al. 2023: right for data that is given), below 0 it is more. For exploring see `bonus`."""
    bonus: float = 0.0
    """Standard deviations over members that are added for the agent in training alone, so that it explores where they
    disagree, at the first step; they fall with the steps (RUNE, Liang et al. 2022: 0.05)."""
    bonus_decay: float = BONUS_DECAY
    """Share by which the bonus falls with each environment step (Liang et al. 2022: 1e-3 to 1e-5)."""
    groups: int = 1
    """Groups of annotators with wishes of their own, found by who answered what: each has as many members."""
    serve: str = "shares"
    """Whose reward the agent is given, of several groups: "shares", their mean weighted by their shares of the
    annotators; "worst", of the group that got least so far (Chakraborty et al. 2024); or an annotator's name, of the
    group that they belong to."""
    clip_inputs: float = 10.0
    """Standardised vector inputs are clipped to this many standard deviations."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", NETWORKS.name(self.network))
        if self.num_members is not None and self.num_members < 1:
            raise UserError(f"num_members must be at least 1. Received {self.num_members}")
        if self.inputs not in (*INPUTS, "auto"):
            raise UserError(f"inputs must be one of {', '.join(INPUTS)} or auto. Received {self.inputs!r}")
        if self.num_members is not None and self.num_members > MOST_MEMBERS:
            raise UserError(f"num_members must be at most {MOST_MEMBERS}. Received {self.num_members}")
        if not all(1 <= units <= MOST_UNITS for units in self.hidden):
            raise UserError(f"hidden must be numbers of units from 1 to {MOST_UNITS}. Received {self.hidden}")
        if len(self.encoders) != 2 or not all(1 <= units <= MOST_UNITS for units in self.encoders):
            raise UserError(f"encoders must be two numbers of units from 1 to {MOST_UNITS}. Received {self.encoders}")
        if self.network == "dynamics" and self.inputs not in ("sa", "auto"):
            raise UserError(
                "The network dynamics tells what follows a state and an action, so it reads these: --reward.inputs sa. "
                f"Received {self.inputs!r}"
            )
        if self.network != "dynamics" and self.encoders != (20, 10):
            raise UserError(
                f"encoders are of --reward.network dynamics. Received {self.network!r} with {self.encoders}"
            )
        if not 0 < self.target_std < float("inf"):
            raise UserError(f"target_std must be positive and finite. Received {self.target_std}")
        if not math.isfinite(self.pessimism):
            raise UserError(f"pessimism must be a finite number. Received {self.pessimism}")
        if self.pessimism and self.num_members == 1:
            raise UserError("pessimism needs members that can disagree: num_members must be at least 2. Received 1")
        self._check_bonus()
        if not 1 <= self.groups <= MOST_GROUPS:
            raise UserError(f"groups must be from 1 to {MOST_GROUPS}. Received {self.groups}")
        if not self.serve:
            raise UserError("serve must be shares, worst or an annotator's name. Received nothing")
        if self.groups == 1 and self.serve != "shares":
            raise UserError(
                f"serve chooses among groups: give groups as well, 2 or more. Received {self.serve!r} alone"
            )
        if self.clip_inputs <= 0:
            raise UserError(f"clip_inputs must be positive. Received {self.clip_inputs}")

    def _check_bonus(self) -> None:
        if not 0 <= self.bonus < math.inf:
            raise UserError(f"bonus must be a finite number, not negative. Received {self.bonus}")
        if not 0 <= self.bonus_decay < 1:
            raise UserError(f"bonus_decay must be in [0, 1). Received {self.bonus_decay}")
        if self.bonus and self.num_members == 1:
            raise UserError("A bonus needs members that can disagree: num_members must be at least 2. Received 1")
        if not self.bonus and self.bonus_decay != BONUS_DECAY:
            raise UserError(
                f"bonus_decay is of a bonus: give --reward.bonus too, e.g. 0.05, or leave it out. Received "
                f"{self.bonus_decay} alone"
            )
