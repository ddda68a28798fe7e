"""What environments hand out is taken where it can mean one thing only, else refused in a sentence."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefrl.agents.stepping import Stepper
from prefrl.control.evaluation import evaluate
from prefrl.envs import make_env
from prefrl.envs.conforming import Conforming
from prefrl.envs.loop import EnvLoop
from prefrl.errors import UserError
from prefrl.runs.guard import stopping
from prefrl.values import read_end, read_reward, read_value

pytestmark = pytest.mark.lowest

BOX = spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (BOX, [0.5, 1], np.array([0.5, 1], np.float32)),
        (BOX, (np.float64(0.5), 1), np.array([0.5, 1], np.float32)),
        (BOX, torch.tensor([0.5, 1], requires_grad=True), np.array([0.5, 1], np.float32)),
        (spaces.Box(-1, 1, (), np.float32), [0.5], np.array(0.5, np.float32)),
        (spaces.Box(-1, 1, (1,), np.float64), np.float32(0.5), np.array([0.5])),
        (spaces.Box(0, 255, (2,), np.uint8), [3.0, 4.0], np.array([3, 4], np.uint8)),
        (spaces.Box(0, 1, (2,), np.bool_), [0, 1], np.array([False, True])),
        (spaces.Discrete(3, start=-1), np.array([1], np.int32), np.int64(1)),
        (spaces.Discrete(3), np.array(2.0), np.int64(2)),
        (spaces.MultiDiscrete([2, 3], start=[0, 5]), [1, 7], np.array([1, 7])),
        (spaces.MultiBinary(2), [True, False], np.array([1, 0], np.int8)),
    ],
    ids=str,
)
def test_what_can_mean_one_thing_only_is_brought_into_the_form_of_the_space(
    space: spaces.Space[Any], given: Any, expected: Any
) -> None:
    found = read_value(space, given)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == space.dtype and found.shape == space.shape and space.contains(found)


@pytest.mark.parametrize(
    ("space", "given", "said"),
    [
        (BOX, np.zeros(3), r"shape \(3,\).*\(2,\) float32"),
        (BOX, None, "None.*numbers"),
        (BOX, "ab", "'ab'"),
        (BOX, [[1], [1, 2]], "numbers"),
        (spaces.Box(0, 255, (2,), np.uint8), [0, -1], "-1.*uint8"),
        (spaces.Box(0, 255, (2,), np.uint8), [0, 0.5], "0.5.*uint8"),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), np.ones((8, 8, 3), np.float32), "picture of float32 from 1 to 1"),
        (spaces.Discrete(3), -1, "0 to 2"),
        (spaces.Discrete(3, start=1), 0, "1 to 3"),
        (spaces.Discrete(3), 0.5, "0 to 2"),
        (spaces.Discrete(3), [0, 1], "0 to 2"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], "not in its space"),
        (spaces.MultiBinary(2), [2, 0], "not in its space"),
        (spaces.Dict(a=BOX), np.zeros(2), "dictionary of 'a'"),
        (spaces.Dict(a=BOX), {"b": np.zeros(2)}, "no entry 'a'"),
        (spaces.Dict(a=BOX), {"a": np.zeros(3)}, "entry 'a'"),
    ],
    ids=str,
)
def test_what_is_not_in_the_space_is_refused_in_one_sentence(space: spaces.Space[Any], given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_value(space, given)
    assert "\n" not in str(caught.value)


def test_values_are_copies() -> None:
    given = np.zeros(2, np.float32)
    found = read_value(BOX, given)
    given[:] = 1
    assert (found == 0).all()


@pytest.mark.parametrize(
    "reward",
    [
        *(2.0, 2, np.float32(2), np.array(2), np.array([2.0]), np.array([[2]]), [2.0], Decimal("2.0"), Fraction(4, 2)),
        *(torch.tensor(2.0), torch.tensor([2.0], requires_grad=True)),
    ],
    ids=repr,
)
def test_one_number_is_a_reward_however_it_is_wrapped(reward: Any) -> None:
    found = read_reward(reward)
    assert type(found) is float and found == 2


def test_a_reward_that_nobody_knows_is_nan() -> None:
    assert np.isnan(read_reward(None)) and np.isnan(read_reward(float("nan")))


@pytest.mark.parametrize("reward", [np.zeros(2), "1", {"a": 1}, [], 1j], ids=repr)
def test_what_is_not_one_number_is_no_reward(reward: Any) -> None:
    with pytest.raises(UserError, match="expected one number"):
        read_reward(reward)


MASKED = np.ma.MaskedArray([1.0, 2.0], mask=[False, True])


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (BOX, MASKED),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": np.ma.masked}),
        (spaces.MultiBinary(2), np.ma.MaskedArray([0, 1], mask=[True, False])),
    ],
)
def test_what_lies_under_a_mask_is_no_observation(space: spaces.Space[Any], given: Any) -> None:
    with pytest.raises(UserError, match="has masked entries"):
        read_value(space, given)


def test_an_array_that_masks_nothing_is_read_as_one() -> None:
    found = read_value(BOX, np.ma.MaskedArray([1.0, 2.0], mask=[False, False]))
    assert type(found) is np.ndarray and found.tolist() == [1, 2]


@pytest.mark.parametrize("reward", [np.ma.masked, np.ma.MaskedArray([3.0], mask=[True])], ids=repr)
def test_a_masked_reward_is_one_that_nobody_knows(reward: Any) -> None:
    assert np.isnan(read_reward(reward))


def test_a_masked_end_is_no_end() -> None:
    with pytest.raises(UserError, match="expected True or False"):
        read_end(np.ma.masked, "terminated")


@pytest.mark.parametrize("flag", [True, np.True_, 1, np.array(True), np.array([1])], ids=repr)
def test_one_truth_value_is_an_end(flag: Any) -> None:
    assert read_end(flag, "terminated") is True


@pytest.mark.parametrize("flag", [None, "no", [True, False]], ids=repr)
def test_what_is_not_one_truth_value_is_no_end(flag: Any) -> None:
    with pytest.raises(UserError, match="terminated"):
        read_end(flag, "terminated")


class Odd(gymnasium.Env[Any, Any]):
    """Returns what it is told to."""

    observation_space = BOX
    action_space = spaces.Discrete(2)

    def __init__(self, first: Any = ([0, 0], {}), following: Any = ([0, 0], 1, False, 0, None)) -> None:
        self.first, self.following = first, following

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.first

    def step(self, action: Any) -> Any:
        if isinstance(self.following, BaseException):
            raise self.following
        return self.following


def test_an_environment_is_brought_into_form() -> None:
    env = Conforming(Odd())
    assert env.reset()[0].dtype == np.float32
    observation, reward, terminated, truncated, info = env.step(0)
    assert (observation.dtype, type(reward), terminated, truncated, info) == (np.float32, float, False, False, {})


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (Odd(first=np.zeros(2)), "reset returned a ndarray"),
        (Odd(following=(np.zeros(2), 0.0, False, {})), "step returned a tuple of 4.*shimmy"),
        (Odd(following=ZeroDivisionError("division by zero")), r"broke off in step \(test_values.py, line \d+\)"),
        (
            Odd(following=SystemExit("no licence\nnone at all")),
            r"broke off in step .* with SystemExit: no licence\. Fix",
        ),
        (Odd(following=NotImplementedError()), r"with NotImplementedError\. Fix"),
        (Odd(following=([0, 0], 0.0, False, False, [])), r"info is \[\]; expected a dictionary"),
    ],
)
def test_what_is_not_gymnasiums_interface_is_refused(env: Odd, said: str) -> None:
    def use() -> None:
        wrapped = Conforming(env)
        wrapped.reset()
        wrapped.step(0)

    with pytest.raises(UserError, match=said):
        use()


def test_a_reset_without_seed_is_told_what_it_lacks() -> None:
    class Old(Odd):
        def reset(self) -> Any:  # type: ignore[override]
            return self.first

    with pytest.raises(UserError, match="seed=None and options=None"):
        Conforming(Old()).reset(seed=1)


def test_an_environment_that_cannot_be_closed_is_said_and_lost() -> None:
    class Stuck(Odd):
        def close(self) -> None:
            raise kind("no simulator\nat all")

    for kind in (AttributeError, SystemExit):
        with pytest.warns(UserWarning, match=rf"Closing the environment failed with {kind.__name__}: no simulator\."):
            Conforming(Stuck()).close()


@pytest.mark.parametrize("wrap", [Conforming, lambda env: env], ids=["conforming", "as it is"])
def test_an_environment_that_writes_into_its_action_changes_nobody_elses(wrap: Any) -> None:
    class Writes(Odd):
        action_space = spaces.Box(-1, 1, (1,))

        def step(self, action: Any) -> Any:
            action += 7.0
            return super().step(action)

    stepper = Stepper(EnvLoop([lambda: wrap(Writes(following=([0, 0], 1.0, False, False, {})))] * 2))
    stepper.reset(0)
    given = np.array([[0.25], [-0.5]], np.float32)
    stepper.step(given)
    assert stepper.take().actions.tolist() == [[[0.25], [-0.5]]]
    if wrap is Conforming:
        assert given.tolist() == [[0.25], [-0.5]], "who chose it learns from it"


def test_copies_whose_spaces_differ_are_refused_before_anything_is_stepped() -> None:
    class Wide(Odd):
        observation_space = spaces.Box(-1, 1, (3,), np.float32)

    kinds = iter([Odd, Wide])
    with pytest.raises(UserError, match=r"different spaces: observation_space Box.*\(2,\).*\(3,\)"):
        EnvLoop([lambda: next(kinds)()] * 2)


def test_copies_whose_actions_have_other_bounds_are_refused_and_those_whose_observations_have_are_not() -> None:
    """An action in the bounds of the first copy would be cut by another without a word."""

    class Strong(Odd):
        action_space = spaces.Box(-1, 2, (1,), np.float32)

    class Weak(Odd):
        action_space = spaces.Box(-1, 1, (1,), np.float32)

    class Far(Weak):
        observation_space = spaces.Box(-9, 9, (2,), np.float32)

    kinds = iter([Weak, Strong])
    with pytest.raises(UserError, match=r"different spaces: action_space Box\(-1.*1\.0.*Box.*2\.0"):
        EnvLoop([lambda: next(kinds)()] * 2)
    kinds = iter([Weak, Far])
    assert EnvLoop([lambda: next(kinds)()] * 2).num_envs == 2
    kinds = iter([Weak, Far])
    found = evaluate(
        lambda: Conforming(next(kinds)()),
        lambda seen: np.zeros((len(seen), 1), np.float32),
        num_episodes=2,
        seed=0,
        max_steps=3,
    )
    assert list(found.lengths) == [3, 3]


def test_spaces_that_reset_changes_are_refused() -> None:
    class Late(Odd):
        def reset(self, **given: Any) -> Any:
            setattr(self, what, spaces.Box(-1, 1, (3,), np.float32))
            return [0, 0], {}

    for what in ("observation_space", "action_space"):
        with pytest.raises(UserError, match=rf"{what} was .* when it was made, and is Box.*\(3,\).* after reset"):
            Conforming(Late()).reset()


def test_spaces_that_are_made_anew_at_every_look_are_the_same() -> None:
    class Made(Odd):
        @property
        def observation_space(self) -> Any:  # type: ignore[override]
            return spaces.Box(-1, 1, (2,), np.float32)

    assert Conforming(Made()).reset()[0].shape == (2,)


def test_an_environment_that_changes_torchs_default_dtype_is_refused() -> None:
    """Networks made after it would be of float64 and given float32: a traceback deep in torch."""

    class Sets(Odd):
        def reset(self, **given: Any) -> Any:
            torch.set_default_dtype(torch.float64)
            return [0, 0], {}

    env = Conforming(Sets())
    try:
        with pytest.raises(UserError, match=r"default dtype is torch\.float64; expected torch\.float32"):
            env.reset()
        with pytest.raises(UserError, match="default dtype"):
            Conforming(Odd())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        (
            lambda: torch.set_grad_enabled(False),
            lambda: torch.set_grad_enabled(True),
            r"set_grad_enabled.*False now",
        ),
        (
            lambda: torch.set_default_device("meta"),
            lambda: torch.set_default_device(None),
            r"set_default_device.*was cpu.*is meta now",
        ),
    ],
    ids=["gradients", "device"],
)
def test_an_environment_that_changes_torch_for_the_whole_program_is_refused(change: Any, back: Any, said: str) -> None:
    """Else the first fit after it ends in a traceback deep in torch."""

    class Sets(Odd):
        def reset(self, **given: Any) -> Any:
            change()
            return [0, 0], {}

    class SetsWhenMade(Odd):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__()
            change()

    gymnasium.register("SetsWhenMade-v0", SetsWhenMade)
    try:
        with pytest.raises(UserError, match=said):
            Conforming(Sets()).reset()
        back()
        with pytest.raises(UserError, match=said):
            make_env("SetsWhenMade-v0")
    finally:
        back()
        del gymnasium.registry["SetsWhenMade-v0"]


def test_code_that_has_switched_gradients_off_itself_may_reset() -> None:
    with torch.no_grad():
        assert Conforming(Odd()).reset()[0].shape == (2,)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_environment_that_takes_the_signals_leaves_the_stop_that_saves(number: signal.Signals) -> None:
    asked = []

    class Takes(Odd):
        def reset(self, **given: Any) -> Any:
            signal.signal(number, lambda *_: None)
            return [0, 0], {}

    with stopping(lambda: asked.append(1)):
        with pytest.warns(UserWarning, match=f"handler of its own in place for {number.name} in reset"):
            Conforming(Takes()).reset()
        signal.raise_signal(number)
    assert asked == [1]


def test_a_second_interrupt_stops_at_once_also_while_an_environment_is_reset() -> None:
    class Interrupted(Odd):
        def reset(self, **given: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return [0, 0], {}

    with stopping(lambda: None):
        Conforming(Interrupted()).reset()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_environment_that_leaves_the_working_directory_in_reset_takes_nobody_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()

    class Leaves(Odd):
        def reset(self, **given: Any) -> Any:
            os.chdir(tmp_path / "there")
            return [0, 0], {}

    Conforming(Leaves()).reset()
    assert Path.cwd() == tmp_path


def test_an_environment_that_leaves_the_working_directory_takes_nobody_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose folder is given from here is written here."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    monkeypatch.chdir(here)

    class Leaves(Odd):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__()
            os.chdir(there)

    gymnasium.register("LeavesFolder-v0", Leaves)
    try:
        make_env("LeavesFolder-v0")
    finally:
        del gymnasium.registry["LeavesFolder-v0"]
    assert Path.cwd() == here


class OfAnotherMachine(gymnasium.Env[Any, Any]):
    """Observations and actions of dtypes that PyTorch does not know."""

    def __init__(self, seen: str, done: str) -> None:
        box = spaces.Box(0, 100, (2,), np.dtype(seen).type)
        self.observation_space = spaces.Dict({"far": spaces.Box(box.low, box.high, dtype=np.dtype(seen))})  # type: ignore[arg-type]
        self.action_space = spaces.Box(-1, 1, (1,), np.dtype(done))  # type: ignore[arg-type]
        self.done = np.dtype(done)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return {"far": np.array([3, 4], self.observation_space["far"].dtype)}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == self.done and action.shape == (1,)
        observation, info = self.reset()
        return observation, float(action[0]), False, False, info


@pytest.mark.parametrize(
    ("seen", "done", "as_seen", "as_done"),
    [
        (">f4", ">f8", np.float32, np.float64),
        (">i4", "<f4", np.int32, np.float32),
        ("longdouble", "longdouble", np.float64, np.float64),
    ],
)
def test_numbers_that_pytorch_does_not_know_are_translated_both_ways(
    seen: str, done: str, as_seen: Any, as_done: Any
) -> None:
    env = Conforming(OfAnotherMachine(seen, done))
    space = env.observation_space["far"]
    assert space.dtype == as_seen and space.dtype.isnative and (space.low == 0).all() and (space.high == 100).all()
    assert env.action_space.dtype == as_done and env.action_space.dtype.isnative
    observation, _ = env.reset()
    assert observation["far"].dtype.isnative and torch.from_numpy(observation["far"]).tolist() == [3, 4]
    assert env.step(np.array([0.5], as_done))[1] == 0.5


def test_spaces_that_pytorch_knows_stay_the_ones_they_are() -> None:
    env = gymnasium.make("Pendulum-v1")
    conforming = Conforming(env)
    assert conforming.observation_space is env.observation_space and conforming.action_space is env.action_space
