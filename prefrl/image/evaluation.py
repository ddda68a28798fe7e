"""Figures of a text-to-image model: rewards, distance from the model at the start, diversity of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.envs.image_worlds import ImageWorld
from prefrl.image.diffusion import Episode, Schedule, sample
from prefrl.image.model import Condition, ImageModel
from prefrl.image.scoring import score
from prefrl.runs.streams import torch_stream

BATCH = 128
"""Pictures drawn at once."""


def draw(
    model: ImageModel,
    prompts: Sequence[str],
    num_sampling_steps: int,
    *,
    seed: int,
    best_of: int = 1,
    reward: Any = None,
) -> tuple[NDArray[np.uint8], list[Episode]]:
    """Draw a picture for each prompt.

    Args:
        model: what draws.
        prompts: one a picture.
        num_sampling_steps: T.
        seed: of all noise; what is drawn for a prompt does not depend on the model.
        best_of: draw so many for each prompt, and keep that which `reward` likes best.
        reward: for `best_of`.

    Returns:
        pictures: `(B, H, W, 3)`.
        episodes: how they were drawn, in batches; with `best_of` above 1, of all that were drawn.
    """
    model.eval()
    model.tell_what_is_lost(prompts)
    schedule = model.schedule(num_sampling_steps)
    pictures, episodes = [], []
    size = max(1, BATCH // best_of)
    for number, first in enumerate(range(0, len(prompts), size)):
        some = [prompt for prompt in prompts[first : first + size] for _ in range(best_of)]
        with torch.no_grad():
            condition = model.encode(some)
        episode = sample(
            _predicting(model, condition), schedule, (len(some), *model.shape), torch_stream(seed, "draw", number),
            model.device,
        )  # fmt: skip
        drawn = model.to_pixels(episode.images)
        if best_of > 1:
            best = score(reward, some, model, episode.images).view(-1, best_of).argmax(1)
            drawn = drawn[(torch.arange(len(best)) * best_of + best).numpy()]
        pictures.append(drawn)
        episodes.append(episode)
    return np.concatenate(pictures), episodes


def evaluate_model(
    model: ImageModel,
    reference: ImageModel,
    prompts: Sequence[str],
    num_sampling_steps: int,
    *,
    seed: int,
    world: ImageWorld | None = None,
    proxy: Any = None,
) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Return figures of a model, and the pictures that they are of.

    Args:
        model: as it is.
        reference: as it was at the start.
        prompts: what is drawn; equal ones stand together, so that their pictures can be compared.
        num_sampling_steps: T.
        seed: of all noise.
        world: whose gold reward and measures are told.
        proxy: a learned reward to tell as well.

    Returns:
        figures: `kl_nats`, the mean over episodes of the sum over steps of the divergence from the reference, with
            `kl_standard_error`: of episodes, so an upper bound of that of images; `gold`, `proxy`; `diversity`, the
            mean distance of the pictures of one prompt in levels of 255; the measures of the world.
        pictures: `(B, H, W, 3)`.
    """
    pictures, episodes = draw(model, prompts, num_sampling_steps, seed=seed)
    schedule = model.schedule(num_sampling_steps)
    divergences, first = [], 0
    for episode in episodes:
        some = prompts[first : first + episode.images.shape[0]]
        divergences.append(divergence_of(model, reference, schedule, some, episode))
        first += len(some)
    kl = torch.cat(divergences)
    figures = {
        "kl_nats": float(kl.mean()),
        "kl_standard_error": float(kl.std() / len(kl) ** 0.5) if len(kl) > 1 else 0.0,
        "diversity": diversity(prompts, pictures),
    }
    if proxy is not None:
        figures["proxy"] = float(np.mean(np.asarray(proxy(prompts, pictures), np.float64)))
    if world is not None:
        figures["gold"] = float(np.mean(world.gold(prompts, pictures)))
        figures |= world.measures(prompts, pictures)
    return figures, pictures


@torch.no_grad()
def divergence_of(
    model: ImageModel, reference: ImageModel, schedule: Schedule, prompts: Sequence[str], episode: Episode
) -> Tensor:
    """Return the sum over steps of KL(model || reference) along episodes of the model, `(B,)` nats."""
    told, other = model.encode(prompts), reference.encode(prompts)
    total = torch.zeros(len(prompts), device=model.device)
    for step in range(len(schedule)):
        x, steps = episode.states[step], torch.full((len(prompts),), step)
        times = schedule.times[steps]
        mean = schedule.mean(x, model.predict(x, times, told), steps)
        total += schedule.divergence(mean, schedule.mean(x, reference.predict(x, times, other), steps), steps)
    return total


def diversity(prompts: Sequence[str], pictures: NDArray[np.uint8]) -> float:
    """Return the mean root-mean-square distance of pictures of one prompt, in levels; NaN where none has two."""
    groups: dict[str, list[NDArray[np.float64]]] = {}
    for prompt, picture in zip(prompts, pictures, strict=True):
        groups.setdefault(prompt, []).append(picture.astype(np.float64))
    found = []
    for group in groups.values():
        for i in range(len(group)):
            for j in range(i):
                found.append(float(np.sqrt(np.mean((group[i] - group[j]) ** 2))))
    return float(np.mean(found)) if found else float("nan")


def grid(pictures: NDArray[np.uint8], columns: int, scale: int = 4) -> NDArray[np.uint8]:
    """Return pictures in rows of `columns`, enlarged, with a dark line between them."""
    rows = -(-len(pictures) // columns)
    height, width = pictures.shape[1] * scale, pictures.shape[2] * scale
    whole = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, 3), 60, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        large = picture.repeat(scale, 0).repeat(scale, 1)
        top, left = 2 + row * (height + 2), 2 + column * (width + 2)
        whole[top : top + height, left : left + width] = large
    return whole


def _predicting(model: ImageModel, condition: Condition) -> Any:
    def predict(x: Tensor, times: Tensor) -> Tensor:
        return model.predict(x, times, condition)

    return predict
