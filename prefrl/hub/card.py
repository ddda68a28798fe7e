"""The card of a run on a hub: what it was taught, by whom, how good it is, under which licence, how it is used."""

from __future__ import annotations

import json
from typing import Any

from prefrl.control.folder import ControlFolder
from prefrl.hub.packing import AnswersTold
from prefrl.image.folder import ImageFolder
from prefrl.offline.folder import OfflineFolder
from prefrl.runs.folder import RunFolder
from prefrl.runs.metrics import numbers

MOST_FIGURES = 24


def card_of(folder: RunFolder, repo: str, *, licence: str | None, num_people: int) -> str:
    """Return the card as Markdown, with the head that hubs read.

    Args:
        folder: of the run as it is shared.
        repo: USER/NAME.
        licence: of it, as hubs name it, e.g. `mit`; None: unknown.
        num_people: how many people answered.
    """
    control = isinstance(folder, ControlFolder)
    image = isinstance(folder, ImageFolder)
    task = "reinforcement-learning" if control else "text-to-image" if image else "text-generation"
    tags = ["prefrl", "preference-learning", task]
    head = [
        "---",
        f"library_name: {'prefrl' if control else 'diffusers' if image else 'transformers'}",
        f"license: {licence or 'unknown'}",
        "tags:",
    ]
    head += [*(f"- {tag}" for tag in tags), "---", ""]
    body = [f"# {repo.partition('/')[2]}", "", *_taught(folder, num_people), "", "## How good it is", ""]
    summary = folder.read_summary()
    body += ["| figure | value |", "|---|---|"]
    body += [f"| {name.replace('_', ' ')} | {value:.5g} |" for name, value in numbers(summary)[:MOST_FIGURES]]
    body += ["", "Measured by the run itself on its own task; over other seeds it may be better or worse.", ""]
    body += ["## How to use it", "", *_used(folder, repo), ""]
    versions = ", ".join(f"{name} {version}" for name, version in folder.config.get("versions", {}).items())
    body += [
        "## How it was made",
        "",
        f"`{folder.config.get('made_by', folder.COMMAND)}`, with {versions}. The settings:",
        "",
    ]
    body += ["```json", json.dumps(folder.config["settings"], indent=1), "```", ""]
    return "\n".join([*head, *body])


def card_of_answers(told: AnswersTold, repo: str, *, licence: str | None) -> str:
    """Return the card of a data set of answers as Markdown, with the head that hubs read.

    Args:
        told: what they are.
        repo: USER/NAME.
        licence: of it, as hubs name it, e.g. `mit`; None: unknown.
    """
    head = ["---", f"license: {licence or 'unknown'}", "tags:", "- prefrl", "- preference-learning", "---", ""]
    what = f"Answers of annotators about `{told.environment}`" if told.environment else "Answers of annotators"
    body = [f"# {repo.partition('/')[2]}", "", f"{what}: {told.wrote}.", "", "| | number |", "|---|---|"]
    body += [f"| annotators: {kind} | {number} |" for kind, number in sorted(told.annotators.items())]
    body += [f"| answers that stand: {kind} | {number} |" for kind, number in sorted(told.kinds.items())]
    if told.instructions:
        body += ["", "They were told to look for:"]
        for text in told.instructions[:MOST_FIGURES]:
            body += ["", *(f"> {line}" for line in text.split("\n"))]
    body += ["", "## How to use it", "", f"    prefrl import hub:datasets/{repo} --to answers.sqlite", ""]
    body += ["Written by `prefrl export`, whose documentation says what each file and column holds.", ""]
    return "\n".join([*head, *body])


def _taught(folder: RunFolder, num_people: int) -> list[str]:
    settings: dict[str, Any] = folder.config["settings"]
    if not isinstance(folder, ControlFolder):
        verb = f"{folder.COMMAND} {folder.config.get('command')}"
        return [f"Made by `{verb}` from `{settings.get('model', 'nothing')}` on `{settings.get('data')}`."]
    if folder.config["baseline"]:
        agent = settings.get("agent")
        return [f"A policy for `{settings.get('env_id')}`, trained by {agent} on the environment's own reward."]
    if isinstance(folder, OfflineFolder):
        what = f"A policy for the data `{settings.get('dataset')}`, learned by {settings.get('method')}"
    else:
        what = f"A policy and a reward for `{settings.get('env_id')}`, trained by {settings.get('agent')}"
    who = f"{num_people} people" if num_people else f"the simulated annotator {settings.get('teacher')}"
    if settings.get("annotator") == "both":
        who += f" and the simulated annotator {settings.get('teacher')}"
    lines = [f"{what} from {settings.get('labels')} answers of {who} about which of two clips is better."]
    if settings.get("instruction"):
        lines += [
            "",
            "They were told to look for:",
            "",
            *(f"> {line}" for line in str(settings["instruction"]).split("\n")),
        ]
    return lines


def _used(folder: RunFolder, repo: str) -> list[str]:
    if isinstance(folder, ControlFolder):
        return [f"    prefrl evaluate hub:{repo}", f"    prefrl video hub:{repo}"]
    return [f"    {folder.COMMAND} sample hub:{repo}", f"    prefrl report hub:{repo}"]
