"""Text as a one-step game, and the world that can be enumerated."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from prefrl.envs import StringResponses, TextGame, TextGameVector
from prefrl.envs.enumerable_text import (
    EnumerableText,
    EnumerableWorld,
    LetterTokenizer,
    enumerate_responses,
    kl_divergence,
    regularised_optimum,
)
from prefrl.envs.text_tokens import ByteTokenizer
from prefrl.errors import UserError


def length_reward(prompts: Any, responses: Any) -> list[float]:
    return [float(len(response)) for response in responses]


def small_game(**options: Any) -> TextGame:
    return TextGame(["hi", "you"], length_reward, max_prompt_tokens=4, max_response_tokens=6, **options)


@pytest.mark.parametrize("name", ["prefrl/TextGame-v0", "prefrl/EnumerableText-v0"])
def test_the_games_pass_gymnasiums_checker(name: str) -> None:
    env = gymnasium.make(name)
    check_env(env.unwrapped, skip_render_check=True)


def test_the_default_game_is_the_service_desk() -> None:
    env = gymnasium.make("prefrl/TextGame-v0")
    _, info = env.reset(seed=0)
    assert info["prompt"].endswith("\nAnswer:")


def test_an_episode_is_one_step() -> None:
    env = small_game()
    observation, info = env.reset(seed=1, options={"prompt": "hi"})
    assert observation["ids"].tolist() == [104, 105, 256, 256]
    assert observation["mask"].tolist() == [1, 1, 0, 0]
    action = np.array([97, 98, 257, 99, 99, 99])  # "ab", the end, and what is ignored
    _, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (2.0, True, False)
    assert info == {"prompt": "hi", "response": "ab", "ended": True, "score": 2.0, "kl": 0.0}
    with pytest.raises(UserError, match="reset"):
        env.step(action)


def test_a_response_without_end_is_whole_and_marked() -> None:
    env = small_game()
    env.reset(seed=0)
    *_, info = env.step(np.full(6, 97))
    assert (info["response"], info["ended"]) == ("aaaaaa", False)


def test_the_same_seed_draws_the_same_prompts() -> None:
    first, second = ([small_game().reset(seed=s)[1]["prompt"] for s in range(8)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 2


def test_the_kl_term_is_taken_off_and_said() -> None:
    env = small_game(beta=0.5, reference=lambda p, r: [-4.0] * len(p), policy=lambda p, r: [-1.0] * len(p))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([97, 257, 0, 0, 0, 0]))
    assert info["score"] == 1.0
    assert info["kl"] == 3.0
    assert reward == 1.0 - 0.5 * 3.0


def test_strings_can_be_played() -> None:
    env = StringResponses(small_game())
    env.reset(seed=0)
    assert env.step("abc")[1] == 3.0
    env.reset()
    *_, info = env.step("abcdef")
    assert (info["response"], info["ended"]) == ("abcdef", False), "six tokens leave no room for the end"
    env.reset()
    with pytest.raises(UserError, match="7 tokens, more than max_response_tokens 6"):
        env.step("abcdefg")


def test_every_response_of_the_enumerable_game_can_be_played_as_a_string() -> None:
    env = StringResponses(EnumerableText(seed=3))
    world = EnumerableWorld(3)
    for y in range(0, 781, 20):
        env.reset(options={"prompt": "b"})
        assert env.step(world.texts[y])[1] == pytest.approx(world.rewards[1, y])
    env.reset()
    with pytest.raises(UserError, match="letters abcde only"):
        env.step("abz")


def test_the_vector_game_judges_all_responses_in_one_call() -> None:
    calls = []

    def reward(prompts: Any, responses: Any) -> list[float]:
        calls.append(len(prompts))
        return length_reward(prompts, responses)

    envs = gymnasium.make_vec(
        "prefrl/TextGame-v0", num_envs=3, vectorization_mode="vector_entry_point",
        prompts=["hi", "you"], reward=reward, max_prompt_tokens=4, max_response_tokens=6,
    )  # fmt: skip
    assert isinstance(envs.unwrapped, TextGameVector)
    observation, info = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    asked = list(info["prompt"])
    actions = np.tile(np.array([97, 98, 257, 0, 0, 0]), (3, 1))
    observation, rewards, terminated, truncated, info = envs.step(actions)
    assert calls == [3]
    assert rewards.tolist() == [2.0] * 3
    assert terminated.all()
    assert not truncated.any()
    assert list(info["final_info"]["prompt"]) == asked
    assert (info["final_obs"]["ids"][:, 0] == [ord(prompt[0]) for prompt in asked]).all()
    assert envs.observation_space.contains(observation)


def test_the_vector_game_refuses_other_numbers_than_its_environments() -> None:
    with pytest.raises(UserError, match="num_envs must be at least 1"):
        TextGameVector(0)
    envs = TextGameVector(2, ["hi"], length_reward, max_response_tokens=2)
    with pytest.raises(UserError, match="one seed for each of 2 environments; got 3"):
        envs.reset(seed=[1, 2, 3])
    envs.reset(seed=[1, 2])
    with pytest.raises(UserError, match="a response for each of 2 environments; got 3"):
        envs.step(np.full((3, 2), 97))
    assert envs.step(np.full((2, 2), 97))[1].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda p, r: 1 / 0, "raised ZeroDivisionError"),
        (lambda p, r: [float("nan")] * len(p), "returned nan"),
        (lambda p, r: [1.0] * (len(p) + 1), "one float for each of the 1"),
        (lambda p, r: "good", "one float for each"),
    ],
)
def test_a_reward_that_fails_is_named(reward: Any, message: str) -> None:
    env = TextGame(["hi"], reward, max_response_tokens=2)
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(np.array([97, 257]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": ["far too long"], "max_prompt_tokens": 3}, "more than max_prompt_tokens"),
        ({"beta": 0.1}, "both a reference and a policy"),
        ({"beta": -1.0}, "at least 0"),
    ],
)
def test_games_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TextGame(**({"prompts": ["hi"], "reward": length_reward} | options))


def test_ids_outside_the_vocabulary_are_refused() -> None:
    env = small_game()
    env.reset(seed=0)
    with pytest.raises(UserError, match="must lie in"):
        env.step(np.array([999]))


# ------------------------------------------------------------------------------------------------ enumeration


def test_all_781_responses_are_there_once() -> None:
    responses = enumerate_responses()
    assert len(responses) == len(set(responses)) == 1 + 5 + 25 + 125 + 625
    assert all(len(r) <= 4 for r in responses)
    assert all((r[-1] == 5) == (len(r) < 4 or 5 in r) for r in responses)


def test_the_game_pays_what_the_table_says() -> None:
    env = EnumerableText(seed=3)
    world = EnumerableWorld(3)
    for x, prompt in enumerate("abc"):
        for y in (0, 7, 300, 780):
            env.reset(options={"prompt": prompt})
            ids = world.responses[y]
            action = np.array([*ids, *[5] * (4 - len(ids))])
            assert env.step(action)[1] == pytest.approx(world.rewards[x, y])


def test_the_optimum_by_its_formula() -> None:
    rewards = torch.tensor([[1.0, 0.0]]).double()
    reference = torch.tensor([[0.25, 0.75]]).double().log()
    best, value = regularised_optimum(reference, rewards, 0.5)
    weights = torch.tensor([0.25 * np.e**2, 0.75])
    assert torch.allclose(best.exp(), (weights / weights.sum()).double())
    assert value.item() == pytest.approx(0.5 * np.log(weights.sum().item()))
    assert kl_divergence(reference, reference).item() == 0


def test_bytes_and_letters_round_trip() -> None:
    assert ByteTokenizer().decode(ByteTokenizer().encode("Grüße 你")) == "Grüße 你"
    assert LetterTokenizer().decode(LetterTokenizer().encode("abcde")) == "abcde"


@pytest.mark.slow
def test_a_stable_baselines3_agent_learns_the_enumerable_game() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = EnumerableText(seed=0)
    uniform = _mean_of_uniform(env)
    agent = sb3.PPO(
        "MultiInputPolicy", env, n_steps=512, batch_size=128, learning_rate=3e-3, gamma=1.0, seed=0, device="cpu"
    )
    agent.learn(6_000)
    rng_rewards = []
    for i in range(300):
        observation, _ = env.reset(seed=1000 + i)
        action, _ = agent.predict(observation)
        rng_rewards.append(env.step(action)[1])
    assert np.mean(rng_rewards) > uniform + 1.0


def _mean_of_uniform(env: EnumerableText) -> float:
    env.action_space.seed(0)
    total = []
    for i in range(300):
        env.reset(seed=i)
        total.append(env.step(env.action_space.sample())[1])
    return float(np.mean(total))
