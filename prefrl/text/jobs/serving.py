"""A reward over HTTP, in the form that OpenRLHF posts to its remote reward models and that our own trainers ask.

`{"query": [prompt + response, ...], "prompts": [...], "labels": [...]}` comes in, and goes out as
`{"rewards": [...], "scores": [...], "extra_logs": {...}}`. Whoever asks shows a token, as `Authorization: Bearer
TOKEN` or, for programs that know only an address, as `?token=TOKEN`. What several ask at the same time is scored in one
batch.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prefrl.envs.text_rewards import TextReward
from prefrl.errors import ANYTHING, UserError, first_line, require
from prefrl.files import MOST_JSON_BYTES, parse_json
from prefrl.seams import is_function_name, load_function
from prefrl.text.data.judge import Judge, ask_both_ways
from prefrl.text.learn.classifier_reward import ClassifierReward, is_classifier
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.models import load_tokens
from prefrl.text.model.tokens import Templated, Tokens

SECONDS_TO_GATHER = 0.005
"""How long the first who asks waits for others."""
PATHS = ("/", "/get_reward")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What B responses are worth, and figures beside that, B of each name."""

    rewards: list[float]
    logs: dict[str, list[float]] = field(default_factory=dict)


class Scorer(Protocol):
    """Tells what responses are worth."""

    ends: tuple[str, ...]
    """Texts that stand at the end of a response and are none of it: end and padding tokens."""

    def score(self, prompts: Sequence[str], responses: Sequence[str], labels: Sequence[str]) -> Scored:
        """Score B responses.

        Raises:
            UserError: one of them cannot be scored.
        """


class RewardScorer:
    """Scores by reward models, a classifier, or a function of prompts and responses.

    Args:
        reward: of strings.
        tokens: of the reward, where it has any.
    """

    def __init__(self, reward: TextReward | ModelReward, tokens: Tokens | None) -> None:
        self._reward = reward
        self.ends = () if tokens is None else special_ends(tokens)

    def score(self, prompts: Sequence[str], responses: Sequence[str], labels: Sequence[str]) -> Scored:
        """Score responses; of an ensemble with the standard deviation over its members."""
        reward = self._reward
        if not isinstance(reward, ModelReward) or len(reward.members) == 1:
            return Scored(rewards=_checked(reward(prompts, responses), len(prompts)))
        each = [ModelReward([member], reward.tokens)(prompts, responses).tolist() for member in reward.members]
        count = len(each)
        means = [sum(column) / count for column in zip(*each, strict=True)]
        spreads = [
            (sum((value - mean) ** 2 for value in column) / count) ** 0.5
            for mean, column in zip(means, zip(*each, strict=True), strict=True)
        ]
        rewards = [mean - reward.pessimism * spread for mean, spread in zip(means, spreads, strict=True)]
        return Scored(rewards=_checked(rewards, len(prompts)), logs={"disagreement": spreads})


def _checked(rewards: Any, count: int) -> list[float]:
    """Return rewards as plain numbers.

    Raises:
        UserError: they are not as many as responses, or not finite.
    """
    found = [float(value) for value in rewards]
    if len(found) != count or not all(map(math.isfinite, found)):
        raise UserError(f"The reward should give {count} finite numbers. Received {str(found)[:80]}")
    return found


class JudgeScorer:
    """Scores by a judge of pairs: how likely a response is better than the one given as its label, in both orders.

    Args:
        judge: who is asked; 1/2 where it says neither.
    """

    ends: tuple[str, ...] = ()

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def score(self, prompts: Sequence[str], responses: Sequence[str], labels: Sequence[str]) -> Scored:
        """Score responses against their labels."""
        rewards, undecided = [], []
        for prompt, response, label in zip(prompts, responses, labels, strict=True):
            if not label:
                raise UserError(
                    "A judge compares a response with another one, which must come as its label: post labels, in "
                    "OpenRLHF by --data.label_key."
                )
            asked = None if response == label else ask_both_ways(self._judge, prompt, response, label)
            rewards.append(0.5 if asked is None else (asked[0] + 1 - asked[1]) / 2)
            undecided.append(float(asked is None))
        return Scored(rewards=rewards, logs={"undecided": undecided})


def make_scorer(names: Sequence[str], runtime: Runtime, pessimism: float) -> RewardScorer:
    """Return what scores by folders of reward models, one of a classifier, or one FILE.py:FUNCTION.

    Raises:
        UserError: it cannot be had, or reward models have different tokenizers.
    """
    if not names:
        raise UserError("Name what is to be served: the folder of a reward model, or a judge with --judge.")
    if len(names) == 1 and is_function_name(names[0]):
        return RewardScorer(load_function(names[0], "reward function", "prompts and responses"), None)
    if len(names) == 1 and is_classifier(names[0]):
        return RewardScorer(ClassifierReward(names[0], runtime), load_tokens(names[0]))
    members: list[RewardModel] = []
    tokens: Tokens | None = None
    for name in names:
        member, its_tokens = RewardModel.load(Path(name))
        if tokens is not None and its_tokens.tokenizer.get_vocab() != tokens.tokenizer.get_vocab():
            raise UserError(f"The reward model {name} has another tokenizer than {names[0]}; they are no ensemble.")
        tokens = tokens or its_tokens
        members.append(member.to(runtime.device).requires_grad_(False))
    assert tokens is not None
    return RewardScorer(ModelReward(members, tokens, pessimism=pessimism), tokens)


def special_ends(tokens: Tokens) -> tuple[str, ...]:
    """Return how end and padding stand in a text that was decoded with its special tokens."""
    texts = (tokens.tokenizer.eos_token, tokens.tokenizer.pad_token)
    return tuple({text for text in texts if isinstance(text, str) and text})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody asks: B prompts with a response and a label each."""

    prompts: list[str]
    responses: list[str]
    labels: list[str]


def read_request(body: Any, ends: Sequence[str], *, templated: bool) -> Asked:
    """Return what is asked.

    Args:
        body: JSON: query, prompts, labels; in place of query, responses.
        ends: texts that are taken off the ends of queries.
        templated: a chat template made the prompts.

    Raises:
        UserError: it is nothing that can be scored.
    """
    if not isinstance(body, dict):
        raise UserError('Post an object: {"query": [prompt + response, ...], "prompts": [...], "labels": [...]}')
    prompts, whole = _texts(body, "prompts"), _texts(body, "query")
    responses = _texts(body, "responses")
    given = body.get("labels")
    labels = _texts({"labels": [label or "" for label in given] if isinstance(given, list) else given}, "labels")
    if prompts is None:
        raise UserError("There are no prompts beside the query: without them nobody can tell where a response begins.")
    if responses is None:
        if whole is None:
            raise UserError("There is neither a query nor responses.")
        responses = [_behind(prompt, text, ends, row) for row, (prompt, text) in enumerate(_pairs(prompts, whole))]
    labels = labels or [""] * len(prompts)
    if not len(prompts) == len(responses) == len(labels):
        raise UserError(f"There are {len(prompts)} prompts, {len(responses)} responses and {len(labels)} labels.")
    kind: Callable[[str], str] = Templated if templated else str
    return Asked(prompts=[kind(prompt) for prompt in prompts], responses=responses, labels=labels)


def _texts(body: Mapping[str, Any], name: str) -> list[str] | None:
    found = body.get(name)
    if found is not None and not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise UserError(f"{name} should be a list of texts. Received {str(found)[:60]!r}")
    return found


def _pairs(prompts: list[str], whole: list[str]) -> list[tuple[str, str]]:
    if len(prompts) != len(whole):
        raise UserError(f"There are {len(prompts)} prompts and {len(whole)} queries.")
    return list(zip(prompts, whole, strict=True))


def _behind(prompt: str, text: str, ends: Sequence[str], row: int) -> str:
    """Return the response within a query: what stands behind its prompt, without end and padding."""
    if not text.startswith(prompt):
        raise UserError(
            f"Query {row} does not begin with its prompt, as where that was cut: {text[:60]!r} and {prompt[:60]!r}. "
            "Post responses beside the prompts, or allow longer prompts."
        )
    response = text[len(prompt) :]
    while end := next((end for end in ends if response.endswith(end)), None):
        response = response.removesuffix(end)
    return response


class Desk:
    """Takes what is asked at the same time together, and has it scored in a thread, one batch at a time.

    Args:
        scorer: who scores.
        batch: responses that are scored at once, at most, but for one who asks for more.
    """

    def __init__(self, scorer: Scorer, batch: int) -> None:
        self._scorer, self._batch = scorer, batch
        self._waiting: list[tuple[Asked, asyncio.Future[Scored]]] = []
        self._working = False
        self._task: asyncio.Task[None] | None = None  # which nobody else keeps
        self.num_scored = 0

    async def score(self, asked: Asked) -> Scored:
        """Return what responses are worth.

        Raises:
            UserError: one of them cannot be scored; others that were asked for at the same time are.
        """
        future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if not self._working:
            self._working = True
            await asyncio.sleep(SECONDS_TO_GATHER)
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.pop(0)]
                while self._waiting and sum(len(a.prompts) for a, _ in [*taken, self._waiting[0]]) <= self._batch:
                    taken.append(self._waiting.pop(0))
                await self._score(taken)
        finally:
            self._working = False

    async def _score(self, taken: list[tuple[Asked, asyncio.Future[Scored]]]) -> None:
        together = Asked(
            prompts=[one for asked, _ in taken for one in asked.prompts],
            responses=[one for asked, _ in taken for one in asked.responses],
            labels=[one for asked, _ in taken for one in asked.labels],
        )
        try:
            scored = await asyncio.to_thread(self._scorer.score, together.prompts, together.responses, together.labels)
        except ANYTHING as error:  # of one of them, or of whatever a user brings
            if len(taken) > 1:
                for one in taken:
                    await self._score([one])
            elif not taken[0][1].cancelled():
                taken[0][1].set_exception(error)
            return
        begin = 0
        for asked, future in taken:
            end = begin + len(asked.prompts)
            part = Scored(
                rewards=scored.rewards[begin:end], logs={name: of[begin:end] for name, of in scored.logs.items()}
            )
            if not future.cancelled():
                future.set_result(part)
            begin = end
        self.num_scored += len(together.prompts)


def make_app(scorer: Scorer, token: str, *, batch: int = 64, templated: bool = False) -> Any:
    """Return the application that answers `POST /` and `POST /get_reward`, and `GET /health` without a token.

    Args:
        scorer: who scores.
        token: that whoever asks must show.
        batch: responses that are scored at once.
        templated: a chat template made the prompts.
    """
    applications = require("starlette.applications", "serve")
    responses, routing = require("starlette.responses", "serve"), require("starlette.routing", "serve")
    desk = Desk(scorer, batch)

    def refuse(status: int, why: str) -> Any:
        return responses.JSONResponse({"error": why}, status_code=status)

    async def reward(request: Any) -> Any:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        given = given if kind.lower() == "bearer" else request.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            return refuse(401, "Show the token: Authorization: Bearer TOKEN, or ?token=TOKEN behind the address.")
        data = b""
        async for piece in request.stream():
            data += piece
            if len(data) > MOST_JSON_BYTES:
                return refuse(413, f"More than the {MOST_JSON_BYTES:,} bytes that are read. Post fewer at a time.")
        try:
            asked = read_request(parse_json(data), scorer.ends, templated=templated)
            scored = await desk.score(asked)
        except UserError as error:
            return refuse(422, str(error))
        except ValueError as error:
            return refuse(400, f"This is no JSON: {first_line(error)}")
        except ANYTHING as error:  # of a function of the user's
            return refuse(500, f"The reward failed: {type(error).__name__}: {first_line(error)}")
        return responses.JSONResponse({"rewards": scored.rewards, "scores": scored.rewards, "extra_logs": scored.logs})

    async def health(request: Any) -> Any:
        return responses.JSONResponse({"scored": desk.num_scored})

    routes = [routing.Route(path, reward, methods=["POST"]) for path in PATHS]
    return applications.Starlette(routes=[*routes, routing.Route("/health", health, methods=["GET"])])
