"""Groups of annotators with wishes of their own: found by who answered what, and served as was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefrl.annotators import Panel, make_panel, make_teacher, panel_names
from prefrl.control import TrainSettings
from prefrl.control.serving import SHARPNESS, Serving
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.rewards.groups import LEAST, Groups
from prefrl.segments import Segment

SEEN, DONE = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (1,))
LENGTH = 6


def walk(rng: np.random.Generator) -> Segment:
    """Return a segment that lies somewhere of its own."""
    seen = (rng.normal(size=3) + 0.3 * rng.normal(size=(LENGTH + 1, 3))).astype(np.float32)
    return Segment(observations=seen, actions=np.zeros((LENGTH, 1), np.float32), true_rewards=np.zeros(LENGTH))


def ensemble(groups: int = 2, **more: object) -> RewardEnsemble:
    settings = RewardSettings(num_members=3, groups=groups, hidden=(16,), inputs="s", **more)  # type: ignore[arg-type]
    return RewardEnsemble(SEEN, DONE, settings, seed=1)


def taught(reward: RewardEnsemble, wishes: dict[str, float], each: int) -> ComparisonData:
    """Let annotators compare walks by the first coordinate, each by so many times as much."""
    rng = np.random.default_rng(0)
    data = ComparisonData(reward, LENGTH)
    for name, wish in wishes.items():
        for _ in range(each):
            pair = [walk(rng), walk(rng)]
            first, second = (wish * float(one.observations[:-1, 0].mean()) for one in pair)
            answer = Comparison(query_id="", annotator=name, preference=float(first > second))
            data.add_answers([data.encode(pair)], [answer], [None], data.draw_counts(1, rng))
    return data


def states(x: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seen = np.zeros((1, 3), np.float32)
    seen[0, 0] = x
    return seen, np.zeros((1, 1), np.float32), seen


def test_each_group_learns_its_own_wish() -> None:
    reward = ensemble()
    data = taught(reward, {"ann": 1.0, "bob": 1.0, "cat": 1.0, "dan": -1.0}, 25)
    fitter = Fitter(reward, FitSettings(first_steps=150))
    report = fitter.fit(data, torch.Generator().manual_seed(0))
    assert report.groups is not None
    first = {name: row[0] > 0.5 for name, row in report.groups.items()}
    assert first["ann"] == first["bob"] == first["cat"] != first["dan"]
    assert fitter.groups is not None
    larger = 0 if first["ann"] else 1
    assert fitter.groups.shares()[larger] == pytest.approx(0.75, abs=0.05)
    gains = reward.group_rewards(*states(1.0)) - reward.group_rewards(*states(-1.0))
    assert gains[larger, 0] > 0.1
    assert gains[1 - larger, 0] < -0.1
    agreement = report.held_out_agreement
    assert agreement is not None and agreement.share > 0.75  # the most that one reward for all could have


def test_fewer_annotators_than_groups_are_all_alike() -> None:
    reward = ensemble()
    data = taught(reward, {"ann": 1.0}, 20)
    fitter = Fitter(reward, FitSettings(first_steps=20))
    report = fitter.fit(data, torch.Generator().manual_seed(0))
    assert report.groups == {}
    assert fitter.groups is not None
    assert fitter.groups.of("ann").tolist() == fitter.groups.shares().tolist() == [0.5, 0.5]


def test_the_reward_is_the_mean_of_the_groups_by_weight(tmp_path: Path) -> None:
    for pessimism in (0.0, 1.5):
        reward = ensemble(pessimism=pessimism, serve="worst")
        reward.group_weights = torch.tensor([0.25, 0.75])
        given = states(0.7)
        members = reward.member_rewards(reward.features(*given))[:, 0]
        groups = [
            float(part.mean() - pessimism * part.std(correction=0))
            for part in (members[:3].detach(), members[3:].detach())
        ]
        assert reward.group_rewards(*given)[:, 0] == pytest.approx(groups, abs=1e-6)
        assert reward(*given)[0] == pytest.approx(0.25 * groups[0] + 0.75 * groups[1], abs=1e-6)
        assert reward.of_few(*given)[0] == pytest.approx(reward(*given)[0])
        reward.save(tmp_path / "reward.safetensors")
        again = RewardEnsemble.load(tmp_path / "reward.safetensors")
        assert again.group_weights.tolist() == [0.25, 0.75]
        assert again(*given) == reward(*given)


def test_members_of_each_group_hold_out_the_same_answers() -> None:
    counts = taught(ensemble(), {"ann": 1.0}, 30).counts
    assert counts.shape == (30, 6)
    assert (counts[:, :3] == counts[:, 3:]).all()
    assert (counts == 0).any()


def test_nobody_is_given_up() -> None:
    groups = Groups(2)
    groups.belongs = {"ann": [1 - LEAST, LEAST], "bob": [LEAST, 1 - LEAST]}
    assert groups.shares().tolist() == pytest.approx([0.5, 0.5])
    assert groups.served("ann").tolist() == pytest.approx([1 - LEAST, LEAST])
    assert groups.served("somebody new").tolist() == groups.served("worst").tolist() == pytest.approx([0.5, 0.5])


def test_the_worst_off_group_weighs_most() -> None:
    reward = ensemble(serve="worst")
    settings = TrainSettings(
        env_id="Pendulum-v1", steps=10_000, panel=("oracle", "inverted"), reward=RewardSettings(groups=2, serve="worst")
    ).resolve()
    serving = Serving(reward, settings)
    serving._start = states(0.0)

    class Lately:
        def sample_steps(self, num: int, rng: np.random.Generator, last_steps: int) -> list[Segment]:
            return [walk(rng) for _ in range(3)]

    serving.weigh(Groups(2), Lately(), np.random.default_rng(0))  # type: ignore[arg-type]
    expected = np.exp(-SHARPNESS * np.array(serving.values))
    assert reward.group_weights.numpy() == pytest.approx(expected / expected.sum(), abs=1e-6)
    assert np.argmax(reward.group_weights.numpy()) == np.argmin(serving.values)
    restored = Serving(ensemble(serve="worst"), settings)
    restored.restore(serving.arrays())
    assert restored.values == serving.values


def test_each_question_goes_to_one_of_a_panel() -> None:
    rng = np.random.default_rng(0)
    queries = [Query(segments=(walk(rng), walk(rng))) for _ in range(400)]
    panel = make_panel(["coin", "oracle", "coin"], teacher="oracle", seed=3)
    answers = panel.answer(queries)
    assert [answer.query_id for answer in answers] == [query.id for query in queries]
    names = [answer.annotator for answer in answers]
    assert {name: names.count(name) for name in panel.names} == pytest.approx(
        {"coin": 133, "oracle": 133, "coin-2": 133}, abs=35
    )
    again = [answer.annotator for answer in panel.answer(queries[200:])]
    assert again == names[200:]  # who is asked follows from the question, whenever it is asked
    firsts = [answer.value for answer in answers if answer.annotator == "coin"]
    assert 0.3 < np.mean(firsts) < 0.7  # and says nothing of the answer


def test_names_of_a_panel() -> None:
    assert panel_names(["a.py:fast", "b:fast", "oracle", "a.py:fast"]) == ["fast", "fast-2", "oracle", "fast-3"]
    with pytest.raises(UserError, match="of different names"):
        Panel([make_teacher("oracle", seed=0), make_teacher("oracle", seed=1)], seed=0)


TWO = RewardSettings(groups=2)
PLAIN = TrainSettings(env_id="Pendulum-v1", panel=("oracle", "inverted"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: replace(PLAIN, panel=(), reward=TWO), "need as many annotators or more, and only the teacher oracle"),
        (lambda: replace(PLAIN, reward=RewardSettings(groups=3)), "only oracle, inverted of the panel"),
        (lambda: replace(PLAIN, without=("oracle",), reward=TWO), "only inverted of the panel"),
        (lambda: replace(PLAIN, without=("oracle", "inverted")), "leaves nobody of the panel"),
        (lambda: replace(PLAIN, panel=("oracle",)), "needs two annotators"),
        (lambda: replace(PLAIN, annotator="both"), "in place of the teacher"),
        (lambda: replace(PLAIN, reward_function="a.py:f"), "judges in its own way"),
        (
            lambda: replace(PLAIN, queries=replace(PLAIN.queries, feedback="rating"), reward=TWO),
            "ratings do not say that",
        ),
        (
            lambda: replace(PLAIN, reward=RewardSettings(groups=2, serve="bob")),
            "the name of somebody who answers: oracle, inverted",
        ),
        (lambda: RewardSettings(serve="worst"), "chooses among groups"),
        (lambda: RewardSettings(groups=0), "groups must be from 1"),
        (lambda: RewardSettings(groups=2, serve=""), "Received nothing"),
    ],
)
def test_groups_that_cannot_be_are_refused(make: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()  # type: ignore[operator]


def test_people_and_teachers_of_ones_own_may_be_several() -> None:
    replace(PLAIN, panel=(), annotator="human", reward=TWO)
    replace(PLAIN, panel=(), teacher="mine:Crowd", reward=TWO)
    replace(PLAIN, panel=(), from_run="runs/a", reward=TWO)
