"""From keys and a gamepad to actions: which key does what in an environment, and the action that those held mean.

Discrete actions have a key, or several held together, each; without any the environment gets its action of rest, or,
where it has none, waits. Numbers have two keys each, one towards each bound, or an axis of the gamepad.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.errors import UserError

DEAD_ZONE = 0.15
"""Of a stick, which never comes to rest at exactly 0."""
PAIRS = (
    ("left", "right"), ("down", "up"), ("a", "d"), ("s", "w"), ("j", "l"), ("k", "i"), ("f", "h"), ("g", "t"),
)  # fmt: skip
"""Keys that lower and raise the first, second, ... number of an action."""
NAMED_KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
"""Of discrete actions that nobody named, in their order."""
KNOWN: dict[str, tuple[dict[str, int], int | None]] = {
    "CartPole": ({"left": 0, "right": 1}, None),
    "MountainCar": ({"left": 0, "right": 2}, 1),
    "Acrobot": ({"left": 0, "right": 2}, 1),
    "LunarLander": ({"left": 1, "up": 2, "right": 3}, 0),
    "Taxi": ({"down": 0, "up": 1, "right": 2, "left": 3, "p": 4, "d": 5}, None),
    "FrozenLake": ({"left": 0, "down": 1, "right": 2, "up": 3}, None),
    "CliffWalking": ({"up": 0, "right": 1, "down": 2, "left": 3}, None),
    "Blackjack": ({"s": 0, "h": 1}, None),
}
"""Keys of Gymnasium's discrete tasks, and their action of rest."""
_MEANING = re.compile(r"(UP|DOWN)?(LEFT|RIGHT)?(FIRE)?")


@dataclass(frozen=True)
class Held:
    """What is held now."""

    keys: Collection[str] = ()
    """Names of keys, as pygame has them."""
    axes: Sequence[float] = ()
    """Of the gamepad, -1 to 1: to the right and up are above 0."""


class Steering(Protocol):
    """How an environment is steered."""

    @property
    def legend(self) -> str:
        """What each key does, in the form of `--keys`."""

    @property
    def keys(self) -> frozenset[str]:
        """Names of the keys that mean something."""

    def action(self, held: Held) -> Any:
        """Return the action for what is held; None: wait."""


@dataclass(frozen=True)
class Buttons:
    """Discrete actions."""

    actions: Mapping[frozenset[str], int]
    """By the keys held together."""
    rest: int | None
    """While none is held; None: the environment waits."""
    dtype: Any = np.int64

    @property
    def legend(self) -> str:
        """What each key does, in the form of `--keys`."""
        named = [f"{'+'.join(sorted(keys))}={action}" for keys, action in self.actions.items()]
        return "   ".join([*named, "no key: it waits" if self.rest is None else f"rest={self.rest}"])

    @property
    def keys(self) -> frozenset[str]:
        """Names of the keys that mean something."""
        return frozenset().union(*self.actions)

    def action(self, held: Held) -> Any:
        """Return the action of most of the keys that are held; None: wait."""
        down = {*held.keys, *_as_arrows(held.axes)}
        meant = [keys for keys in self.actions if keys <= down]
        action = self.actions[max(meant, key=len)] if meant else self.rest
        return None if action is None else self.dtype(action)


@dataclass(frozen=True)
class Levers:
    """Actions of numbers: each at rest, or as far towards a bound as a stick is pushed; a key pushes it all the way."""

    low: NDArray[Any]
    high: NDArray[Any]
    """Bounds, finite."""
    pushes: Mapping[str, Sequence[tuple[int, float]]]
    """The numbers that a key sets, and to what."""

    @property
    def legend(self) -> str:
        """What each key does, in the form of `--keys`."""
        return "   ".join(
            f"{key}={place}:{value:.3g}" for key, pushes in self.pushes.items() for place, value in pushes
        )

    @property
    def keys(self) -> frozenset[str]:
        """Names of the keys that mean something."""
        return frozenset(self.pushes)

    @property
    def rest(self) -> NDArray[Any]:
        """Nothing: 0 where that lies within the bounds, else their middle."""
        middle = (self.low + self.high) / 2
        return np.where((self.low <= 0) & (self.high >= 0), np.zeros_like(middle), middle)

    def action(self, held: Held) -> Any:
        """Return the action; it never waits."""
        rest = self.rest.reshape(-1).astype(np.float64)
        low, high = self.low.reshape(-1), self.high.reshape(-1)
        action = rest.copy()
        for place, pushed in enumerate(held.axes[: len(action)]):
            if abs(pushed) > DEAD_ZONE:
                bound = high[place] if pushed > 0 else low[place]
                action[place] = rest[place] + abs(pushed) * (bound - rest[place])
        pushed_to: dict[int, list[float]] = {}
        for key in held.keys:
            for place, value in self.pushes.get(key, ()):
                pushed_to.setdefault(place, []).append(value)
        for place, values in pushed_to.items():  # both keys of a pair: neither
            action[place] = sum(values) - (len(values) - 1) * rest[place]
        return np.clip(action, low, high).astype(self.low.dtype).reshape(self.low.shape)


def make_steering(
    space: Any, *, given: Sequence[str] = (), task: str = "", meanings: Sequence[str] | None = None
) -> Steering:
    """Return how a person steers an environment.

    Args:
        space: its actions.
        given: keys by the person: KEY=ACTION and rest=ACTION of discrete actions, KEY=NUMBER:VALUE of those of numbers.
        task: its id, whose keys may be known.
        meanings: names of discrete actions as ALE has them (NOOP, UPFIRE, ...), if it has such.

    Raises:
        UserError: such actions cannot be steered by keys, or a key given is not understood.
    """
    if isinstance(space, spaces.Discrete):
        return _buttons(space, given, task, meanings)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _levers(space, given)
    raise UserError(
        f"Keys give one discrete action or an array of numbers, and the actions here are {space}. Record a policy with "
        "--policy, or give a --wrapper whose actions are of these kinds."
    )


def _buttons(space: Any, given: Sequence[str], task: str, meanings: Sequence[str] | None) -> Buttons:
    first, count = int(space.start), int(space.n)
    known = KNOWN.get(re.sub(r".*/|-v\d+$", "", task))
    actions: dict[frozenset[str], int] = {}
    rest: int | None = None
    if given:
        for key, said in _pairs(given):
            if not re.fullmatch(r"-?\d+", said) or not first <= int(said) < first + count:
                raise UserError(
                    f"--keys {key}={said}: expected KEY=ACTION with an action from {first} to {first + count - 1}."
                )
            if key == "rest":
                rest = int(said)
            else:
                actions[frozenset(key.split("+"))] = int(said)
    elif meanings is not None and len(meanings) == count and (found := _of_meanings(meanings, first)):
        actions, rest = found
    elif known is not None and all(action < count for action in known[0].values()):
        actions, rest = {frozenset([key]): first + action for key, action in known[0].items()}, known[1]
    elif count <= len(NAMED_KEYS):
        actions = {frozenset([key]): first + place for place, key in enumerate(NAMED_KEYS[:count])}
    if not actions:
        raise UserError(f"There are {count:,} actions: name the keys of those you want with --keys KEY=ACTION ...")
    return Buttons(actions, rest, space.dtype.type)


def _of_meanings(meanings: Sequence[str], first: int) -> tuple[dict[frozenset[str], int], int] | None:
    actions, rest = {}, None
    for place, name in enumerate(meanings):
        parts = _MEANING.fullmatch(name)
        if name == "NOOP":
            rest = first + place
        elif parts is not None and name:
            actions[frozenset({"FIRE": "space"}.get(part, part.lower()) for part in parts.groups() if part)] = (
                first + place
            )
    return (actions, rest) if actions and rest is not None else None


def _levers(space: Any, given: Sequence[str]) -> Levers:
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(f"A key pushes a number to its bound, and the actions here have none: {space}. Wrap it.")
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    pushes: dict[str, list[tuple[int, float]]] = {}
    for key, said in _pairs(given):
        match = re.fullmatch(r"(\d+):([-+0-9.eE]+)", said)
        place, value = (int(match[1]), _number(match[2])) if match else (-1, None)
        if value is None or not 0 <= place < len(low) or not low[place] <= value <= high[place]:
            raise UserError(
                f"--keys {key}={said}: expected KEY=NUMBER:VALUE with a number from 0 to {len(low) - 1} and a value "
                "within its bounds."
            )
        pushes.setdefault(key, []).append((place, value))
    if not given:
        if len(low) > len(PAIRS):
            raise UserError(
                f"An action of {len(low)} numbers has no keys of its own ({len(PAIRS)} at most have). Name those that "
                "you want with --keys KEY=NUMBER:VALUE ..., or record a policy with --policy."
            )
        for place in range(len(low)):
            lower, raise_ = PAIRS[place]
            pushes |= {lower: [(place, float(low[place]))], raise_: [(place, float(high[place]))]}
    return Levers(space.low, space.high, pushes)


def _pairs(given: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for word in given:
        key, equals, said = word.rpartition("=")
        if not (key and equals and said):
            raise UserError(f"--keys {word}: expected KEY=ACTION, e.g. left=0.")
        found.append((key.lower(), said))
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _as_arrows(axes: Sequence[float]) -> set[str]:
    """Return the arrows that the first stick stands for."""
    names = (("left", "right"), ("down", "up"))
    return {pair[value > 0] for pair, value in zip(names, axes, strict=False) if abs(value) > 0.5}
