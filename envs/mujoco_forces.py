"""Batches of simulations whose contact forces on the bodies are known after each step.

Gymnasium's MuJoCo environments call `mj_rnePostConstraint` after every step, and Ant and Humanoid read the forces
`cfrc_ext` that it leaves. `mujoco.batch.Batch` has no place for that call, but the C functions underneath it (`mjb_*`,
`mjbatch.h` of MuJoCo 4) run any function of a simulation on the batch's threads: this module calls those.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, require

Ids = NDArray[np.int32] | None
"""Sorted numbers of simulations; None for all."""

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mjb_makeBatch": (_POINTER, (_POINTER, _INT, _POINTER, ctypes.c_char_p, _INT)),
    "mjb_deleteBatch": (None, (_POINTER,)),
    "mjb_nstate": (_INT, (_POINTER,)),
    "mjb_state": (_POINTER, (_POINTER,)),
    "mjb_stateComponent": (_POINTER, (_POINTER, _INT, _POINTER)),
    "mjb_output": (_POINTER, (_POINTER, ctypes.c_char_p, _POINTER, _POINTER)),
    "mjb_step": (_INT, (_POINTER, _POINTER, _INT, _INT, _INT)),
    "mjb_forward": (_INT, (_POINTER, _POINTER, _INT, _INT)),
    "mjb_reset": (_INT, (_POINTER, _POINTER, _INT, _POINTER, _INT)),
    "mjb_apply": (_INT, (_POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT)),
}

_STATE_FIELDS = {
    "time": "TIME",
    "qpos": "QPOS",
    "qvel": "QVEL",
    "act": "ACT",
    "qacc_warmstart": "WARMSTART",
    "ctrl": "CTRL",
}


class _Config(ctypes.Structure):
    """`mjBatchConfig`."""

    _fields_ = (("nthread", _INT), ("persistent", ctypes.c_bool))


class ForceBatch:
    """`mujoco.batch.Batch` in so far as it is needed here, with `cfrc_ext` up to date after each step.

    Every simulation keeps its own data, since the forces come from contacts that are not part of the state.

    Args:
        model: the `mujoco.MjModel`; it is copied.
        nsim: number of simulations.
        nthread: threads, the caller's included.

    Raises:
        UserError: this MuJoCo has no batches, or there is no memory for so many simulations.
    """

    def __init__(self, model: Any, nsim: int, nthread: int) -> None:
        self._mujoco = require("mujoco", "mujoco")
        self._library = _library(self._mujoco)
        self.model, self.nsim = model, nsim
        message = ctypes.create_string_buffer(500)
        config = _Config(nthread, True)
        self._batch = self._library.mjb_makeBatch(model._address, nsim, ctypes.byref(config), message, len(message))
        if not self._batch:
            raise UserError(f"MuJoCo cannot simulate {nsim} environments at once: {message.value.decode()}")
        self._owner = _Owner()  # arrays that were bound hold it too, so that none outlives the memory it shows
        weakref.finalize(self._owner, self._library.mjb_deleteBatch, self._batch)
        self.nstate: int = self._library.mjb_nstate(self._batch)
        self._forces = ctypes.cast(self._library.mj_rnePostConstraint, _POINTER)
        self._bound: dict[str, NDArray[np.float64]] = {}
        self.state = self._view(self._library.mjb_state(self._batch), (nsim, self.nstate))

    def bind(self, name: str) -> NDArray[np.float64]:
        """Return a live array `(nsim, ...)`: a part of the state (`_STATE_FIELDS`), or a derived field of floats."""
        if name not in self._bound:
            self._bound[name] = self._state_field(name) if name in _STATE_FIELDS else self._output(name)
        return self._bound[name]

    def _state_field(self, name: str) -> NDArray[np.float64]:
        component = int(getattr(self._mujoco.mjtState, f"mjSTATE_{_STATE_FIELDS[name]}"))
        size = _INT()
        address = self._library.mjb_stateComponent(self._batch, component, ctypes.byref(size))
        offset = (address - self._library.mjb_state(self._batch)) // self.state.itemsize
        return self.state[:, offset : offset + size.value]

    def _output(self, name: str) -> NDArray[np.float64]:
        size, item_size = _INT(), _INT()
        address = self._library.mjb_output(self._batch, name.encode(), ctypes.byref(size), ctypes.byref(item_size))
        shape = getattr(self._mujoco.MjData(self.model), name).shape
        assert address and item_size.value == 8 and size.value == np.prod(shape, dtype=int), name
        values = self._view(address, (self.nsim, *shape))
        values.flags.writeable = False
        return values

    def step(self, ids: Ids = None, nstep: int = 1) -> None:
        """Advance by `nstep` calls of `mj_step`, then compute the forces as `mj_rnePostConstraint` does."""
        call, pointer, count = self._library, *_pointer(ids)
        self._check(call.mjb_step(self._batch, pointer, count, nstep, 0))
        self._check(call.mjb_apply(self._batch, pointer, count, self._forces, None, 0))
        self._check(call.mjb_forward(self._batch, pointer, count, 0))  # no stage at all: it copies the fields out

    def forward(self, ids: Ids = None) -> None:
        """Compute everything that derives from the state (`mj_forward`)."""
        stage = int(self._mujoco.mjtStage.mjSTAGE_ACC)
        self._check(self._library.mjb_forward(self._batch, *_pointer(ids), stage))

    def reset(self, ids: Ids = None, *, stage: int = 0) -> None:
        """Set everything to the model's defaults (`mj_resetData`)."""
        self._check(self._library.mjb_reset(self._batch, *_pointer(ids), None, stage))

    def _check(self, num_failed: int) -> None:
        if num_failed:
            raise UserError(f"MuJoCo raised an error in {num_failed} of {self.nsim} simulations.")

    def _view(self, address: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        memory: Any = (ctypes.c_double * int(np.prod(shape))).from_address(address)
        memory._owner = self._owner
        return np.frombuffer(memory, np.float64).reshape(shape)


class _Owner:
    """The simulations are freed when nothing refers to it any more."""


def _pointer(ids: Ids) -> tuple[Any, int]:
    return (None, 0) if ids is None else (ids.ctypes.data, len(ids))


def _library(mujoco: Any) -> Any:
    folder = Path(mujoco.__file__).parent
    found = [p for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll") for p in folder.glob(pattern)]
    library: Any = ctypes.CDLL(str(found[0])) if found else None
    if library is None or not hasattr(library, "mjb_apply"):
        raise UserError(
            f"MuJoCo {mujoco.__version__} cannot step many simulations at once; 4.0 or newer can. "
            'Update it: pip install "prefrl[mujoco]"'
        )
    for name, (result, arguments) in _SIGNATURES.items():
        function: Callable[..., Any] = getattr(library, name)
        function.restype, function.argtypes = result, list(arguments)  # type: ignore[attr-defined]
    return library
