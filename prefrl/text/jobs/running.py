"""Driving a text trainer."""

from __future__ import annotations

from functools import partial

from prefrl.runs.running import Evaluation, facts
from prefrl.runs.running import run_trainer as run_any

LESS_MEMORY = (
    "Use a smaller --training.micro-batch-size, --training.batch-size or --max-tokens; for ppo and its "
    "like a smaller --training.minibatch-size."
)
run_trainer = partial(run_any, less_memory=LESS_MEMORY)
__all__ = ["LESS_MEMORY", "Evaluation", "facts", "run_trainer"]
