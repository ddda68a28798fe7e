"""Our side of scripts/benchmark_text.py: METHOD FOLDER STEPS THREADS; prints examples per second."""

import json
import sys
import time
from pathlib import Path

import torch

from prefrl.text.data import examples as data
from prefrl.text.learn import ppo, preference, runtime
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.model import generation
from prefrl.text.model.models import load_model

METHOD, FOLDER, STEPS = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
BATCH, WARM_UP = 64, 3
IDS = json.loads((FOLDER / "ids.json").read_text())
TIMES: list[float] = []

torch.set_num_threads(int(sys.argv[4]))


class Ids:  # texts are numbers here, so that both sides see the very same tokens
    pad_id, end_id, vocab_size = 0, 1, 512
    encode = encode_prompt = staticmethod(lambda text: list(map(int, text.split())))
    decode = staticmethod(lambda ids: " ".join(map(str, ids)))


model, place = load_model(FOLDER / "model")[0], runtime.Runtime("cpu")
say = [[" ".join(map(str, part)) for part in (row[:28], row[28:67], row[68:107])] for row in IDS]
encoder = data.Encoder(Ids(), 256, 40)
if METHOD == "ppo":
    settings = ppo.PPOSettings(epochs=2, sampling=generation.SamplingSettings(max_tokens=40), missing_end="ignore")
    reward = ModelReward([RewardModel.from_policy(model)], Ids())
    trainer = ppo.PPOTrainer(model, encoder, [p for p, *_ in say], reward, settings, runtime=place)
else:
    pairs = [data.RankedResponses(prompt=p, responses=(a, b), ranks=(0, 1)) for p, a, b in say]
    settings = preference.PreferenceSettings(batch_size=BATCH, epochs=9)
    trainer = preference.PreferenceTrainer(model, encoder, pairs, settings, runtime=place)
for _ in range(STEPS):
    trainer.step()
    TIMES.append(time.perf_counter())

print(BATCH * (len(TIMES) - WARM_UP) / (TIMES[-1] - TIMES[WARM_UP - 1]))
