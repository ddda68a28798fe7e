"""Demonstrations beside preferences: what they are compared with, and when the agent has overtaken them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from prefrl.cli import main
from prefrl.control import ControlFolder, TrainSettings, resume, train
from prefrl.control import demonstrations as module
from prefrl.control.demonstrations import ANNOTATOR, Demonstrations, is_ahead, with_demonstrations
from prefrl.control.loop import Trainer
from prefrl.control.run import settle
from prefrl.control.settings import RunSettings
from prefrl.errors import UserError
from prefrl.history import History
from prefrl.offline import demonstrations as reading
from prefrl.offline.data import World
from prefrl.offline.demonstrations import demonstrate
from prefrl.offline.recording import EpisodeRecorder, next_number, record_person
from prefrl.offline.sources import read_data
from prefrl.rewards import FitSettings, RewardSettings
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.segments import Rollout, Segment
from prefrl.store import PreferenceStore
from tests.outcomes import figures

FEW = TrainSettings(
    env_id="Pendulum-v1", labels=10, steps=1600, num_envs=2, segment_length=10, warmup_steps=200, num_checkpoints=4,
    hyperparameters={"n_steps": 50, "batch_size": 50, "n_epochs": 1}, fit=FitSettings(num_steps=4, first_steps=4),
    demonstrations="swings", demonstration_pairs=4, eval_episodes=1,
)  # fmt: skip


def episode(number: int, steps: int = 40, env_id: str = "Pendulum-v1", *, known: bool = True) -> EpisodeRecorder:
    env = gymnasium.make(env_id)
    env.action_space.seed(number)
    observation, _ = env.reset(seed=number)
    made = EpisodeRecorder(observation, number)
    for _ in range(steps):
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        made.add(action, observation, reward if known else None)
    env.close()
    return made


@pytest.fixture
def swings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of three demonstrations of 40 steps, which are soon cloned."""
    monkeypatch.setattr(reading, "UPDATES", 20)
    monkeypatch.setattr(reading, "PLAYED", 1)
    for number in (1, 2, 3):
        episode(number).save(tmp_path / "swings", number, terminated=False)
    return tmp_path / "swings"


def segment(level: float, number: int, length: int = 10) -> Segment:
    return Segment(
        observations=np.full((length + 1, 1), level, np.float32),
        actions=np.full((length, 1), number, np.float32),
        true_rewards=np.full(length, level),
        episode=number,
    )


def history_of(level: float, num_steps: int = 100) -> History:
    history = History()
    history.add(
        Rollout(
            observations=np.full((num_steps + 1, 1, 1), level, np.float32),
            actions=np.arange(num_steps, dtype=np.float32).reshape(-1, 1, 1),
            true_rewards=np.zeros((num_steps, 1)),
            terminated=np.zeros((num_steps, 1), np.bool_),
            truncated=np.zeros((num_steps, 1), np.bool_),
            last_observations=np.zeros((0, 1), np.float32),
        )
    )
    return history


def seen(observations: Any, actions: Any, next_observations: Any) -> Any:
    """Return what a reward says that pays for what is seen."""
    return observations[:, 0]


def few(**changes: Any) -> RunSettings:
    return replace(FEW, **changes).resolve()


# ------------------------------------------------------------------------------------------------ when it is over


def test_ahead_is_by_two_standard_errors_of_the_difference() -> None:
    """Fifty times 0 and 2 have variance 1: the error of the difference of two such means is sqrt(2 / 100)."""
    spread = np.tile([0.0, 2.0], 50)
    error = np.sqrt(2 / 100)
    assert is_ahead(spread + 2.01 * error, spread)
    assert not is_ahead(spread + 1.99 * error, spread)
    assert not is_ahead(spread, spread)
    assert is_ahead(np.full(3, 1.0), np.full(3, 0.9)) and not is_ahead(np.full(3, 1.0), np.full(3, 1.0))


def test_demonstrations_are_overtaken_once_the_agent_leads_after_two_fits_in_a_row() -> None:
    shown = Demonstrations([segment(1.0, number) for number in range(100)], 4, few())
    worse, better = history_of(0.0), history_of(3.0)
    found = [shown.look(seen, history, number) for number, history in enumerate((better, worse, better, better))]  # type: ignore[arg-type]
    assert found == [False, False, False, True]
    assert shown.overtaken and not shown.look(seen, better, 4)  # type: ignore[arg-type]
    assert shown.metrics() == {"demonstrations_lead": None}


def test_the_lead_is_in_learned_return_of_a_segment_and_goes_on_after_a_restart() -> None:
    first, second = (Demonstrations([segment(1.0, number) for number in range(100)], 4, few()) for _ in range(2))
    first.look(seen, history_of(3.0), 0)  # type: ignore[arg-type]
    assert first.metrics() == {"demonstrations_lead": 10 * (1.0 - 3.0)}
    second.restore(first.state())
    assert second.metrics() == first.metrics()
    assert second.look(seen, history_of(3.0), 1)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ the comparisons


def test_demonstrations_are_preferred_in_the_record_to_what_the_agent_did(tmp_path: Path) -> None:
    shown = Demonstrations([segment(1.0, number) for number in range(20)], 20, few())
    shown.compare_with(history_of(0.0))
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        assert shown.record(store) == 20 == shown.record(store)
        assert store.annotators() == {ANNOTATOR: "teacher"} and store.num_open() == 0
        answers = {answer.query_id: answer for _, answer in store.answers()}
        queries = store.session_queries(0)
    assert len(answers) == len(queries) == 20
    for query in queries:
        levels = [float(one.observations[0, 0]) for one in query.segments]  # type: ignore[index]
        assert sorted(levels) == [0.0, 1.0]
        assert answers[query.id].preference == levels[0]  # type: ignore[union-attr]
    assert 0 < sum(answer.preference for answer in answers.values()) < 20, "either side"  # type: ignore[union-attr]


def test_what_is_alike_is_not_compared(tmp_path: Path) -> None:
    """Windows of one step of a history of two steps are two; three demonstrations are one and the same."""
    shown = Demonstrations([segment(1.0, 0, 1)] * 40, 40, replace(few(), segment_length=1))
    shown.compare_with(history_of(1.0, 2))
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        assert shown.record(store) == 1  # the other window is the demonstration itself


# ------------------------------------------------------------------------------------------------ settings


def test_a_tenth_of_the_labels_is_compared_and_a_clone_keeps_the_inputs_that_it_was_cloned_with() -> None:
    found = settle(replace(FEW, labels=53, demonstration_pairs=None))
    assert found.demonstration_pairs == 5 and found.clone_demonstrations
    assert found.hyperparameters["normalize_until"] == 0.0
    network = found.hyperparameters["policy_kwargs"]
    assert network["net_arch"] == {"pi": [64, 64], "vf": [64, 64]} and network["activation_fn"] == "relu"
    assert network["log_std_init"] == -1.0, "the noise is that of the task"
    assert settle(replace(FEW, labels=3, demonstration_pairs=None)).demonstration_pairs == 1
    plain = settle(replace(FEW, clone_demonstrations=False))
    assert not plain.clone_demonstrations and "normalize_until" not in plain.hyperparameters


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agent": "sac"}, "a clone is the policy of a ppo agent, and this one is sac"),
        ({"warmup": "entropy"}, "would unlearn what it was cloned from"),
    ],
)
def test_where_nothing_can_be_cloned_there_are_comparisons_alone_and_it_is_said(
    changes: dict[str, Any], said: str
) -> None:
    settings = replace(FEW, hyperparameters={}, **changes).resolve()
    with pytest.warns(UserWarning, match=f"compared with, but not cloned: .*{said}"):
        assert with_demonstrations(settings, {}).clone_demonstrations is False
    for more in ({"clone_demonstrations": True}, {"demonstration_pairs": 0}):
        with pytest.raises(UserError, match=f"cannot be cloned: .*{said}"):
            with_demonstrations(replace(settings, **more), {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"demonstrations": None, "demonstration_pairs": 4}, "--demonstration-pairs is about demonstrations"),
        (
            {"demonstrations": None, "demonstration_pairs": None, "clone_demonstrations": True},
            "--clone-demonstrations is about demonstrations",
        ),
        ({"demonstration_pairs": -1}, "must be 0 or more. Received -1"),
        ({"demonstration_pairs": 0, "clone_demonstrations": False}, "have no effect"),
        ({"reward": RewardSettings(groups=2), "panel": ("oracle", "noisy")}, "of no group of annotators"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(FEW, **changes)
    given = {"policy_kwargs": {"net_arch": [8]}}
    with pytest.raises(UserError, match="so net_arch cannot be chosen"):
        settle(replace(FEW, hyperparameters=given))


# ------------------------------------------------------------------------------------------------ runs


def outcome(folder: ControlFolder) -> tuple[list[dict[str, Any]], list[Any], dict[str, Any]]:
    """Return metrics, answers and weights, without what depends on the clock."""
    rows = figures(folder)
    with PreferenceStore(folder.record_path) as store:
        answers = [(answer.query_id, answer.annotator, answer.value) for _, answer in store.answers()]
    return rows, answers, folder.load_policy("last")["network"]


@pytest.mark.slow
def test_a_run_starts_as_the_clone_and_pays_no_label_for_comparisons_with_demonstrations(
    swings: Path, tmp_path: Path
) -> None:
    settings = replace(FEW, demonstrations=str(swings))
    folder = train(settings, tmp_path / "run", quiet=True, demonstrate=demonstrate, baseline=True)
    cloned = folder.load_policy("cloned")
    for run in (folder, folder.baseline):
        before = run.load_policy("before")  # type: ignore[union-attr]
        assert all(torch.equal(before["network"][name], weights) for name, weights in cloned["network"].items())
        assert float(before["actions"][0]) == -1.0, "the noise is the agent's own"
    rows, answers, _ = outcome(folder)
    assert [name for _, name, _ in answers].count(ANNOTATOR) == 4
    assert [name for _, name, _ in answers].count("oracle") == 10 == rows[-1]["labels"]
    assert rows[-1]["demonstrations_lead"] is not None
    with folder.open_record() as store:
        assert store.facts()["labels_before"] == 4


@pytest.mark.slow
def test_once_overtaken_demonstrations_are_left_out_for_good_and_a_run_that_was_killed_ends_bit_identical(
    swings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_ahead", lambda first, second: True)
    settings = replace(FEW, demonstrations=str(swings), clone_demonstrations=False)
    with pytest.warns(UserWarning, match="has overtaken the demonstrations, .* the 4 comparisons with them are left"):
        whole = train(settings, tmp_path / "whole", quiet=True, demonstrate=demonstrate)
    iterate, made = Trainer._iterate, []

    def killed(self: Trainer) -> None:
        iterate(self)
        made.append(self.teaching.learner.demonstrations.overtaken)  # type: ignore[attr-defined]
        if len(made) in (5, 16):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_iterate", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "again", quiet=True, demonstrate=demonstrate)
        with pytest.raises(KeyboardInterrupt):
            resume(tmp_path / "again", quiet=True, demonstrate=demonstrate)
    assert made[15], "killed once more after it was overtaken"
    again = resume(tmp_path / "again", quiet=True, demonstrate=demonstrate)
    (rows, answers, weights), found = outcome(whole), outcome(again)
    assert (rows, answers) == found[:2]
    assert all(torch.equal(weights[name], other) for name, other in found[2].items())
    checkpoint, _ = newest_checkpoint(again)
    assert checkpoint is not None
    learner = checkpoint.state.part("learner")
    assert learner.values["demonstrations"]["overtaken"] and len(learner.values["taken"]) == 10
    assert rows[-1]["demonstrations_lead"] is None


def test_what_cannot_be_shown_is_refused_and_leaves_no_folder(swings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for changes, said in (
        ({"demonstrations": "nowhere"}, "no data 'nowhere'"),
        ({"demonstrations": str(swings), "env_id": "MountainCarContinuous-v0"}, "does not fit its spaces"),
        ({"demonstrations": str(swings), "segment_length": 60}, "has 40 steps, and a segment has 60"),
    ):
        with pytest.raises(UserError, match=said):
            train(replace(FEW, **changes), out, quiet=True, demonstrate=demonstrate)
        assert not out.exists()
    with pytest.raises(UserError, match="Demonstrations are read by another part of prefrl"):
        train(replace(FEW, demonstrations=str(swings)), out)
    assert not out.exists()


@pytest.mark.slow
def test_demonstrations_whose_true_rewards_are_not_known_will_do(swings: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        episode(number, known=False).save(swings, number, terminated=False)
    folder = train(replace(FEW, demonstrations=str(swings)), tmp_path / "run", quiet=True, demonstrate=demonstrate)
    assert folder.read_metrics()[-1]["labels"] == 10


# ------------------------------------------------------------------------------------------------ recording


@pytest.mark.slow
def test_episodes_of_a_policy_are_recorded_beside_those_that_are_there_and_can_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(FEW, demonstrations=None, demonstration_pairs=None)
    run, out = train(settings, tmp_path / "run", quiet=True).path, tmp_path / "shown"
    arguments = ["demo", "record", "Pendulum-v1", "--policy", str(run), "--out", str(out), "--episodes"]
    assert main([*arguments, "2"]) == 0 == main([*arguments, "1", "--no-true-reward"])
    told = capsys.readouterr().err
    assert "Episode 2: true return -" in told and told.endswith("Episode 3\n")
    assert [path.name for path in sorted(out.iterdir())] == [f"episode-00000{number}.npz" for number in (1, 2, 3)]
    data = read_data(str(out), World(env_id="Pendulum-v1"))
    assert [len(one.actions) for one in data.episodes] == [200, 200, 200]
    assert len({one.seed for one in data.episodes}) == 3
    env = gymnasium.make("Pendulum-v1")
    for one in data.episodes:
        observation, _ = env.reset(seed=one.seed)
        for step, action in enumerate(one.actions):
            np.testing.assert_array_equal(observation, one.observations[step])
            observation, reward, *_ = env.step(action)
            assert reward == one.true_rewards[step]
    env.close()
    with pytest.raises(UserError, match="is a file"):
        next_number(out / "episode-000001.npz")


def test_a_policy_is_recorded_in_its_own_environment_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "play"]) == 2
    assert "prefrl demo can record" in capsys.readouterr().err
    ControlFolder.create(tmp_path / "run", few(demonstrations=None, demonstration_pairs=None), baseline=False)
    record = ["demo", "record", "CartPole-v1", "--policy", str(tmp_path / "run"), "--out", str(tmp_path / "shown")]
    assert main(record) == 2
    assert "is of Pendulum-v1, not of CartPole-v1" in capsys.readouterr().err


class Hands:
    """A person who acts, keeps every second episode, and has had enough after some."""

    def __init__(self, *, begins: int = 9, steps: int = 5) -> None:
        self.begins, self.steps, self.told, self.asked, self.acted = begins, steps, list[str](), 0, 0

    def begin(self, picture: Any, told: str) -> bool:
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        self.begins -= 1
        self.acted = 0
        return self.begins >= 0

    def act(self, picture: Any, told: str) -> Any:
        self.told.append(told)
        self.acted += 1
        return np.array([0.5], np.float32) if self.acted <= self.steps else None

    def keep(self, picture: Any, told: str) -> bool:
        self.asked += 1
        return self.asked % 2 == 0


def test_what_a_person_shows_is_kept_only_if_they_say_so(tmp_path: Path) -> None:
    hands, kept = Hands(), list[int]()
    with closing(gymnasium.make("Pendulum-v1", render_mode="rgb_array")) as env:
        paths = record_person(
            env,
            hands,
            tmp_path / "out",
            2,
            most_steps=200,
            frames=True,
            on_episode=lambda number, _: kept.append(number),
        )
        assert [path.name for path in paths] == ["episode-000001.npz", "episode-000002.npz"] and kept == [1, 2]
        assert hands.asked == 4 and "0 of 2 kept   step 0" in hands.told[0] and "return -" in hands.told[1]
        more = record_person(env, Hands(begins=1), tmp_path / "out", 2, most_steps=200)
        assert more == []  # thrown away, then had enough
        hidden = Hands(begins=2)
        record_person(env, hidden, tmp_path / "out", 1, most_steps=3, shows_return=False)
        assert not any("return" in line for line in hidden.told)
    data = [np.load(path) for path in paths]
    assert data[0]["observations"].shape == (6, 3) and data[0]["actions"].shape == (5, 1)
    assert data[0]["frames"].shape[0] == 5 and not data[0]["terminated"]
    assert data[0]["seed"] != data[1]["seed"]
    assert np.load(tmp_path / "out" / "episode-000003.npz")["actions"].shape == (3, 1)  # no longer than it may be


def test_options_of_the_other_way_to_record_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--policy", "run", "--keys", "left=0"], "--keys is for recording by hand"),
        (["--speed", "0"], "--speed must be above 0"),
        (["--wrapper", "nowhere:Thing"], "nowhere"),
        (["--keys", "left=7"], "an action from 0 to 1"),
    ):
        assert main(["demo", "record", "CartPole-v1", "--out", str(tmp_path / "out"), *words]) == 2
        assert said in capsys.readouterr().err
