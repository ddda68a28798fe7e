"""Hyper-parameters of the agents, by environment.

PPO's were chosen on the environments' own rewards (`docs/benchmarks.md`), so that what preferences cost can be told
from what the agent can do. DQN's are those of RL Baselines3 Zoo, SAC's and TD3's stable-baselines3's own but for what
belongs to a task (the Zoo's, the discounts that PPO has there, and rates that were measured), with the noise that TD3
needs to explore (Fujimoto et al. 2018: 0.1); A2C's are stable-baselines3's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prefrl.agents import AGENTS
from prefrl.envs.registration import DMC_TASKS, PIXELS_PREFIX


@dataclass(frozen=True, kw_only=True)
class AgentDefaults:
    """What suits an agent in an environment."""

    steps: int = 400_000
    """Environment steps of a whole run."""
    num_envs: int = 16
    """Copies of the environment."""
    warmup_steps: int = 8_192
    """Steps without learning at the start."""
    warmup: Literal["policy", "uniform", "entropy"] = "policy"
    """How the agent acts in them."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """By the names of `PpoSettings`, or of the stable-baselines3 algorithm and `prefrl.agents.sb3`."""


def _ppo(steps: int = 400_000, *, num_envs: int = 16, log_std: float = -1.0, **changes: Any) -> AgentDefaults:
    """Return the settings that suit most environments, with what is different in one.

    `log_std` is that of the noise at the start, in units of half the range of an action.
    """
    common: dict[str, Any] = {
        "n_steps": 2048 // num_envs,
        "batch_size": 256,
        "n_epochs": 10,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "ent_coef": 0.0,
        "normalize_returns": True,
        "scale_actions": True,
        "policy_kwargs": {"log_std_init": log_std},
    }
    return AgentDefaults(steps=steps, num_envs=num_envs, hyperparameters={**common, **changes})


_CHEETAH = _ppo(300_000, num_envs=8, normalize_until=0.05)
# A gait is paid for over hundreds of steps, and a slow one, or lying still, is soon good enough: long rollouts.
_LONG: dict[str, Any] = {"num_envs": 8, "n_steps": 1024, "batch_size": 512}
_SWIMMER = _ppo(1_000_000, log_std=0.0, gamma=0.9999, gae_lambda=0.98, clip_range=0.1, **_LONG)
# What an action is worth shows within a few steps, and the target is a point.
_REACHER: dict[str, Any] = {"log_std": -2.0, "gamma": 0.9}
_DMC = tuple(f"prefrl/DMC-{name}-v0" for name in DMC_TASKS)

PPO: dict[str, AgentDefaults] = {
    "HalfCheetah-v5": _CHEETAH,
    "Swimmer-v5": _SWIMMER,
    "Reacher-v5": _ppo(300_000, **_REACHER),
    "Hopper-v5": _ppo(400_000, num_envs=8, log_std=0.0),
    "CartPole-v1": _ppo(100_000, ent_coef=0.01),
    # Returns and advantages as they are: until the goal is met they are noise, which must not count as much as a goal.
    "Acrobot-v1": _ppo(300_000, learning_rate=4e-4, ent_coef=0.01, normalize_advantage=False, normalize_returns=False),
    "Pendulum-v1": _ppo(150_000, learning_rate="linear:2e-3", gamma=0.97),
    # The tasks of Christiano et al. 2017: as Gymnasium's own, and not tuned beyond that, but for Hopper, which nobody
    # lifts here and which learns as Walker does.
    "prefrl/Christiano-Hopper-v0": _ppo(1_000_000, **_LONG),
    "prefrl/Christiano-Walker-v0": _ppo(1_000_000, **_LONG),
    "prefrl/Christiano-Ant-v0": _ppo(1_000_000, **_LONG),
    "prefrl/Christiano-Cheetah-v0": _CHEETAH,
    "prefrl/Christiano-Swimmer-v0": _SWIMMER,
    # A quarter of the answers comes before training: with so little noise they would be about arms that hardly move.
    "prefrl/Christiano-Reacher-v0": replace(_ppo(200_000, **_REACHER), warmup="uniform"),
    "prefrl/Christiano-Pendulum-v0": _ppo(100_000),
    "prefrl/Christiano-DoublePendulum-v0": _ppo(200_000),
    **dict.fromkeys(_DMC, _ppo(1_000_000)),  # not tuned
}
ATARI = AgentDefaults(
    steps=10_000_000,
    num_envs=8,
    hyperparameters={
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 4,
        "learning_rate": "linear:2.5e-4",
        "clip_range": "linear:0.1",
        "ent_coef": 0.01,
        "normalize_returns": True,
    },
)
"""PPO's of RL Baselines3 Zoo, but for the scaled rewards."""
MINATAR = AgentDefaults(
    steps=300_000,
    num_envs=16,
    hyperparameters={
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 4,
        "learning_rate": "linear:1e-3",
        "ent_coef": 0.01,
        "normalize_returns": True,
    },
)
"""For a CPU: what some minutes suffice for."""
PIXELS = AgentDefaults(
    steps=100_000,
    num_envs=8,
    warmup_steps=4_096,
    hyperparameters={
        "n_steps": 128,
        "batch_size": 128,
        "n_epochs": 4,
        "learning_rate": "linear:5e-4",
        "normalize_returns": True,
        "scale_actions": True,
        "policy_kwargs": {"log_std_init": -1.0},
    },
)
"""Pictures of MuJoCo and classic control, for a CPU too: not tuned."""

_DQN_CARTPOLE = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
_DQN_ACROBOT = {
    **_DQN_CARTPOLE,
    "learning_rate": 6.3e-4,
    "batch_size": 128,
    "target_update_interval": 250,
    "train_freq": 4,
    "gradient_steps": -1,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
}


_DQN_MOUNTAIN_CAR = {
    **_DQN_CARTPOLE,
    "learning_rate": 4e-3,
    "batch_size": 128,
    "buffer_size": 10_000,
    "gamma": 0.98,
    "target_update_interval": 600,
    "train_freq": 16,
    "gradient_steps": 8,
    "exploration_fraction": 0.2,
    "exploration_final_eps": 0.07,
}


def _off_policy(
    hyperparameters: dict[str, Any] | None = None, *, steps: int = 100_000, num_envs: int = 1
) -> AgentDefaults:
    return AgentDefaults(steps=steps, num_envs=num_envs, warmup="uniform", hyperparameters=hyperparameters or {})


_OF_TASKS: dict[str, tuple[int, dict[str, Any]]] = {
    "": (100_000, {}),
    "Pendulum-v1": (20_000, {"learning_rate": 1e-3}),  # as TD3 has it everywhere
    **dict.fromkeys(("HalfCheetah-v5", "prefrl/Christiano-Cheetah-v0"), (100_000, {"learning_rate": 1e-3})),
    **dict.fromkeys(("Swimmer-v5", "prefrl/Christiano-Swimmer-v0"), (100_000, {"gamma": 0.9999})),
    **dict.fromkeys(("Reacher-v5", "prefrl/Christiano-Reacher-v0"), (50_000, {"gamma": 0.9})),
    **dict.fromkeys(_DMC, (500_000, {})),  # half of those of B-Pref (Lee et al. 2021); not tuned
    "LunarLanderContinuous-v3": (200_000, {"learning_rate": 7.3e-4, "tau": 0.01}),
    "BipedalWalker-v3": (200_000, {"learning_rate": 7.3e-4, "gamma": 0.98, "tau": 0.02}),
}
"""Steps and hyper-parameters of SAC and TD3; rates stay as they are, where some of the Zoo's fall to 0."""


def _continuous(common: dict[str, Any], num_envs: int = 1) -> dict[str, AgentDefaults]:
    return {
        task: _off_policy({**common, **changes}, steps=steps, num_envs=num_envs)
        for task, (steps, changes) in _OF_TASKS.items()
    }


OTHERS: dict[str, dict[str, AgentDefaults]] = {
    "a2c": {"": AgentDefaults(hyperparameters={"scale_actions": True})},
    "sac": _continuous({"gradient_steps": -1}, num_envs=8),  # an update for each step of each environment
    "sb3-sac": _continuous({}),
    "td3": _continuous({"gradient_steps": -1, "action_noise_std": 0.1}, num_envs=8),
    "sb3-td3": _continuous({"action_noise_std": 0.1}),
    "dqn": {
        "": _off_policy(_DQN_ACROBOT),
        "CartPole-v1": _off_policy(_DQN_CARTPOLE, steps=50_000),
        "MountainCar-v0": _off_policy(_DQN_MOUNTAIN_CAR, steps=120_000),
    },
}


def agent_defaults(agent: str, env_id: str) -> AgentDefaults:
    """Return the hyper-parameters known to suit `agent` in `env_id`, or what suits it in general.

    Raises:
        UserError: there is no such agent.
    """
    tuned_as = AGENTS.find(agent).tuned_as
    if tuned_as is None:  # a user's own, which has its own
        return AgentDefaults()
    if tuned_as == "ppo":
        if env_id.startswith("prefrl/MinAtar-"):
            return MINATAR
        if env_id.startswith(PIXELS_PREFIX):
            return PIXELS
        return ATARI if env_id.startswith("prefrl/Atari-") else PPO.get(env_id, _ppo())
    return OTHERS[tuned_as].get(env_id, OTHERS[tuned_as][""])
