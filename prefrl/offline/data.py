"""Data that are given: episodes of any source as a rollout, and as a history from which segments are drawn."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from prefrl.control.settings import RunSettings
from prefrl.envs import make_env
from prefrl.errors import UserError
from prefrl.history import Episode, History
from prefrl.segments import Rollout
from prefrl.spaces import (
    Array,
    Batch,
    alike,
    batch_length,
    check_action_space,
    check_observation_space,
    map_batch,
    misfit,
    to_arrays,
    zip_batches,
)

Spaces = tuple[gymnasium.Space[Any], gymnasium.Space[Any]]
"""Of observations and of actions."""
NO_ENVIRONMENT = "none"
"""In place of the name of an environment: there is none, and no return can be measured."""
OTHER_ENVIRONMENT = f"Give --env with the one that they are of, or --env {NO_ENVIRONMENT}: no return is measured then."
"""What to do where data are not of the environment that was named."""
EVERYTHING = 1 << 62  # bytes: data that are given are kept whole


@dataclass(frozen=True, kw_only=True)
class World:
    """The environment that data are of, as `make_env` takes it."""

    env_id: str = NO_ENVIRONMENT
    options: dict[str, Any] = field(default_factory=dict)
    wrapper: str | None = None
    max_episode_steps: int | None = None
    fixed_horizon: int = 0
    terminal_reward: float | None = None

    @classmethod
    def of(cls, settings: RunSettings) -> World:
        """Return the environment of a run."""
        return cls(
            env_id=settings.env_id,
            options=settings.env_options,
            wrapper=settings.wrapper,
            max_episode_steps=settings.max_episode_steps,
            fixed_horizon=settings.fixed_horizon,
            terminal_reward=settings.terminal_reward,
        )

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Make it."""
        form: dict[str, Any] = {"options": self.options, "wrapper": self.wrapper}
        if self.fixed_horizon:
            form |= {"fixed_horizon": self.fixed_horizon, "terminal_reward": self.terminal_reward}
        else:
            form |= {"max_episode_steps": self.max_episode_steps}
        return make_env(self.env_id, render_mode=render_mode, **form)


@dataclass(frozen=True, kw_only=True)
class GivenEpisode:
    """One episode as a source has it."""

    observations: Batch
    """`(n + 1, ...)`"""
    actions: Array
    """`(n, ...)`"""
    true_rewards: Array
    """`(n,)`; NaN where they are not known."""
    terminated: bool
    frames: Array | None = None
    """`(n, H, W, 3)` uint8: what is seen after each step; None: nothing was saved."""
    frames_per_second: float = 30.0
    seed: int | None = None
    """Of the environment's reset, with which its actions lead through it again; None: not known."""


@dataclass(frozen=True, kw_only=True)
class OfflineData:
    """Episodes that are given, and what they are of."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    world: World
    episodes: Sequence[GivenEpisode]
    rollout: Rollout
    """All episodes one after the other, `(T, 1, ...)`."""
    history: History
    """The same, episode by episode, numbered as in `episodes`."""
    fingerprint: str
    """Hash of all observations, actions, rewards and ends."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode `(E,)`."""
        return np.array([len(episode.actions) for episode in self.episodes], np.int64)

    def figures(self) -> dict[str, Any]:
        """Return what the data are, for summaries: episodes, steps, and their true returns where these are known."""
        returns = np.array([true_return(episode) for episode in self.history.closed])
        known = returns[np.isfinite(returns)]
        found: dict[str, Any] = {"episodes": len(self.episodes), "steps": int(self.lengths.sum())}
        found["ends"] = int(sum(episode.terminated for episode in self.episodes))
        for name, of in (("mean", np.mean), ("least", np.min), ("most", np.max)):
            found[f"true_return_{name}"] = float(of(known)) if len(known) else None
        return found


def true_return(episode: Episode) -> float:
    """Return the true return of an episode; NaN where it is not known."""
    return float(episode.true_rewards.window(0, episode.num_steps).sum())


def make_data(
    place: str, spaces: Spaces, world: World, episodes: Sequence[GivenEpisode], *, mend: str = OTHER_ENVIRONMENT
) -> OfflineData:
    """Check episodes and put them together.

    Args:
        place: where they are from, for messages.
        spaces: of observations and actions.
        world: their environment; its spaces must be like these.
        episodes: in order; those without a step are left out, with a warning.
        mend: what to do where they are of another environment, for the message.

    Raises:
        UserError: there are none, or one of them is not of these spaces.
    """
    check_observation_space(spaces[0])
    check_action_space(spaces[1])
    whole = [episode for episode in episodes if len(episode.actions)]
    if len(whole) < len(episodes):
        warnings.warn(f"{len(episodes) - len(whole)} episodes of {place} have no step; left out.", stacklevel=2)
    if not whole:
        raise UserError(f"{place} holds no episode with a step. Give data with at least one.")
    for number, episode in enumerate(whole):
        _check_episode(place, number, episode, spaces)
    if world.env_id != NO_ENVIRONMENT:
        _check_world(place, world, spaces, mend)
    unknown = sum(not np.isfinite(episode.true_rewards).all() for episode in whole)
    if 0 < unknown < len(whole):
        warnings.warn(
            f"{unknown} of the {len(whole)} episodes of {place} have steps without a true reward: who answers by it "
            "can't tell about those.",
            stacklevel=2,
        )
    ends = np.cumsum([len(episode.actions) for episode in whole]) - 1
    terminated = np.zeros((ends[-1] + 1, 1), np.bool_)
    truncated = np.zeros_like(terminated)
    terminated[ends, 0] = [episode.terminated for episode in whole]
    truncated[ends, 0] = [not episode.terminated for episode in whole]

    def column(x: Array) -> Array:
        return x[:, None]

    seen = [map_batch(lambda x: x[:-1], episode.observations) for episode in whole]
    last = [map_batch(lambda x: x[-1:], episode.observations) for episode in whole]
    rollout = Rollout(
        observations=map_batch(column, zip_batches(np.concatenate, [*seen, last[-1]])),
        actions=column(np.concatenate([episode.actions for episode in whole])),
        true_rewards=column(np.concatenate([np.asarray(e.true_rewards, np.float64) for e in whole])),  # of the source
        terminated=terminated,
        truncated=truncated,
        last_observations=zip_batches(np.concatenate, last),
    )
    history = History(EVERYTHING)
    history.add(rollout)
    return OfflineData(
        observation_space=spaces[0],
        action_space=spaces[1],
        world=world,
        episodes=whole,
        rollout=rollout,
        history=history,
        fingerprint=_fingerprint(rollout),
    )


def _fingerprint(rollout: Rollout) -> str:
    arrays = {**to_arrays("observations", rollout.observations), **to_arrays("last", rollout.last_observations)}
    arrays |= {"actions": rollout.actions, "rewards": rollout.true_rewards, "terminated": rollout.terminated}
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:32]


def _check_episode(place: str, number: int, episode: GivenEpisode, spaces: Spaces) -> None:
    steps = len(episode.actions)
    where = f"Episode {number} of {place}"
    if batch_length(episode.observations) != steps + 1 or len(episode.true_rewards) != steps:
        raise UserError(
            f"{where} has {steps} actions, {batch_length(episode.observations)} observations and "
            f"{len(episode.true_rewards)} rewards: {steps} actions need {steps + 1} observations, the last after the "
            f"last action, and {steps} rewards."
        )
    for what, space, values in (
        ("observations", spaces[0], episode.observations),
        ("actions", spaces[1], episode.actions),
    ):
        if reason := misfit(space, values):
            raise UserError(f"{where} does not fit its spaces: its {what} have {reason}.")
        for leaf in values.values() if isinstance(values, Mapping) else (values,):
            if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                raise UserError(f"{where} holds {what} that are NaN or infinite. Leave it out of the data, or fix it.")
    if episode.frames is not None and len(episode.frames) != steps:
        raise UserError(f"{where} has {len(episode.frames)} frames for {steps} steps; one is needed for each.")


def _check_world(place: str, world: World, spaces: Spaces, mend: str) -> None:
    env = world.make()
    try:
        for what, own, there in zip(
            ("observations", "actions"), spaces, (env.observation_space, env.action_space), strict=True
        ):
            if not alike(own, there):
                raise UserError(
                    f"The data in {place} are not of {world.env_id}: their {what} are {own}, its {what} are {there}. "
                    f"{mend}"
                )
    finally:
        env.close()
