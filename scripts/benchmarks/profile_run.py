"""Where the time of a whole run goes: the share of every part, each without the parts inside it.

    python scripts/benchmarks/profile_run.py --envs HalfCheetah-v5 CartPole-v1 --steps 300000

A run from comparisons with our PPO at stable-baselines3's default hyper-parameters, as in `benchmark_speed.py
--sb3-defaults`. The parts are timed by wrapping functions, which costs a percent or so.
"""

import functools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro
from benchmark_speed import SB3

from prefrl.agents import inputs, ppo, ppo_arrays, stepping
from prefrl.control import ControlFolder, TrainSettings, loop, scheduled
from prefrl.rewards import fit

PARTS: dict[str, list[tuple[Any, str]]] = {
    "collecting: policy, but for its network": [(ppo.PpoAgent, "_policy")],
    "collecting: inputs": [(inputs.PolicyInputs, "encode_vectors")],
    "collecting: keeping what happens": [(stepping.Stepper, "step"), (stepping.Stepper, "take")],
    "collecting: the rest": [(ppo.PpoAgent, "_collect")],
    "learned rewards": [(ppo.PpoAgent, "_score")],
    "networks, forward": [(ppo_arrays.ArrayTower, "forward")],
    "update: gradients of the losses": [(ppo_arrays, "_surrogate_gradients")],
    "update: log-probabilities and their gradients": [
        (ppo_arrays.ArrayGaussian, "log_prob"),
        (ppo_arrays.ArrayGaussian, "gradients"),
        (ppo_arrays.ArrayCategoricals, "log_prob"),
        (ppo_arrays.ArrayCategoricals, "gradients"),
    ],
    "update: backward": [(ppo_arrays.ArrayTower, "backward")],
    "update: Adam": [(ppo_arrays.ArrayUpdate, "_descend")],
    "update: advantages, old values": [(ppo.PpoAgent, "_batch")],
    "update: minibatches and the rest": [(ppo.PpoAgent, "_update")],
    "history": [(loop.Trainer, "_take_in")],
    "fits": [(fit.Fitter, "fit")],
    "queries, record, scales of the reward": [(loop.Trainer, "_learn_reward"), (scheduled.ScheduledTeaching, "begin")],
    "checkpoints": [(loop.Trainer, "_save_checkpoint")],
}


class Clock:
    """Seconds spent in each part, without the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside: list[float] = []  # for each part under way: seconds in parts that it called

    def wrap(self, owner: Any, name: str, part: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begin
                self.seconds[part] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        setattr(owner, name, timed)


def main(envs: tuple[str, ...] = ("HalfCheetah-v5", "CartPole-v1"), steps: int = 300_000) -> None:
    torch.set_num_threads(1)
    clock = Clock()
    for part, functions in PARTS.items():
        for owner, name in functions:
            clock.wrap(owner, name, part)
    shares: list[dict[str, float]] = []
    for env in envs:
        run = TrainSettings(env_id=env, steps=steps, num_envs=8, hyperparameters=SB3, device="cpu").resolve()
        with tempfile.TemporaryDirectory() as out:
            folder = ControlFolder.create(Path(out), run, baseline=False)
            trainer = loop.Trainer(folder, fit_threads=len(os.sched_getaffinity(0)))
            clock.wrap(trainer.agent._stepper.envs, "step", "collecting: environments")
            for name in ("sample", "to_env"):
                clock.wrap(trainer.agent._actions, name, "collecting: drawing actions")
            for name in ("log_prob", "gradients"):
                clock.wrap(trainer.agent._actions, name, "update: log-probabilities and their gradients")
            clock.seconds.clear()
            begin = time.perf_counter()
            trainer.run()
            in_all = time.perf_counter() - begin
            trainer.close()
        clock.seconds["all else"] = in_all - clock.seconds.total()
        shares.append({part: seconds / in_all for part, seconds in clock.seconds.items()})
    print("| part | " + " | ".join(envs) + " |\n" + "|---" * (1 + len(envs)) + "|")
    for part in sorted(set().union(*shares), key=lambda part: -max(s.get(part, 0) for s in shares)):
        print(f"| {part} | " + " | ".join(f"{s.get(part, 0):.1%}" for s in shares) + " |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
