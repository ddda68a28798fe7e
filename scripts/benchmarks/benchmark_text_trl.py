"""trl's side of scripts/benchmarks/benchmark_text.py, for an interpreter that has trl; prints examples per second."""

import json
import time
from pathlib import Path

import torch
import tyro
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

BATCH, WARM_UP = 64, 3
TIMES: list[float] = []


class Clock(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        TIMES.append(time.perf_counter())


def main(method: str, folder: Path, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    ids = json.loads((folder / "ids.json").read_text())
    load, tokenizer = AutoModelForCausalLM.from_pretrained, AutoTokenizer.from_pretrained(folder / "model")
    common = {"output_dir": folder / "out", "report_to": [], "gradient_checkpointing": False, "bf16": False,
              "use_cpu": True, "per_device_train_batch_size": BATCH, "save_strategy": "no",
              "dataloader_pin_memory": False}  # fmt: skip
    if method == "ppo":
        from trl.experimental.ppo import PPOConfig, PPOTrainer

        one = AutoModelForSequenceClassification.from_pretrained
        value, reward = (one(folder / "model", num_labels=1) for _ in "vr")
        config = PPOConfig(**common, total_episodes=steps * BATCH, num_ppo_epochs=2, num_mini_batches=1,
                           stop_token="eos", response_length=40, num_sample_generations=0,
                           local_rollout_forward_batch_size=BATCH)  # fmt: skip
        rows = Dataset.from_dict({"input_ids": [row[:28] for row in ids]})
        trainer = PPOTrainer(config, tokenizer, load(folder / "model"), load(folder / "model"), reward, rows, value,
                             eval_dataset=rows.select(range(BATCH)), callbacks=[Clock()])  # fmt: skip
    elif method in ("grpo", "rloo"):
        import trl

        # beta is 0 by default for GRPO there, and nothing ties the policy to where it began
        more = {"num_generations": 8, "max_completion_length": 40, "max_steps": steps, "logging_strategy": "no"}
        more |= {"beta": 0.04} if method == "grpo" else {}
        reward = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1)
        rows = Dataset.from_dict({"prompt": json.loads((folder / "prompts.json").read_text())})
        config = getattr(trl, f"{method.upper()}Config")(**common, **more)
        trainer = getattr(trl, f"{method.upper()}Trainer")(
            load(folder / "model"), reward, config, rows, processing_class=tokenizer,
            reward_processing_classes=tokenizer, callbacks=[Clock()],
        )  # fmt: skip
    else:
        from trl import DPOConfig, DPOTrainer

        config = DPOConfig(**common, max_steps=steps, precompute_ref_log_probs=True, max_length=None)
        text = [[tokenizer.decode(part) for part in (row[:28], row[28:67], row[68:107])] for row in ids]
        rows = Dataset.from_dict(dict(zip(("prompt", "chosen", "rejected"), zip(*text, strict=True), strict=True)))
        trainer = DPOTrainer(load(folder / "model"), None, config, train_dataset=rows, processing_class=tokenizer,
                             callbacks=[Clock()])  # fmt: skip
    trainer.train()
    print(BATCH * (len(TIMES) - WARM_UP) / (TIMES[-1] - TIMES[WARM_UP - 1]))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
