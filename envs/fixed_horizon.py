"""Episodes that all last equally long, so that their length cannot tell the agent what the task is.

Where an episode ends early, a reward model need not learn anything: any constant positive reward keeps a pole up, and
any constant negative one hurries to a goal. `FixedHorizon` takes the end away and puts a state to be judged in its
place (Christiano et al. 2017, app. A: in the MuJoCo tasks a penalty replaces the termination and has to be learned; in
the Atari games life loss and game over are hidden while the game restarts behind the scenes).
"""

from __future__ import annotations

from typing import Any, TypeVar

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from prefrl.errors import UserError

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class FixedHorizon(gymnasium.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """Hides every end of the inner environment and truncates after exactly `horizon` steps.

    When the inner environment terminates, its last observation comes back as an ordinary one. The next step restarts
    the inner environment: its action has no effect, its observation is the first of the new attempt, and its reward is
    `terminal_reward`, so that the reward belongs to the state in which the attempt ended and can be learned from it.
    That step counts towards the horizon like any other. An end at the last step of the horizon is followed by no
    restart, hence by no `terminal_reward`.

    An inner time limit also leads to a restart, without `terminal_reward`: the step that restarts is then worth 0.
    Give the inner environment `max_episode_steps=horizon` so that this does not happen.

    `info["hidden_terminated"]` is True on the step whose end was hidden and `info["restarted"]` on the step that
    restarted; elsewhere the keys are absent. Restarts draw from the environment's own random stream and reuse the
    `options` of the last reset, so that one seed fixes the whole episode.

    Example, a pole that falls at the ninth step, in an episode that still lasts twenty-five:

        >>> import gymnasium
        >>> env = FixedHorizon(gymnasium.make("CartPole-v1"), horizon=25, terminal_reward=-10.0)
        >>> _ = env.reset(seed=3)
        >>> steps = [env.step(0) for _ in range(25)]
        >>> [number for number, step in enumerate(steps, 1) if "hidden_terminated" in step[4]]
        [9, 20]
        >>> [step[1] for step in steps[8:11]]
        [1.0, -10.0, 1.0]
        >>> any(step[2] for step in steps), [number for number, step in enumerate(steps, 1) if step[3]]
        (False, [25])

    Args:
        env: the environment to wrap.
        horizon: steps per episode, at least 1.
        terminal_reward: true reward of the step after a termination: negative where ending is a failure, positive
            where it is the goal.

    Raises:
        UserError: `horizon` is less than 1.
    """

    def __init__(self, env: gymnasium.Env[ObsType, ActType], horizon: int, terminal_reward: float) -> None:
        RecordConstructorArgs.__init__(self, horizon=horizon, terminal_reward=terminal_reward)
        gymnasium.Wrapper.__init__(self, env)
        if horizon < 1:
            raise UserError(f"horizon must be at least 1 step. Received {horizon}")
        self.horizon = horizon
        self.terminal_reward = float(terminal_reward)
        self._num_steps = 0
        self._restart_reward: float | None = None  # reward of the restart that is due, None if none is
        self._options: dict[str, Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Begin a new episode."""
        self._num_steps, self._restart_reward, self._options = 0, None, options
        return self.env.reset(seed=seed, options=options)

    def step(self, action: ActType) -> tuple[ObsType, float, bool, bool, dict[str, Any]]:
        """Take one step, or spend it on the restart that is due; `terminated` is never True."""
        self._num_steps += 1
        at_end = self._num_steps >= self.horizon
        if self._restart_reward is not None:
            reward, self._restart_reward = self._restart_reward, None
            observation, info = self.env.reset(options=self._options)
            return observation, reward, False, at_end, {**info, "restarted": True}
        observation, inner_reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            self._restart_reward = self.terminal_reward
            info = {**info, "hidden_terminated": True}
        elif truncated:
            self._restart_reward = 0.0
        return observation, float(inner_reward), False, at_end, info
