"""Which world the prompts of a job belong to, and what a finished run is to be asked."""

from __future__ import annotations

from typing import Any

from prefrl.envs.text_tokens import TextTokenizer
from prefrl.envs.text_worlds import DEFAULT_WORLD, WORLDS, TextWorld
from prefrl.errors import UserError
from prefrl.text.data import sources
from prefrl.text.data.forms import Reading, columns_of
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import settings_of
from prefrl.text.learn.policy_measures import completion_accuracy

BEGINNING_WORDS = 8
"""Of a text that was pretrained on: how it goes on is what a pretrained model can be asked."""


def world_of(data: str, seed: int, asked: str | None = None, reading: Reading | None = None) -> TextWorld | None:
    """Return the world that judges responses to prompts of `data`.

    Args:
        data: what a job learns from: a world, a record or a file.
        seed: that the world is made with.
        asked: name of the world; None: the one that `data` names, else one of this package that knows all prompts.
        reading: how rows of a file are read.

    Returns:
        The world; None where no world knows the prompts.

    Raises:
        UserError: the data cannot be read, or the world that was asked for does not know their prompts.
    """
    named = sources.world_named(data)
    if asked is None and named is not None:
        return sources.make_world(named, seed)
    prompts = [] if named is not None else sources.read_prompts(data, seed=seed, count=None, reading=reading)
    if asked is None:
        found = (make(seed) for make in WORLDS.values())
        return next((world for world in found if all(map(world.knows, prompts))), None)
    world = sources.make_world(asked, seed)
    prompt = next((prompt for prompt in prompts if not world.knows(prompt)), None)
    if prompt is not None:
        raise UserError(
            f"The world {asked} does not know the prompts of {data}, of which one begins {prompt[:80]!r}. Name "
            "the world that they are of, or none."
        )
    return world


def prompts_of_run(
    folder: TextFolder | None, data: str | None, *, seed: int, count: int, reading: Reading | None = None
) -> tuple[list[str], TextWorld | None]:
    """Return prompts to ask a policy, and the world that judges its responses if there is one.

    Args:
        folder: the run that made the policy; None: no run did.
        data: where prompts are to come from instead.
        seed: of the world.
        count: how many.
        reading: how rows of a file are read; for those of the run with the columns that it names.

    Returns:
        Held-out prompts of the world that the run was trained on, also if it learned from a file of that world's
        prompts; else the prompts of its file or record; if it was pretrained on texts, how these begin.
    """
    within = {} if folder is None else settings_of(folder)
    asked = None if data is not None or folder is None else folder.setting(str, "watch", "world", within=within)
    if data is None:
        data = (None if folder is None else folder.setting(str, "data", within=within)) or DEFAULT_WORLD
        if folder is not None and reading is not None:
            reading.columns = columns_of(folder.setting(list, "place", "columns", within=within) or ())
        if folder is not None and folder.config["command"] == "pretrain" and sources.world_named(data) is None:
            texts = sources.read_texts(data, seed=seed, count=count)[:count]
            return [" ".join(text.split()[:BEGINNING_WORDS]) for text in texts], None
        world = world_of(data, seed, asked, reading)
    else:
        named = sources.world_named(data)
        world = None if named is None else sources.make_world(named, seed)
    if world is not None and (folder is not None or sources.world_named(data) is not None):
        return sources.prompts_of(world, count, held_out=True), world
    return sources.read_prompts(data, seed=seed, count=count, held_out=True, reading=reading), world


def probe(world: TextWorld, model: Any, tokens: TextTokenizer) -> dict[str, float]:
    """Return the share of right completions for each of a world's probes."""
    return {name: completion_accuracy(model, tokens, asked) for name, asked in world.probes().items() if asked}
