"""What each step of many MuJoCo environments can be drawn from, saved as they are stepped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.clips.trail import Marks

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FIELDS = ("time", "qpos", "qvel", "act", "qacc_warmstart", "ctrl")
"""As `mj_getState` orders full physics, warm start and controls; these models have no other part of a state."""


class StateMarks:
    """The marks of all steps since they were last taken, in the rows of `prefrl.clips.worlds.Mujoco`.

    Args:
        batch: the simulations, a `mujoco.batch.Batch` or a `ForceBatch`.
    """

    def __init__(self, batch: Any) -> None:
        self._state: Floats = batch.state
        fields = [batch.bind(name) for name in _FIELDS]
        begins = [(field.ctypes.data - self._state.ctypes.data) // 8 for field in fields]
        widths = [field.size // len(field) for field in fields]
        self._columns = np.concatenate([np.arange(b, b + w) for b, w in zip(begins, widths, strict=True)])
        self._rows: list[Floats] = []
        self._last: Floats = np.zeros(0)

    def now(self) -> Floats:
        """Return states and controls as they are, `(E, S - 1)`."""
        return self._state[:, self._columns]

    def mark(self) -> None:
        """Save the step that is about to be made, its controls being set already."""
        row = np.empty((len(self._state), 1 + self._state.shape[1]))
        row[:, 0] = 0.0
        row[:, 1:] = self._state
        self._rows.append(row)

    def hold(self, envs: Flags) -> None:
        """In these environments `(E,)` the last step shows what the one before it showed."""
        before = self._rows[-2] if len(self._rows) > 1 else self._last
        self._rows[-1][envs] = before[envs]

    def show(self, envs: Flags) -> None:
        """In these environments `(E,)` the last step shows the state as it is now."""
        self._rows[-1][envs, 0] = 1.0
        self._rows[-1][envs, 1:] = self._state[envs]

    def take(self) -> Marks | None:
        """Return the marks since the last call; None if no step was made."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        self._last = rows[-1]
        columns = np.concatenate([[0], 1 + self._columns])
        return Marks(kind="mujoco", rows=np.stack(rows)[:, :, columns], blobs={})
