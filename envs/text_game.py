"""Text as a one-step game: the observation is a prompt, the action a whole response, and the episode ends there.

The reward is any callable of prompts and responses. With a reference it is the objective of fine-tuning from
preferences, r(x, y) - beta (log pi(y | x) - log pi_ref(y | x)) (Ziegler et al. 2019, Eq. 2): the second term is a
sample of the KL divergence, so the game then also needs the player's own log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from prefrl.envs.service_desk import ServiceDesk
from prefrl.envs.text_rewards import TextReward, score_responses
from prefrl.envs.text_tokens import ByteTokenizer, TextTokenizer
from prefrl.envs.vector_tools import seeds
from prefrl.errors import UserError

LogProbability = Callable[[Sequence[str], Sequence[str]], Any]
"""(B prompts, B responses) -> B log-probabilities, in nats, of the whole response with its end."""
Observation = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TextGameRules:
    """What both forms of the game share.

    Raises:
        UserError: no prompts, a prompt longer than `max_prompt_tokens`, limits below 1, a negative beta, or only one of
            reference and policy.
    """

    prompts: Sequence[str]
    """Drawn from uniformly at each reset."""
    reward: TextReward
    tokenizer: TextTokenizer
    max_prompt_tokens: int
    max_response_tokens: int
    beta: float = 0.0
    """Weight of the KL term."""
    reference: LogProbability | None = None
    policy: LogProbability | None = None
    """The player's own log-probabilities."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise UserError("The text game needs at least one prompt; got none.")
        if min(self.max_prompt_tokens, self.max_response_tokens) < 1:
            raise UserError("max_prompt_tokens and max_response_tokens must be at least 1.")
        if self.beta < 0:
            raise UserError(f"beta must be at least 0. Received {self.beta}")
        if (self.reference is None) != (self.policy is None) or (self.beta > 0 and self.reference is None):
            raise UserError(
                "The KL term compares two log-probabilities: give both a reference and a policy (the player's own), or "
                "neither with beta 0."
            )
        longest = max(self.prompts, key=lambda prompt: len(self.tokenizer.encode_prompt(prompt)))
        if len(self.tokenizer.encode_prompt(longest)) > self.max_prompt_tokens:
            raise UserError(
                f"A prompt has {len(self.tokenizer.encode_prompt(longest))} tokens, more than max_prompt_tokens "
                f"{self.max_prompt_tokens}: {longest!r}. Raise the limit or shorten the prompt."
            )

    @property
    def observation_space(self) -> spaces.Dict:
        """`ids` `(P,)` int64, the prompt and padding behind it; `mask` `(P,)` int8, 1 where the prompt is."""
        return spaces.Dict(
            {
                "ids": spaces.Box(0, self.tokenizer.vocab_size - 1, (self.max_prompt_tokens,), np.int64),
                "mask": spaces.MultiBinary(self.max_prompt_tokens),
            }
        )

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """`(R,)` int64: a response up to its first end token; what comes after is ignored."""
        return spaces.MultiDiscrete(np.full(self.max_response_tokens, self.tokenizer.vocab_size))

    def observe(self, prompt: str) -> Observation:
        """Return the observation of a prompt."""
        tokens = self.tokenizer.encode_prompt(prompt)
        ids = np.full(self.max_prompt_tokens, self.tokenizer.pad_id, np.int64)
        ids[: len(tokens)] = tokens
        mask = np.zeros(self.max_prompt_tokens, np.int8)
        mask[: len(tokens)] = 1
        return {"ids": ids, "mask": mask}

    def read(self, action: Any) -> tuple[str, bool]:
        """Return the text of a response up to its first end token, and whether it has one.

        Raises:
            UserError: more ids than the limit, or ids outside the vocabulary.
        """
        ids = np.asarray(action).reshape(-1)
        if ids.size > self.max_response_tokens or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(
                f"A response must be at most {self.max_response_tokens} integer token ids. Received {ids.size} of type "
                f"{ids.dtype}."
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab_size:
            raise UserError(f"Token ids must lie in [0, {self.tokenizer.vocab_size}). Received {ids.tolist()}")
        ends = np.flatnonzero(ids == self.tokenizer.end_id)
        kept = ids[: ends[0]] if ends.size else ids
        return self.tokenizer.decode([int(i) for i in kept]), bool(ends.size)

    def judge(self, prompts: Sequence[str], actions: Sequence[Any]) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
        """Return the rewards of responses and their parts: `score`, `kl`, `response`, `ended`."""
        responses, ended = zip(*(self.read(action) for action in actions), strict=True)
        scores = score_responses(self.reward, prompts, responses)
        log_ratios = np.zeros(len(prompts))
        if self.reference is not None and self.policy is not None:
            log_ratios = score_responses(self.policy, prompts, responses)
            log_ratios = log_ratios - score_responses(self.reference, prompts, responses)
        parts = [
            {"response": text, "ended": end, "score": float(score), "kl": float(ratio)}
            for text, end, score, ratio in zip(responses, ended, scores, log_ratios, strict=True)
        ]
        return scores - self.beta * log_ratios, parts


def make_rules(
    prompts: Sequence[str] | None,
    reward: TextReward | None,
    tokenizer: TextTokenizer | None,
    max_prompt_tokens: int,
    max_response_tokens: int,
    beta: float,
    reference: LogProbability | None,
    policy: LogProbability | None,
) -> TextGameRules:
    """Fill in what was left out: customers' messages, their gold reward, and bytes for tokens."""
    desk = ServiceDesk(seed=0)
    return TextGameRules(
        prompts=desk.prompts(256) if prompts is None else list(prompts),
        reward=desk.gold if reward is None else reward,
        tokenizer=tokenizer or ByteTokenizer(),
        max_prompt_tokens=max_prompt_tokens,
        max_response_tokens=max_response_tokens,
        beta=beta,
        reference=reference,
        policy=policy,
    )


class TextGame(gymnasium.Env[Observation, NDArray[np.int64]]):
    """The game for one prompt at a time, `prefrl/TextGame-v0`.

    `reset(options={"prompt": text})` asks for a prompt; otherwise one is drawn. `info` holds the `prompt`, and after
    the step also `response`, `ended`, `score` (the reward's own) and `kl` (log pi - log pi_ref of this response, in
    nats).

    Args:
        prompts: what is drawn from; None: messages of `prefrl.envs.service_desk`.
        reward: (prompts, responses) -> floats; None: the gold reward of those messages.
        tokenizer: None: bytes.
        max_prompt_tokens: P of the observation.
        max_response_tokens: R of the action.
        beta: weight of the KL term.
        reference: log-probabilities of the reference.
        policy: log-probabilities of the player.
        render_mode: `"ansi"`: `render` gives the exchange as text.

    Raises:
        UserError: as `TextGameRules`; and by `step`, a response that cannot be one, or a reward that fails.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  (as Gymnasium declares it)

    def __init__(
        self,
        prompts: Sequence[str] | None = None,
        reward: TextReward | None = None,
        tokenizer: TextTokenizer | None = None,
        *,
        max_prompt_tokens: int = 256,
        max_response_tokens: int = 256,
        beta: float = 0.0,
        reference: LogProbability | None = None,
        policy: LogProbability | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.rules = make_rules(
            prompts, reward, tokenizer, max_prompt_tokens, max_response_tokens, beta, reference, policy
        )
        self.observation_space: gymnasium.Space[Any] = self.rules.observation_space
        self.action_space: gymnasium.Space[Any] = self.rules.action_space
        self.render_mode = render_mode
        self._prompt: str | None = None
        self._shown = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a prompt, or take the one in `options["prompt"]`."""
        super().reset(seed=seed)
        self._prompt = (options or {}).get("prompt")
        if self._prompt is None:
            self._prompt = self.rules.prompts[int(self.np_random.integers(len(self.rules.prompts)))]
        elif len(self.rules.tokenizer.encode_prompt(self._prompt)) > self.rules.max_prompt_tokens:
            raise UserError(f"The prompt is longer than {self.rules.max_prompt_tokens} tokens: {self._prompt!r}")
        self._shown = self._prompt
        return self.rules.observe(self._prompt), {"prompt": self._prompt}

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Judge a whole response; the episode is over."""
        if self._prompt is None:
            raise UserError("The episode is over: call reset() for the next prompt.")
        prompt, self._prompt = self._prompt, None
        rewards, parts = self.rules.judge([prompt], [action])
        self._shown = f"{prompt}\n> {parts[0]['response']}\n{rewards[0]:+.3f}"
        return self.rules.observe(prompt), float(rewards[0]), True, False, {"prompt": prompt, **parts[0]}

    def render(self) -> str | None:
        """Return the exchange as text."""
        return self._shown if self.render_mode == "ansi" else None


class TextGameVector(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """The game for many prompts at once: one call of the reward for all responses.

    Each step ends every episode and hands out the next prompts in the same step; `final_obs` and `final_info` in `info`
    hold what the ended episodes saw, as Gymnasium's same-step mode does.

    Args:
        num_envs: how many prompts at once. All others are as for `TextGame`.

    Raises:
        UserError: as `TextGame`; also no environments, or another number of seeds or actions than environments.
    """

    def __init__(
        self,
        num_envs: int = 1,
        prompts: Sequence[str] | None = None,
        reward: TextReward | None = None,
        tokenizer: TextTokenizer | None = None,
        *,
        max_prompt_tokens: int = 256,
        max_response_tokens: int = 256,
        beta: float = 0.0,
        reference: LogProbability | None = None,
        policy: LogProbability | None = None,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1. Received {num_envs}")
        self.rules = make_rules(
            prompts, reward, tokenizer, max_prompt_tokens, max_response_tokens, beta, reference, policy
        )
        self.num_envs = num_envs
        self.single_observation_space = self.rules.observation_space
        self.single_action_space = self.rules.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self._prompts: list[str] = []

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw prompts."""
        if isinstance(seed, list):
            seeds(seed, self.num_envs)  # one for each
            seed = None if any(s is None for s in seed) else hash(tuple(seed)) % 2**31
        super().reset(seed=seed)
        return self._draw()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Judge a response to each prompt; return the next prompts."""
        if not self._prompts:
            raise UserError("Call reset() before step().")
        if len(actions) != self.num_envs:
            raise UserError(f"Expected a response for each of {self.num_envs} environments; got {len(actions)}.")
        prompts = self._prompts
        rewards, parts = self.rules.judge(prompts, list(actions))
        final = {"prompt": np.array(prompts, object)}
        final |= {key: np.array([part[key] for part in parts]) for key in ("ended", "score", "kl")}
        final["response"] = np.array([part["response"] for part in parts], object)
        ended = np.ones(self.num_envs, np.bool_)
        last = self._stacked(prompts)
        observation, info = self._draw()
        info |= {"final_obs": last, "_final_obs": ended, "final_info": final, "_final_info": ended}
        return observation, rewards, ended, np.zeros(self.num_envs, np.bool_), info

    def _draw(self) -> tuple[Observation, dict[str, Any]]:
        drawn = self.np_random.integers(len(self.rules.prompts), size=self.num_envs)
        self._prompts = [self.rules.prompts[int(i)] for i in drawn]
        return self._stacked(self._prompts), {"prompt": np.array(self._prompts, object)}

    def _stacked(self, prompts: Sequence[str]) -> Observation:
        each = [self.rules.observe(prompt) for prompt in prompts]
        return {key: np.stack([observation[key] for observation in each]) for key in ("ids", "mask")}


class StringResponses(gymnasium.ActionWrapper[Observation, str, NDArray[np.int64]]):
    """Lets a player of `TextGame` answer with a string; the end token is added where there is room for one.

    Raises:
        UserError: by `step`, if the string has more tokens than a response may have.
    """

    def __init__(self, env: TextGame) -> None:
        super().__init__(env)
        self.rules = env.rules
        self.action_space = spaces.Text(4 * env.rules.max_response_tokens, min_length=0)

    def action(self, action: str) -> NDArray[np.int64]:
        """Return the token ids of a string with the end token and padding, or without, if they fill the response."""
        ids, limit = self.rules.tokenizer.encode(action), self.rules.max_response_tokens
        if len(ids) > limit:
            raise UserError(f"The response has {len(ids)} tokens, more than max_response_tokens {limit}: {action!r}")
        rest = [self.rules.tokenizer.end_id] + [self.rules.tokenizer.pad_id] * limit
        return np.array([*ids, *rest][:limit], np.int64)
