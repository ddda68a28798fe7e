"""Reward models of images: a picture and its prompt -> a score, learned from comparisons and rankings.

A small convolutional network looks at the picture, told by the prompt what to look for (FiLM, Perez et al. 2018): the
prompt is read by the text encoder of the model that drew, which stays as it is. The loss is Plackett-Luce's of whole
rankings, which for pairs is Bradley-Terry's (Xu et al. 2023, Eq. 1, take all pairs of a ranking). Afterwards scores are
shifted and scaled so that pictures of the model that drew score 0 on average with a deviation of 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prefrl.errors import UserError, first_line
from prefrl.feedback.answers import ranks_of
from prefrl.files import read_json
from prefrl.image.model import ImageModel, to_floats
from prefrl.likelihood import choices, ranking_log_likelihood
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream, stream_seed
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer

FILE, CONFIG = "reward.safetensors", "reward.json"
MOST_WIDTH = 8192
"""Of what a file may ask for."""


class ImageReward(Protocol):
    """What scores pictures."""

    def __call__(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> Any:
        """Return a score for each picture `(B, H, W, 3)` uint8, `(B,)` floats."""


@dataclass(frozen=True)
class Ranked:
    """Pictures for one prompt and the place of each; equal places are ties."""

    prompt: str
    pictures: NDArray[np.uint8]
    """(K, H, W, 3)."""
    ranks: tuple[int, ...]
    """One for each, 1 the best."""


def rank_by_scores(
    prompts: Sequence[str], pictures: NDArray[np.uint8], scores: NDArray[np.float64], temperature: float, seed: int
) -> list[Ranked]:
    """Return rankings as a judge with these scores gives them.

    Args:
        prompts: P prompts.
        pictures: of each, `(P, K, H, W, 3)`.
        scores: `(P, K)`.
        temperature: rankings are drawn from Plackett-Luce of the scores over this; 0: by the scores, equal ones tied.
        seed: of the draws.
    """
    if temperature:
        scores = scores / temperature + stream(seed, "judge").gumbel(size=scores.shape)
    rows = zip(prompts, pictures, scores.tolist(), strict=True)
    return [Ranked(prompt, some, ranks_of(row)) for prompt, some, row in rows]


class Scorer(nn.Module):
    """One reward network.

    Args:
        text_width: of the hidden states of a prompt.
        width: channels after the first convolution.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, text_width: int, width: int = 32) -> None:
        super().__init__()
        self.settings = {"text_width": text_width, "width": width}
        self.look = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1), nn.GELU(), nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        )
        self.told = nn.Linear(text_width, 4 * width)
        self.settle = nn.Sequential(nn.GELU(), nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.GELU())
        self.score = nn.Sequential(nn.Linear(2 * width * 16, 128), nn.GELU(), nn.Linear(128, 1))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Return scores `(B,)`.

        Args:
            images: `(B, 3, H, W)` from -1 to 1.
            prompts: their prompts as `prompt_features` has them, `(B, D)`.
        """
        seen = self.look(images)
        gain, bias = self.told(prompts)[..., None, None].chunk(2, dim=1)
        seen = self.settle(seen * (1 + gain) + bias)
        seen = nn.functional.adaptive_avg_pool2d(seen, 4)
        raw: Tensor = self.score(seen.flatten(1)).squeeze(-1)
        return (raw - self.shift) / self.scale


def prompt_features(model: ImageModel, prompts: Sequence[str]) -> Tensor:
    """Return the mean hidden state of each prompt `(B, D)`, without gradients."""
    unique = sorted(set(prompts))
    with torch.no_grad():
        told = model.encode(unique)
        mask = told.mask[..., None].float()
        features = (told.states * mask).sum(1) / mask.sum(1)
    place = {prompt: number for number, prompt in enumerate(unique)}
    return features[[place[prompt] for prompt in prompts]]


class RewardModel(nn.Module):
    """An ensemble of scorers and the text encoder that tells them prompts.

    Args:
        scorers: the members.
        model: the text-to-image model whose text encoder reads prompts.
        pessimism: deviations of the members that are subtracted from their mean.
    """

    def __init__(self, scorers: Sequence[Scorer], model: ImageModel, pessimism: float = 0.0) -> None:
        super().__init__()
        self.scorers, self.pessimism = nn.ModuleList(scorers), pessimism
        self._readers = [model]  # in a list: it is no part of these weights

    def members(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the score of each member, `(members, B)`; gradients pass to the images.

        Args:
            images: `(B, 3, H, W)` from -1 to 1.
            prompts: one for each.
        """
        told = prompt_features(self._readers[0], prompts).to(images.device)
        return torch.stack([scorer(images, told) for scorer in self.scorers])

    def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return scores `(B,)`; gradients pass to the images."""
        scores = self.members(images, prompts)
        spread = scores.std(0, unbiased=False) if self.pessimism else 0.0
        return scores.mean(0) - self.pessimism * spread

    def __call__(self, images: Any, prompts: Any) -> Any:
        """Return scores of numbers `(B, 3, H, W)`, or of prompts and pictures as any `ImageReward` takes them."""
        if isinstance(images, Tensor):
            return super().__call__(images, prompts)
        with torch.no_grad():
            device = next(self.scorers.parameters()).device
            return super().__call__(to_floats(prompts).to(device), images).cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write the members, and the model whose text encoder they need."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {key: value.contiguous() for key, value in self.scorers.state_dict().items()}
        save_file(state, folder / FILE)
        settings = [scorer.settings for scorer in self.scorers]
        (folder / CONFIG).write_text(json.dumps({"version": 1, "members": settings}) + "\n")
        self._readers[0].save(folder / "reader")

    @classmethod
    def load(cls, place: str, *, pessimism: float = 0.0) -> RewardModel:
        """Load a reward model from its folder or that of its run.

        Raises:
            UserError: it is none, or damaged.
        """
        folder = Path(place)
        folder = folder if (folder / CONFIG).is_file() else folder / "model"
        if not (folder / CONFIG).is_file():
            raise UserError(f"There is no image reward model in {place}. Train one with: prefrl image reward")
        try:
            members = read_json(folder / CONFIG)["members"]
            if not 1 <= len(members) <= 100:
                raise ValueError(f"{len(members)} members")
            sizes = [(int(one["text_width"]), int(one["width"])) for one in members]
            if not all(1 <= told <= MOST_WIDTH and 1 <= width <= MOST_WIDTH // 16 for told, width in sizes):
                raise ValueError(f"a member of sizes {sizes}")
            scorers = [Scorer(*size) for size in sizes]
            nn.ModuleList(scorers).load_state_dict(load_file(folder / FILE))
        except Exception as error:
            raise UserError(f"The reward model in {folder} is damaged: {first_line(error)} Restore it.") from error
        for scorer in scorers:
            if not all(bool(torch.isfinite(value).all()) for value in scorer.state_dict().values()):
                raise UserError(f"The reward model in {folder} is damaged: its weights hold NaN or infinity.")
        return cls(scorers, ImageModel.load(str(folder / "reader")), pessimism).requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True)
class RewardTrainingSettings:
    """How a reward model is fitted."""

    epochs: int = 12
    batch_size: int = 32
    """Rankings."""
    members: int = 3
    """Each is fitted to a bootstrap of the rankings, where there are several."""
    width: int = 32
    """Channels of the first convolution."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(
            learning_rate=1e-3, warmup_share=0.05, decay="cosine", weight_decay=1e-2
        )
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.members, self.width) < 1:
            raise UserError("epochs, batch_size, members and width must be at least 1.")


class RewardTrainer(ModelTrainer):
    """Fits all members at once.

    Args:
        reader: the model whose text encoder reads prompts.
        data: rankings; ties alone teach nothing.
        settings: how.
    """

    def __init__(self, reader: ImageModel, data: Sequence[Ranked], settings: RewardTrainingSettings) -> None:
        super().__init__()
        if not data:
            raise UserError("There is nothing to learn a reward from: no two pictures are ranked apart.")
        self.name, self.data, self.settings = "reward model", list(data), settings
        told = prompt_features(reader, [row.prompt for row in data])
        self._told = told
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(settings.seed, "reward weights"))
            scorers = [Scorer(told.shape[1], settings.width) for _ in range(settings.members)]
        self.model = RewardModel(scorers, reader)
        count = len(data)
        self._drawn = [
            stream(settings.seed, "bootstrap", member).integers(count, size=count)
            if settings.members > 1
            else np.arange(count)
            for member in range(settings.members)
        ]
        self._epochs = Epochs(count, settings.batch_size, settings.seed, "rankings")
        self.total_steps = settings.epochs * self._epochs.steps_per_epoch
        self.optimiser = Optimiser(self.model.scorers.parameters(), settings.optimiser, self.total_steps)

    def step(self) -> Metrics:
        """Make one update of every member."""
        batch = self._epochs.batch(self.num_steps)
        losses, right = [], []
        for scorer, drawn in zip(self.model.scorers, self._drawn, strict=True):
            rows = [int(drawn[i]) for i in batch]
            scores = self._scores(scorer, rows)
            losses.append(ranking_loss(scores, [self.data[i].ranks for i in rows]))
            for number, row in enumerate(self.data[i] for i in rows):
                best = int(np.argmin(row.ranks))
                right.append(float(scores[number, best] >= scores[number, : len(row.ranks)].max()))
        loss = torch.stack(losses).sum()
        loss.backward()
        self.optimiser.step()
        self.num_steps += 1
        self.num_examples += len(batch)
        return {"loss": float(loss.detach()) / len(losses), "accuracy": float(np.mean(right))}

    def _scores(self, scorer: Any, rows: Sequence[int]) -> Tensor:
        """Return scores `(B, K)` of the pictures of some rankings; 0 where a ranking has fewer than K."""
        pictures = to_floats(np.concatenate([self.data[i].pictures for i in rows]))
        sizes = [len(self.data[i].ranks) for i in rows]
        told = torch.cat([self._told[i].expand(size, -1) for i, size in zip(rows, sizes, strict=True)])
        flat = scorer(pictures, told).split(sizes)
        return nn.utils.rnn.pad_sequence(list(flat), batch_first=True)

    def normalise(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> None:
        """Shift and scale each member so that these pictures, of the model that drew, score 0 with a deviation of 1."""
        images, told = to_floats(pictures), prompt_features(self.model._readers[0], prompts)
        for scorer in self.model.scorers:
            with torch.no_grad():
                scores = scorer(images, told)
                scorer.shift.copy_(scores.mean() * scorer.scale + scorer.shift)
                scorer.scale.copy_(scores.std().clamp(min=1e-6) * scorer.scale)


def ranking_loss(scores: Tensor, ranks: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the mean negative log-likelihood of rankings under Plackett-Luce, ties shared (`prefrl.likelihood`).

    Args:
        scores: `(B, K)`, of anything where a ranking has fewer than K pictures.
        ranks: of each ranking, 1 the best.
    """
    rows = [choices(row) for row in ranks]
    most = max(len(left) for left, _ in rows)
    left = torch.zeros(len(rows), most, scores.shape[1], dtype=torch.bool)
    chosen = torch.zeros(left.shape)
    for number, (those, which) in enumerate(rows):
        left[number, : those.shape[0], : those.shape[1]] = those
        chosen[number, : which.shape[0], : which.shape[1]] = which
    return -ranking_log_likelihood(scores, left, chosen).mean()


def judge_reward(model: RewardModel, data: Sequence[Ranked]) -> dict[str, float]:
    """Return how well a reward model orders pairs that it was not fitted on: their number, share right and loss."""
    right, losses = [], []
    for row in data:
        scores = model(to_floats(row.pictures), [row.prompt] * len(row.ranks)).detach()
        for i in range(len(row.ranks)):
            for j in range(len(row.ranks)):
                if row.ranks[i] < row.ranks[j]:
                    margin = scores[i] - scores[j]
                    right.append(0.5 if float(margin) == 0 else float(margin > 0))
                    losses.append(float(nn.functional.softplus(-margin)))
    if not right:
        return {}
    return {
        "held_out_pairs": len(right),
        "held_out_accuracy": float(np.mean(right)),
        "held_out_loss": float(np.mean(losses)),
    }
