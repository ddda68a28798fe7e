"""Draw what the masks of the seven Atari games hide, from frames of play, into `docs/pictures/atari_masks.png`.

    python scripts/tools/picture_masks.py

A row for each game: the screen, the screen with the score blacked out, and what agent and reward model see of
it (enlarged).
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

from prefrl.envs.atari import AtariVectorEnv
from prefrl.envs.atari_masks import MASKS


def play(game: str, num_steps: int) -> tuple[AtariVectorEnv, np.ndarray]:
    """Play at random, each action held for a while; return the environment and its last observation."""
    env, rng = AtariVectorEnv(game), np.random.default_rng(5)
    env.reset(seed=0)
    for step in range(num_steps):
        if step % 8 == 0:
            action = rng.integers(env.single_action_space.n, size=1)
        if game == "enduro" and step % 16 < 12:
            action = np.array([1])  # full speed
        observations = env.step(action)[0]
    return env, observations[0, -1]


def main(out: Path = Path("docs/pictures/atari_masks.png"), num_steps: int = 420) -> None:
    """Write the picture."""
    rows = []
    for game in MASKS:
        env, seen = play(game, num_steps)
        pictures = [env.clip(0, num_steps - 1, 1, masked=masked)[0] for masked in (False, True)]
        grey = Image.fromarray(seen).resize((160, 210), Image.Resampling.NEAREST).convert("RGB")
        rows.append(np.concatenate([*pictures, np.asarray(grey)], axis=1))
        env.close()
    height, width = rows[0].shape[:2]
    columns, gap = 2, 16
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * (width + gap), lines * (height + gap)), (60, 60, 60))
    pen = ImageDraw.Draw(sheet)
    for number, (game, row) in enumerate(zip(MASKS, rows, strict=True)):
        left, top = number % columns * (width + gap), number // columns * (height + gap)
        sheet.paste(Image.fromarray(row), (left, top + gap))
        pen.text((left + 4, top + 2), game, (255, 255, 255))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
