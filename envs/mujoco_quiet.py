"""MuJoCo without its notes on deprecated attributes of Gymnasium's models."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from prefrl.errors import require


@contextlib.contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Keep MuJoCo's notes on deprecated attributes of Gymnasium's models from the terminal and from a log file.

    Other warnings become Python warnings.
    """
    mujoco = require("mujoco", "mujoco")

    def warn(message: str) -> None:
        if "deprecated" not in message:
            warnings.warn(message, stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(warn)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
