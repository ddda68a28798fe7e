"""What a return does not tell: whether the robot runs on its feet or on its back, and how near it came to the goal.

A measure reads what the agent saw, never a reward. Those of robots are the bounds within which Gymnasium calls them
healthy, where it has such bounds; a cheetah is on its feet while its torso leans by less than 60 degrees. Those of the
DeepMind Control Suite are the heights at which its rewards call a body standing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of an episode, from its observations."""

    name: str
    """For people: `on its feet`."""
    kind: Literal["share", "metres", "metres per second"]
    """What the number is: a share is shown in percent."""
    num_observed: int
    """D: size of the observations that it can read."""
    of: Callable[[Floats], Floats]
    """Value `(...)` at each observation `(..., D)`."""
    over: Literal["mean", "last", "most"] = "mean"
    """What the figure of an episode is, of the values after its steps."""

    def of_episode(self, observations: Floats) -> float:
        """Return the figure of an episode with the observations `(T, D)` after its T steps."""
        values = np.asarray(self.of(observations), np.float64)
        if self.over == "mean":
            return float(values.mean())
        return float(values[-1] if self.over == "last" else values.max())

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        return f"{value:.0%}" if self.kind == "share" else f"{value:.3g} {self.kind}"


def _column(index: int) -> Callable[[Floats], Floats]:
    return lambda seen: seen[..., index]


def _upright_quaternion(seen: Floats) -> Floats:
    """Return the vertical part of the torso's own upward direction, of a quaternion (w, x, y, z) at columns 1 to 4."""
    up: Floats = 1 - 2 * (np.square(seen[..., 2]) + np.square(seen[..., 3]))
    return up


def _share(name: str, num_observed: int, of: Callable[[Floats], Any], over: Any = "mean") -> Measure:
    return Measure(name=name, kind="share", num_observed=num_observed, of=of, over=over)


_FEET = "on its feet"
_CHEETAH = (_share(_FEET, 17, lambda seen: np.cos(seen[..., 1]) > 0.5),)
_HOPPER = (_share(_FEET, 11, lambda seen: (seen[..., 0] > 0.7) & (np.abs(seen[..., 1]) < 0.2)),)
_WALKER = (_share(_FEET, 17, lambda seen: (seen[..., 0] > 0.8) & (seen[..., 0] < 2.0) & (np.abs(seen[..., 1]) < 1.0)),)
_SWIMMER = (Measure(name="forward speed", kind="metres per second", num_observed=8, of=_column(3)),)
_REACHER = (
    Measure(
        name="distance to the target at the end",
        kind="metres",
        num_observed=10,
        of=lambda seen: np.hypot(seen[..., 8], seen[..., 9]),
        over="last",
    ),
)
_UPRIGHT = "upright"


def _speed(num_observed: int, of: Callable[[Floats], Floats], name: str = "forward speed") -> Measure:
    return Measure(name=name, kind="metres per second", num_observed=num_observed, of=of)


def _hopper_height(seen: Floats) -> Floats:
    """Return by how much dm_control's hopper has its torso's centre of mass above its foot's, of columns 1 to 5."""
    leans = np.cumsum(seen[..., 1:6], axis=-1)  # angles of torso, pelvis, thigh, calf and foot
    links: Floats = np.cos(leans[..., :4]) @ np.array([0.12889, 0.2, 0.33, 0.32])
    return links - 0.00746 * np.sin(leans[..., 0]) + 0.045 * np.sin(leans[..., 4])


def _of_all(domain: str, *tasks: str, measures: tuple[Measure, ...]) -> dict[str, tuple[Measure, ...]]:
    return {f"prefrl/DMC-{domain}-{task}-v0": measures for task in tasks}


_STANDS = "standing"
_DMC_WALKER = (_share(_STANDS, 24, lambda seen: seen[..., 14] > 1.2), _speed(24, _column(16)))
_DMC_HOPPER = (
    _share(_STANDS, 15, lambda seen: (_hopper_height(seen) > 0.6) & (_hopper_height(seen) < 2)),
    _speed(15, _column(6)),
)
_DMC_QUADRUPED = (_share(_FEET, 78, lambda seen: seen[..., 47] > 0.5), _speed(78, _column(44)))
_DMC_HUMANOID = (
    _share(_STANDS, 67, lambda seen: seen[..., 21] > 1.4),
    _speed(67, lambda seen: np.hypot(seen[..., 37], seen[..., 38]), "speed"),
)

MEASURES: dict[str, tuple[Measure, ...]] = {
    "HalfCheetah-v5": _CHEETAH,
    "prefrl/Christiano-Cheetah-v0": _CHEETAH,
    "Hopper-v5": _HOPPER,
    "prefrl/Christiano-Hopper-v0": _HOPPER,
    "Walker2d-v5": _WALKER,
    "prefrl/Christiano-Walker-v0": _WALKER,
    "Ant-v5": (_share(_FEET, 105, lambda seen: _upright_quaternion(seen) > 0.5),),
    "prefrl/Christiano-Ant-v0": (_share(_FEET, 105, lambda seen: _upright_quaternion(seen) > 0.5),),
    "Humanoid-v5": (_share(_FEET, 348, lambda seen: (seen[..., 0] > 1.0) & (seen[..., 0] < 2.0)),),
    "Swimmer-v5": _SWIMMER,
    "prefrl/Christiano-Swimmer-v0": _SWIMMER,
    "Reacher-v5": _REACHER,
    "prefrl/Christiano-Reacher-v0": _REACHER,
    **_of_all("walker", "stand", "walk", "run", measures=_DMC_WALKER),
    **_of_all("cheetah", "run", measures=(*_CHEETAH, _speed(17, _column(8)))),
    **_of_all("hopper", "stand", "hop", measures=_DMC_HOPPER),
    **_of_all("quadruped", "walk", "run", measures=_DMC_QUADRUPED),
    **_of_all("humanoid", "stand", "walk", "run", measures=_DMC_HUMANOID),
    "Pendulum-v1": (_share(_UPRIGHT, 3, lambda seen: seen[..., 0] > 0.9),),
    "InvertedPendulum-v5": (_share(_UPRIGHT, 4, lambda seen: np.abs(seen[..., 1]) < 0.2),),
    "prefrl/Christiano-Pendulum-v0": (_share(_UPRIGHT, 4, lambda seen: np.abs(seen[..., 1]) < 0.2),),
    "CartPole-v1": (_share(_UPRIGHT, 4, lambda seen: np.abs(seen[..., 2]) < np.radians(12)),),
    "Acrobot-v1": (
        # The height of the free end above the joint, in links: -cos(a) - cos(a + b) of cos a, sin a, cos b, sin b.
        _share(
            "reached the goal",
            6,
            lambda s: -s[..., 0] - s[..., 0] * s[..., 2] + s[..., 1] * s[..., 3] > 1.0,
            "most",
        ),
    ),
    "MountainCar-v0": (_share("reached the goal", 2, lambda seen: seen[..., 0] >= 0.5, "most"),),
    "MountainCarContinuous-v0": (_share("reached the goal", 2, lambda seen: seen[..., 0] >= 0.45, "most"),),
    "LunarLander-v3": (_share("stands on both legs at the end", 8, lambda s: s[..., 6] * s[..., 7] > 0.5, "last"),),
    "LunarLanderContinuous-v3": (
        _share("stands on both legs at the end", 8, lambda s: s[..., 6] * s[..., 7] > 0.5, "last"),
    ),
    "BipedalWalker-v3": (_share("hull within 45 degrees of level", 24, lambda s: np.abs(s[..., 0]) < np.pi / 4),),
}
"""Of the environments whose observations are known, by name."""


def known_measures(env_id: str) -> tuple[Measure, ...]:
    """Return the measures of an environment by name; `prefrl/Hopper-v5` is `Hopper-v5` in bulk: the same task."""
    return MEASURES.get(env_id) or MEASURES.get(env_id.removeprefix("prefrl/"), ())


def measures_of(env_id: str, space: gymnasium.Space[Any]) -> tuple[Measure, ...]:
    """Return the measures of an environment; none where its observations are not the ones that they read."""
    if not isinstance(space, spaces.Box):
        return ()
    return tuple(measure for measure in known_measures(env_id) if space.shape == (measure.num_observed,))
