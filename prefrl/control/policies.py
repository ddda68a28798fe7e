"""Acting with a policy that a run kept."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium
import torch

from prefrl.agents import AGENTS, Agent
from prefrl.clips.saver import SavesClips
from prefrl.clips.worlds import needs_pictures
from prefrl.control.folder import ControlFolder
from prefrl.control.rendering import prepare_pictures
from prefrl.control.settings import RunSettings
from prefrl.envs import TASKS, EnvLoop, Task, make_env, make_vector_env
from prefrl.errors import UserError
from prefrl.runs.streams import stream_seed
from prefrl.spaces import Array, Batch


def make_run_env(settings: RunSettings, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Make one environment as the run with these resolved settings uses it."""
    return make_env(settings.env_id, render_mode=render_mode, **_form(settings))


def _form(settings: RunSettings) -> dict[str, Any]:
    """Return what the environment is made with, and the arguments for the fixed-horizon form, if it is that."""
    form: dict[str, Any] = {
        "options": settings.env_options,
        "wrapper": settings.wrapper,
        "max_episode_steps": settings.max_episode_steps,
    }
    if settings.fixed_horizon:
        form |= {"fixed_horizon": settings.fixed_horizon, "terminal_reward": settings.terminal_reward}
    return form


SHORT_SECONDS = 0.4
"""Segments shorter than this, by the clock of the environment, are said."""


def warn_of_short_segments(settings: RunSettings, env: gymnasium.Env[Any, Any]) -> None:
    """Say so where a segment lasts a moment only, so that it shows where in a stride a robot is and not how it walks.

    Args:
        settings: of the run, resolved.
        env: its environment, whose `metadata["render_fps"]` are its steps in a second; where there are none, or the
            length is one that was chosen for the task, nothing is said.
    """
    rate, length = env.metadata.get("render_fps"), settings.segment_length
    if not isinstance(rate, int | float) or not math.isfinite(rate) or length / max(rate, 1) >= SHORT_SECONDS:
        return
    if length == TASKS.find(settings.env_id).segment_length != Task.segment_length:  # chosen for it
        return
    longest = settings.longest_episode or math.inf
    if longest > length:
        warnings.warn(
            f"A segment of {length} steps lasts {length / rate:.2g} seconds by the environment's clock ({rate:g} steps "
            "a second), so little that two of them may not show which behaviour is better. Consider "
            f"--segment-length {min(math.ceil(rate), longest)}.",
            stacklevel=2,
        )


def make_shown_env(settings: RunSettings) -> gymnasium.Env[Any, Any]:
    """Make one environment as the run uses it, whose steps people can look at later.

    Raises:
        UserError: it can neither be drawn again from a saved state nor draw pictures.
    """
    env = make_run_env(settings)
    if needs_pictures(env):
        modes = env.metadata.get("render_modes") or ()
        env.close()
        if "rgb_array" not in modes:
            raise UserError(
                f'{settings.env_id} cannot be shown to people: it has no render_mode="rgb_array" (it has: '
                f"{', '.join(map(str, modes)) or 'none'}). Add one, or use a teacher: --annotator teacher."
            )
        env = make_run_env(settings, render_mode="rgb_array")
        prepare_pictures(env)
    return SavesClips(env, settings.segment_length)


def make_run_agent(
    settings: RunSettings, *, seed: int, device: str, pass_true_reward: bool = False, num_envs: int | None = None
) -> Agent:
    """Make the untrained agent that these resolved settings name."""

    shown = settings.asks_people and not pass_true_reward and num_envs is None  # not to act with a kept policy

    def make() -> gymnasium.Env[Any, Any]:
        return make_shown_env(settings) if shown else make_run_env(settings)

    kind, num_envs = AGENTS.find(settings.agent), num_envs or settings.num_envs
    envs = make_vector_env(settings.env_id, num_envs, **_form(settings)) if kind.in_bulk else EnvLoop([make] * num_envs)
    if shown and getattr(envs.unwrapped, "can_save_clips", False):
        envs.unwrapped.save_clips()  # type: ignore[attr-defined]
    elif shown and kind.in_bulk:
        envs.close()
        envs = EnvLoop([make] * num_envs)
    return kind.make(
        envs,
        total_env_steps=settings.steps,
        hyperparameters=settings.hyperparameters,
        seed=seed,
        device=device,
        pass_true_reward=pass_true_reward,
    )


class KeptPolicy:
    """A policy of a run, to act with.

    Where it draws from PyTorch's global stream, it does so from one of its own: environments may seed the global one.

    Args:
        folder: the run.
        name: "before", "during", "last" or "best".

    Raises:
        UserError: the run has no such policy.
    """

    def __init__(self, folder: ControlFolder, name: str) -> None:
        state = folder.load_policy(name)
        with warnings.catch_warnings(
            action="ignore"
        ):  # minibatches do not fit one environment: nothing is learned here
            self._agent = make_run_agent(folder.settings, seed=0, device="cpu", num_envs=1)
        self._agent.load_policy_state(state)
        self._deterministic = isinstance(self._agent.action_space, gymnasium.spaces.Box)
        self._stream = torch.get_rng_state()

    def seed(self, seed: int) -> None:
        """Begin the stream that actions are drawn from, and PyTorch's global one, which some environments draw from."""
        self._stream = torch.Generator().manual_seed(seed).get_state()
        torch.manual_seed(stream_seed(seed, "environments"))

    def act(self, observations: Batch) -> Array:
        """Return actions for observations `(B, ...)`: without noise where continuous, sampled where discrete."""
        if self._deterministic:
            return self._agent.act(observations, deterministic=True)
        environments = torch.get_rng_state()
        torch.set_rng_state(self._stream)
        try:
            return self._agent.act(observations, deterministic=False)
        finally:
            self._stream = torch.get_rng_state()
            torch.set_rng_state(environments)

    def close(self) -> None:
        """Close the environment that came with it."""
        self._agent.close()
