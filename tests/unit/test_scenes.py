"""The world of images: captions, pictures, and the judge's figures by hand; the games by Gymnasium's checker."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

pytest.importorskip("scipy")

import prefrl.envs
from prefrl.envs.image_game import DenoisingGame, ImageGame
from prefrl.envs.image_worlds import IMAGE_WORLDS
from prefrl.envs.scenes import GROUND, Scene, Scenes, all_scenes, draw, gold, measures, shapes_in
from prefrl.errors import UserError

assert prefrl.envs


def test_captions_are_read_as_they_are_written() -> None:
    scenes = all_scenes()
    assert len({scene.caption for scene in scenes}) == 144
    assert all(Scene.read(scene.caption) == scene for scene in scenes)
    assert Scene(1, "red", "cross", "at the top").caption == "one red cross at the top"
    assert Scene(3, "red", "cross", "at the top").caption == "three red crosses at the top"
    for wrong in ("two red squares", "two red square on the left", "a red square on the left", ""):
        assert Scene.read(wrong) is None


def test_a_perfect_picture_has_the_most_and_every_fault_costs_what_it_should() -> None:
    random = np.random.default_rng(0)
    scenes = all_scenes()
    pictures = np.stack([draw(scene, random) for scene in scenes])
    captions = [scene.caption for scene in scenes]
    assert gold(captions, pictures) == pytest.approx(4.0)
    assert measures(captions, pictures)["right_all"] == 1.0
    scene = Scene(2, "red", "square", "on the left")
    picture = draw(scene, random)[None]
    # F1 of two shapes of which two thirds are right is 2/3; of one shape too many: 2 x 2 / (2 + 3)
    assert gold(["two blue squares on the left"], picture) == pytest.approx(3 * 2 / 3 + 1)
    assert gold(["two red rings on the left"], picture) == pytest.approx(3 * 2 / 3 + 1)
    assert gold(["two red squares on the right"], picture) == pytest.approx(3 * 2 / 3 + 1)
    assert gold(["three red squares on the left"], picture) == pytest.approx(3 * 4 / 5 + 1)
    assert gold(["one red square on the left"], picture) == pytest.approx(3 * 2 / 3 + 1)
    empty = np.broadcast_to(np.array(GROUND, np.uint8), (1, 16, 16, 3))
    assert gold(["one red square on the left"], empty) == pytest.approx(1.0)


def test_dull_and_grainy_pictures_are_worth_less_and_shapes_are_still_found() -> None:
    random = np.random.default_rng(1)
    scene = Scene(3, "green", "ring", "at the bottom")
    picture = draw(scene, random)
    grain = np.clip(picture + random.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
    assert [shape.kind for shape in shapes_in(grain)] == ["ring"] * 3
    values = gold([scene.caption] * 2, np.stack([picture, grain]))
    assert values[0] == pytest.approx(4.0)
    assert 3.0 < values[1] < 3.9


def test_held_out_captions_are_not_among_those_learned_from_and_a_seed_fixes_all() -> None:
    world = Scenes(3)
    known, held_out = set(world.prompts(2000)), set(world.prompts(500, held_out=True))
    assert not known & held_out
    captions, pictures = world.examples(50)
    assert not set(captions) & held_out
    again = Scenes(3).examples(50)
    assert again[0] == captions and np.array_equal(again[1], pictures)
    rewards = world.gold(*world.examples(400))
    assert 0.15 < np.mean(rewards < 3.5) < 0.65  # what is learned from is not all good


def test_a_prompt_of_another_world_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="no caption of a scene"):
        gold(["a cat"], np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="image world"):
        IMAGE_WORLDS.find("nonsense")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["prefrl/ImageGame-v0", "prefrl/DenoisingGame-v0"])
def test_the_games_pass_gymnasiums_checker(name: str) -> None:
    check_env(gymnasium.make(name).unwrapped, skip_render_check=True)


def test_a_picture_is_scored_once_and_ends_the_game() -> None:
    game = ImageGame(render_mode="rgb_array")
    prompt, _ = game.reset(seed=4)
    scene = Scene.read(prompt)
    assert scene is not None
    _, reward, terminated, truncated, _ = game.step(draw(scene, np.random.default_rng(0)))
    assert (reward, terminated, truncated) == (pytest.approx(4.0), True, False)
    assert game.render().shape == (128, 128, 3)
    for wrong in (np.zeros((16, 16)), np.zeros((16, 16, 3))):
        with pytest.raises(UserError, match="Expected a picture of shape"):
            game.step(wrong)  # type: ignore[arg-type]


def test_denoising_is_the_same_game_in_steps() -> None:
    game = DenoisingGame(num_steps=3)
    observation, _ = game.reset(seed=4)
    scene = Scene.read(observation["prompt"])
    assert scene is not None
    wanted = draw(scene, np.random.default_rng(0)).transpose(2, 0, 1) / np.float32(127.5) - 1
    rewards = []
    for left in (2, 1, 0):
        observation, reward, terminated, _, _ = game.step(wanted.astype(np.float32))
        assert observation["steps_left"] == left and terminated == (left == 0)
        rewards.append(reward)
    assert rewards == [0.0, 0.0, pytest.approx(4.0)]
    with pytest.raises(UserError, match="finite array"):
        game.step(np.full((3, 16, 16), np.nan, np.float32))
