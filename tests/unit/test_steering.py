"""What keys and sticks mean: for every kind of action, those that are given, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from prefrl.errors import UserError
from prefrl.human_ui.steering import Held, make_steering

LEFT, RIGHT, NOTHING = Held({"left"}), Held({"right"}), Held()


def test_known_tasks_have_the_arrows_and_rest_or_wait() -> None:
    cart = make_steering(spaces.Discrete(2), task="CartPole-v1")
    assert (cart.action(LEFT), cart.action(RIGHT), cart.action(NOTHING)) == (0, 1, None)
    assert "no key: it waits" in cart.legend
    lander = make_steering(spaces.Discrete(4), task="somebody/LunarLander-v3")
    assert [lander.action(Held({key})) for key in ("left", "up", "right")] == [1, 2, 3]
    assert lander.action(NOTHING) == 0


def test_actions_that_nobody_named_have_digits_from_where_the_space_begins() -> None:
    steering = make_steering(spaces.Discrete(3, start=-1), task="Odd-v0")
    found = [steering.action(Held({key})) for key in "123"]
    assert found == [-1, 0, 1] and all(isinstance(action, np.integer) for action in found)
    assert spaces.Discrete(3, start=-1).contains(found[0])


def test_the_names_of_atari_become_arrows_and_space_held_together() -> None:
    names = ["NOOP", "FIRE", "RIGHT", "LEFT", "UPRIGHTFIRE"]
    steering = make_steering(spaces.Discrete(5), meanings=names)
    assert steering.action(NOTHING) == 0
    assert steering.action(Held({"space"})) == 1
    assert steering.action(Held({"right", "space"})) in (1, 2)
    assert steering.action(Held({"up", "right", "space"})) == 4
    assert steering.action(Held(axes=(0.9, 0.0))) == 2
    assert steering.action(Held(axes=(-0.9, 0.2))) == 3


def test_numbers_are_pushed_to_their_bounds_and_rest_at_zero_or_the_middle() -> None:
    space = spaces.Box(np.array([-2.0, 1.0], np.float32), np.array([2.0, 5.0], np.float32))
    steering = make_steering(space)
    assert steering.action(NOTHING).tolist() == [0.0, 3.0]
    assert steering.action(LEFT).tolist() == [-2.0, 3.0]
    assert steering.action(Held({"right", "up"})).tolist() == [2.0, 5.0]
    assert steering.action(Held({"left", "right"})).tolist() == [0.0, 3.0]
    assert steering.action(Held(axes=(0.5, -0.25))).tolist() == [1.0, 2.5]
    assert steering.action(Held(axes=(0.1, 0.0))).tolist() == [0.0, 3.0]  # a stick at rest
    assert steering.action(Held({"left"}, axes=(1.0,))).tolist() == [-2.0, 3.0]
    assert all(space.contains(steering.action(held)) for held in (NOTHING, LEFT, RIGHT))


def test_keys_can_be_given() -> None:
    steering = make_steering(spaces.Discrete(4), given=["q=3", "left+up=1", "rest=2"], task="LunarLander-v3")
    assert [steering.action(held) for held in (Held({"q"}), Held({"left", "up"}), LEFT, NOTHING)] == [3, 1, 2, 2]
    wide = make_steering(spaces.Box(-1, 1, (17,), np.float32), given=["w=3:0.5", "w=4:-0.5"])
    action = wide.action(Held({"w"}))
    assert action[3] == 0.5 and action[4] == -0.5 and np.count_nonzero(action) == 2
    assert steering.keys == {"q", "left", "up"}


@pytest.mark.parametrize(
    ("space", "given", "said"),
    [
        (spaces.Discrete(2), ["left=2"], "an action from 0 to 1"),
        (spaces.Discrete(2), ["left=a"], "an action from 0 to 1"),
        (spaces.Discrete(2), ["left"], "expected KEY=ACTION"),
        (spaces.Discrete(2), ["rest=0"], "name the keys of those you want"),
        (spaces.Discrete(100), [], "There are 100 actions"),
        (spaces.Box(-1, 1, (2,), np.float32), ["left=0"], "expected KEY=NUMBER:VALUE"),
        (spaces.Box(-1, 1, (2,), np.float32), ["left=2:1"], "a number from 0 to 1"),
        (spaces.Box(-1, 1, (2,), np.float32), ["left=0:nan"], "within its bounds"),
        (spaces.Box(-1, 1, (2,), np.float32), ["left=0:3"], "within its bounds"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), [], "have none"),
        (spaces.Box(-1, 1, (17,), np.float32), [], "An action of 17 numbers has no keys of its own"),
        (spaces.MultiBinary(3), [], "Record a policy with --policy"),
        (spaces.Box(0, 255, (2,), np.uint8), [], "Record a policy with --policy"),
    ],
)
def test_what_cannot_be_steered_is_refused_in_a_sentence(space: Any, given: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_steering(space, given=given)
