"""`prefrl text`: one verb per job, from pretraining to the curve."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import tyro

from prefrl.cpus import refuse_several_processes
from prefrl.errors import UserError
from prefrl.text.jobs.data_commands import ask, check, compare, convert, judge, tell
from prefrl.text.jobs.model_commands import evaluate, report, sample
from prefrl.text.jobs.serving_commands import export_to, serve
from prefrl.text.jobs.training_commands import (
    bestofn,
    demo,
    dpo,
    grpo,
    ipo,
    kto,
    online_dpo,
    online_ipo,
    ppo,
    pretrain,
    reinforce,
    rejection,
    resume,
    reward,
    rl,
    rloo,
    sft,
    simpo,
)
from prefrl.text.model.options import INSTEAD

OLD_PREFIX = "--place."
"""How --device, --seed, --bf16 and --max-tokens of jobs used to begin."""
TRAINING = (
    pretrain,
    sft,
    reward,
    ppo,
    rloo,
    grpo,
    reinforce,
    rl,
    online_dpo,
    online_ipo,
    dpo,
    ipo,
    simpo,
    kto,
    rejection,
    bestofn,
    resume,
)
DATA = (check, convert, compare, judge, ask, tell)
MODELS = (evaluate, sample, report, serve, export_to, demo)


def main(arguments: Sequence[str]) -> None:
    """Run `prefrl text`."""
    for given in arguments:
        if given.startswith(OLD_PREFIX):
            new = "--" + given.removeprefix(OLD_PREFIX)
            raise UserError(f"{given.partition('=')[0]} is called {new.partition('=')[0]} now, as in every command.")
        option = given.partition("=")[0].replace("_", "-")
        if option in INSTEAD:
            raise UserError(f"There is no option {option}. {INSTEAD[option]}")
    asked = arguments[0] if arguments else ""
    if asked.replace("-", "_") not in {known.__name__ for known in TRAINING}:
        refuse_several_processes(f"prefrl text {asked}".rstrip())
    if not {"-h", "--help"} & set(arguments):  # help need not wait for the libraries
        quieten_libraries()
    app = tyro.extras.SubcommandApp()
    for verb in (*TRAINING, *DATA, *MODELS):
        app.command(verb)
    app.cli(prog="prefrl text", description="Language models from preferences.", args=list(arguments))


def quieten_libraries() -> None:
    """Silence what the libraries of language models say beside the work."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()
