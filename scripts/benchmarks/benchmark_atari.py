"""The paper's Atari games from comparisons, each beside the same agent on the true reward: points of whole games.

    python scripts/benchmarks/benchmark_atari.py --games Pong
    python scripts/benchmarks/benchmark_atari.py --steps 10000000

Wants a GPU. Runs are kept in `runs/atari`, with curves: run it again to go on where it stopped.
"""

from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import torch
import tyro

from prefrl.control import ControlFolder, TrainSettings, run
from prefrl.control.policies import KeptPolicy
from prefrl.control.settings import QuerySettings
from prefrl.envs.atari import AtariVectorEnv
from prefrl.envs.registration import PAPER_GAMES, camel_case


def points_of(folder: ControlFolder, num_games: int, most_steps: int) -> np.ndarray:
    """Play with the last policy of a run; return the points of each game, cut after `most_steps`."""
    with closing(KeptPolicy(folder, "last")) as policy:
        games = AtariVectorEnv(gymnasium.spec(folder.settings.env_id).kwargs["game"], num_games)
        observations, _ = games.reset(seed=0)
        points, playing = np.zeros(num_games), np.ones(num_games, bool)
        for _ in range(most_steps):
            observations, *_, info = games.step(policy.act(observations))
            points[playing] = info["score"][playing]
            playing &= ~info.get("hidden_terminated", np.zeros(num_games, bool))
            if not playing.any():
                break
    return points


def main(
    games: tuple[str, ...] = tuple(camel_case(game) for game in PAPER_GAMES), labels: int = 5500,
    steps: int = 10_000_000, num_envs: int = 128, batch_size: int = 2048, seeds: int = 1, device: str = "auto",
    num_games: int = 20, most_steps: int = 27_000, out: Path = Path("runs/atari"),
) -> None:  # fmt: skip
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU", end="\n\n")
    print("| game | seed | labels | points | points, true reward | minutes | minutes, true reward |")
    print("|---" * 7 + "|")
    for game in games:
        for seed in range(seeds):
            settings = TrainSettings(
                env_id=f"prefrl/Atari-{game}-v0", labels=labels, steps=steps, seed=seed, device=device,
                num_envs=num_envs, hyperparameters={"batch_size": batch_size}, queries=QuerySettings(initial_share=0.1),
            )  # fmt: skip
            path = out / f"{game}-{seed}"
            if not (path / "config.json").is_file():
                run.train(settings, path, baseline=True)
            elif not ControlFolder.open(path).summary_path.is_file():
                run.resume(path)
            folder = ControlFolder.open(path)
            points = [points_of(one, num_games, most_steps) for one in (folder, folder.baseline)]
            summary = folder.read_summary()
            cells = [f"{p.mean():.1f} ({p.min():.0f} to {p.max():.0f})" for p in points]
            cells += [f"{summary[key] / 60:.1f}" for key in ("seconds", "baseline_seconds")]
            print(f"| {game} | {seed} | {summary['labels']} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
