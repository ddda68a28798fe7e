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

HOLD = 10  # steps: a third of a second or more at the frame rates of the usual environments

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class FixedHorizon(gymnasium.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """Hides every end of the inner environment and truncates after exactly `horizon` steps.

    When the inner environment terminates, its last observation comes back as an ordinary one and is held for `hold`
    steps, long enough to be seen in a clip. The actions of these steps have no effect and each is worth
    `terminal_reward`, so that the reward belongs to the state in which the attempt ended and can be learned from it.
    The last of them restarts the inner environment: its observation is the first of the new attempt. Held steps count
    towards the horizon like any other, and those beyond it do not happen.

    An inner time limit also leads to a restart, by a single step that is worth 0.
    Give the inner environment `max_episode_steps=horizon` so that this does not happen.

    `info["hidden_terminated"]` is True on the step whose end was hidden and `info["restarted"]` on the step that
    restarted; elsewhere the keys are absent. Restarts draw from the environment's own random stream and reuse the
    `options` of the last reset, so that one seed fixes the whole episode.

    Example, a pole that falls at the ninth step, in an episode that still lasts twenty-five:

        >>> import gymnasium
        >>> env = FixedHorizon(gymnasium.make("CartPole-v1"), horizon=25, terminal_reward=-1.0, hold=3)
        >>> _ = env.reset(seed=3)
        >>> steps = [env.step(0) for _ in range(25)]
        >>> [number for number, step in enumerate(steps, 1) if "hidden_terminated" in step[4]]
        [9, 22]
        >>> [step[1] for step in steps[8:13]]
        [1.0, -1.0, -1.0, -1.0, 1.0]
        >>> any(step[2] for step in steps), [number for number, step in enumerate(steps, 1) if step[3]]
        (False, [25])

    Args:
        env: the environment to wrap.
        horizon: steps per episode, at least 1.
        terminal_reward: true reward of each step in which an end is held: negative where ending is a failure,
            positive where it is the goal.
        hold: steps for which an end is held, at least 1.

    Raises:
        UserError: `horizon` or `hold` is less than 1.
    """

    def __init__(
        self, env: gymnasium.Env[ObsType, ActType], horizon: int, terminal_reward: float, hold: int = HOLD
    ) -> None:
        RecordConstructorArgs.__init__(self, horizon=horizon, terminal_reward=terminal_reward, hold=hold)
        gymnasium.Wrapper.__init__(self, env)
        for name, value in (("horizon", horizon), ("hold", hold)):
            if value < 1:
                raise UserError(f"{name} must be at least 1 step. Received {value}")
        self.horizon, self.hold = horizon, hold
        self.terminal_reward = float(terminal_reward)
        self._num_steps = 0
        self._held = 0  # steps until the restart that is due, 0 if none is
        self._held_reward = 0.0
        self._held_observation: ObsType
        self._options: dict[str, Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Begin a new episode."""
        self._num_steps, self._held, self._options = 0, 0, options
        return self.env.reset(seed=seed, options=options)

    def step(self, action: ActType) -> tuple[ObsType, float, bool, bool, dict[str, Any]]:
        """Take one step, or spend it on an end that is held; `terminated` is never True."""
        self._num_steps += 1
        at_end = self._num_steps >= self.horizon
        if self._held > 0:
            self._held -= 1
            if self._held > 0:
                return self._held_observation, self._held_reward, False, at_end, {}
            observation, info = self.env.reset(options=self._options)
            return observation, self._held_reward, False, at_end, {**info, "restarted": True}
        observation, inner_reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            self._held, self._held_reward, self._held_observation = self.hold, self.terminal_reward, observation
            info = {**info, "hidden_terminated": True}
        elif truncated:
            self._held, self._held_reward = 1, 0.0
        return observation, float(inner_reward), False, at_end, info
