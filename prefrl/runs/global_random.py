"""The global random streams, which the libraries of some agents draw from: seeding them, and their state."""

from __future__ import annotations

import random

import numpy as np
import torch

from prefrl.runs.checkpoint import State


def seed_global_random(seed: int) -> None:
    """Seed the global random streams."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def global_random_state() -> State:
    """Return the states of the global random streams of Python, NumPy and PyTorch."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    python_version, python_keys, python_gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": torch.from_numpy(np.asarray(keys, np.int64)),
    }
    values = {
        "numpy": [kind, position, has_gauss, cached],
        "python": [python_version, list(python_keys), python_gauss],
    }
    return State(tensors=tensors, values=values)


def restore_global_random_state(state: State) -> None:
    """Put back what `global_random_state` gave."""
    tensors, values = state.tensors, state.values
    torch.set_rng_state(tensors["torch"])
    for device, kept in enumerate(tensors["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(kept, device)
    kind, position, has_gauss, cached = values["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    version, keys, gauss = values["python"]
    random.setstate((version, tuple(keys), gauss))
