"""What each policy of a demo answers to the same prompts, to be read beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.text.data.files import read_rows
from prefrl.text.data.sources import make_world, prompts_of
from prefrl.text.jobs.parts import Place
from prefrl.text.learn.policy_measures import answer_prompts
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model

Row = Mapping[str, Any]
FILE = "answers.jsonl"
"""In the folder of a demo."""
NUM_PROMPTS = 20


def draw_answers(models: Mapping[str, str], world_name: str, place: Place) -> list[Row]:
    """Return an answer of each model to the same held-out prompts of a world, with the gold reward.

    Args:
        models: folders of language models, by the names of methods.
        world_name: of the prompts and the gold reward.
        place: device, longest response, and the seed of world and draws.
    """
    world = make_world(world_name, place.seed)
    prompts = prompts_of(world, NUM_PROMPTS, held_out=True)
    sampling, device = SamplingSettings(max_tokens=place.drawn_tokens), place.runtime().device
    rows: list[Row] = []
    for method, folder in models.items():
        model, tokens = load_model(folder)
        model.to(device)
        encoder = place.encoder(tokens, context_length(model))
        drawn = answer_prompts(model, encoder, prompts, sampling, seed=place.seed)
        gold = world.gold(prompts, drawn.texts, drawn.ended)
        rows += [
            {"prompt": prompt, "method": method, "response": text, "ended": bool(ended), "gold": float(value)}
            for prompt, text, ended, value in zip(prompts, drawn.texts, drawn.ended, gold, strict=True)
        ]
    return rows


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """Return the answers in the folder of a demo; none, if it was made before they were kept.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    rows = read_rows(path) if path.is_file() else []
    kinds = {"prompt": str, "method": str, "response": str, "ended": bool, "gold": float}
    if not all(isinstance(row.get(name), kind) for row in rows for name, kind in kinds.items()):
        raise UserError(
            f"{path} is damaged: each row should hold {', '.join(kinds)}. Remove it; prefrl text demo --out {folder} "
            "draws the answers again."
        )
    return rows


def describe_answers(rows: Sequence[Row], num_prompts: int = NUM_PROMPTS) -> str:
    """Return the answers to the first prompts as Markdown, a table for each prompt, with its gold reward."""
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))[:num_prompts]
    lines = ["# What they answer", "", "One draw of each policy as its training left it, and its gold reward."]
    for prompt in prompts:
        lines += ["", f"> {_one_line(prompt)}", "", "| policy | gold | answer |", "|---|---|---|"]
        lines += [
            f"| {row['method']} | {row['gold']:.1f} | {_one_line(row['response'])}{'' if row['ended'] else ' ...'} |"
            for row in rows
            if row["prompt"] == prompt
        ]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
