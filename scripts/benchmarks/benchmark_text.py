"""Episodes per second of PPO, GRPO and RLOO and pairs per second of DPO for text, ours and trl's, on the same weights.

    python scripts/benchmarks/benchmark_text.py
        --trl-ppo ENV_WITH_TRL_1_12/bin/python --trl ENV_WITH_TRL_1_16/bin/python
    python scripts/benchmarks/benchmark_text.py --trl ENV_WITH_TRL_1_16/bin/python --methods grpo rloo

The sides take turns, each in a process of its own. 0.4 M parameters, float32, prompts of 28 tokens (of GRPO and RLOO
the messages of the service desk), responses of 40, batches of 64; PPO makes 2 epochs, GRPO and RLOO draw 8 responses to
a prompt, scored by a reward model of the same size and tied to a reference. trl's slow defaults are off: no gradient
checkpointing, no bf16, stopping at the end token, cached reference log-probabilities for DPO. The first steps of each
side, which warm up, are left out. Beside trl its interpreters need tyro.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
import tyro

SIDES = {whose: Path(__file__).with_name(f"benchmark_text_{whose}.py") for whose in ("ours", "trl")}


def save_world(folder: Path) -> None:
    """Save a model with random weights, and prompts and responses that are all of the same length."""
    from prefrl.envs.service_desk import ServiceDesk
    from prefrl.text.model.models import PRESETS, build_model, save_model
    from prefrl.text.model.tokens import Tokens, train_tokenizer

    tokens = Tokens(train_tokenizer(ServiceDesk(0).prompts(2000), PRESETS["demo"].vocab_size))
    save_model(folder / "model", build_model(PRESETS["demo"], tokens), tokens)
    ids = np.random.default_rng(0).integers(3, tokens.vocab_size, (1024, 28 + 2 * 40)).tolist()
    (folder / "ids.json").write_text(json.dumps(ids))
    (folder / "prompts.json").write_text(json.dumps(ServiceDesk(1).prompts(1024)))


def main(
    trl: str, trl_ppo: str | None = None, methods: tuple[Literal["ppo", "dpo", "grpo", "rloo"], ...] = ("ppo", "dpo"),
    repeats: int = 3, steps: int = 12, threads: int = 2,
) -> None:  # fmt: skip
    if "ppo" in methods and trl_ppo is None:
        sys.exit("PPO needs --trl-ppo, an interpreter with trl 1.12, which was the last to have it.")
    with tempfile.TemporaryDirectory() as folder:
        save_world(Path(folder))
        for method in methods:
            speeds: dict[str, list[float]] = {"ours": [], "trl": []}
            for _ in range(repeats):
                theirs = trl_ppo if method == "ppo" and trl_ppo else trl
                for whose, python in (("ours", sys.executable), ("trl", theirs)):
                    command = [python, str(SIDES[whose]), "--method", method, "--folder", folder]
                    command += ["--steps", str(steps), "--threads", str(threads)]
                    out = subprocess.run(command, capture_output=True, text=True, check=False)
                    if out.returncode:
                        sys.exit(out.stderr)
                    speeds[whose].append(float(out.stdout.split()[-1]))
            ratio = [ours / peer for ours, peer in zip(*speeds.values(), strict=True)]
            print(f"{method}: ours {median(speeds['ours']):.1f}/s, trl {median(speeds['trl']):.1f}/s, "
                  f"ratio {median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})")  # fmt: skip
    print(f"torch {torch.__version__}, {threads} threads")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
