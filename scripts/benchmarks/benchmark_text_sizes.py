"""Memory and tokens per second of language models of several sizes, measured, beside what the sums in the docs say.

    python scripts/benchmarks/benchmark_text_sizes.py                  # 0.4, 3, 20 and 90 M parameters, on this machine

Weights are random, which changes neither. Each figure is of a process of its own: what its memory peaks at, less what
it takes once everything is imported, in bytes a parameter; and tokens a second after a first step. `dpo` reads the
reference before it begins; `rloo` has a reference and a reward model of the same size beside it.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

WIDTHS = {"0.4": (96, 3), "3": (192, 6), "20": (384, 10), "90": (768, 12)}
"""Hidden units and layers, by millions of parameters."""
PROMPT, RESPONSE, BATCH = 32, 64, 8
"""Tokens of each prompt and response, and rows of an update."""

Work = Literal["sample", "sft", "dpo", "sft-lora", "rloo"]
WORKS: tuple[Work, ...] = ("sample", "sft", "sft-lora", "dpo", "rloo")


class Ids:
    """Texts are numbers here."""

    pad_id, end_id, vocab_size = 0, 1, 4096
    encode = encode_prompt = staticmethod(lambda text: list(map(int, text.split())))
    decode = staticmethod(lambda ids: " ".join(map(str, ids)))


def build(size: str) -> Any:
    """Return a Llama of a size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers = WIDTHS[size]
    config = LlamaConfig(
        vocab_size=Ids.vocab_size, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 48, num_key_value_heads=hidden // 48, head_dim=48, max_position_embeddings=256,
        tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def texts(count: int, length: int, seed: int) -> list[str]:
    """Return texts of numbers."""
    ids = torch.randint(3, Ids.vocab_size, (count, length), generator=torch.Generator().manual_seed(seed))
    return [" ".join(map(str, row)) for row in ids.tolist()]


def make(work: Work, model: Any, steps: int) -> Any:
    """Return a function that makes one step and returns the tokens that it was about."""
    from prefrl.text.data.examples import Encoder, Example, RankedResponses
    from prefrl.text.learn import estimating, preference, runtime, sft
    from prefrl.text.learn.reward_model import ModelReward, RewardModel
    from prefrl.text.model.generation import SamplingSettings, sample
    from prefrl.text.model.lora import LoraSettings, add_lora

    place, encoder = runtime.Runtime("cpu"), Encoder(Ids(), 256, RESPONSE)  # type: ignore[arg-type]
    count = BATCH * steps
    prompts, firsts, seconds = (texts(count, n, i) for i, n in enumerate((PROMPT, RESPONSE - 1, RESPONSE - 1)))
    if work == "sample":
        ids, settings = [Ids.encode(p) for p in prompts[:BATCH]], SamplingSettings(max_tokens=RESPONSE)

        def draw() -> int:
            with torch.no_grad():
                drawn = sample(model.eval(), ids, settings, end_id=-1, pad_id=0, generator=torch.Generator())
            return int(drawn.sequences.lengths.sum())

        return draw
    if work.startswith("sft"):
        model = add_lora(model, LoraSettings(rank=8 if work == "sft-lora" else 0), 0)
        rows = [Example(prompt=p, response=r) for p, r in zip(prompts, firsts, strict=True)]
        trainer: Any = sft.SFTTrainer(
            model, sft.encode_examples(encoder, rows), sft.SFTSettings(batch_size=BATCH), pad_id=0, runtime=place
        )
        tokens = BATCH * (PROMPT + RESPONSE)
    elif work == "dpo":
        pairs = [RankedResponses(prompt=p, responses=(a, b), ranks=(0, 1))
                 for p, a, b in zip(prompts, firsts, seconds, strict=True)]  # fmt: skip
        trainer = preference.PreferenceTrainer(
            model, encoder, pairs, preference.PreferenceSettings(batch_size=BATCH), runtime=place
        )
        tokens = 2 * BATCH * (PROMPT + RESPONSE)
    else:
        reward = ModelReward([RewardModel.from_policy(model).requires_grad_(False)], Ids())  # type: ignore[arg-type]
        chosen = dataclasses.replace(
            estimating.EstimatorSettings(), episodes=count, batch_size=BATCH, minibatch_size=BATCH,
            sampling=SamplingSettings(max_tokens=RESPONSE), missing_end="ignore",
        )  # fmt: skip
        trainer = estimating.EstimatorTrainer(model, encoder, prompts, reward, chosen, runtime=place)
        tokens = BATCH * (PROMPT + RESPONSE)

    def step() -> int:
        trainer.step()
        return tokens

    return step


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(size: str, work: Work, steps: int) -> dict[str, float]:
    """Return parameters in millions, peak memory in bytes a parameter, and tokens a second."""
    make("sft", build("0.4"), 2)()  # what is imported and made at first use
    make("rloo", build("0.4"), 1)()
    before, peak, over = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.01):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = build(size)
    parameters = sum(p.numel() for p in model.parameters())
    step = make(work, model, steps)
    step()
    begun, tokens = time.perf_counter(), 0
    for _ in range(steps - 1):
        tokens += step()
    seconds = time.perf_counter() - begun
    over.set()
    watcher.join()
    return {"millions": parameters / 1e6, "bytes": (peak - before) / parameters, "tokens": tokens / seconds}


def main(
    sizes: tuple[str, ...] = tuple(WIDTHS), works: tuple[Work, ...] = WORKS, steps: int = 4, only: str | None = None
) -> None:
    """Measure, and print a table.

    Args:
        sizes: millions of parameters.
        works: what the models do.
        steps: of each, the first one left out.
        only: SIZE:WORK, to print as JSON.
    """
    if only is not None:
        size, _, work = only.partition(":")
        print(json.dumps(measure(size, work, steps)))  # type: ignore[arg-type]
        return
    print("| parameters | work | bytes a parameter | tokens a second |\n|---|---|---|---|")
    for size in sizes:
        for work in works:
            command = [sys.executable, __file__, "--steps", str(steps), "--only", f"{size}:{work}"]
            out = subprocess.run(command, capture_output=True, text=True, check=False)
            if out.returncode:
                sys.exit(out.stderr)
            row = json.loads(out.stdout.splitlines()[-1])
            print(f"| {row['millions']:.1f} M | {work} | {row['bytes']:.1f} | {row['tokens']:,.0f} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
