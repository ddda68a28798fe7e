"""What offline learners minimise, as pure functions of tensors.

Expectile regression and the weights of advantage-weighted cloning (Kostrikov et al. 2022, IQL), the likelihood of
preferences under implied rewards (Hejna & Sadigh 2023, IPL) and under advantages (Hejna et al. 2024, CPL).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MOST_WEIGHT = 100.0  # of a step in advantage-weighted cloning (Kostrikov et al. 2022, app. B)


def expectile_loss(differences: Tensor, expectile: float) -> Tensor:
    """Return the mean of |expectile - 1(u < 0)| u^2 (Kostrikov et al. 2022, Eq. 5).

    The constant v that makes it least for u = x - v is the expectile of x: the mean for 1/2, the greatest x as the
    expectile goes to 1.

    Args:
        differences: `(B,)`: u, what is regressed on minus its estimate.
        expectile: in (0, 1).
    """
    weights = torch.where(differences < 0, 1 - expectile, expectile)
    return (weights * differences.square()).mean()


def cloning_weights(advantages: Tensor, temperature: float) -> Tensor:
    """Return min(exp(temperature x advantage), 100), with which log pi(a|s) is weighted (Kostrikov et al. 2022, Eq. 7).

    Args:
        advantages: `(B,)`.
        temperature: the inverse temperature, beta; 0 clones.
    """
    return (temperature * advantages).exp().clamp(max=MOST_WEIGHT)


def preference_loss(first: Tensor, second: Tensor, preferences: Tensor) -> Tensor:
    """Return the mean cross-entropy of preferences under Bradley-Terry with the logit `first - second`.

    Args:
        first: `(..., B)`: summed reward of the first segments.
        second: `(..., B)`: of the second.
        preferences: `(B,)`: probability that the first is better: 1, 0 or 1/2.
    """
    logits = first - second
    return functional.binary_cross_entropy_with_logits(logits, preferences.expand_as(logits))


def contrastive_loss(first: Tensor, second: Tensor, preferences: Tensor, bias: float) -> Tensor:
    """Return the mean of CPL's conservative loss (Hejna et al. 2024, Eq. 5 and 6).

    A preference for the first costs -log(exp A1 / (exp A1 + exp(bias A2))), one for the second the same the other way
    round, where A is alpha times the sum of log pi(a|s) over a segment; a tie costs the mean of both.

    Args:
        first: `(B,)`: A of the first segments.
        second: `(B,)`: of the second.
        preferences: `(B,)`: probability that the first is better: 1, 0 or 1/2.
        bias: lambda in (0, 1]: below 1, what is preferred is made likely, not only likelier than what is not.
    """
    gains = preferences * functional.logsigmoid(first - bias * second)
    gains = gains + (1 - preferences) * functional.logsigmoid(second - bias * first)
    return -gains.mean()
