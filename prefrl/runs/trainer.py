"""What trainers of models share: batches of an epoch from named random streams, `step()`, `train()`, their state."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prefrl.runs.checkpoint import State
from prefrl.runs.optimisation import Optimiser
from prefrl.runs.sharding import gathered, load_whole
from prefrl.runs.streams import stream

Metrics = dict[str, float]
SECONDS_BETWEEN_LOOKS = 0.5
"""While a step waits."""
_Item = TypeVar("_Item")


class ModelTrainer(abc.ABC):
    """One run of updates: subclasses say what one step does.

    Attributes:
        name: what it is, in messages.
        total_steps: steps of the whole run.
        num_steps: steps made so far.
        num_examples: examples or episodes seen so far.
    """

    name: str
    total_steps: int
    model: Any
    """The model that is trained; saved at the end."""
    optimiser: Optimiser

    def __init__(self) -> None:
        self.num_steps = 0
        self.num_examples = 0

    @abc.abstractmethod
    def step(self) -> Metrics:
        """Make one step; return its figures."""

    def ready(self) -> bool:
        """Tell whether a step can be made now; False while people have not answered."""
        return True

    def waits_for(self) -> str:
        """Return what a step waits for, in words."""
        return ""

    def train(self, on_step: Callable[[Metrics], None] | None = None) -> None:
        """Make all steps that are left.

        Args:
            on_step: called after each with its figures.
        """
        while self.num_steps < self.total_steps:
            while not self.ready():
                time.sleep(SECONDS_BETWEEN_LOOKS)
            metrics = self.step()
            if on_step is not None:
                on_step(metrics)

    def state(self) -> State:
        """Return what a checkpoint must hold; where the processes share the weights, all of them call it together."""
        return State(
            tensors={
                "model": gathered(self.model.state_dict()),
                "optimiser": self.optimiser.state(),
                "num_steps": self.num_steps,
                "num_examples": self.num_examples,
            }
        )

    def restore(self, state: State) -> None:
        """Take over what `state` gave; the run then goes on as if it had not stopped."""
        held = state.tensors
        load_whole(self.model, held["model"])
        self.optimiser.restore(held["optimiser"])
        self.num_steps, self.num_examples = int(held["num_steps"]), int(held["num_examples"])


def micro_batches(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """Return a batch in parts of `size` that go through the model one after the other; 0: in one."""
    step = size or max(1, len(items))
    return [items[start : start + step] for start in range(0, len(items), step)]


class Epochs:
    """Batches of indices: every epoch in an order of its own, drawn from the seed and the epoch's number alone.

    Args:
        num_items: how many there are.
        batch_size: of each batch; the last of an epoch may be smaller, unless it is the only one.
        seed: of the orders.
        name: of the random stream.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int, name: str) -> None:
        self.num_items, self.batch_size, self.seed, self.name = num_items, min(batch_size, num_items), seed, name
        self.steps_per_epoch = -(-num_items // self.batch_size)
        self._epoch: tuple[int, list[int]] = (-1, [])

    def batch(self, step: int) -> list[int]:
        """Return the indices of a step's batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            order = stream(self.seed, self.name, epoch).permutation(self.num_items).tolist()
            self._epoch = (epoch, order)
        return self._epoch[1][place * self.batch_size : (place + 1) * self.batch_size]
