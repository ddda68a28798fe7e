"""Copies of an environment stepped in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from prefrl.clips.saver import SavesClips, join_worlds
from prefrl.clips.trail import Marks
from prefrl.envs.vector_tools import seeds
from prefrl.errors import UserError
from prefrl.spaces import Array, Batch, exchangeable


class EnvLoop(VectorEnv):
    """E copies of an environment stepped one after another, restarted in the step in which they end.

    Leaner than `gymnasium.vector.SyncVectorEnv`: of all that environments put into `info` it hands on only
    `final_obs` and `hidden_terminated`, and it copies each observation once.

    Args:
        make_envs: each makes one environment.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  (as Gymnasium has it)

    def __init__(self, make_envs: Sequence[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        self.envs = [make() for make in make_envs]
        self.find_savers()
        self.num_envs = len(self.envs)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._check_copies()

    def _check_copies(self) -> None:
        """Refuse copies that cannot be stepped together."""
        for env in self.envs[1:]:
            for what in ("observation_space", "action_space"):
                first, other = getattr(self.envs[0], what), getattr(env, what)
                if not exchangeable(what, first, other):
                    raise UserError(
                        f"Copies of the environment have different spaces: {what} {first} and {other}. Give its "
                        "constructor an option that fixes it (--env name=value)."
                    )

    def find_savers(self) -> None:
        """Look which copies save clips; to be called again where `envs` was changed."""
        self._steps = [env.env.step if isinstance(env, SavesClips) else env.step for env in self.envs]
        self._worlds = join_worlds(self.envs)

    def _stack(self, observations: list[Any]) -> Batch:
        space = self.single_observation_space
        if isinstance(space, gymnasium.spaces.Dict):
            return {
                key: np.asarray([observation[key] for observation in observations], leaf.dtype)
                for key, leaf in space.spaces.items()
            }
        return np.asarray(observations, space.dtype)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start new episodes everywhere; copy i is seeded with `seed + i`, or with entry i of a sequence."""
        drawn = seeds(seed, self.num_envs)
        starts = [env.reset(seed=one, options=options)[0] for env, one in zip(self.envs, drawn, strict=True)]
        return self._stack(starts), {}

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Step every copy; where an episode ends the observation is the next one's first."""
        observations: list[Any] = []
        rewards = np.zeros(self.num_envs)
        terminated, truncated, hidden = (np.zeros(self.num_envs, np.bool_) for _ in range(3))
        ended: list[int] = []
        for copy, step in enumerate(self._steps):
            observation, rewards[copy], terminated[copy], truncated[copy], info = step(actions[copy])
            if "hidden_terminated" in info:
                hidden[copy] = True
            if terminated[copy] or truncated[copy]:
                ended.append(copy)
            observations.append(observation)
        if self._worlds is not None:
            self._worlds.mark(actions)
        infos: dict[str, Any] = {"hidden_terminated": hidden}
        if ended:
            infos["final_obs"] = self._stack([observations[copy] for copy in ended])
            infos["_final_obs"] = terminated | truncated
        for copy in ended:
            observations[copy], _ = self.envs[copy].reset()
        return self._stack(observations), rewards, terminated, truncated, infos

    def take_marks(self) -> Marks | None:
        """Return what the copies saved for clips since the last call; None unless all of them save."""
        return None if self._worlds is None else self._worlds.take()

    def close_extras(self, **_: Any) -> None:
        """Close every copy."""
        for env in self.envs:
            env.close()
