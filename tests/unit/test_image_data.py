"""Rankings of pictures as files of strangers, as answers of people, and what reward models make of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from prefrl.envs.scenes import Scene, Scenes, draw
from prefrl.errors import UserError
from prefrl.feedback import Comparison
from prefrl.image.data import read_rankings, write_rankings
from prefrl.image.demo import at_equal_kl, conclusions
from prefrl.image.denoising import reward_weights
from prefrl.image.evaluation import diversity, grid
from prefrl.image.model import SHAPES, build_model, to_floats
from prefrl.image.people import ask_people, read_answers
from prefrl.image.quality import Features, frechet_distance
from prefrl.image.reward_model import (
    Captions,
    Ranked,
    RewardModel,
    RewardTrainer,
    RewardTrainingSettings,
    judge_reward,
    prompt_features,
)
from prefrl.store import PreferenceStore

SHAPE = (16, 16, 3)


def some_rankings(count: int, seed: int = 0) -> list[Ranked]:
    random, world = np.random.default_rng(seed), Scenes(0)
    rows = []
    for prompt in world.prompts(count):
        scene = Scene.read(prompt)
        assert scene is not None
        good = draw(scene, random)
        bad = np.clip(good * 0.5 + 60, 0, 255).astype(np.uint8)  # dull: whatever is asked for
        pair, ranks = (np.stack([good, bad]), (1, 2)) if random.random() < 0.5 else (np.stack([bad, good]), (2, 1))
        rows.append(Ranked(prompt, pair, ranks))
    return rows


def test_rankings_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [*some_rankings(3), Ranked("three", np.zeros((3, *SHAPE), np.uint8), (1, 2, 2))]
    path = write_rankings(tmp_path / "data", rows)
    for place in (str(path), str(tmp_path / "data")):
        found = read_rankings(place, SHAPE)
        assert [(row.prompt, row.ranks) for row in found] == [(row.prompt, row.ranks) for row in rows]
        assert all(np.array_equal(a.pictures, b.pictures) for a, b in zip(found, rows, strict=True))
    with pytest.raises(UserError, match="exists already"):
        write_rankings(tmp_path / "data", rows)


def test_pairs_under_other_names_and_ranks_with_gaps_are_read(tmp_path: Path) -> None:
    write_rankings(tmp_path / "data", some_rankings(1))
    file = tmp_path / "data" / "rankings.jsonl"
    names = json.loads(file.read_text())["images"]
    file.write_text(
        json.dumps({"prompt": "a", "chosen": names[0], "rejected": names[1]})
        + "\n\n"
        + json.dumps({"prompt": "b", "images": names, "ranks": [7, 3]})
        + "\n"
    )
    assert [row.ranks for row in read_rankings(str(file), SHAPE)] == [(1, 2), (2, 1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 1: this is not JSON"),
        ("[" * 100_000, "line 1: this is not JSON"),
        ("3", 'expected an object with "prompt"'),
        ('{"prompt": 3, "images": ["a", "b"], "ranks": [1, 2]}', 'expected an object with "prompt"'),
        ('{"prompt": "a", "images": ["pictures/0-0.png"], "ranks": [1]}', "2 to 32 names"),
        ('{"prompt": "a", "images": ["pictures/0-0.png", 3], "ranks": [1, 2]}', "2 to 32 names"),
        ('{"prompt": "a", "images": ["pictures/0-0.png", "pictures/0-1.png"], "ranks": [1]}', "for each image"),
        ('{"prompt": "a", "images": ["pictures/0-0.png", "pictures/0-1.png"], "ranks": [1, 2.5]}', "for each image"),
        ('{"prompt": "a", "images": ["pictures/0-0.png", "pictures/0-1.png"], "ranks": [true, 2]}', "for each image"),
        ('{"prompt": "a", "images": ["../outside.png", "pictures/0-1.png"], "ranks": [1, 2]}', "is not below"),
        ('{"prompt": "a", "images": ["/etc/passwd", "pictures/0-1.png"], "ranks": [1, 2]}', "is not below"),
        (
            '{"prompt": "a", "images": ["pictures/none.png", "pictures/0-1.png"], "ranks": [1, 2]}',
            "there is no picture",
        ),
        ('{"prompt": "a", "images": ["rankings.jsonl", "pictures/0-1.png"], "ranks": [1, 2]}', "is not a picture"),
        ("", "holds no rankings"),
    ],
)
def test_a_strangers_file_is_refused_in_a_sentence(line: str, said: str, tmp_path: Path) -> None:
    write_rankings(tmp_path / "data", some_rankings(1))
    (tmp_path / "outside.png").write_bytes((tmp_path / "data" / "pictures" / "0-0.png").read_bytes())
    (tmp_path / "data" / "rankings.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=said):
        read_rankings(str(tmp_path / "data"), SHAPE)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_rankings(tmp_path / "data", some_rankings(1))
    inside = tmp_path / "data" / "pictures" / "0-0.png"
    inside.rename(tmp_path / "moved.png")
    inside.symlink_to(tmp_path / "moved.png")
    with pytest.raises(UserError, match="is not below"):
        read_rankings(str(tmp_path / "data"), SHAPE)


def test_people_are_asked_about_pictures_and_their_answers_are_rankings(tmp_path: Path) -> None:
    pytest.importorskip("av")
    record, rows = str(tmp_path / "record.sqlite"), some_rankings(3)
    added = ask_people(record, [row.prompt for row in rows], [row.pictures for row in rows])
    assert added == 3
    with pytest.raises(UserError, match="no comparison or ranking of pictures yet"):
        read_answers(record, SHAPE)
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        store.add_annotator("anna", "person")
        queries = store.open_queries()
        assert {query.instruction for query in queries} == {
            f"Which picture shows it better: {row.prompt}" for row in rows
        }
        store.add_answers([Comparison(query_id=query.id, annotator="anna", preference=1.0) for query in queries[:2]])
    found = read_answers(record, SHAPE)
    assert len(found) == 2
    assert all(row.ranks == (1, 2) for row in found)
    by_prompt = {row.prompt: row for row in rows}
    for row in found:
        shown = {picture.tobytes() for picture in row.pictures}
        assert shown == {picture.tobytes() for picture in by_prompt[row.prompt].pictures}
    with pytest.raises(UserError, match="something else than pictures of shape"):
        read_answers(record, (32, 32, 3))


def test_a_reward_model_learns_what_people_prefer_and_is_read_back(tmp_path: Path) -> None:
    rows = some_rankings(80)
    model = build_model(SHAPES["tiny"], [row.prompt for row in rows], 16, seed=0)
    trainer = RewardTrainer(model, rows[:60], RewardTrainingSettings(epochs=15, members=2, width=16))
    trainer.train()
    judged = judge_reward(trainer.model, rows[60:])
    assert judged["held_out_pairs"] == 20
    assert judged["held_out_accuracy"] >= 0.9
    pictures = np.concatenate([row.pictures for row in rows])
    prompts = [row.prompt for row in rows for _ in range(2)]
    trainer.normalise(prompts, pictures)
    scores = trainer.model(prompts, pictures)
    assert abs(float(scores.mean())) < 1e-4
    members = trainer.model.members(torch.zeros(2, 3, 16, 16), prompts[:2])
    assert members.shape == (2, 2)
    trainer.model.save(tmp_path / "reward")
    again = RewardModel.load(str(tmp_path / "reward"))
    assert np.allclose(again(prompts, pictures), scores, atol=1e-6)
    careful = RewardModel.load(str(tmp_path / "reward"), pessimism=1.0)
    assert (careful(prompts, pictures) <= scores + 1e-6).all()
    damaged = (tmp_path / "reward" / "reward.safetensors").read_bytes()
    (tmp_path / "reward" / "reward.safetensors").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(UserError, match="is damaged"):
        RewardModel.load(str(tmp_path / "reward"))


def as_asked_and_not(count: int) -> list[Ranked]:
    """Return pairs of equally good pictures: one of what was asked for, one of another scene."""
    random, world = np.random.default_rng(11), Scenes(0)
    prompts = world.prompts(3 * count)
    pairs = [(a, b) for a, b in zip(prompts[::2], prompts[1::2], strict=False) if a != b][:count]
    scenes = [(Scene.read(a), Scene.read(b)) for a, b in pairs]
    return [
        Ranked(a.caption, np.stack([draw(a, random), draw(b, random)]), (1, 2)) for a, b in scenes if a and b
    ]  # fmt: skip


@pytest.mark.parametrize(("caption_epochs", "least", "most"), [(12.0, 0.8, 1.0), (0.0, 0.2, 0.8)])
def test_captions_alone_teach_which_picture_was_asked_for(caption_epochs: float, least: float, most: float) -> None:
    """Two answers about dullness teach nothing of prompts; a control without captions does not know them either."""
    captions, pictures = Scenes(0, wrong=0.0, poor=0.0).examples(1500)
    model = build_model(SHAPES["tiny"], captions, 16, seed=0)
    settings = RewardTrainingSettings(epochs=1, members=2, width=16, caption_epochs=caption_epochs)
    trainer = RewardTrainer(model, some_rankings(2), settings, captioned=(captions, pictures))
    assert (trainer.caption_steps > 0) == (caption_epochs > 0)
    trainer.train()
    assert least <= judge_reward(trainer.model, as_asked_and_not(100))["held_out_accuracy"] <= most


def test_other_captions_are_others_and_the_own_stands_first() -> None:
    captions, pictures = Scenes(0).examples(200)
    model = build_model(SHAPES["tiny"], captions, 16, seed=0)
    found = Captions(model, captions, pictures, seed=3)
    images, told = found.batch(1)
    assert images.shape == (64, 3, 16, 16) and told.shape == (64, 5, 64)
    own = prompt_features(model, captions)
    row = next(i for i in range(200) if torch.equal(to_floats(pictures[i : i + 1])[0], images[0]))
    assert torch.allclose(told[0, 0], own[row], atol=1e-6)
    assert (told[:, :1] - told[:, 1:]).abs().flatten(2).amax(2).min() > 1e-6
    again, _ = Captions(model, captions, pictures, seed=3).batch(1)
    assert torch.equal(images, again)
    assert Captions(model, ["one"] * 3, pictures[:3], seed=3).steps(5) == 0


def test_files_of_another_version_are_said_to_be_that(tmp_path: Path) -> None:
    rows = some_rankings(2)
    model = build_model(SHAPES["tiny"], [row.prompt for row in rows], 16, seed=0)
    RewardTrainer(model, rows, RewardTrainingSettings(members=1, width=16)).model.save(tmp_path)
    path = tmp_path / "reward.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(UserError, match=r"of version 1, here is 2\. Train it again"):
        RewardModel.load(str(tmp_path))


def test_a_coin_teaches_a_reward_nothing() -> None:
    rows = some_rankings(80)
    random = np.random.default_rng(5)
    tossed = [Ranked(row.prompt, row.pictures, (1, 2) if random.random() < 0.5 else (2, 1)) for row in rows]
    model = build_model(SHAPES["tiny"], [row.prompt for row in rows], 16, seed=0)
    trainer = RewardTrainer(model, tossed[:60], RewardTrainingSettings(epochs=15, members=2, width=16))
    trainer.train()
    assert 0.2 <= judge_reward(trainer.model, tossed[60:])["held_out_accuracy"] <= 0.8


def test_weights_of_rewards_have_a_mean_of_one_and_follow_the_exponential() -> None:
    weights = reward_weights(np.array([0.0, 1.0, 2.0]), 0.5)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert float(weights[1] / weights[0]) == pytest.approx(np.exp(2.0), rel=1e-5)
    with pytest.raises(UserError, match="temperature must be above 0"):
        reward_weights(np.zeros(3), 0.0)


def test_the_frechet_distance_of_gaussians_is_known_and_rises_with_damage() -> None:
    random = np.random.default_rng(0)
    first = random.normal([0.0, 0.0], [1.0, 2.0], (200_000, 2))
    second = random.normal([1.0, -1.0], [3.0, 2.0], (200_000, 2))
    assert frechet_distance(first, second) == pytest.approx(1 + 1 + (1 - 3) ** 2, rel=0.02)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    world = Scenes(0)
    features = Features(world, pictures=600, epochs=2)
    _, pictures = Scenes(1).examples(400)
    noisy = np.clip(pictures + random.normal(0, 40, pictures.shape), 0, 255).astype(np.uint8)
    assert features.distance(pictures) < 0.5 * features.distance(noisy) < features.distance(255 - pictures)


def test_conclusions_say_what_the_figures_hold_and_no_more() -> None:
    def rows(*points: tuple[float, float, float]) -> list[dict[str, float]]:
        return [{"kl_nats": kl, "gold": gold, "proxy": proxy} for kl, gold, proxy in points]

    found = {
        "dpok": rows((0, 2.0, 0.0), (5, 2.5, 1.0), (9, 2.6, 1.4)),
        "dpok-no-kl": rows((0, 2.0, 0.0), (20, 2.4, 1.5), (60, 1.9, 2.2)),
        "rwr": rows((0, 2.0, 0.0), (3, 1.8, -0.2)),
        "best of n": rows((0, 2.0, 0.0), (1, 2.3, 0.9)),
    }
    said = conclusions(found, {"base": 0.5, "dpok": 0.6, "dpok-no-kl": 1.9})
    assert said[0].endswith("is 2.00; dpok, dpok-no-kl came above it at their best point, rwr did not.")
    assert said[1] == "Best gold, from the highest: dpok 2.60, dpok-no-kl 2.40, best of n 2.30, rwr 2.00."
    assert said[2] == "DPOK with KL ends at gold 2.60, without at 1.90: higher with it, at 9 against 60 nats."
    assert said[3] == "The reward rose to the end while gold fell by 0.50 at most: dpok-no-kl."
    assert said[4].endswith("0.50 of the pretrained model, 1.90 of dpok-no-kl, the farthest.")
    del found["dpok-no-kl"]
    assert "no over-optimisation yet" in conclusions(found, {})[-1]
    assert conclusions({}, {}) == []


def test_diversity_is_the_distance_of_pictures_of_one_prompt() -> None:
    dark, light = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 30, np.uint8)
    assert diversity(["a", "a", "b"], np.stack([dark, light, light])) == pytest.approx(30.0)
    assert np.isnan(diversity(["a", "b"], np.stack([dark, light])))
    assert grid(np.stack([dark, light, dark]), 2).shape == (2 + 2 * 66, 2 + 2 * 66, 3)


def test_methods_are_shown_where_they_are_about_as_far_from_the_start_as_each_other() -> None:
    def points(*nats: float) -> list[dict[str, float]]:
        return [{"kl_nats": value, "gold": 0.0, "proxy": 0.0} for value in nats]

    found = {
        "ddpo": points(0, 9, 40, 90),
        "dpok": points(0, 4, 11, 14),
        "rwr": points(0, 8, 12),
        "best of n": points(0, 2),
    }
    assert at_equal_kl(found) == {"ddpo": 1, "dpok": 2, "rwr": 2}
    assert at_equal_kl({"dpok": points(0)}) == {}
