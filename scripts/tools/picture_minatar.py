"""Draw four moments of each of MinAtar's games, played at random, into `docs/pictures/minatar.png`.

python scripts/tools/picture_minatar.py
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from prefrl.envs.minatar import MinAtar
from prefrl.envs.registration import MINATAR_GAMES

MOMENTS = (12, 40, 300, 1200)
GAP = 8


def main(out: Path = Path("docs/pictures/minatar.png")) -> None:
    """Write the picture."""
    rows = []
    for game in MINATAR_GAMES:
        env, rng, row = MinAtar(game, render_mode="rgb_array"), np.random.default_rng(0), []
        env.reset(seed=0)
        for step in range(max(MOMENTS) + 1):
            if step in MOMENTS:
                picture = env.render()
                assert picture is not None
                row.append(np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
            if env.step(rng.integers(env.action_space.n))[2]:  # type: ignore[attr-defined]
                env.reset()
        rows.append(np.concatenate(row, axis=1))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP]).save(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
