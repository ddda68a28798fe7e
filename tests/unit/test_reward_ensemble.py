"""What the reward ensemble reads, how it is normalised, saved and loaded."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from gymnasium import spaces
from torch import nn

from prefrl.errors import UserError
from prefrl.rewards import ComparisonData, RewardEnsemble, RewardSettings
from prefrl.rewards import ensemble as ensemble_module
from prefrl.segments import Segment
from prefrl.spaces import Array, Batch

pytestmark = pytest.mark.lowest

Space = gymnasium.Space[Any]
Transitions = tuple[Batch, Array, Batch]

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTION = spaces.Box(-1, 1, (2,))
CHANNELS_FIRST = spaces.Box(0, 255, (4, 43, 44), np.uint8)
CHANNELS_LAST = spaces.Box(0, 255, (43, 44, 4), np.uint8)
DICT = spaces.Dict({"place": BOX, "key": spaces.Discrete(3), "parts": spaces.MultiDiscrete([2, 3])})
OBSERVATION_SPACES = {
    "box": BOX,
    "matrix": spaces.Box(-1, 1, (2, 3)),
    "discrete": spaces.Discrete(4, start=2),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "dict": DICT,
    "channels-first": CHANNELS_FIRST,
    "channels-last": CHANNELS_LAST,
}


def batch(space: Space, num: int, seed: int) -> Batch:
    space.seed(seed)
    values = [space.sample() for _ in range(num)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([value[key] for value in values]) for key in space.spaces}
    return np.stack(values)


def transitions(observations: Space, actions: Space = ACTION, num: int = 20, seed: int = 0) -> Transitions:
    seeds = (3 * seed, 3 * seed + 1, 3 * seed + 2)
    return (
        batch(observations, num, seeds[0]),
        np.asarray(batch(actions, num, seeds[1])),
        batch(observations, num, seeds[2]),
    )


def segments(num: int = 4, k: int = 5, seed: int = 0) -> list[Segment]:
    rng = np.random.default_rng(seed)
    return [
        Segment(observations=rng.normal(size=(k + 1, 3)), actions=rng.normal(size=(k, 2)), true_rewards=np.zeros(k))
        for _ in range(num)
    ]


def ensemble(observations: Space = BOX, actions: Space = ACTION, **settings: Any) -> RewardEnsemble:
    return RewardEnsemble(observations, actions, RewardSettings(**settings))


def raw_rewards(reward: RewardEnsemble, given: Transitions) -> Array:
    with torch.no_grad():
        return reward.network(reward.features(*given)).numpy()


def content(reward: RewardEnsemble) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in reward.state_dict().items()}


# --- inputs ---


def test_inputs_are_the_parts_that_are_named_in_order() -> None:
    s, a, s2 = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0]]), np.array([[6.0, 7.0, 8.0]])
    read = {}
    for inputs in ("s", "sa", "ss", "sas"):
        vector = ensemble(inputs=inputs).encode(s, a, s2).vector
        assert vector is not None
        read[inputs] = vector.tolist()
    assert read == {
        "s": [[1, 2, 3]],
        "sa": [[1, 2, 3, 4, 5]],
        "ss": [[1, 2, 3, 6, 7, 8]],
        "sas": [[1, 2, 3, 4, 5, 6, 7, 8]],
    }


def test_discrete_values_are_one_hot_and_dictionaries_are_joined_in_the_order_of_their_keys() -> None:
    reward = ensemble(DICT, spaces.Discrete(3, start=5))
    seen = {"place": np.array([[0.5, 0.0, -2.0]]), "key": np.array([2]), "parts": np.array([[1, 0]])}
    vector = reward.encode(seen, np.array([6]), seen).vector
    assert vector is not None
    assert vector.tolist() == [[0, 0, 1, *(0, 1), *(1, 0, 0), 0.5, 0, -2, 0, 1, 0]]


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
@pytest.mark.parametrize("inputs", ["s", "sa", "ss", "sas"])
def test_reward_changes_with_what_it_reads_and_with_nothing_else(name: str, inputs: str) -> None:
    space = OBSERVATION_SPACES[name]
    reward = ensemble(space, inputs=inputs)
    s, a, s2 = transitions(space)
    other_s, other_a, other_s2 = transitions(space, seed=1)
    rewards = reward(s, a, s2)
    assert rewards.shape == (20,)
    assert rewards.dtype == np.float32
    assert not np.array_equal(rewards, reward(other_s, a, s2))
    assert np.array_equal(rewards, reward(s, other_a, s2)) == ("a" not in inputs)
    assert np.array_equal(rewards, reward(s, a, other_s2)) == (inputs not in ("ss", "sas"))


@pytest.mark.parametrize("actions", [spaces.Discrete(3), spaces.MultiDiscrete([2, 2]), ACTION])
def test_every_kind_of_action_is_read(actions: Space) -> None:
    s, a, s2 = transitions(BOX, actions)
    other = transitions(BOX, actions, seed=1)[1]
    reward = ensemble(BOX, actions)
    assert not np.array_equal(reward(s, a, s2), reward(s, other, s2))


def test_auto_reads_states_of_images_and_states_with_actions_of_the_rest() -> None:
    assert ensemble(CHANNELS_FIRST).inputs == "s"
    assert ensemble(BOX).inputs == "sa"


def test_the_same_pixels_give_the_same_reward_whichever_axis_holds_the_channels() -> None:
    s, a, s2 = transitions(CHANNELS_FIRST)
    first = ensemble(CHANNELS_FIRST, inputs="sas")(s, a, s2)
    last = ensemble(CHANNELS_LAST, inputs="sas")(np.moveaxis(s, 1, -1), a, np.moveaxis(s2, 1, -1))
    np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (3,)), CHANNELS_FIRST])
def test_arrays_that_cannot_be_written_to_are_read_all_the_same(space: Space) -> None:
    given = [np.asarray(x) for x in transitions(space)]
    for x in given:
        x.flags.writeable = False
    ensemble(space, inputs="s")(*given)


def test_unsupported_spaces_are_refused() -> None:
    with pytest.raises(UserError, match="Observation space"):
        ensemble(spaces.Text(3))
    with pytest.raises(UserError, match="Action space"):
        ensemble(BOX, spaces.Tuple([spaces.Discrete(3)]))


# --- evaluation ---


def test_reward_is_the_mean_of_the_normalised_members() -> None:
    reward = ensemble(target_std=2.0)
    given = transitions(BOX)
    raw = raw_rewards(reward, given)
    reward.normalise(*transitions(BOX, num=500, seed=1))
    normalised = (raw - reward.reward_mean.numpy()) / reward.reward_std.numpy() * 2.0
    np.testing.assert_allclose(reward(*given), normalised.mean(0), rtol=1e-5, atol=1e-6)


def test_evaluation_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reward, given, clips = ensemble(), transitions(BOX), segments()
    whole, returns = reward(*given), reward.segment_returns(clips)
    monkeypatch.setattr(ensemble_module, "CHUNK", 7)
    np.testing.assert_allclose(reward(*given), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reward.segment_returns(clips), returns, rtol=1e-5, atol=1e-6)


def test_segment_returns_are_sums_of_raw_rewards_of_each_member() -> None:
    reward, clips = ensemble(), segments()
    before = reward.segment_returns(clips)
    expected = np.stack([raw_rewards(reward, clip.transitions()).sum(1) for clip in clips], axis=1)
    assert before.shape == (5, 4)
    np.testing.assert_allclose(before, expected, rtol=1e-5, atol=1e-6)
    reward.normalise(*transitions(BOX))
    np.testing.assert_array_equal(reward.segment_returns(clips), before)


def test_segments_of_different_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="equal length; got some of 3 and of 5"):
        ensemble().segment_returns([*segments(1, k=3), *segments(1, k=5)])


def test_segment_embeddings_are_the_standardised_inputs_of_all_steps() -> None:
    reward, clips = ensemble(), segments()
    reward.set_input_statistics(*transitions(BOX, num=100))
    expected = [reward.features(*clip.transitions()).vector for clip in clips]
    embedded = reward.segment_embeddings(clips)
    assert embedded.shape == (4, 5 * 5)
    np.testing.assert_array_equal(embedded, torch.stack([x for x in expected if x is not None]).flatten(1).numpy())


# --- standardised inputs ---


def test_inputs_are_standardised_by_the_statistics_that_were_set_and_clipped() -> None:
    reward = ensemble(clip_inputs=1.5)
    s, a, s2 = transitions(BOX, num=400)
    s = np.asarray(s) * [1.0, 100.0, 0.0] + [5.0, 0.0, 7.0]  # the last never varies
    reward.set_input_statistics(s, a, s2)
    joined = np.concatenate([s, a], axis=1)
    std = np.where(joined.std(0) < 1e-6, 1.0, joined.std(0))
    vector = reward.features(s, a, s2).vector
    assert vector is not None
    np.testing.assert_allclose(vector, np.clip((joined - joined.mean(0)) / std, -1.5, 1.5), rtol=1e-4, atol=1e-5)
    assert vector.max() == 1.5
    assert (vector[:, 2] == 0).all()


def test_images_without_actions_have_no_statistics_to_set() -> None:
    reward = ensemble(CHANNELS_FIRST)
    reward.set_input_statistics(*transitions(CHANNELS_FIRST))
    assert reward.features(*transitions(CHANNELS_FIRST)).vector is None


def scaled(given: Transitions, scale: float, shift: float) -> Transitions:
    s, a, s2 = given
    if isinstance(s, dict):
        move = lambda batch: {**batch, "place": batch["place"] * scale + shift}  # noqa: E731
        return move(s), a * scale, move(s2)
    if np.asarray(s).dtype == np.uint8:
        return s, a * scale, s2
    return np.asarray(s) * scale + shift, a * scale, np.asarray(s2) * scale + shift


@pytest.mark.parametrize("inputs", ["sa", "sas"])
@pytest.mark.parametrize("space", [BOX, DICT, CHANNELS_FIRST], ids=["box", "dict", "images"])
def test_inputs_are_followed_without_changing_a_reward(space: Space, inputs: str) -> None:
    reward = ensemble(space, inputs=inputs, clip_inputs=1e9)
    first, later = transitions(space, num=400), scaled(transitions(space, num=400, seed=1), 0.2, 0.7)
    reward.set_input_statistics(*first)
    before = [raw_rewards(reward, given) for given in (first, later)]
    reward.follow_inputs(*later)
    for old, given in zip(before, (first, later), strict=True):
        np.testing.assert_allclose(raw_rewards(reward, given), old, rtol=1e-4, atol=1e-5)
    seen = reward.features(*later).vector
    assert seen is not None
    varies = seen.std(0) > 1e-6
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen[:, varies].std(0, correction=0), 1, rtol=1e-4)


def test_an_input_that_stands_still_keeps_a_share_of_its_first_scale() -> None:
    reward, given = ensemble(), transitions(BOX, num=400)
    reward.set_input_statistics(*given)
    first = reward.input_std.clone()
    reward.follow_inputs(*scaled(given, 0.0, 3.0))
    torch.testing.assert_close(reward.input_std, 0.03 * first)
    reward.follow_inputs(*given)
    torch.testing.assert_close(reward.input_std, first)


def test_a_network_of_ones_own_keeps_its_first_statistics() -> None:
    reward, given = RewardEnsemble(BOX, ACTION, factory=linear), transitions(BOX, num=100)
    reward.set_input_statistics(*given)
    before = content(reward)
    reward.follow_inputs(*scaled(given, 0.2, 0.7))
    assert content(reward) == before


# --- normalised rewards ---


@pytest.mark.parametrize("target_std", [1.0, 0.05])
def test_every_member_has_mean_zero_and_the_target_std_on_the_reference(target_std: float) -> None:
    reward = ensemble(target_std=target_std)
    with torch.no_grad():
        reward.network.weights[-1][1] *= 1000
    reference = transitions(BOX, num=500)
    reward.normalise(*reference)
    with torch.no_grad():
        members = reward.member_rewards(reward.features(*reference)).double()
    np.testing.assert_allclose(members.mean(1), 0, atol=1e-5 * target_std)
    np.testing.assert_allclose(members.std(1, correction=0), target_std, rtol=1e-5)


def test_without_centring_rewards_are_only_scaled() -> None:
    reward, reference = ensemble(centre=False), transitions(BOX, num=500)
    raw = raw_rewards(reward, reference)
    reward.normalise(*reference)
    np.testing.assert_allclose(reward(*reference), (raw / raw.std(1, keepdims=True)).mean(0), rtol=1e-4, atol=1e-5)


def test_what_hardly_tells_asked_segments_apart_is_not_scaled_up() -> None:
    reward = ensemble()
    with torch.no_grad():
        reward.network.weights[-1][0] *= 1e-3
        reward.network.weights[-1][1] *= 1e3
    data = ComparisonData(reward, length=5)
    data.encode(segments(40))
    parts = list(data.sample_features(40, np.random.default_rng(0)))
    reward.normalise_on_asked(parts, 5)
    with torch.no_grad():
        members = torch.cat([reward.member_rewards(features) for features in parts], 1).double()
        spread = (
            torch.cat([reward.network(f) for f in parts], 1).reshape(len(members), 40, 5).sum(-1).std(1, correction=0)
        )
    assert spread[0] < 1 < spread[1]
    np.testing.assert_allclose(members.std(1, correction=0), spread.clamp(max=1.0), rtol=1e-4)
    np.testing.assert_allclose(members.mean(1), 0, atol=1e-5)


def test_evaluating_candidates_never_moves_the_normaliser() -> None:
    reward, given = ensemble(), transitions(BOX)
    reward.normalise(*transitions(BOX, num=100, seed=1))
    before, rewards = content(reward), reward(*given)
    far = tuple(np.asarray(x) * 1e3 for x in transitions(BOX, num=300, seed=2))
    reward(*far)
    reward.segment_returns(segments(50))
    reward.segment_embeddings(segments(50))
    assert content(reward) == before
    np.testing.assert_array_equal(reward(*given), rewards)


def test_a_constant_member_comes_to_zero_and_leaves_the_others_as_they_are() -> None:
    reward, given = ensemble(num_members=2), transitions(BOX, num=100)
    with torch.no_grad():
        reward.network.weights[-1][0] = 0
        reward.network.biases[-1][0] = 12.3
    reward.normalise(*given)
    with torch.no_grad():
        constant, other = reward.member_rewards(reward.features(*given))
    np.testing.assert_allclose(constant, 0, atol=1e-5)
    np.testing.assert_allclose(other.std(correction=0), 1, rtol=1e-5)


# --- saving and loading ---


def linear() -> nn.Module:
    return nn.Linear(5, 1)


SAVED: dict[str, tuple[Space, dict[str, Any]]] = {
    "box": (BOX, {"hidden": (8,), "inputs": "sas", "target_std": 0.05, "centre": False, "clip_inputs": 2.0}),
    "discrete": (spaces.Discrete(4, start=2), {"num_members": 1}),
    "dict": (DICT, {}),
    "images": (CHANNELS_LAST, {"inputs": "sa"}),
}


@pytest.mark.parametrize("name", SAVED)
def test_loaded_reward_is_the_saved_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    space, settings = SAVED[name]
    reward = ensemble(space, **settings)
    given = transitions(space)
    reward.set_input_statistics(*given)
    reward.network.train()
    reward.network(reward.features(*given))  # moves the batch statistics of images
    reward.network.eval()
    reward.normalise(*given)
    reward.save(tmp_path / "reward.safetensors")
    for path in (tmp_path / "reward.safetensors", tmp_path):  # a run folder holds it under this name
        loaded = RewardEnsemble.load(path)
        assert content(loaded) == content(reward)
        assert loaded.settings == reward.settings
        assert (loaded.observation_space, loaded.action_space) == (space, ACTION)
        np.testing.assert_array_equal(loaded(*given), reward(*given))


def test_neither_saving_nor_loading_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickled")

    for owner, name in [(pickle, "dumps"), (pickle, "loads"), (pickle, "load"), (torch, "save"), (torch, "load")]:
        monkeypatch.setattr(owner, name, fail)
    ensemble().save(tmp_path / "r.safetensors")
    RewardEnsemble.load(tmp_path / "r.safetensors")


def test_a_network_of_ones_own_is_loaded_with_its_factory(tmp_path: Path) -> None:
    path, given = tmp_path / "r.safetensors", transitions(BOX)
    reward = RewardEnsemble(BOX, ACTION, seed=3, factory=linear)
    reward.save(path)
    with pytest.raises(UserError, match="pass the factory"):
        RewardEnsemble.load(path)
    with pytest.raises(UserError, match=r"(?s)do not fit.*factory"):
        RewardEnsemble.load(path, factory=lambda: nn.Linear(6, 1))
    with pytest.raises(UserError, match=r"(?s)do not fit.*factory"):
        RewardEnsemble.load(path, factory=lambda: nn.Linear(5, 1, bias=False))
    np.testing.assert_array_equal(RewardEnsemble.load(path, factory=linear)(*given), reward(*given))


def newer(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["prefrl"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    description["version"] += 1
    safetensors.torch.save_file(tensors, path, {"prefrl": json.dumps(description)})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "no saved reward"),
    "empty": (lambda path: path.write_bytes(b""), "not a saved reward, or is damaged"),
    "other": (lambda path: path.write_text("reward = 1\n" * 100), "not a saved reward, or is damaged"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-10]), "not a saved reward, or is damaged"),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a saved reward, or is damaged"),
    "foreign": (lambda path: safetensors.torch.save_file({"x": torch.zeros(1)}, path), "not a reward saved by prefrl"),
    "newer": (newer, "saved in format 2; this prefrl reads up to 1"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_or_foreign_file_is_refused(how: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[how]
    path = tmp_path / "r.safetensors"
    ensemble().save(path)
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        RewardEnsemble.load(path)
    assert str(path) in str(caught.value)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.safetensors"
    ensemble().save(path)
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        RewardEnsemble(BOX, ACTION, seed=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- settings and seeds ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_members": 0}, "num_members must be at least 1. Received 0"),
        ({"inputs": "as"}, "one of s, sa, ss, sas or auto. Received 'as'"),
        ({"hidden": (8, 0)}, "hidden must be numbers of units from 1"),
        ({"target_std": 0.0}, "target_std must be positive"),
        ({"clip_inputs": -1.0}, "clip_inputs must be positive"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RewardSettings(**settings)


@pytest.mark.parametrize("factory", [None, linear])
def test_seed_decides_the_starting_weights_and_no_global_stream_is_touched(
    factory: Callable[[], nn.Module] | None,
) -> None:
    state = torch.get_rng_state()
    first, again, other = (RewardEnsemble(BOX, ACTION, seed=seed, factory=factory) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert content(first) == content(again) != content(other)


@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1.0, 1e6])
def test_inputs_in_any_units_are_standardised(scale: float) -> None:
    reward = RewardEnsemble(spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Box(-1, 1, (1,)))
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(500, 2)) * scale, rng.uniform(-1, 1, (500, 1))
    reward.set_input_statistics(observations, actions, observations)
    vector = reward.features(observations, actions, observations).vector
    assert vector is not None
    np.testing.assert_allclose(vector.std(0, correction=0), 1.0, rtol=1e-4)


def test_inputs_that_vary_by_rounding_errors_alone_are_left_out_and_counted() -> None:
    reward = RewardEnsemble(spaces.Box(-np.inf, np.inf, (3,), np.float64), spaces.Box(-1, 1, (1,)))
    observations = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 1e-12, 0.0]
    with pytest.warns(UserWarning, match="1 of 4 inputs of the reward vary by less than a millionth"):
        reward.set_input_statistics(observations, observations[:, :1], observations)
    np.testing.assert_array_equal(reward.input_std[1:3], [1, 1])


@pytest.mark.parametrize("pessimism", [0.0, 1.5, -0.5])
def test_a_pessimistic_reward_is_less_where_members_disagree(pessimism: float, tmp_path: Path) -> None:
    reward = RewardEnsemble(BOX, ACTION, RewardSettings(num_members=4, pessimism=pessimism))
    asked = transitions(BOX)
    with torch.no_grad():
        members = reward.member_rewards(reward.features(*asked)).numpy()
    expected = members.mean(0) - pessimism * members.std(0)
    assert reward(*asked) == pytest.approx(expected, abs=1e-6)
    assert reward.of_few(*asked) == pytest.approx(expected, abs=1e-5)
    reward.save(tmp_path / "r.safetensors")
    assert RewardEnsemble.load(tmp_path / "r.safetensors")(*asked) == pytest.approx(expected, abs=1e-6)


def test_pessimism_needs_members_that_can_disagree() -> None:
    with pytest.raises(UserError, match="at least 2"):
        RewardSettings(num_members=1, pessimism=1.0)
    with pytest.raises(UserError, match="finite"):
        RewardSettings(pessimism=float("nan"))
