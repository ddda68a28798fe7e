"""Files of a run that were damaged: found, and said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.rewards import RewardEnsemble, RewardSettings

SPACES = Box(-1, 1, (3,), np.float32), Box(-1, 1, (1,), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> ControlFolder:
    return ControlFolder.create(tmp_path / "run", TrainSettings(env_id="Pendulum-v1").resolve(), baseline=False)


def flip_a_bit(path: Path, near: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(near) + 1] ^= 4
    path.write_bytes(bytes(data))


def test_a_bit_that_flipped_in_a_policy_is_found(folder: ControlFolder) -> None:
    weights = torch.linspace(1.0, 2.0, 8)
    folder.save_policy("last", {"w": weights})
    assert torch.equal(folder.load_policy("last")["w"], weights)
    path = folder.policies / "last.pt"
    flip_a_bit(path, weights.numpy().tobytes())
    with pytest.raises(UserError, match=r"damaged|cannot be read"):
        folder.load_policy("last")
    for content in (b"", b"PK", b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            folder.load_policy("last")


def test_weights_that_are_no_numbers_are_refused(folder: ControlFolder) -> None:
    folder.save_policy("last", {"net": [{"w": torch.tensor([1.0, torch.nan])}]})
    with pytest.raises(UserError, match="NaN"):
        folder.load_policy("last")
    reward = RewardEnsemble(*SPACES)
    reward.reward_std[0] = torch.nan
    reward.save(folder.reward_path)
    with pytest.raises(UserError, match="NaN"):
        RewardEnsemble.load(folder.reward_path)


def test_a_bit_that_flipped_in_a_reward_is_found(folder: ControlFolder) -> None:
    reward = RewardEnsemble(*SPACES)
    reward.save(folder.reward_path)
    RewardEnsemble.load(folder.reward_path)
    weights = next(tensor for name, tensor in reward.state_dict().items() if name.startswith("network."))
    flip_a_bit(folder.reward_path, weights.numpy().tobytes()[:16])
    with pytest.raises(UserError, match="checksum"):
        RewardEnsemble.load(folder.reward_path)


def test_sizes_that_a_file_names_are_bounded_before_memory_is_taken() -> None:
    for wrong in ({"num_members": 10**7}, {"hidden": (10**9,)}):
        with pytest.raises(UserError, match="must be"):
            RewardSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", "null"])
def test_a_summary_that_says_nothing_is_no_end(folder: ControlFolder, content: str) -> None:
    folder.summary_path.write_text(content)
    assert not folder.finished
    with pytest.warns(UserWarning, match="holds no figures"):
        folder.refuse_if_finished()
    with pytest.raises(UserError, match="not finished"):
        folder.read_summary()


@pytest.mark.parametrize(
    "settings", [None, [], 7, {"steps": "many"}, {"queries": 3}, {"labels": None}, {"agent": ["sac"]}]
)
def test_settings_that_are_none_are_refused_in_a_sentence(folder: ControlFolder, settings: object) -> None:
    config = json.loads(folder.config_path.read_text())
    config["settings"] = {**config["settings"], **settings} if isinstance(settings, dict) else settings
    write_json(folder.config_path, config)
    with pytest.raises(UserError) as refused:
        _ = ControlFolder(folder.path).settings
    assert "\n" not in str(refused.value)
