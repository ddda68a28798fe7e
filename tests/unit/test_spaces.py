"""Batches of values of spaces: features, JSON, arrays, checks."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from prefrl.errors import UserError
from prefrl.spaces import (
    Batch,
    SpaceEncoder,
    alike,
    batch_length,
    channels_first,
    check_action_space,
    check_finite,
    check_observation_space,
    from_arrays,
    is_image,
    map_batch,
    misfit,
    num_bytes,
    same_bounds,
    space_from_json,
    space_to_json,
    to_arrays,
    zip_batches,
)

pytestmark = pytest.mark.lowest

SPACES = [
    spaces.Box(-np.inf, np.inf, (3,), np.float64),
    spaces.Box(np.array([-1.5, 0.1], np.float32), np.array([1.0, np.inf], np.float32)),
    spaces.Box(0, 255, (4, 8, 8), np.uint8),
    spaces.Box(-5, 5, (), np.float32),
    spaces.Box(0.0, 1.0, (0,), np.float32),
    spaces.Discrete(5),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]]), start=np.array([[1, 0], [-2, 5]])),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Box(0, 1, (3,), np.bool_),
    spaces.Box(-128, 127, (2,), np.int8),
    spaces.Dict({"a": spaces.Discrete(3), "cam@0": spaces.Box(0, 1, (2, 2)), "b": spaces.MultiDiscrete([2, 2])}),
]
all_spaces = pytest.mark.parametrize("space", SPACES, ids=str)


def batch_of(space: spaces.Space[Any], num: int, seed: int = 0) -> Batch:
    space.seed(seed)
    values = [space.sample() for _ in range(num)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([v[key] for v in values]) for key in space.spaces}
    return np.stack(values)


def test_box_values_are_flattened() -> None:
    encoder = SpaceEncoder(spaces.Box(-9, 9, (2, 2)))
    features = encoder.encode(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_discrete_values_are_one_hot_from_their_start() -> None:
    features = SpaceEncoder(spaces.Discrete(3, start=-1)).encode(np.array([-1, 1, 0]))
    np.testing.assert_array_equal(features, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])


def test_multi_discrete_values_are_one_hot_each() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[0, 10])
    features = SpaceEncoder(space).encode(np.array([[1, 10], [0, 12]]))
    np.testing.assert_array_equal(features, [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])


def test_entries_of_a_dict_are_joined_in_the_order_of_their_keys() -> None:
    space = spaces.Dict({"b": spaces.Box(0, 9, (1,)), "a": spaces.Discrete(2)})
    features = SpaceEncoder(space).encode({"b": np.array([[7.0]]), "a": np.array([1])})
    np.testing.assert_array_equal(features, [[0, 1, 7]])


@all_spaces
@pytest.mark.parametrize("num", [0, 1, 5])
def test_features_have_the_announced_size_also_of_no_values(space: spaces.Space[Any], num: int) -> None:
    encoder = SpaceEncoder(space)
    batch = map_batch(lambda x: x[:num], batch_of(space, 6))
    assert encoder.encode(batch).shape == (num, encoder.size)


@all_spaces
def test_different_values_have_different_features(space: spaces.Space[Any]) -> None:
    batch = batch_of(space, 40)
    leaves = to_arrays("x", batch).values()
    rows = {tuple(np.concatenate([leaf[i].reshape(-1) for leaf in leaves]).tolist()) for i in range(40)}
    assert len({tuple(row) for row in SpaceEncoder(space).encode(batch).tolist()}) == len(rows)


@all_spaces
def test_a_space_survives_json(space: spaces.Space[Any]) -> None:
    text = json.dumps(space_to_json(space), allow_nan=False)
    assert space_from_json(json.loads(text)) == space


@given(
    st.lists(st.floats(width=32, allow_nan=False, max_value=0), min_size=1, max_size=4),
    st.floats(width=32, allow_nan=False, min_value=0),
)
def test_bounds_of_a_box_survive_json_exactly(low: list[float], high: float) -> None:
    space = spaces.Box(np.array(low, np.float32), np.full(len(low), high, np.float32))
    assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space


def test_a_space_that_cannot_be_described_is_refused() -> None:
    with pytest.raises(UserError, match="not supported"):
        space_to_json(spaces.Text(5))


@all_spaces
def test_batches_survive_being_taken_apart(space: spaces.Space[Any]) -> None:
    batch = batch_of(space, 3)
    back = from_arrays("obs", {**to_arrays("obs", batch), "other": np.zeros(1)})
    assert to_arrays("x", back).keys() == to_arrays("x", batch).keys()
    for name, value in to_arrays("x", batch).items():
        np.testing.assert_array_equal(to_arrays("x", back)[name], value)


def test_arrays_that_are_not_there_are_missed() -> None:
    with pytest.raises(KeyError, match="obs"):
        from_arrays("obs", {"observations": np.zeros(1)})


def test_batches_are_joined_entry_by_entry() -> None:
    parts: list[Batch] = [{"a": np.zeros((2, 1)), "b": np.ones(2)}, {"a": np.ones((1, 1)), "b": np.zeros(1)}]
    joined = zip_batches(np.concatenate, parts)
    assert isinstance(joined, dict)
    np.testing.assert_array_equal(joined["a"], [[0], [0], [1]])
    np.testing.assert_array_equal(joined["b"], [1, 1, 0])
    assert batch_length(joined) == 3
    assert num_bytes(joined) == 6 * 8


@all_spaces
def test_supported_observation_spaces_pass(space: spaces.Space[Any]) -> None:
    check_observation_space(space)


@pytest.mark.parametrize(
    ("space", "named"),
    [
        (spaces.Text(5), "Text"),
        (spaces.Graph(spaces.Discrete(2), None), "Graph"),
        (spaces.Tuple([spaces.Discrete(2)]), "Tuple"),
        (spaces.Dict({"inner": spaces.Dict({"a": spaces.Discrete(2)})}), "'inner'"),
    ],
    ids=str,
)
def test_other_observation_spaces_are_refused_by_name_with_a_way_out(space: spaces.Space[Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        check_observation_space(space)
    assert "Wrap the environment" in str(caught.value)


@pytest.mark.parametrize("space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Box(-1, 1, (0,))], ids=str)
def test_other_action_spaces_are_refused(space: spaces.Space[Any]) -> None:
    check_action_space(spaces.Discrete(2))
    with pytest.raises(UserError, match="Action space"):
        check_action_space(space)


def test_a_space_that_is_missing_or_of_another_package_is_said() -> None:
    class Foreign:
        shape = (2,)

    with pytest.raises(UserError, match=r"observation space is missing; expected one of gymnasium\.spaces"):
        check_observation_space(None)
    with pytest.raises(UserError, match=r"action space is a .*Foreign; expected one of gymnasium\.spaces"):
        check_action_space(Foreign())  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(bad: float) -> None:
    check_finite({"a": np.zeros(3), "n": np.arange(3)}, "An observation")
    with pytest.raises(UserError, match=r"An observation \(entry 'a'\) holds NaN or infinite"):
        check_finite({"n": np.arange(3), "a": np.array([0.0, bad])}, "An observation")
    with pytest.raises(UserError, match="An action holds NaN"):
        check_finite(np.array([[bad]], np.float32), "An action")


def test_images_are_told_by_type_and_axes() -> None:
    stacked = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    colour = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    assert is_image(stacked)
    assert is_image(colour)
    assert not is_image(spaces.Box(0, 255, (84, 84), np.uint8))
    assert not is_image(spaces.Box(0, 1, (3, 84, 84), np.float32))
    assert channels_first(stacked)
    assert not channels_first(colour)


@pytest.mark.parametrize(
    ("space", "values", "reason"),
    [
        (spaces.Box(-1, 1, (2,), np.float32), np.zeros((4, 2), np.float32), None),
        (spaces.Box(-1, 1, (2,), np.float32), np.full((4, 2), 9.0), None),  # environments overstep their bounds
        (spaces.Box(-1, 1, (2,), np.float32), np.zeros((4, 3)), r"shape \(3,\)"),
        (spaces.Box(-1, 1, (), np.float32), np.zeros(4, int), "whole numbers"),
        (spaces.Discrete(3), np.array([[0.5], [0.1]]), "shape"),
        (spaces.Discrete(3), np.array([0.5, 0.1]), "float64 numbers"),
        (spaces.Discrete(3, start=1), np.array([1, 3]), None),
        (spaces.Discrete(3, start=1), np.array([0, 3]), "^0, which is none of"),
        (spaces.MultiDiscrete([2, 3], start=[1, 0]), np.array([[2, 2]]), None),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 3]]), "^3, which is none of"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": np.array([0, 1])}, None),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": np.array([0, 1])}, "entries b"),
        (spaces.Dict(a=spaces.Discrete(2)), np.array([0, 1]), "one array"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": np.array([2])}, "a: 2, which"),
    ],
)
def test_values_of_another_space_are_told_by_shape_kind_and_range(space: Any, values: Any, reason: str | None) -> None:
    told = misfit(space, values)
    assert told is None if reason is None else told is not None and re.search(reason, told)


def test_spaces_are_alike_by_what_their_values_mean() -> None:
    def box(low: float, high: float, dtype: Any = np.float32) -> spaces.Box:
        return spaces.Box(low, high, (2,), dtype)

    assert alike(box(-1, 1), box(-5, 5, np.float64))
    assert not same_bounds(box(-1, 1), box(-5, 5, np.float64))
    assert same_bounds(box(-1, 1), box(-1, 1, np.float64))
    assert not alike(spaces.Discrete(3), spaces.Discrete(3, start=1))
    assert alike(spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 3], dtype=np.int32))
    assert not alike(box(0, 5), box(0, 5, np.int64))
    assert alike(box(0, 5, np.int32), box(0, 5, np.int64))
    assert not alike(spaces.Discrete(2), box(-1, 1))
    picture = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert not alike(picture, spaces.Box(0, 255, (8, 8, 3), np.int32))


@pytest.mark.parametrize("number", [1e39, -1e300])
def test_numbers_that_are_infinite_in_float32_are_refused_as_what_they_are(number: float) -> None:
    values = {"price": np.array([[1.0, number]]), "place": np.zeros((1, 2), np.float32)}
    with pytest.raises(UserError, match=r"entry 'price'\) holds numbers beyond 3\.4e\+38, the largest of float32"):
        check_finite(values, "An observation")
    check_finite({"price": np.array([[3e38, -3e38]])}, "An observation")
