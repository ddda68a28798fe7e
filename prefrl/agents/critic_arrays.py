"""The critics of off-policy agents on the CPU, each by itself, and their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prefrl.agents.adam import AdamPart, FlatAdam
from prefrl.agents.tower_arrays import ArrayTower, Floats
from prefrl.agents.towers import Towers
from prefrl.threads import SideBySide


class ArrayCritics:
    """N critics of B steps at a time, every other one on the second thread where there is one.

    Args:
        critics: whose weights are trained in place.
        targets: whose weights are read.
        adam: of the critics, without a greatest norm.
        num_judges: how many, from the first on, judge the policy's actions.
        side_by_side: does two things at once.
    """

    def __init__(
        self, critics: Towers, targets: Towers, adam: FlatAdam, num_judges: int, side_by_side: SideBySide
    ) -> None:
        self._critics = [ArrayTower(critics, number) for number in range(critics.num)]
        self._targets = [ArrayTower(targets, number) for number in range(targets.num)]
        self._parts = [AdamPart(adam, critics.parameters_of(number)) for number in range(critics.num)]
        self._num_judges, self._side_by_side = num_judges, side_by_side
        self._make_room(0, 0, 0)

    def _make_room(self, size: int, num_inputs: int, num_actions: int) -> None:
        self._num_inputs = num_inputs
        self._seen, self._next_seen = (np.empty((size, num_inputs + num_actions), np.float32) for _ in range(2))
        self._values, self._next_values = (np.empty((len(self._critics), size), np.float32) for _ in range(2))

    def _for_each(self, work: Callable[[int], None], order: Sequence[int]) -> None:
        """Do something for every critic: the first, the third and so on here, the others aside."""

        def some(begin: int) -> None:
            for number in order[begin::2]:
                work(number)

        if len(order) == 1:
            some(0)
        else:
            self._side_by_side(lambda: some(0), lambda: some(1))

    def look_ahead(self, inputs: Floats, actions: Floats, next_inputs: Floats, next_actions: Floats) -> Floats:
        """Judge the actions taken; return what the least of the targets says of the next ones, `(B,)`.

        Args:
            inputs: `(B, n)`: of the observations.
            actions: `(B, A)`: taken there.
            next_inputs: `(B, n)`: of the next ones.
            next_actions: `(B, A)`: to be judged there.
        """
        size, num_inputs = inputs.shape
        if self._seen.shape != (size, num_inputs + actions.shape[1]):
            self._make_room(size, num_inputs, actions.shape[1])
        self._seen[:, :num_inputs], self._seen[:, num_inputs:] = inputs, actions
        self._next_seen[:, :num_inputs], self._next_seen[:, num_inputs:] = next_inputs, next_actions

        def judge(number: int) -> None:
            self._next_values[number] = self._targets[number].forward(self._next_seen)[:, 0]
            self._values[number] = self._critics[number].forward(self._seen)[:, 0]

        self._for_each(judge, range(len(self._critics)))
        least: Floats = self._next_values.min(0)
        return least

    def learn(self, wanted: Floats, weight: float, learning_rate: float, then: Floats | None = None) -> None:
        """Make the step of Adam that was counted towards what they should have said of the actions taken.

        Args:
            wanted: `(B,)`; the loss is `weight` / 2 times the mean squared error, summed over the critics.
            weight: see there.
            learning_rate: of Adam.
            then: `(B, A)`: actions in the same observations to be judged after it, for `by_actions`; None: none are.
        """
        by_values = self._values - wanted
        by_values *= np.float32(weight / len(wanted))
        if then is not None:
            seen = self._seen.copy()
            seen[:, self._num_inputs :] = then

        def descend(number: int) -> None:
            critic = self._critics[number]
            critic.backward(by_values[number][:, None])
            self._parts[number].step(learning_rate)
            if then is not None and number < self._num_judges:
                self._values[number] = critic.forward(seen)[:, 0]

        self._for_each(descend, range(len(self._critics)))

    def by_actions(self) -> Floats:
        """Return the gradient of minus the mean of the least judge by the actions judged last, `(B, A)`."""
        size, num_actions = len(self._seen), self._seen.shape[1] - self._num_inputs
        if self._num_judges == 1:
            return self._critics[0].by_inputs(-1.0 / size, self._num_inputs)
        found, least = np.empty((size, num_actions), np.float32), self._values[: self._num_judges].argmin(0)
        rows = [np.flatnonzero(least == number) for number in range(self._num_judges)]

        def differentiate(number: int) -> None:  # each for the steps of which it says the least
            found[rows[number]] = self._critics[number].by_inputs(-1.0 / size, self._num_inputs, rows[number])

        self._for_each(differentiate, sorted(range(len(rows)), key=lambda number: -len(rows[number])))
        return found
