"""Gymnasium's own MuJoCo environments as templates: they check their options, and have the model and the renderer."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from prefrl.envs.mujoco_quiet import quiet_mujoco
from prefrl.errors import UserError, near_names, require


def template_class(name: str) -> Any:
    """Return a class named `"module:Name"`.

    Raises:
        MissingExtraError: MuJoCo is not installed.
    """
    require("mujoco", "mujoco")
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_template(template_class: Any, options: dict[str, Any], render_mode: str) -> Any:
    """Make one environment of Gymnasium's class.

    Raises:
        UserError: it refuses the options.
    """
    try:
        with quiet_mujoco():
            return template_class(**options, render_mode=render_mode)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UserError(f"Gymnasium's {template_class.__name__} refuses {given or 'its options'}: {error}") from error


def stepped_model(model: Any) -> Any:
    """Return the model that is stepped: the same numbers to the last bit, in less time where there is one robot alone.

    A single kinematic tree has a single island of constraints at most, so that MuJoCo need not look for islands.
    """
    if model.ntree > 1:
        return model
    mujoco, stepped = require("mujoco", "mujoco"), copy.copy(model)
    stepped.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    return stepped


def all_options(template_class: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options given and the defaults of the others; refuse unknown ones with the nearest names.

    Raises:
        UserError: the class has no option of that name.
    """
    own = dict(inspect.signature(template_class.__init__).parameters)
    general = inspect.signature(importlib.import_module("gymnasium.envs.mujoco").MujocoEnv.__init__).parameters
    passed_on = set(general) - {"self", "model_path", "frame_skip", "observation_space", "render_mode"}
    known = {name for name, row in own.items() if row.kind != row.VAR_KEYWORD} - {"self"} | passed_on
    for name in options:
        if name not in known:
            raise UserError(
                f"Gymnasium's {template_class.__name__} has no option {name!r}.{near_names(name, known)} "
                f"It knows: {', '.join(sorted(known))}."
            )
    defaults = {name: row.default for name, row in own.items() if row.default is not row.empty}
    for name, value in options.items():
        _check_option(name, value, defaults.get(name))
    return {**defaults, **options}


def _check_option(name: str, value: Any, default: Any) -> None:
    """Refuse what would fail only when the simulation is under way."""
    if isinstance(default, bool):
        fits, expected = isinstance(value, bool | np.bool_), "true or false"
    elif name == "frame_skip":
        fits, expected = isinstance(value, Integral) and int(value) >= 1, "a whole number of at least 1"
    elif name == "reset_noise_scale":
        fits, expected = _is_number(value) and 0 <= value < math.inf, "a finite number, at least 0"
    elif isinstance(default, tuple):
        fits, expected = _is_range(value), "a range of two numbers, the lower one first, e.g. [-1, 1]"
    elif isinstance(default, int | float) and name != "main_body":  # which may be a name as well
        fits, expected = _is_number(value) and math.isfinite(value), "a finite number"
    else:
        return
    if not fits:
        raise UserError(f"{name} must be {expected}. Received {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, Sequence | np.ndarray)
        and len(value) == 2
        and all(_is_number(end) for end in value)
        and value[0] <= value[1]
    )
