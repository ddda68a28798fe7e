"""Our PPO and stable-baselines3's on the environments' own rewards: do they learn the same?

    python scripts/benchmarks/benchmark_ppo.py --seeds 5 --picture docs/ppo.png
    python scripts/benchmarks/benchmark_ppo.py --tasks prefrl/Atari-Pong-v0    # wants a GPU

Same hyper-parameters, steps and warm-up; training returns over the last tenth of the run, and their difference with a
95 % interval (Welch). Runs are kept in `runs/ppo`: run it again to go on where it stopped.
"""

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.ticker import EngFormatter
from scipy import stats

from prefrl.control import ControlFolder, TrainSettings, loop

STEPS = {"HalfCheetah-v5": 150_000, "Hopper-v5": 100_000, "CartPole-v1": 100_000, "Pendulum-v1": 100_000}
TASKS = tuple(STEPS)
STEPS["prefrl/Atari-Pong-v0"] = 10_000_000
AGENTS = {"ppo": "ours", "sb3-ppo": "stable-baselines3"}


def curve(out: Path, task: str, agent: str, seed: int) -> np.ndarray:
    """Train, unless it is done, and return training returns at 50 moments."""
    path, steps = out / f"{task.replace('/', '-')}-{agent}-{seed}", STEPS[task]
    if not (path / "policies" / "last.pt").is_file():
        subprocess.run(["rm", "-rf", str(path)], check=True)
        settings = TrainSettings(env_id=task, agent=agent, steps=steps, seed=seed).resolve()
        trainer = loop.Trainer(ControlFolder.create(path, settings, baseline=True))
        trainer.run()
        trainer.close()
    rows = [row for row in ControlFolder.open(path).read_metrics() if row["true_return"] is not None]
    at = np.linspace(steps / 10, steps, 50)
    return np.interp(at, [row["num_env_steps"] for row in rows], [row["true_return"] for row in rows])


def main(
    tasks: tuple[str, ...] = TASKS, seeds: int = 5, out: Path = Path("runs/ppo"),
    picture: Path = Path("runs/ppo/curves.png"),
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    size = (4 * len(tasks), 3.2)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, layout="constrained", squeeze=False)
    print("| task (steps) | ours | stable-baselines3 | difference, 95 % interval |\n|---|---|---|---|")
    for axis, task in zip(axes[0], tasks, strict=True):
        ends, steps = [], STEPS[task]
        for agent, name in AGENTS.items():
            curves = np.array([curve(out, task, agent, seed) for seed in range(seeds)])
            x, mean = np.linspace(steps / 10, steps, 50), curves.mean(0)
            line = axis.plot(x, mean, label=name)[0]
            axis.fill_between(x, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.2)
            ends.append(curves[:, -5:].mean(1))
        axis.set(title=task, xlabel="environment steps", ylabel="true return")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        low, high = stats.ttest_ind(*ends, equal_var=False).confidence_interval()
        cells = " | ".join(f"{end.mean():.1f} ± {end.std(ddof=1):.1f}" for end in ends)
        print(f"| {task} ({steps:,}) | {cells} | {np.subtract(*map(np.mean, ends)):.1f} ({low:.1f} to {high:.1f}) |")
        sys.stdout.flush()
    axes[0, 0].legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
