"""Scores of pictures by whatever reward there is: a reward model, a world's gold, a function of a user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from prefrl.envs.image_worlds import ImageWorld
from prefrl.errors import UserError
from prefrl.image.model import ImageModel
from prefrl.image.reward_model import ImageReward, RewardModel
from prefrl.seams import is_function_name, load_function


def score(reward: Any, prompts: Sequence[str], model: ImageModel, x: Tensor) -> Tensor:
    """Return a score for each image `(B,)`.

    Args:
        reward: a reward model, or any function of prompts and pictures.
        prompts: one for each image.
        model: turns what the network draws into pictures.
        x: `(B, C, H, W)`, what the network drew.

    Raises:
        UserError: a function gave another number of scores, or some that are not finite.
    """
    pictures = model.to_pixels(x)
    found = np.asarray(reward(prompts, pictures), np.float32)
    if found.shape != (len(prompts),):
        raise UserError(
            f"The reward should give one score for each of {len(prompts)} pictures. Received an array of {found.shape}."
        )
    if not np.isfinite(found).all():
        raise UserError("The reward gave a score that is not finite (NaN or infinity).")
    return torch.from_numpy(found)


def load_reward(name: str, world: ImageWorld | None, pessimism: float = 0.0) -> RewardModel | ImageReward:
    """Return the reward that a name means.

    Args:
        name: a reward model's folder or run, `gold` of a world, FILE.py:FUNCTION or MODULE:FUNCTION.
        world: whose gold reward `gold` means.
        pessimism: deviations of a reward model's members that are subtracted from their mean.

    Raises:
        UserError: it cannot be had.
    """
    if name == "gold":
        if world is None:
            raise UserError("The reward gold is the true reward of a world: name the world with --world.")
        return world.gold
    if is_function_name(name) and not Path(name).exists():
        return cast(ImageReward, load_function(name, "reward function", "prompts and pictures"))
    return RewardModel.load(name, pessimism=pessimism)
