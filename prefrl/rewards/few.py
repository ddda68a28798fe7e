"""A small reward ensemble evaluated by NumPy, for who steps environments one by one.

A call of torch costs several microseconds, and a step needs many; here it is one matrix product per layer for all
members and few calls beside it. Forked processes can do it too: they have none of torch's threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
_VERSION = attrgetter("_version")  # of a tensor: how often it was written into


class FewTransitions:
    """M perceptrons with leaky ReLU, evaluated together; the mean of the normalised members.

    The normalisers and the mean over members are one weighted sum of the last hidden layers, `(M H) -> 1`.

    Args:
        weights: of each layer, `(M, I, O)`.
        biases: `(M, 1, O)`.
        statistics: means and standard deviations of the inputs `(D,)`, of the members' rewards `(M, 1)`.
        target_std: standard deviation of the members' rewards after normalisation.
        limit: standardised inputs are clipped to this.
        slope: of the leaky ReLU.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        statistics: Sequence[Tensor],
        *,
        target_std: float,
        limit: float,
        slope: float,
    ) -> None:
        self._made_of = (*weights, *biases, *statistics)
        self._versions = list(map(_VERSION, self._made_of))
        self._statistics = tuple(statistics)
        input_mean, input_std, reward_mean, reward_std = (tensor.numpy() for tensor in statistics)
        ws, bs = ([tensor.detach().numpy() for tensor in tensors] for tensors in (weights, biases))
        num_members = len(ws[0])
        self._mean, self._std = input_mean.copy(), input_std.copy()
        self._low, self._high, self._slope = np.float32(-limit), np.float32(limit), np.float32(slope)
        share = np.float64(target_std) / reward_std.astype(np.float64) / num_members  # (M, 1)
        last = ws[-1][..., 0] * share  # (M, I): the last layer, the normalisers and the mean in one
        self._last = (last.sum(0) if len(ws) == 1 else last.reshape(-1)).astype(np.float32)
        self._offset = np.float32(((bs[-1][:, 0].astype(np.float64) - reward_mean) * share).sum())
        self._first = [(ws[0].transpose(1, 0, 2).reshape(len(input_mean), -1), bs[0].reshape(-1))] if ws[1:] else []
        self._middle = [(w.copy(), b.copy()) for w, b in zip(ws[1:-1], bs[1:-1], strict=True)]
        self._num_members = num_members

    def is_of(self, statistics: tuple[Tensor, ...]) -> bool:
        """Tell whether nothing it was made of has changed since."""
        return all(map(is_, statistics, self._statistics)) and list(map(_VERSION, self._made_of)) == self._versions

    def __call__(self, vector: Floats) -> Floats:
        """Return the rewards `(B,)` float32 of features `(B, D)` float32 that are not yet standardised."""
        x = vector - self._mean
        x /= self._std
        np.maximum(x, self._low, out=x)  # np.clip takes longer
        np.minimum(x, self._high, out=x)
        for weight, bias in self._first:
            x = self._activated(x.dot(weight), bias)  # (B, M H)
        if self._middle:
            num = len(vector)
            x = x.reshape(num, self._num_members, -1).swapaxes(0, 1)
            for weight, bias in self._middle:
                x = self._activated(np.matmul(x, weight), bias)  # (M, B, H)
            x = x.swapaxes(0, 1).reshape(num, -1)
        rewards: Floats = x.dot(self._last)
        rewards += self._offset
        return rewards

    def _activated(self, x: Floats, bias: Floats) -> Floats:
        x += bias
        return np.maximum(x, x * self._slope, out=x)
