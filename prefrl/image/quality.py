"""How much pictures look like those of a world: a Fréchet distance on features of a classifier trained here.

The distance of Heusel et al. (2017), on 64 features of a small network that was trained to tell the words of a caption
from the picture, in place of Inception's: it says how far pictures drift from what pretraining showed, which a reward
that is climbed too far does not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prefrl.envs.image_worlds import ImageWorld
from prefrl.image.model import to_floats
from prefrl.runs.streams import stream, stream_seed

NUM_FEATURES = 64


class Features(nn.Module):
    """A classifier of captions' words, and its features.

    Args:
        world: whose captioned pictures it is trained on.
        seed: of its weights and its training.
        pictures: to train on.
        epochs: over them.
    """

    def __init__(self, world: ImageWorld, *, seed: int = 0, pictures: int = 4000, epochs: int = 4) -> None:
        super().__init__()
        captions, pixels = world.examples(pictures)
        words = sorted({word for caption in captions for word in caption.split()})
        wanted = torch.tensor([[float(word in caption.split()) for word in words] for caption in captions])
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(seed, "features"))
            self.look = nn.Sequential(
                nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.GELU(),
                nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.GELU(),
                nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, NUM_FEATURES), nn.Tanh(),
            )  # fmt: skip
            self.tell = nn.Linear(NUM_FEATURES, len(words))
        adam, images = torch.optim.Adam(self.parameters(), lr=2e-3), to_floats(pixels)
        for epoch in range(epochs):
            for part in np.array_split(stream(seed, "features", epoch).permutation(len(images)), -(-len(images) // 64)):
                rows = torch.from_numpy(part)
                loss = nn.functional.binary_cross_entropy_with_logits(self.tell(self.look(images[rows])), wanted[rows])
                adam.zero_grad()
                loss.backward()
                adam.step()
        self.requires_grad_(False)
        self.real = self(pixels)

    def forward(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return features `(B, 64)` of pictures `(B, H, W, 3)`."""
        with torch.no_grad():
            found: Tensor = self.look(to_floats(pictures))
        return found.double().numpy()

    def distance(self, pictures: NDArray[np.uint8]) -> float:
        """Return the Fréchet distance of pictures from those of the world that it was trained on."""
        return frechet_distance(self(pictures), self.real)


def frechet_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the Gaussians that fit two samples.

    Args:
        first: `(N, D)`.
        second: `(M, D)`.
    """
    means = first.mean(0) - second.mean(0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ two @ root), 0, None)).sum()
    return float(means @ means + np.trace(one) + np.trace(two) - 2 * cross)
