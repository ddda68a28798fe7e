"""Steps per second of the MuJoCo environments in bulk, against Gymnasium's `SyncVectorEnv`, in turn.

    python scripts/benchmarks/benchmark_mujoco.py
    python scripts/benchmarks/benchmark_mujoco.py --cpu-time    # on a busy machine: CPU seconds, ours on one thread

Both get the same random actions; observation, reward, info and resets are included. The two take turns.
"""

import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import tyro

import prefrl.envs  # registers the environments  # noqa: F401
from prefrl.envs.mujoco_quiet import quiet_mujoco
from prefrl.envs.mujoco_tasks import MUJOCO_TASKS


def seconds_per_step(env: gymnasium.vector.VectorEnv, actions: np.ndarray, clock: Callable[[], float]) -> float:
    begin = clock()
    for action in actions:
        env.step(action)
    return (clock() - begin) / len(actions)


def main(
    tasks: tuple[str, ...] = tuple(MUJOCO_TASKS),
    num_envs: int = 64,
    repeats: int = 5,
    seconds: float = 0.4,
    cpu_time: bool = False,
) -> None:
    """Print the table, from `repeats` rounds that measure SyncVectorEnv for about `seconds` each."""
    clock = time.process_time if cpu_time else time.perf_counter
    print(f"{num_envs} environments; steps per second of all together, median (least to most); ratio round by round\n")
    print("| task | SyncVectorEnv | prefrl | ratio |\n|---|---|---|---|")
    for task in tasks:
        with quiet_mujoco():
            peer = gymnasium.make_vec(f"{task}-v5", num_envs=num_envs, vectorization_mode="sync")
        ours = gymnasium.make_vec(f"prefrl/{task}-v5", num_envs=num_envs, num_threads=1 if cpu_time else 0)
        space = ours.action_space
        rng = np.random.default_rng(0)
        actions = rng.uniform(space.low, space.high, (300, *space.shape)).astype(np.float32)
        for env in (peer, ours):
            env.reset(seed=0)
            seconds_per_step(env, actions[:20], clock)  # past the starting poses, with the clocks up
        num_steps = max(5, int(seconds / seconds_per_step(peer, actions[:5], clock)))
        rounds = [
            (seconds_per_step(peer, actions[:num_steps], clock), seconds_per_step(ours, actions, clock))
            for _ in range(repeats)
        ]
        cells = []
        for column in zip(*[(num_envs / p, num_envs / o, p / o) for p, o in rounds], strict=True):
            digits = 0 if min(column) > 100 else 2
            median = statistics.median(column)
            cells.append(f"{median:,.{digits}f} ({min(column):,.{digits}f} to {max(column):,.{digits}f})")
        print(f"| {task} | {' | '.join(cells)} |", flush=True)
        peer.close()
        ours.close()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
