"""Atari as in the paper: masks, hidden ends, and clips that are played again."""

from __future__ import annotations

import itertools
from math import ceil, floor
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from prefrl.envs import make_env, memory
from prefrl.envs.atari import AtariVectorEnv
from prefrl.envs.atari_masks import MASKS, SCREEN, black_out
from prefrl.envs.atari_replay import AtariPlayer, AtariReplay
from prefrl.errors import UserError

ale_vector = pytest.importorskip("ale_py.vector_env")

SCORE_BYTES = {
    "beam_rider": (9, 10, 11),
    "breakout": (76, 77),
    "enduro": (43, 44),
    "pong": (13, 14),
    "qbert": (89, 90, 91),
    "seaquest": (56, 57, 58),
    "space_invaders": (102, 104),
}
"""Where each game keeps its score in memory, as ALE's own reading of it has it."""
BESIDE = [("beam_rider", 84), *(("enduro", byte) for byte in (39, 40, 41, 42, 45))]
"""What else the masks hide: the enemy ships left; distance, its rolling digits (the speed) and the day. Found by
writing into each byte in turn and looking where the picture changes."""
PLAIN = {("pong", 13), ("pong", 14), ("beam_rider", 84)}
"""Numbers as they are; the others hold two decimal digits."""


def play(env: Any, num_steps: int, seed: int = 0) -> list[Any]:
    random = np.random.default_rng(seed)
    return [env.step(random.integers(env.single_action_space.n, size=env.num_envs)) for _ in range(num_steps)]


@pytest.mark.parametrize(("game", "hidden"), [*SCORE_BYTES.items(), *((game, (byte,)) for game, byte in BESIDE)])
def test_what_is_masked_shows_before_the_mask_and_nowhere_after(game: str, hidden: tuple[int, ...]) -> None:
    player, random = AtariPlayer(game), np.random.default_rng(0)
    player.start(5)
    emulator = player._ale

    def look() -> np.ndarray:
        emulator.act(player._noop)
        emulator.act(player._noop)
        return emulator.getScreenRGB()

    num_shown = 0
    for step in range(60):
        player.act(int(random.integers(len(player.actions))))
        if step % 6:
            continue
        saved = emulator.cloneState()
        pictures = [look()]
        emulator.restoreState(saved)
        for byte in hidden:
            digits = int(random.integers(20)) if (game, byte) in PLAIN else int(random.integers(10)) * 17
            emulator.setRAM(byte, digits)
        pictures.append(look())
        emulator.restoreState(saved)
        both = np.stack(pictures)
        num_shown += int((both[0] != both[1]).sum())
        black_out(both, game)
        assert np.array_equal(both[0], both[1])
    assert num_shown > 100


@pytest.mark.parametrize("game", MASKS)
def test_a_smaller_picture_loses_every_pixel_with_a_part_of_the_mask_in_it(game: str) -> None:
    small, large = np.ones((1, 2, 84, 84), np.uint8), np.ones((1, *SCREEN, 3), np.uint8)
    black_out(small, game)
    black_out(large, game)
    hidden = large[0, :, :, 0] == 0
    assert 0 < hidden.mean() < 0.15
    for row in range(84):
        for column in range(84):
            part = hidden[
                floor(row * 2.5) : ceil((row + 1) * 2.5), floor(column * 160 / 84) : ceil((column + 1) * 160 / 84)
            ]
            assert small[0, 0, row, column] == (not part.any())
    assert np.array_equal(small[0, 0], small[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_with_everything_switched_off_it_is_ales_own_environment(mode: AutoresetMode) -> None:
    off: dict[str, Any] = {"mask_score": False, "hide_game_over": False, "end_penalty": 0, "clip_rewards": False}
    ours = AtariVectorEnv("breakout", 2, autoreset_mode=mode, **off)
    peer = ale_vector.AtariVectorEnv("breakout", 2, autoreset_mode=mode, reward_clipping=False)
    assert ours.observation_space == peer.observation_space
    assert ours.action_space == peer.action_space
    assert np.array_equal(ours.reset(seed=3)[0], peer.reset(seed=3)[0])
    random, num_ends = np.random.default_rng(0), 0
    for _ in range(330):
        actions = random.integers(4, size=2)
        seen, expected = ours.step(actions), peer.step(actions)
        for one, other in zip(seen[:4], expected[:4], strict=True):
            assert np.array_equal(one, other)
        for env in np.flatnonzero(seen[2]):
            num_ends += 1
            if mode == AutoresetMode.SAME_STEP:
                assert np.array_equal(seen[4]["final_obs"][env], expected[4]["final_obs"][env])
                assert seen[4]["final_info"]["lives"][env] == 0
        assert np.array_equal(seen[4]["lives"], expected[4]["lives"])
    assert num_ends >= 2


@pytest.fixture(scope="module")
def hidden() -> tuple[AtariVectorEnv, list[Any]]:
    env = AtariVectorEnv("breakout", 2, life_loss_penalty=0.25, max_episode_steps=None)
    env.reset(seed=3)
    return env, play(env, 330)


def test_hidden_ends_are_paid_for_and_marked_and_nothing_terminates(hidden: tuple[AtariVectorEnv, list[Any]]) -> None:
    _, steps = hidden
    num_games = num_lives = 0
    lives, over = np.array([5, 5]), np.zeros(2, bool)
    for _, rewards, terminated, truncated, info in steps:
        assert not terminated.any()
        assert not truncated.any()
        restarted = info.get("restarted", np.zeros(2, bool))
        assert np.array_equal(restarted, over)  # the step after the end starts anew
        lost = (info["lives"] < lives) & ~restarted
        over = lost & (info["lives"] == 0)
        assert np.array_equal(info.get("hidden_terminated", np.zeros(2, bool)), lost)
        expected = np.sign(info["true_score"]) - 1.0 * over - 0.25 * (lost & ~over)
        assert np.array_equal(rewards, expected)
        num_games += int(over.sum())
        num_lives += int(lost.sum())
        lives = info["lives"]
    assert num_games >= 2
    assert num_lives == pytest.approx(5 * num_games, abs=10)


def test_the_true_score_stays_in_the_info(hidden: tuple[AtariVectorEnv, list[Any]]) -> None:
    _, steps = hidden
    running, num_points = np.zeros(2), 0
    for *_, info in steps:
        running = np.where(info.get("restarted", np.zeros(2, bool)), 0, running) + info["true_score"]
        assert np.array_equal(info["score"], running)
        num_points += int(info["true_score"].sum())
    assert num_points > 0


def test_stacks_go_on_across_a_hidden_restart_so_that_each_image_is_kept_once(
    hidden: tuple[AtariVectorEnv, list[Any]],
) -> None:
    _, steps = hidden
    for before, after in itertools.pairwise(steps):
        assert np.array_equal(before[0][:, 1:], after[0][:, :-1])


def test_a_cut_of_the_stream_lets_the_game_go_on() -> None:
    cut = AtariVectorEnv("space_invaders", 1, max_episode_steps=20, autoreset_mode=AutoresetMode.SAME_STEP)
    whole = AtariVectorEnv("space_invaders", 1)
    assert np.array_equal(cut.reset(seed=1)[0], whole.reset(seed=1)[0])
    for number, (one, other) in enumerate(zip(play(cut, 60), play(whole, 60), strict=True), 1):
        assert one[3][0] == (number % 20 == 0)
        assert np.array_equal(one[0], other[0])
        if one[3][0]:
            assert np.array_equal(one[4]["final_obs"][0], one[0][0])


def test_a_lost_life_or_game_can_be_shown() -> None:
    env = AtariVectorEnv("breakout", 2, hide_life_loss=False, hide_game_over=False)
    _, info = env.reset(seed=3)
    lives, ended = info["lives"], np.zeros(2, bool)
    num_ends = 0
    for _, rewards, terminated, _, info in play(env, 200):
        assert np.array_equal(terminated, (info["lives"] < lives) & ~ended)
        assert not rewards[ended].any()
        assert "hidden_terminated" not in info
        lives, ended = info["lives"], terminated
        num_ends += int(terminated.sum())
    assert num_ends >= 5


def test_pong_has_no_penalty_and_others_have() -> None:
    assert [AtariVectorEnv(game).end_penalty for game in ("pong", "seaquest")] == [0.0, 1.0]
    assert AtariVectorEnv("pong", end_penalty=2.0).end_penalty == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("game", ["breakout", "beam_rider", "berzerk"])
def test_a_clip_is_bit_for_bit_what_ale_shows_in_colour(game: str) -> None:
    ours = AtariVectorEnv(game, 2, mask_score=False, hide_game_over=False)
    size = {"grayscale": False, "img_height": SCREEN[0], "img_width": SCREEN[1], "stack_num": 1}
    peer = ale_vector.AtariVectorEnv(game, 2, **size)
    ours.reset(seed=3)
    peer.reset(seed=3)
    random, shown = np.random.default_rng(0), []
    for _ in range(120):
        actions = random.integers(ours.single_action_space.n, size=2)
        ours.step(actions)
        shown.append(peer.step(actions)[0][:, 0])
    for env, first in ((0, 0), (1, 95)):
        clip = ours.clip(env, first, 25, masked=False)
        assert clip.shape == (25, *SCREEN, 3)
        assert np.array_equal(clip, np.stack(shown)[first : first + 25, env])
        if game in MASKS:
            black_out(clip, game)
        assert np.array_equal(ours.clip(env, first, 25, masked=True), clip)


def test_where_memory_outlasts_a_game_a_clip_goes_back_to_the_last_load_of_the_rom() -> None:
    env = AtariVectorEnv("beam_rider", 1)
    env.reset(seed=1)
    play(env, 30)
    env.reset()  # without a seed nothing is loaded
    play(env, 30)
    env.reset(seed=2)
    play(env, 30)
    assert [len(env.replay(0, step, 5).actions) for step in (10, 40, 70)] == [15, 45, 15]
    pong = AtariVectorEnv("pong", 1)
    pong.reset(seed=1)
    play(pong, 30)
    pong.reset()
    play(pong, 30)
    assert [len(pong.replay(0, step, 5).actions) for step in (10, 40)] == [15, 15]


@pytest.mark.slow
def test_a_clip_shows_hidden_restarts_and_resets_as_they_happened() -> None:
    env = AtariVectorEnv("breakout", 1, render_mode="rgb_array", max_episode_steps=150)
    shown = []
    env.reset(seed=3)
    random, num_restarts = np.random.default_rng(0), 0
    for step in range(300):
        if step == 211:
            env.reset(seed=9)
        info = env.step(random.integers(2, size=1))[4]  # never moves: loses soon
        num_restarts += "restarted" in info
        shown.append(env.render()[0])  # type: ignore[index]
    assert num_restarts >= 1
    assert np.array_equal(env.clip(0, 0, 300), np.stack(shown))
    replay = env.replay(0, 205, 25)
    again = AtariReplay(**{name: getattr(replay, name) for name in replay.__dataclass_fields__})
    assert np.array_equal(again.frames(), np.stack(shown)[205:230])


def test_a_person_may_see_the_score_that_the_agent_does_not() -> None:
    masked, shown = (AtariVectorEnv("breakout", 1, render_mode="rgb_array", show_score=s) for s in (False, True))
    for env in (masked, shown):
        env.reset(seed=3)
    for one, other in zip(play(masked, 5), play(shown, 5), strict=True):
        assert np.array_equal(one[0], other[0])
    hidden, seen = masked.render()[0], shown.render()[0]  # type: ignore[index]
    assert not np.array_equal(hidden, seen)
    black_out(seen, "breakout")
    assert np.array_equal(hidden, seen)
    assert np.array_equal(shown.clip(0, 4, 1)[0], shown.render()[0])  # type: ignore[index]
    assert np.array_equal(shown.clip(0, 4, 1, masked=True)[0], hidden)
    bare = AtariVectorEnv("breakout", 1, render_mode="rgb_array", mask_score=False)
    bare.reset(seed=3)
    play(bare, 5)
    assert np.array_equal(bare.clip(0, 4, 1)[0], bare.render()[0])  # type: ignore[index]
    assert np.array_equal(bare.render()[0], shown.render()[0])  # type: ignore[index]


def test_it_is_registered_for_one_and_for_many() -> None:
    one = make_env("prefrl/Atari-Pong-v0")
    many = gymnasium.make_vec("prefrl/Atari-Pong-v0", num_envs=2)
    first, _ = one.reset(seed=5)
    assert np.array_equal(first, many.reset(seed=5)[0][0])
    for action in (0, 2, 3):
        step, steps = one.step(action), many.step(np.array([action, 0]))
        assert np.array_equal(step[0], steps[0][0])
        assert step[4]["score"] == 0
    assert gymnasium.spec("prefrl/Atari-MsPacman-v0").kwargs == {"game": "ms_pacman"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "pongg"}, "no Atari game 'pongg'. Did you mean 'pong'"),
        ({"game": "SpaceInvaders"}, "no Atari game 'SpaceInvaders'. Did you mean 'space_invaders'"),
        ({"game": "ms_pacman", "mask_score": True}, "Where 'ms_pacman' shows its score is not known"),
        ({"game": "pong", "hide_life_loss": "False"}, "hide_life_loss must be true or false. Received 'False'"),
        ({"game": "pong", "frame_skip": "four"}, "frame_skip must be a whole number, at least 1. Received 'four'"),
        ({"game": "pong", "frame_skip": 0}, "frame_skip must be a whole number, at least 1. Received 0"),
        ({"game": "pong", "end_penalty": -1.0}, "end_penalty must be a finite number, at least 0. Received -1.0"),
        ({"game": "pong", "life_loss_penalty": float("nan")}, "life_loss_penalty must be a finite number"),
        ({"game": "pong", "life_loss_penalty": None}, "life_loss_penalty must be a finite number"),
        ({"game": "pong", "end_penalty": float("inf")}, "end_penalty must be a finite number"),
        ({"game": "pong", "noop_max": 2.5}, "noop_max must be a whole number, at least 0. Received 2.5"),
        ({"game": "pong", "max_episode_steps": 0}, "max_episode_steps must be a whole number, at least 1"),
        ({"game": "pong", "render_mode": "human"}, 'render_mode must be "rgb_array"'),
        ({"game": "pong", "num_envs": 0}, "num_envs must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AtariVectorEnv(**options)


def test_a_missing_rom_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"ROM of 'pong' cannot be used.*ALE_ROMS_DIR"):
        AtariVectorEnv("pong")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"ROM of 'pong' cannot be used: .*doesn't exist"):
        AtariVectorEnv("pong")


def test_more_games_than_memory_allows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda extra: 1_000_000_000)
    with pytest.raises(UserError, match=r"1000 environments of pong take about 6.0 GB; 1.0 GB are free"):
        AtariVectorEnv("pong", 1000)


def test_actions_and_steps_that_are_not_there_are_refused() -> None:
    env = AtariVectorEnv("pong", 2)
    with pytest.raises(UserError, match="have to be reset"):
        env.step(np.zeros(2, int))
    env.reset(seed=0)
    with pytest.raises(UserError, match="action of environment 1 is 6; expected finite values from 0 to 5"):
        env.step(np.array([0, 6]))
    with pytest.raises(UserError, match=r"Expected actions \(2,\)"):
        env.step(np.array([0.5, 1.0]))
    env.step(np.zeros(2, int))
    with pytest.raises(UserError, match="no steps 0 to 24 of environment 0: 1 steps of 2 environments were made"):
        env.clip(0, 0, 25)
    with pytest.raises(UserError, match="render needs a render_mode"):
        env.render()
