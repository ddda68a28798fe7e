"""Records what dm_control's own environments do, for `tests/unit/test_dmc.py` to hold the tasks in bulk against.

dm_control 1.0.50 makes no environment with MuJoCo 4, so this runs in a virtual environment of its own:

    python -m venv other && other/bin/pip install dm_control==1.0.50 'mujoco<4' tyro
    other/bin/python scripts/tools/record_dmc.py tests/data/dmc.npz
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from dm_control import suite

TASKS = (
    "walker-stand",
    "walker-walk",
    "walker-run",
    "cheetah-run",
    "hopper-stand",
    "hopper-hop",
    "quadruped-walk",
    "quadruped-run",
    "humanoid-stand",
    "humanoid-walk",
    "humanoid-run",
)
SPEEDS = {"stand": 0.0, "walk": 1.0, "run": 8.0, "hop": 2.0}
NUM_STARTS = 3  # seeds 0, 1, 2
NUM_STEPS = 300  # of the episode that is played freely
OBSERVED_EVERY = 30  # steps
NUM_STATES = 10  # from each of which one step is made
MODEL_FIELDS = (
    "body_mass",
    "body_inertia",
    "body_ipos",
    "body_iquat",
    "jnt_range",
    "jnt_stiffness",
    "dof_damping",
    "dof_armature",
    "geom_size",
    "geom_pos",
    "geom_friction",
    "geom_solref",
    "geom_solimp",
    "actuator_gear",
    "actuator_ctrlrange",
    "actuator_gainprm",
    "actuator_biasprm",
    "eq_solref",
    "sensor_type",
)


def flat(observation: Any) -> np.ndarray:
    """Return an observation's parts one after another."""
    return np.concatenate([np.ravel(part) for part in observation.values()])


def state_of(physics: Any) -> np.ndarray:
    """Return positions, velocities and activations."""
    return np.concatenate([physics.data.qpos, physics.data.qvel, physics.data.act])


def put(env: Any, state: np.ndarray) -> np.ndarray:
    """Put an environment into a state, as its own reset would, and return what it observes there."""
    physics = env.physics
    with physics.reset_context():
        nq, nv = physics.model.nq, physics.model.nv
        physics.data.qpos[:], physics.data.qvel[:] = state[:nq], state[nq : nq + nv]
        physics.data.act[:] = state[nq + nv :]
    env._reset_next_step, env._step_count = False, 0
    return flat(env.task.get_observation(physics))


def draw_actions(random: np.random.Generator, env: Any, num: int) -> np.ndarray:
    """Draw actions in 128ths, which every kind of float holds exactly."""
    spec = env.action_spec()
    low, high = np.ceil(spec.minimum * 128), np.floor(spec.maximum * 128)
    return random.integers(low, high, (num, *spec.shape), endpoint=True).astype(np.int16)


def record(name: str) -> dict[str, np.ndarray]:
    """Return what one task does."""
    domain, task = name.split("-")
    random = np.random.default_rng(0)
    starts, first = [], []
    for seed in range(NUM_STARTS):
        env = suite.load(domain, task, {"random": seed})
        first.append(flat(env.reset().observation))
        starts.append(state_of(env.physics))
    model = env.physics.model
    env = suite.load(domain, task, {"random": 0})
    env.reset()
    put(env, starts[0])
    actions = draw_actions(random, env, NUM_STEPS)
    rewards, seen, states = [], [], []
    for number, action in enumerate(actions):
        step = env.step(action / 128)
        rewards.append(step.reward)
        states.append(state_of(env.physics))
        if (number + 1) % OBSERVED_EVERY == 0:
            seen.append(flat(step.observation))
    upright = np.concatenate([model.qpos0, np.zeros(model.nv + model.na)])
    places = np.linspace(0, NUM_STEPS - 1, NUM_STATES // 2).astype(int)
    chosen = [states[place] for place in places]
    while len(chosen) < NUM_STATES:  # as the model stands, in motion: where rewards are
        state = upright.copy()
        state[model.nq : model.nq + model.nv] = random.normal(size=model.nv)
        forward = 1 if domain == "walker" else 0
        state[model.nq + forward] += random.uniform(0, 1.3) * SPEEDS[task]
        chosen.append(state)
    steps = draw_actions(random, env, NUM_STATES)
    befores, afters, gains, ends = [], [], [], []
    for state, action in zip(chosen, steps, strict=True):
        befores.append(put(env, state))
        step = env.step(action / 128)
        afters.append(flat(step.observation))
        gains.append(step.reward)
        ends.append(state_of(env.physics))
    kept = {
        "starts": starts,
        "first_observations": first,
        "actions": actions,
        "rewards": rewards,
        "observations": seen,
        "states": chosen,
        "step_actions": steps,
        "observations_before": befores,
        "observations_after": afters,
        "step_rewards": gains,
        "states_after": ends,
    }
    if name == next(task for task in TASKS if task.startswith(domain)):
        kept |= {f"model_{field}": getattr(model, field) for field in MODEL_FIELDS}
    kept["times"] = [model.opt.timestep, env.control_timestep(), env._step_limit]
    return {f"{name}/{key}": np.asarray(values) for key, values in kept.items()}


def main(file: tyro.conf.Positional[Path]) -> None:
    """Record all tasks into a file."""
    recorded: dict[str, np.ndarray] = {}
    for name in TASKS:
        recorded |= record(name)
    said = {"dm_control": version("dm_control"), "mujoco": version("mujoco"), "observed_every": OBSERVED_EVERY}
    np.savez_compressed(file, about=np.array(json.dumps(said)), **recorded)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB, {said}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
