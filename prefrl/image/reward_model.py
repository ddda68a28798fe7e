"""Reward models of images: a picture and its prompt -> a score, learned from comparisons and rankings.

A small convolutional network looks at the picture, told by the prompt what to look for (FiLM, Perez et al. 2018): the
prompt is read by the text encoder of the model that drew, which stays as it is. Where there are captioned pictures, it
first learns which caption belongs to a picture (a contrastive loss, as CLIP's): the reward models of the literature
begin from BLIP or CLIP for the same reason, answers are too few to learn to read from. The loss on answers is
Plackett-Luce's of whole rankings, which for pairs is Bradley-Terry's (Xu et al. 2023, Eq. 1, take all pairs of a
ranking). Afterwards scores are shifted and scaled so that pictures of the model that drew score 0 on average with a
deviation of 1.
"""

from __future__ import annotations

import json
import math
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
from prefrl.runs.checkpoint import State
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream, stream_seed
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer

FILE, CONFIG = "reward.safetensors", "reward.json"
VERSION = 2
"""Of the files: 1 had networks that saw the prompt in one place."""
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
    middle: Tensor
    spread: Tensor

    def __init__(self, text_width: int, width: int = 32) -> None:
        super().__init__()
        self.settings = {"text_width": text_width, "width": width}
        self.look = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1), nn.GELU(), nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        )
        self.told = nn.Linear(text_width, 4 * width)
        self.settle = nn.Sequential(nn.GELU(), nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.GELU())
        self.score = nn.Sequential(nn.Linear(2 * width * 16 + text_width, 128), nn.GELU(), nn.Linear(128, 1))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("middle", torch.zeros(text_width))
        self.register_buffer("spread", torch.ones(text_width))

    def expect(self, prompts: Tensor) -> None:
        """Take the mean and deviation of prompts as `prompt_features` has them `(N, D)`: what differs counts."""
        self.middle.copy_(prompts.mean(0))
        self.spread.copy_(prompts.std(0, unbiased=False).clamp(min=1e-3))

    def forward(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Return scores `(B,)`.

        Args:
            images: `(B, 3, H, W)` from -1 to 1.
            prompts: their prompts as `prompt_features` has them, `(B, D)`.
        """
        return self.match(self.look(images), prompts)

    def match(self, seen: Tensor, prompts: Tensor) -> Tensor:
        """Return scores `(B,)` of pictures that were looked at, for prompts `(B, D)`."""
        prompts = (prompts - self.middle) / self.spread
        gain, bias = self.told(prompts)[..., None, None].chunk(2, dim=1)
        seen = self.settle(seen * (1 + gain) + bias)
        seen = nn.functional.adaptive_avg_pool2d(seen, 4)
        raw: Tensor = self.score(torch.cat([seen.flatten(1), prompts], 1)).squeeze(-1)
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
        (folder / CONFIG).write_text(json.dumps({"version": VERSION, "members": settings}) + "\n")
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
            held = read_json(folder / CONFIG)
            if held["version"] != VERSION:
                raise UserError(
                    f"The reward model in {folder} is of version {held['version']}, here is {VERSION}. Train it again "
                    "with: prefrl image reward"
                )
            members = held["members"]
            if not 1 <= len(members) <= 100:
                raise ValueError(f"{len(members)} members")
            sizes = [(int(one["text_width"]), int(one["width"])) for one in members]
            if not all(1 <= told <= MOST_WIDTH and 1 <= width <= MOST_WIDTH // 16 for told, width in sizes):
                raise ValueError(f"a member of sizes {sizes}")
            scorers = [Scorer(*size) for size in sizes]
            nn.ModuleList(scorers).load_state_dict(load_file(folder / FILE))
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"The reward model in {folder} is damaged: {first_line(error)} Restore it.") from error
        for scorer in scorers:
            if not all(bool(torch.isfinite(value).all()) for value in scorer.state_dict().values()):
                raise UserError(f"The reward model in {folder} is damaged: its weights hold NaN or infinity.")
        return cls(scorers, ImageModel.load(str(folder / "reader")), pessimism).requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True)
class RewardTrainingSettings:
    """How a reward model is fitted."""

    epochs: int = 6
    batch_size: int = 32
    """Rankings."""
    members: int = 3
    """Each is fitted to a bootstrap of the rankings, where there are several."""
    width: int = 32
    """Channels of the first convolution."""
    caption_epochs: float = 5.0
    """Over captioned pictures, before the rankings, where there are any; 0: none."""
    caption_optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(
            learning_rate=2e-3, warmup_share=0.05, decay="cosine", weight_decay=1e-2
        )
    )
    """Of those."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(
            learning_rate=3e-4, warmup_share=0.05, decay="cosine", weight_decay=1e-2
        )
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.members, self.width) < 1:
            raise UserError("epochs, batch_size, members and width must be at least 1.")
        if not 0 <= self.caption_epochs < math.inf:
            raise UserError(f"caption_epochs must be at least 0. Received {self.caption_epochs}")


class RewardTrainer(ModelTrainer):
    """Fits all members at once, after one network has learned to tell captions apart, from which all begin.

    Args:
        reader: the model whose text encoder reads prompts.
        data: rankings; ties alone teach nothing.
        settings: how.
        captioned: captions and pictures `(N, H, W, 3)` to learn first; None: none.
    """

    def __init__(
        self, reader: ImageModel, data: Sequence[Ranked], settings: RewardTrainingSettings, *,
        captioned: tuple[Sequence[str], NDArray[np.uint8]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not data:
            raise UserError("There is nothing to learn a reward from: no two pictures are ranked apart.")
        self.name, self.data, self.settings = "reward model", list(data), settings
        told = prompt_features(reader, [row.prompt for row in data]).cpu()  # where these small networks are fitted
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
        self._captions = (
            Captions(reader, *captioned, settings.seed) if captioned is not None and settings.caption_epochs else None
        )
        expected = told if self._captions is None else self._captions.told
        for scorer in scorers:
            scorer.expect(expected)
        self._epochs = Epochs(count, settings.batch_size, settings.seed, "rankings")
        self.caption_steps = 0 if self._captions is None else self._captions.steps(settings.caption_epochs)
        self.total_steps = self.caption_steps + settings.epochs * self._epochs.steps_per_epoch
        self.optimiser = self._optimiser(0)

    def _optimiser(self, step: int) -> Optimiser:
        if step < self.caption_steps:
            return Optimiser(self.model.scorers[0].parameters(), self.settings.caption_optimiser, self.caption_steps)
        return Optimiser(
            self.model.scorers.parameters(), self.settings.optimiser, self.total_steps - self.caption_steps
        )

    def step(self) -> Metrics:
        """Make one update: of the first network on captions, then of every member on rankings."""
        if self.num_steps < self.caption_steps:
            return self._learn_captions()
        if self.num_steps == self.caption_steps and self.caption_steps:
            for scorer in self.model.scorers[1:]:
                scorer.load_state_dict(self.model.scorers[0].state_dict())
            self.optimiser = self._optimiser(self.num_steps)
        batch = self._epochs.batch(self.num_steps - self.caption_steps)
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

    def _learn_captions(self) -> Metrics:
        assert self._captions is not None
        scorer: Any = self.model.scorers[0]
        images, told = self._captions.batch(self.num_steps)
        choices = told.shape[1]
        scores = scorer.match(scorer.look(images).repeat_interleave(choices, 0), told.flatten(0, 1)).view(-1, choices)
        loss = nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
        loss.backward()
        self.optimiser.step()
        self.num_steps += 1
        right = float((scores.argmax(1) == 0).float().mean())
        return {"caption_loss": float(loss.detach()), "caption_accuracy": right}

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        done = int(state.tensors["num_steps"])
        if done > self.caption_steps:  # at the border itself, the next step begins the second part
            self.optimiser = self._optimiser(done)
        super().restore(state)

    def _scores(self, scorer: Any, rows: Sequence[int]) -> Tensor:
        """Return scores `(B, K)` of the pictures of some rankings; 0 where a ranking has fewer than K."""
        pictures = to_floats(np.concatenate([self.data[i].pictures for i in rows]))
        sizes = [len(self.data[i].ranks) for i in rows]
        told = torch.cat([self._told[i].expand(size, -1) for i, size in zip(rows, sizes, strict=True)])
        flat = scorer(pictures, told).split(sizes)
        return nn.utils.rnn.pad_sequence(list(flat), batch_first=True)

    def normalise(self, prompts: Sequence[str], pictures: NDArray[np.uint8]) -> None:
        """Shift and scale each member so that these pictures, of the model that drew, score 0 with a deviation of 1."""
        images, told = to_floats(pictures), prompt_features(self.model._readers[0], prompts).cpu()
        for scorer in self.model.scorers:
            with torch.no_grad():
                scores = scorer(images, told)
                scorer.shift.copy_(scores.mean() * scorer.scale + scorer.shift)
                scorer.scale.copy_(scores.std().clamp(min=1e-6) * scorer.scale)


class Captions:
    """Captioned pictures, each beside captions that are not its own: half of them alike, half any.

    Args:
        reader: the model whose text encoder reads captions.
        captions: N.
        pictures: `(N, H, W, 3)` uint8.
        seed: of the order and of the other captions.
    """

    BATCH, CANDIDATES, ALIKE, ANY = 64, 16, 2, 2

    def __init__(self, reader: ImageModel, captions: Sequence[str], pictures: NDArray[np.uint8], seed: int) -> None:
        self.unique = sorted(set(captions))
        self._words = [frozenset(caption.split()) for caption in self.unique]
        self.told = prompt_features(reader, self.unique).cpu()
        place = {caption: number for number, caption in enumerate(self.unique)}
        self._own = [place[caption] for caption in captions]
        self._pictures, self._seed = pictures, seed
        self._epochs = Epochs(len(captions), self.BATCH, seed, "captions")

    def steps(self, epochs: float) -> int:
        """Return the updates of so many epochs; none where all captions are the same."""
        return max(1, round(epochs * self._epochs.steps_per_epoch)) if len(self.unique) > 1 else 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return pictures `(B, 3, H, W)` and for each the features of captions `(B, 5, D)`, its own first."""
        rows = self._epochs.batch(step)
        random = stream(self._seed, "other captions", step)
        drawn = random.integers(len(self.unique) - 1, size=(len(rows), self.CANDIDATES))
        named = []
        for row, candidates in zip(rows, drawn.tolist(), strict=True):
            own = self._own[row]
            others = [number + (number >= own) for number in candidates]
            alike = sorted(others, key=lambda number: -len(self._words[number] & self._words[own]))[: self.ALIKE]
            named.append([own, *alike, *others[: self.ANY]])
        return to_floats(self._pictures[rows]), self.told[torch.tensor(named)]


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
                    losses.append(float(-nn.functional.logsigmoid(margin)))
    if not right:
        return {}
    return {
        "held_out_pairs": len(right),
        "held_out_accuracy": float(np.mean(right)),
        "held_out_loss": float(np.mean(losses)),
    }
