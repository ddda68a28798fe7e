"""trl's side of scripts/benchmark_text.py: METHOD FOLDER STEPS THREADS; prints examples per second."""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

METHOD, FOLDER, STEPS = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
BATCH, WARM_UP = 64, 3
IDS = json.loads((FOLDER / "ids.json").read_text())
TIMES: list[float] = []

torch.set_num_threads(int(sys.argv[4]))


class Clock(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        TIMES.append(time.perf_counter())


load, tokenizer = AutoModelForCausalLM.from_pretrained, AutoTokenizer.from_pretrained(FOLDER / "model")
common = {"output_dir": FOLDER / "out", "report_to": [], "gradient_checkpointing": False, "bf16": False,
          "use_cpu": True, "per_device_train_batch_size": BATCH, "save_strategy": "no",
          "dataloader_pin_memory": False}  # fmt: skip
if METHOD == "ppo":
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    value, reward = (AutoModelForSequenceClassification.from_pretrained(FOLDER / "model", num_labels=1) for _ in "vr")
    config = PPOConfig(**common, total_episodes=STEPS * BATCH, num_ppo_epochs=2, num_mini_batches=1,
                       stop_token="eos", response_length=40, num_sample_generations=0,
                       local_rollout_forward_batch_size=BATCH)  # fmt: skip
    rows = Dataset.from_dict({"input_ids": [row[:28] for row in IDS]})
    trainer = PPOTrainer(config, tokenizer, load(FOLDER / "model"), load(FOLDER / "model"), reward, rows, value,
                         eval_dataset=rows.select(range(BATCH)), callbacks=[Clock()])  # fmt: skip
else:
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(**common, max_steps=STEPS, precompute_ref_log_probs=True, max_length=None)
    text = [[tokenizer.decode(part) for part in (row[:28], row[28:67], row[68:107])] for row in IDS]
    rows = Dataset.from_dict(dict(zip(("prompt", "chosen", "rejected"), zip(*text, strict=True), strict=True)))
    trainer = DPOTrainer(load(FOLDER / "model"), None, config, train_dataset=rows, processing_class=tokenizer,
                         callbacks=[Clock()])  # fmt: skip
trainer.train()

print(BATCH * (len(TIMES) - WARM_UP) / (TIMES[-1] - TIMES[WARM_UP - 1]))
