"""What an agent in training is given where the members of the reward disagree, and who is not given it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from prefrl.agents.sac import SacAgent
from prefrl.control import TrainSettings, train
from prefrl.control.best import BestPolicy
from prefrl.control.bonus import Bonus, RewardWithBonus
from prefrl.control.loop import Trainer
from prefrl.errors import UserError
from prefrl.offline.settings import OfflineSettings
from prefrl.queries import SegmentScorer
from prefrl.rewards import RewardEnsemble, RewardSettings
from prefrl.segments import Transitions
from prefrl.spaces import take

BOX, ACTION = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (2,))
TINY = TrainSettings(
    env_id="Pendulum-v1", labels=8, steps=3000, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=3,
    agent="sac", hyperparameters={"batch_size": 32, "train_freq": 8, "gradient_steps": 1}, eval_episodes=1,
    reward=RewardSettings(bonus=0.5, bonus_decay=3e-4),
)  # fmt: skip


def some_steps(num: int = 40) -> Transitions:
    rng = np.random.default_rng(0)
    return rng.normal(size=(num, 3)), rng.uniform(-1, 1, (num, 2)), rng.normal(size=(num, 3))


# --- how much ---


@given(st.integers(0, 3_000_000), st.floats(0, 0.01), st.floats(0.001, 10))
def test_it_falls_by_stairs_that_stay_within_a_tenth_of_the_papers(steps: int, decay: float, first: float) -> None:
    found = Bonus(RewardSettings(bonus=first, bonus_decay=decay if first else 1e-5)).at(steps)
    exact = first * (1 - decay) ** steps
    if found == 0:
        assert exact < first * 1e-3 / 0.9
    else:
        assert 0.9 * exact < found * (1 + 1e-6) and found <= exact * (1 + 1e-6) and found >= first * 1e-3


def test_it_begins_whole_ends_and_changes_a_few_times_only() -> None:
    bonus = Bonus(RewardSettings(bonus=0.05, bonus_decay=1e-3))
    values = [bonus.at(step) for step in range(20_000)]
    assert values[0] == 0.05 and values[-1] == 0 and len(set(values)) == 67
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert Bonus(RewardSettings()).at(0) == Bonus(RewardSettings()).at(10**9) == 0


@pytest.mark.parametrize(("pessimism", "bonus"), [(0.0, 0.3), (0.5, 0.3), (0.3, 0.3)])
def test_it_is_so_many_deviations_of_the_normalised_members(pessimism: float, bonus: float) -> None:
    reward = RewardEnsemble(BOX, ACTION, RewardSettings(num_members=4, pessimism=pessimism))
    steps = some_steps()
    reward.set_input_statistics(*steps)
    reward.normalise(*steps)
    members = reward.member_rewards(reward.features(*steps)).detach().numpy()
    more = RewardWithBonus(reward, bonus)(*steps)
    np.testing.assert_allclose(more, members.mean(0) + (bonus - pessimism) * members.std(0), atol=1e-6)


def test_of_several_groups_it_is_the_mean_of_the_disagreement_within_each() -> None:
    reward = RewardEnsemble(BOX, ACTION, RewardSettings(num_members=3, groups=2))
    steps = some_steps()
    members = reward.member_rewards(reward.features(*steps)).detach().numpy().reshape(2, 3, -1)
    reward.group_weights[:] = reward.group_weights.new_tensor([0.25, 0.75])
    each = members.mean(1) + 0.4 * members.std(1)
    np.testing.assert_allclose(reward.with_bonus(*steps, 0.4), 0.25 * each[0] + 0.75 * each[1], atol=1e-6)


def test_the_reward_itself_is_the_same_with_a_bonus_and_without() -> None:
    steps = some_steps()
    plain, other = (RewardEnsemble(BOX, ACTION, RewardSettings(bonus=bonus)) for bonus in (0.0, 0.7))
    np.testing.assert_array_equal(plain(*steps), other(*steps))
    np.testing.assert_array_equal(plain.of_few(*steps), other.of_few(*steps))


# --- who is given it ---


def test_all_that_an_agent_keeps_has_the_bonus_of_now_and_nobody_else_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bonus, checked, changed = Bonus(TINY.reward), 0, 0
    iterate, take_in, offer = Trainer._iterate, Trainer._take_in, BestPolicy.offer
    judges: list[Any] = []
    scorers: list[SegmentScorer | None] = []

    def look(trainer: Trainer) -> None:
        nonlocal checked, changed
        before = trainer.agent.num_env_steps
        iterate(trainer)
        reward, agent = trainer.teaching.reward, trainer.agent
        assert isinstance(agent, SacAgent) and isinstance(reward, RewardEnsemble)
        replay, after = agent._replay, agent.num_env_steps
        assert replay is not None
        last = replay.num_added - replay.num_unscored
        rows = np.arange(replay.num_added - len(replay), last) % replay.size
        steps = take(replay.observations, rows), replay.actions[rows], take(replay.next_observations, rows)
        np.testing.assert_allclose(replay.rewards[rows], reward.with_bonus(*steps, bonus.at(after)), atol=1e-5)
        assert not np.allclose(replay.rewards[rows], reward(*steps), atol=1e-3)
        checked, changed = checked + 1, changed + (bonus.at(before) != bonus.at(after))

    def taken(trainer: Trainer, rollout: Any, learned: Any) -> Any:
        if trainer.teaching.reward is not None:
            plain = trainer.teaching.reward(*rollout.flat_transitions()).reshape(learned.shape)
            np.testing.assert_allclose(learned, plain, atol=1e-6)
        return take_in(trainer, rollout, learned)

    def judged(best: BestPolicy, rollout: Any, policy: Any, reward: Any, steps: int) -> bool:
        judges.append(reward)
        return offer(best, rollout, policy, reward, steps)

    def proposed(history: Any, ensemble: Any, *rest: Any, **options: Any) -> Any:
        scorers.append(ensemble)
        return propose(history, ensemble, *rest, **options)

    from prefrl.control import reward_learner

    propose = reward_learner.propose_pairs
    monkeypatch.setattr(Trainer, "_iterate", look)
    monkeypatch.setattr(Trainer, "_take_in", taken)
    monkeypatch.setattr(BestPolicy, "offer", judged)
    monkeypatch.setattr(reward_learner, "propose_pairs", proposed)
    folder = train(TINY, tmp_path / "run", quiet=True)
    assert checked == 3 and changed == 3
    assert judges and all(type(reward) is RewardEnsemble for reward in judges)
    assert any(scorers) and all(scorer is None or type(scorer) is RewardEnsemble for scorer in scorers)
    told = [row["exploration_bonus"] for row in folder.read_metrics()]
    assert len(told) == 3 and min(told) > 0 and math.isfinite(max(told))


def test_without_a_bonus_the_agent_is_given_the_reward_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterate = Trainer._iterate

    def look(trainer: Trainer) -> None:
        steps = trainer.agent.num_env_steps
        assert trainer.teaching.given(steps) is trainer.teaching.reward
        iterate(trainer)

    monkeypatch.setattr(Trainer, "_iterate", look)
    folder = train(replace(TINY, steps=1500, reward=RewardSettings()), tmp_path / "run", quiet=True)
    assert not any("exploration_bonus" in row for row in folder.read_metrics())


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bonus": -0.1}, "bonus must be a finite number, not negative. Received -0.1"),
        ({"bonus": math.nan}, "bonus must be a finite number, not negative. Received nan"),
        ({"bonus": 1.0, "bonus_decay": 1.0}, r"bonus_decay must be in \[0, 1\). Received 1.0"),
        ({"bonus_decay": 0.1}, "bonus_decay is of a bonus: give --reward.bonus too"),
        ({"bonus": 1.0, "num_members": 1}, "num_members must be at least 2. Received 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RewardSettings(**settings)


def test_nobody_explores_in_data_that_are_given() -> None:
    with pytest.raises(UserError, match="A bonus is for agents that explore"):
        partial(OfflineSettings, dataset="x")(reward=RewardSettings(bonus=0.1))
