"""The reward that a policy from preferences implies, judged on answers that it did not learn from.

r(x, y) = beta (log pi(y | x) - log pi_ref(y | x)), up to a term of the prompt alone (Rafailov et al. 2023, Eq. 5); of
SimPO it is beta log pi(y | x) / |y| (Meng et al. 2024, Eq. 4).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.text.data.examples import Encoder, Liked, RankedResponses, texts_of
from prefrl.text.learn.reward_training import judge_reward
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.sequences import sequence_log_probs


class ImpliedReward:
    """Held-out rankings or likes with the log-probabilities of the reference, which is the model as it is now.

    Args:
        model: the policy before training; it is asked again for `figures`.
        encoder: turns strings into ids; what is too long is left out, and said.
        data: held-out rankings, or likes.
        beta: of the run.
        runtime: device and precision.
        per_token: without the reference, over the length: SimPO's.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        data: Sequence[RankedResponses] | Sequence[Liked],
        beta: float,
        runtime: Runtime,
        *,
        per_token: bool = False,
    ) -> None:
        self._per_token = per_token
        self._model, self._beta, self._runtime, self._pad_id = model, beta, runtime, encoder.tokens.pad_id
        rows = encoder.rows([(item.prompt, texts_of(item)) for item in data])
        fit = [(item, row) for item, row in zip(data, rows, strict=True) if row is not None]
        self._data = [item for item, _ in fit]
        self._prompts = [row.prompt for _, row in fit for _ in row.responses]
        self._responses = [response for _, row in fit for response in row.responses]
        self._reference = self._log_probs()

    def _log_probs(self) -> NDArray[np.float64]:
        with self._runtime.autocast():
            found = sequence_log_probs(self._model, self._prompts, self._responses, pad_id=self._pad_id)
        return found.numpy().astype(np.float64)

    def figures(self) -> dict[str, Any]:
        """Return what the policy's implied reward says of held-out data; nothing where they hold no two to compare.

        Of rankings, `held_out_accuracy` is the share of pairs in their order, `held_out_margin` the mean difference of
        better and worse. Of likes they are of all pairs of a liked and a disliked response, of whatever prompts: the
        accuracy is the area under the receiver operating characteristic.
        """
        found = self._log_probs()
        lengths = np.array([len(response) for response in self._responses])
        reward = self._beta * (found / lengths if self._per_token else found - self._reference)
        ranked = [item for item in self._data if isinstance(item, RankedResponses)]
        if ranked:
            scores = np.split(reward, np.cumsum([len(item.responses) for item in ranked])[:-1])
            pairs = [(own[i] - own[j]) for own, item in zip(scores, ranked, strict=True) for i, j in item.pairs()]
            if not pairs:
                return _nothing()
            report = judge_reward(scores, [item.ranks for item in ranked])
            judged = {"accuracy": report.accuracy, "loss": report.loss, "pairs": report.num_pairs}
            told: dict[str, Any] = judged | {"margin": float(np.mean(pairs))}
        else:
            liked = np.array([isinstance(item, Liked) and item.liked for item in self._data])
            difference = reward[liked][:, None] - reward[~liked][None]
            if not difference.size:
                return _nothing()
            right = (np.sign(difference) + 1) / 2
            told = {"accuracy": float(right.mean()), "margin": float(difference.mean()), "pairs": int(difference.size)}
        return {f"held_out_{name}": value for name, value in told.items()}


def _nothing() -> dict[str, Any]:
    warnings.warn(
        "What is held out holds no two answers to compare, so the implied reward is not judged.", stacklevel=3
    )
    return {}
