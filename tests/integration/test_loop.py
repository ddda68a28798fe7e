"""The loop: what is asked when, and what is kept."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefrl.agents.off_policy import OffPolicyAgent
from prefrl.control import ControlFolder, TrainSettings, train
from prefrl.control.extend import extend
from prefrl.control.loop import Progress, Trainer
from prefrl.errors import UserError
from prefrl.feedback import Comparison
from prefrl.rewards import Fitter, RewardEnsemble
from prefrl.store import PreferenceStore
from tests.integration.test_resume import TINY, TINY_SAC

NOTHING_EVER = "def nothing(segment):\n    return 0.0\n"


def sessions(folder: ControlFolder) -> list[tuple[int, int]]:
    """Return the steps at which questions were asked, and how many, in order."""
    asked: dict[int, int] = {}
    with PreferenceStore(folder.record_path) as store:
        for number in range(200):
            for query in store.session_queries(number):
                asked[query.num_env_steps] = asked.get(query.num_env_steps, 0) + 1
    return sorted(asked.items())


def test_labels_sum_exactly_to_the_budget(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True)
    assert sum(number for _, number in sessions(folder)) == TINY.labels
    assert folder.read_metrics()[-1]["labels"] == TINY.labels


def test_labels_that_would_be_ties_are_postponed_and_still_asked(tmp_path: Path) -> None:
    (tmp_path / "teacher.py").write_text(NOTHING_EVER)
    settings = replace(
        TINY,
        labels=80,
        reward_function=f"{tmp_path}/teacher.py:nothing",
        queries=replace(TINY.queries, initial_share=0.5),
    )
    folder = train(settings, tmp_path / "run", quiet=True)
    asked = sessions(folder)
    assert asked[0] == (400, 10)  # not the 40 that were due
    assert sum(number for _, number in asked) == 80


def test_while_answers_are_ties_few_are_asked_and_the_agent_looks_for_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "teacher.py").write_text(NOTHING_EVER)
    queries = replace(TINY.queries, initial_share=0.25, num_sessions=3)
    settings = replace(TINY, labels=80, reward_function=f"{tmp_path}/teacher.py:nothing", queries=queries)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        folder = train(settings, tmp_path / "run", quiet=True)
    texts = [str(warning.message) for warning in said]
    assert any(text.startswith("10 of 10 answers so far are ties") for text in texts)
    assert any(text.startswith("All 80 labels are used, and 80 of 80 answers are ties") for text in texts)
    asked = sessions(folder)
    assert [number for _, number in asked] == [10, 10, 10, 50]  # what is due at the end is asked at the end
    rows = folder.read_metrics()
    assert all(("novelty" in row) == (row["num_env_steps"] <= asked[-1][0]) for row in rows)
    told = [(row["learned_return"], row["novelty"]) for row in rows if "novelty" in row and row["episodes"]]
    assert all(abs(learned) < 10 < 200 * novelty for learned, novelty in told)  # 200 steps an episode


def test_an_agent_that_was_told_something_is_given_the_reward_alone(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are ties")
        folder = train(TINY, tmp_path / "run", quiet=True)
    assert not any("novelty" in row for row in folder.read_metrics())


@pytest.mark.parametrize("feedback", ["comparison", "ranking", "rating", "mixed"])
def test_answers_of_every_kind_tell_something(feedback: str, tmp_path: Path) -> None:
    settings = replace(TINY, labels=40, queries=replace(TINY.queries, feedback=feedback, num_ranked=3))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are ties")
        folder = train(settings, tmp_path / "run", quiet=True)
    assert not any("novelty" in row for row in folder.read_metrics())


class Script:
    """Answers the first so many questions by a tie, then says that the first is better."""

    name = "script"

    def __init__(self, num_ties: int) -> None:
        self.num_ties = num_ties

    def observe(self, episodes: object) -> None:
        pass

    def answer(self, queries: list) -> list[Comparison]:  # type: ignore[type-arg]
        said = []
        for query in queries:
            said.append(
                Comparison(query_id=query.id, preference=0.5 if self.num_ties > 0 else 1.0, annotator=self.name)
            )
            self.num_ties -= 1
        return said

    def state(self) -> dict[str, object]:
        return {"num_ties": self.num_ties}

    def restore(self, state: dict[str, int]) -> None:
        self.num_ties = state["num_ties"]


def test_three_answers_that_are_no_ties_end_the_exploring_for_good(tmp_path: Path) -> None:
    class Rarely(Script):
        def answer(self, queries: list) -> list[Comparison]:  # type: ignore[type-arg]
            said = []
            for query in queries:
                self.num_ties += 1
                tells = self.num_ties % 8 == 0
                said.append(Comparison(query_id=query.id, preference=float(tells) or 0.5, annotator=self.name))
            return said

    settings = replace(TINY, labels=60, steps=4800)
    folder = train(settings, tmp_path / "run", quiet=True, annotator=Rarely(0))  # type: ignore[arg-type]
    rows = folder.read_metrics()
    explored = ["novelty" in row for row in rows]
    assert explored[0] and not explored[-1] and explored == sorted(explored, reverse=True)
    assert [row["labels"] for row, so in zip(rows, explored, strict=True) if so][-1] < 30  # the third came at the 24th


@pytest.mark.parametrize("labels", [25, 30, 36, 46, 120])
def test_a_run_extended_while_labels_are_postponed_asks_as_many_as_it_is_told(labels: int, tmp_path: Path) -> None:
    queries = replace(TINY.queries, num_sessions=4)
    settings = replace(TINY, labels=80, warmup_steps=100, queries=queries)
    trainer: list[Trainer] = []
    script = Script(20)

    def stop(progress: Progress) -> None:
        if progress.num_env_steps >= 1300:
            trainer[0].stop()

    folder = ControlFolder.create(tmp_path / "run", settings.resolve(), baseline=False)
    trainer.append(Trainer(folder, annotator=script, on_progress=stop))  # type: ignore[arg-type]
    assert not trainer[0].run()
    trainer[0].close()
    assert folder.read_metrics()[-1]["labels"] == 20
    extend(folder, str(labels))
    again = Trainer(ControlFolder(folder.path), annotator=script)  # type: ignore[arg-type]
    assert again.run()
    again.close()
    assert folder.read_metrics()[-1]["labels"] == labels


def test_critics_that_learned_what_is_new_begin_anew_when_answers_tell_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset: list[int] = []
    monkeypatch.setattr(OffPolicyAgent, "_reset_critics", lambda agent: reset.append(agent.num_env_steps))
    settings = replace(TINY_SAC, labels=40, steps=2000)
    folder = train(settings, tmp_path / "run", quiet=True, annotator=Script(20))  # type: ignore[arg-type]
    explored = [row["num_env_steps"] for row in folder.read_metrics() if "novelty" in row]
    assert reset == [explored[-1]]


class FarEnd(gymnasium.Env[Any, Any]):
    """A walk along a corridor that is worth something at its far end alone: chance gets there once in a million."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x = min(max(self.x + 2 * int(action) - 1, 0), 50)
        return self._seen(), float(self.x == 50), False, False, {}

    def _seen(self) -> Any:
        return np.array([self.x / 25 - 1], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("explores", "seed"), [(True, 0), (True, 2), (False, 0)])
def test_a_goal_that_chance_does_not_meet_is_met_by_looking_for_what_is_new(
    explores: bool, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "FarEnd-v0" not in gymnasium.registry:
        gymnasium.register("FarEnd-v0", FarEnd, max_episode_steps=100)
    if not explores:
        monkeypatch.setattr(Trainer, "_may_explore", False)
    settings = TrainSettings(
        env_id="FarEnd-v0", labels=100, steps=40_000, num_envs=8, segment_length=25, seed=seed,
        hyperparameters={"n_steps": 100, "batch_size": 200, "n_epochs": 5},
    )  # fmt: skip
    folder = train(settings, tmp_path / "run", quiet=True)
    rows = folder.read_metrics()
    if explores:
        assert "novelty" in rows[0] and "novelty" not in rows[-1]
        assert rows[-1]["true_return"] > 25  # of 51
    else:
        assert rows[-1]["true_return"] == 0


class LatePerson:
    """Answers each question only when it is asked for the sixth time, and always for the first segment."""

    name = "late"

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def observe(self, episodes: object) -> None:
        pass

    def answer(self, queries: list) -> list[Comparison]:  # type: ignore[type-arg]
        for query in queries:
            self.seen[query.id] = self.seen.get(query.id, 0) + 1
        ready = [query for query in queries if self.seen[query.id] >= 6]
        return [Comparison(query_id=query.id, preference=1.0, annotator=self.name) for query in ready]

    def state(self) -> dict[str, object]:
        return {}

    def restore(self, state: dict[str, object]) -> None:
        pass


def test_answers_may_come_later_while_training_goes_on(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True, annotator=LatePerson())  # type: ignore[arg-type]
    rows = folder.read_metrics()
    assert rows[0]["labels"] == 0
    assert rows[-1]["labels"] > 0
    with PreferenceStore(folder.record_path) as store:
        assert {comparison.annotator for _, comparison in store.answers()} == {"late"}


def test_reward_of_a_run_loads_with_one_call_and_scores_transitions(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True)
    reward = RewardEnsemble.load(folder.path)
    scores = reward(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32), np.zeros((4, 3), np.float32))
    assert scores.shape == (4,)


def test_best_policy_is_kept_beside_the_last(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True)
    assert {"before", "during", "last", "best"} == {path.stem for path in folder.policies.glob("*.pt")}


def test_early_ends_bring_a_warning_and_the_fixed_horizon_form_none(tmp_path: Path) -> None:
    plain = replace(TINY, env_id="CartPole-v1", fixed_horizon=0, segment_length=5)
    with pytest.warns(UserWarning, match="length leaks the task"):
        train(plain, tmp_path / "plain", quiet=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(replace(plain, fixed_horizon=None), tmp_path / "fixed", quiet=True)
    assert not any("leaks" in str(warning.message) for warning in caught)


def test_too_little_memory_of_the_gpu_for_a_fit_names_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(Fitter, "fit", no_memory)
    with pytest.raises(UserError, match=r"too little memory: .* Use a smaller --fit.batch-size"):
        train(TINY, tmp_path / "run", quiet=True)


def test_run_in_use_is_not_trained_twice(tmp_path: Path) -> None:
    from filelock import FileLock

    from prefrl.control import resume
    from prefrl.errors import UserError

    folder = train(TINY, tmp_path / "run", quiet=True)
    folder.summary_path.unlink()
    with FileLock(folder.path / ".lock"), pytest.raises(UserError, match="another process"):
        resume(folder.path, quiet=True)


def test_trainer_holds_no_true_reward_where_the_agent_can_see_it(tmp_path: Path) -> None:
    settings = replace(TINY, agent="sb3-ppo").resolve()
    folder = ControlFolder.create(tmp_path / "run", settings, baseline=False)
    trainer = Trainer(folder)
    try:
        trainer.run()
        model = trainer.agent._model  # type: ignore[attr-defined]
        assert len(model.ep_info_buffer) == 0  # no monitor tells it the true return
    finally:
        trainer.close()


def test_a_checkpoint_waits_for_episodes_to_end_but_only_once(tmp_path: Path) -> None:
    # Due after 50 steps of each copy, while episodes have 200 and a checkpoint begins new ones.
    settings = replace(TINY, num_envs=4, num_checkpoints=16)
    rows = train(settings, tmp_path / "waits", quiet=True).read_metrics()
    assert [row["num_env_steps"] for row in rows if row["episodes"]] == [800, 1600, 2400, 3200]
    quick = replace(settings, hyperparameters={**TINY.hyperparameters, "n_steps": 25, "batch_size": 25})
    rows = train(quick, tmp_path / "quick", quiet=True).read_metrics()
    assert [row["num_env_steps"] for row in rows if row["episodes"]] == [800]  # then saved after 100 steps each time
