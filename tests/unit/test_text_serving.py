"""A reward over HTTP: who may ask, what comes back, and that it is what the reward itself says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefrl.errors import UserError
from prefrl.text.jobs.serving import Asked, Desk, JudgeScorer, RewardScorer, Scored, make_app, make_scorer, read_request
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.server_reward import KEY_VARIABLE, ServerReward
from prefrl.text.model.models import build_model, preset
from prefrl.text.model.tokens import Tokens, train_tokenizer

testclient = pytest.importorskip("starlette.testclient")
TOKEN = {"Authorization": "Bearer secret"}


class Lengths:
    """Scores by length, and notes how many came at once."""

    ends = ("</s>", "<pad>")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, prompts: Sequence[str], responses: Sequence[str], labels: Sequence[str]) -> Scored:
        self.batches.append(len(prompts))
        if any(response == "bad" for response in responses):
            raise UserError("One is bad.")
        return Scored(rewards=[float(len(one)) for one in responses], logs={"seen": [1.0] * len(prompts)})


def client(scorer: Any = None, **options: Any) -> Any:
    return testclient.TestClient(make_app(scorer or Lengths(), "secret", **options))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two reward models of one tokenizer."""
    place = tmp_path_factory.mktemp("rewards")
    tokens = Tokens(train_tokenizer(["a word and another word", "yes no maybe"], 300))
    for number in range(2):
        policy = build_model(preset("tiny"), tokens, architecture="llama", seed=number)
        RewardModel.from_policy(policy, number).save(place / str(number), tokens)
    return [place / "0", place / "1"]


# -------------------------------------------------------------------------------------- as OpenRLHF's client asks


def test_what_openrlhf_posts_is_answered_in_its_form() -> None:
    body = {"query": ["Hi? Hello</s><pad><pad>", "Yo? No"], "prompts": ["Hi?", "Yo?"], "labels": ["", None]}
    answer = client().post("/get_reward", json=body, headers=TOKEN)
    assert answer.status_code == 200
    assert answer.json() == {"rewards": [6.0, 3.0], "scores": [6.0, 3.0], "extra_logs": {"seen": [1.0, 1.0]}}


def test_a_program_that_knows_only_an_address_shows_the_token_in_it() -> None:
    body = {"query": ["Hi? Hello"], "prompts": ["Hi?"], "labels": ["x"]}
    assert client().post("/get_reward?token=secret", json=body).json()["rewards"] == [6.0]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}])
@pytest.mark.parametrize("path", ["/", "/get_reward", "/get_reward?token=no"])
def test_nobody_without_the_token_is_answered(headers: dict[str, str], path: str) -> None:
    scorer = Lengths()
    answer = client(scorer).post(path, json={"query": ["ab"], "prompts": ["a"]}, headers=headers)
    assert answer.status_code == 401 and scorer.batches == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 422, "Post an object"),
        ({"query": ["ab"]}, 422, "no prompts"),
        ({"prompts": ["a"]}, 422, "neither a query nor responses"),
        ({"query": ["ab", "b"], "prompts": ["a"]}, 422, "1 prompts and 2 queries"),
        ({"query": ["xb"], "prompts": ["a"]}, 422, "does not begin with its prompt"),
        ({"query": [1], "prompts": ["a"]}, 422, "query should be a list of texts"),
        ({"query": "ab", "prompts": ["a"]}, 422, "query should be a list of texts"),
        ({"responses": ["b"], "prompts": ["a"], "labels": ["x", "y"]}, 422, "2 labels"),
        ({"responses": ["bad"], "prompts": ["a"]}, 422, "One is bad"),
    ],
)
def test_what_cannot_be_scored_is_a_sentence(body: Any, status: int, message: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client().post("/", content=data, headers=TOKEN)
    assert answer.status_code == status and message in answer.json()["error"]


def test_a_reward_that_is_no_number_is_never_sent() -> None:
    scorer = RewardScorer(lambda prompts, responses: [float("nan")] * len(prompts), None)
    answer = client(scorer).post("/", json={"responses": ["b"], "prompts": ["a"]}, headers=TOKEN)
    assert answer.status_code == 422 and "finite numbers" in answer.json()["error"]


def test_what_is_asked_together_is_scored_together_and_one_bad_row_fails_alone() -> None:
    import asyncio

    scorer = Lengths()

    async def ask() -> list[Any]:
        desk = Desk(scorer, 8)
        texts = ["a", "bb", "bad", "dddd"]
        asked = [Asked(prompts=["p"], responses=[text], labels=[""]) for text in texts]
        return await asyncio.gather(*(desk.score(one) for one in asked), return_exceptions=True)

    found = asyncio.run(ask())
    assert [one.rewards for one in found if isinstance(one, Scored)] == [[1.0], [2.0], [4.0]]
    assert isinstance(found[2], UserError)
    assert scorer.batches == [4, 1, 1, 1, 1]


# ------------------------------------------------------------------------------------------------- what is served


def test_a_served_reward_model_and_ensemble_say_what_they_say_themselves(models: list[Path]) -> None:
    prompts, responses = ["a word", "yes"], [" and another", " no"]
    members = [RewardModel.load(path) for path in models]
    runtime = Runtime("cpu")
    one = make_scorer([str(models[0])], runtime, 1.0).score(prompts, responses, ["", ""])
    alone = ModelReward([members[0][0]], members[0][1])(prompts, responses)
    assert one.rewards == pytest.approx(alone.tolist()) and one.logs == {}
    both = make_scorer([str(path) for path in models], runtime, 0.5).score(prompts, responses, ["", ""])
    together = ModelReward([member for member, _ in members], members[0][1], pessimism=0.5)(prompts, responses)
    assert both.rewards == pytest.approx(together.tolist(), rel=1e-5)
    assert len(both.logs["disagreement"]) == 2 and min(both.logs["disagreement"]) > 0


def test_end_and_padding_of_the_rewards_tokenizer_are_no_part_of_a_response(models: list[Path]) -> None:
    scorer = make_scorer([str(models[0])], Runtime("cpu"), 1.0)
    end = RewardModel.load(models[0])[1].tokenizer.eos_token
    body = {"query": [f"a word and{end}", "a word and"], "prompts": ["a word"] * 2}
    asked = read_request(body, scorer.ends, templated=False)
    assert asked.responses == [" and", " and"]


def test_a_judge_says_how_likely_a_response_is_better_than_its_label() -> None:
    class Longer:
        name = "longer"

        def prefer_first(self, prompt: str, first: str, second: str) -> float | None:
            return None if "?" in first + second else 0.9 if len(first) > len(second) else 0.2

    scored = JudgeScorer(Longer()).score(["p"] * 4, ["long", "a", "same", "?"], ["x", "bbb", "same", "y"])
    assert scored.rewards == pytest.approx([0.85, 0.15, 0.5, 0.5]) and scored.logs["undecided"] == [0, 0, 1, 1]
    with pytest.raises(UserError, match="must come as its label"):
        JudgeScorer(Longer()).score(["p"], ["r"], [""])


def test_what_is_no_ensemble_or_no_reward_is_refused(models: list[Path], tmp_path: Path) -> None:
    other = Tokens(train_tokenizer(["entirely other words here"], 290))
    RewardModel.from_policy(build_model(preset("tiny"), other, architecture="llama", seed=3), 3).save(
        tmp_path / "other", other
    )
    with pytest.raises(UserError, match="another tokenizer"):
        make_scorer([str(models[0]), str(tmp_path / "other")], Runtime("cpu"), 1.0)
    with pytest.raises(UserError, match="There is no reward model"):
        make_scorer([str(tmp_path / "none")], Runtime("cpu"), 1.0)
    with pytest.raises(UserError, match="Name what is to be served"):
        make_scorer([], Runtime("cpu"), 1.0)


# ----------------------------------------------------------------------------------------- the command, and trainers


@pytest.fixture
def served(models: list[Path]) -> Iterator[tuple[str, str]]:
    """The address of the command's server, and its token."""
    words = [sys.executable, "-m", "prefrl.start", "text", "serve", str(models[0]), "--port", "0", "--device", "cpu"]
    env = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as server:
        assert server.stdout is not None
        timer = threading.Timer(240, server.kill)
        timer.start()
        said = server.stdout.readline() + server.stdout.readline()
        timer.cancel()
        found = re.search(r"(http://127\.0\.0\.1:\d+/get_reward) .*KEY=(\S+)", said)
        assert found is not None, said
        yield found[1], found[2]
        server.terminate()


@pytest.mark.slow
def test_the_command_serves_our_own_trainers(
    served: tuple[str, str], models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, token = served
    with pytest.raises(UserError, match=r"does not answer: .*401"):
        ServerReward(address)(["a word"], [" and"])
    monkeypatch.setenv(KEY_VARIABLE, token)
    member, tokens = RewardModel.load(models[0])
    prompts, responses = ["a word", "yes"], [" and another", " no"]
    expected = ModelReward([member], tokens)(prompts, responses).tolist()
    assert ServerReward(address)(prompts, responses) == pytest.approx(expected)


@pytest.mark.parametrize("address", ["http://me:pw@h:5/x", "http://h:5/get_reward?token=abc"])
def test_an_address_that_holds_a_secret_is_refused_since_settings_would_keep_it(address: str) -> None:
    with pytest.raises(UserError, match=KEY_VARIABLE):
        ServerReward(address)
