"""A text game small enough to enumerate, so that its optimum, value, gradients and divergences are known exactly.

Six tokens (a to e, and the end), responses of at most four: 156 + 625 = 781 responses to each of three prompts. The
best policy under r - beta KL is pi_ref exp(r / beta) / Z (Rafailov et al. 2023, Eq. 4), its value beta log Z.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.envs.text_game import LogProbability, TextGame
from prefrl.errors import UserError

LETTERS = "abcde"
MAX_TOKENS = 4
PROMPTS = ("a", "b", "c")


class LetterTokenizer:
    """Tokens 0 to 4 are the letters a to e, 5 is the end.

    There is no seventh for padding, so that a policy's probabilities over all six add up to one over the responses;
    masks tell padding from an "a".
    """

    vocab_size = 6
    pad_id = 0
    end_id = 5

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the letters.

        Raises:
            UserError: another letter than a to e.
        """
        if other := sorted(set(text) - set(LETTERS)):
            raise UserError(f"This game has the letters {LETTERS} only. Received {text!r} with {''.join(other)!r}")
        return [LETTERS.index(letter) for letter in text]

    def encode_prompt(self, text: str) -> list[int]:
        """Return the numbers of the letters."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the letters."""
        return "".join(LETTERS[i] for i in ids)


def enumerate_responses() -> list[tuple[int, ...]]:
    """Return all 781 responses as token ids: those of 0 to 3 letters with their end, those of 4 letters without."""
    ended = [(*letters, 5) for n in range(MAX_TOKENS) for letters in product(range(5), repeat=n)]
    return ended + list(product(range(5), repeat=MAX_TOKENS))


class EnumerableWorld:
    """The reward of every response: scores of each letter in each place, of each pair of neighbours, of the length.

    Args:
        seed: of the scores.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(17,)))
        places = rng.normal(0, 0.6, (len(PROMPTS), MAX_TOKENS, 5))
        pairs = rng.normal(0, 0.4, (len(PROMPTS), 5, 5))
        lengths = rng.normal(0, 0.5, (len(PROMPTS), MAX_TOKENS + 1))
        self.responses = enumerate_responses()
        self.texts = [LetterTokenizer().decode([i for i in ids if i != 5]) for ids in self.responses]
        self.rewards = np.zeros((len(PROMPTS), len(self.texts)))
        """`(3, 781)` float64."""
        for x in range(len(PROMPTS)):
            for y, text in enumerate(self.texts):
                ids = [LETTERS.index(letter) for letter in text]
                self.rewards[x, y] = lengths[x, len(ids)]
                self.rewards[x, y] += sum(places[x, t, i] for t, i in enumerate(ids))
                self.rewards[x, y] += sum(pairs[x, i, j] for i, j in pairwise(ids))
        self._index = {text: y for y, text in enumerate(self.texts)}

    def reward(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return the rewards of responses, `(B,)` float64."""
        return np.array(
            [self.rewards[PROMPTS.index(x), self._index[y]] for x, y in zip(prompts, responses, strict=True)]
        )


def regularised_optimum(log_reference: Tensor, rewards: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the best policy under E[r] - beta KL(pi || pi_ref), and its value.

    Args:
        log_reference: `(..., Y)` float, log-probabilities of all Y responses.
        rewards: `(..., Y)` float.
        beta: above 0.

    Returns:
        `(..., Y)` log-probabilities log pi_ref + r / beta - log Z, and `(...)` values beta log Z.
    """
    scores = log_reference + rewards / beta
    log_z = torch.logsumexp(scores, -1)
    return scores - log_z.unsqueeze(-1), beta * log_z


def regularised_value(log_policy: Tensor, log_reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Return E[r] - beta KL(pi || pi_ref) of a policy by enumeration, `(...)`; its gradient is the exact one."""
    return (log_policy.exp() * (rewards - beta * (log_policy - log_reference))).sum(-1)


def kl_divergence(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """Return KL(pi || pi_ref) in nats by enumeration, `(...)`."""
    return (log_policy.exp() * (log_policy - log_reference)).sum(-1)


class EnumerableText(TextGame):
    """`prefrl/EnumerableText-v0`: the game of `EnumerableWorld`, with the six tokens as actions.

    Args:
        seed: of the reward; `reset(seed=...)` draws the prompts.
        beta: weight of the KL term.
        reference: log-probabilities of the reference.
        policy: log-probabilities of the player.
        render_mode: `"ansi"`: `render` gives the exchange as text.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        beta: float = 0.0,
        reference: LogProbability | None = None,
        policy: LogProbability | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.world = EnumerableWorld(seed)
        super().__init__(
            PROMPTS,
            self.world.reward,
            LetterTokenizer(),
            max_prompt_tokens=1,
            max_response_tokens=MAX_TOKENS,
            beta=beta,
            reference=reference,
            policy=policy,
            render_mode=render_mode,
        )
