"""Our side of scripts/benchmarks/benchmark_text.py; prints examples per second."""

import dataclasses
import json
import time
from pathlib import Path

import torch
import tyro

from prefrl.text.data import examples as data
from prefrl.text.learn import estimating, ppo, preference, runtime
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.model import generation
from prefrl.text.model.models import load_model

BATCH, WARM_UP = 64, 3


class Ids:  # texts are numbers here, so that both sides see the very same tokens
    pad_id, end_id, vocab_size = 0, 1, 512
    encode = encode_prompt = staticmethod(lambda text: list(map(int, text.split())))
    decode = staticmethod(lambda ids: " ".join(map(str, ids)))


def main(method: str, folder: Path, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    ids, times = json.loads((folder / "ids.json").read_text()), []
    (model, tokens), place = load_model(folder / "model"), runtime.Runtime("cpu")
    say = [[" ".join(map(str, part)) for part in (row[:28], row[28:67], row[68:107])] for row in ids]
    encoder = data.Encoder(Ids(), 256, 40)
    if method == "ppo":
        settings = ppo.TextPPOSettings(
            epochs=2, sampling=generation.SamplingSettings(max_tokens=40), missing_end="ignore"
        )
        reward = ModelReward([RewardModel.from_policy(model)], Ids())
        trainer = ppo.PPOTrainer(model, encoder, [p for p, *_ in say], reward, settings, runtime=place)
    elif method in ("grpo", "rloo"):
        base = estimating.grpo_settings() if method == "grpo" else estimating.EstimatorSettings()
        sampling = generation.SamplingSettings(max_tokens=40)
        settings = dataclasses.replace(base, samples_per_prompt=8, sampling=sampling, missing_end="ignore")
        prompts, encoder = json.loads((folder / "prompts.json").read_text()), data.Encoder(tokens, 256, 40)
        reward = ModelReward([RewardModel.from_policy(model)], tokens)
        trainer = estimating.EstimatorTrainer(model, encoder, prompts, reward, settings, runtime=place)
    else:
        pairs = [data.RankedResponses(prompt=p, responses=(a, b), ranks=(0, 1)) for p, a, b in say]
        settings = preference.PreferenceSettings(batch_size=BATCH, epochs=9)
        trainer = preference.PreferenceTrainer(model, encoder, pairs, settings, runtime=place)
    for _ in range(steps):
        trainer.step()
        times.append(time.perf_counter())
    print(BATCH * (len(times) - WARM_UP) / (times[-1] - times[WARM_UP - 1]))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
