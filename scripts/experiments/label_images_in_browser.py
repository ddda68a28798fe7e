"""A robot compares pictures at the page, by its keys, and a reward model learns from its answers alone.

    prefrl image pretrain --out runs/base
    python scripts/experiments/label_images_in_browser.py runs/base     # 200 pairs, then the share ordered right

Needs the package playwright and Debian's chromium. The robot presses the arrow of the picture with the larger gold
reward. The reward model is then judged on pairs for prompts that it never saw; beside it stand one that learned
captions and tossed answers, and one that learned answers alone.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from playwright.sync_api import sync_playwright
from robot import answer_page

from prefrl.envs.scenes import Scenes
from prefrl.feedback import Query
from prefrl.image.data import write_rankings
from prefrl.image.evaluation import draw
from prefrl.image.model import ImageModel
from prefrl.image.people import read_answers
from prefrl.image.reward_model import Ranked, RewardModel
from prefrl.store import PreferenceStore


def main(
    model: tyro.conf.Positional[Path],
    *,
    labels: int = 200,
    held_out: int = 500,
    seconds: float = 0.3,
    sampling_steps: int = 12,
    seed: int = 0,
    size: str = "1280x800",
    out: Path = Path("runs/images-in-browser"),
) -> None:
    """Ask, answer, fit, judge.

    Args:
        model: what draws, a run of prefrl image pretrain.
        labels: pairs that the robot compares.
        held_out: pairs of held-out prompts to judge on.
        seconds: that each pair is looked at.
        sampling_steps: of drawing.
        seed: of the pictures and of the reward model.
        size: of the page.
        out: folder of the record, the rewards and the pictures of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    record = out / "pictures.sqlite"
    drawn = ["--sampling-steps", str(sampling_steps), "--seed", str(seed)]
    prefrl("image", "ask", model, "--record", record, "--num", labels, *drawn)
    took = answer_all(record, labels, seconds, size, out)
    answered = read_answers(str(record), (16, 16, 3))
    random = np.random.default_rng(seed)
    tossed = [Ranked(row.prompt, row.pictures, (1, 2) if random.random() < 0.5 else (2, 1)) for row in answered]
    write_rankings(out / "tossed", tossed)
    pairs = held_out_pairs(model, held_out, sampling_steps, seed)
    found = {"answers": len(answered), "seconds": round(took, 1)}
    for name, data, more in (
        ("answers and captions", record, []), ("tossed answers and captions", out / "tossed", []),
        ("answers alone", record, ["--captions", "0"]),
    ):  # fmt: skip
        place = out / name.replace(" ", "-")
        prefrl("image", "reward", "--model", model, "--data", data, "--out", place, "--quiet", *drawn, *more)
        found[name] = share_right(RewardModel.load(str(place)), *pairs)
    print(json.dumps(found, indent=2))


def prefrl(*words: Any) -> str:
    """Run the command; return what it says."""
    command = [sys.executable, "-m", "prefrl", *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def answer_all(record: Path, labels: int, seconds: float, size: str, pictures: Path) -> float:
    """Serve the record, answer what the page asks, return the seconds it took."""
    serving = subprocess.Popen([sys.executable, "-m", "prefrl", "serve", str(record)], stdout=subprocess.DEVNULL)
    try:
        with PreferenceStore(record) as store, sync_playwright() as playwright:
            while not store.facts().get("served_at"):
                time.sleep(0.2)
            link = prefrl("invite", record, "--name", "robot")
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            width, height = map(int, size.split("x"))
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(link)
            page.click("#begin")
            begun = time.monotonic()
            while store.num_open():
                answer_page(page, store, gold_of, seconds)
                if store.num_answers() in (3, labels // 2):
                    page.screenshot(path=pictures / f"after_{store.num_answers()}.png")
            took = time.monotonic() - begun
            page.screenshot(path=pictures / "end.png")
            browser.close()
            return took
    finally:
        serving.terminate()
        serving.wait()


def gold_of(query: Query) -> list[float]:
    """Return the gold reward of each picture of a query."""
    prompt = bytes(np.asarray(query.segments[0].observations)[0]).rstrip(b"\0").decode()
    pictures = np.stack([segment.actions[0] for segment in query.segments])
    return list(Scenes().gold([prompt] * len(pictures), pictures))


def held_out_pairs(model: Path, count: int, sampling_steps: int, seed: int) -> tuple[list[str], Any, Any]:
    """Return prompts of pairs, their pictures `(2 count, H, W, 3)`, and gold `(count, 2)`."""
    world = Scenes(seed)
    prompts = [prompt for prompt in world.prompts(count, held_out=True) for _ in range(2)]
    pictures, _ = draw(ImageModel.load(str(model)).eval(), prompts, sampling_steps, seed=seed + 1)
    return prompts, pictures, world.gold(prompts, pictures).reshape(count, 2)


def share_right(reward: RewardModel, prompts: list[str], pictures: Any, gold: Any) -> dict[str, float]:
    """Return the share of pairs in the order of gold, of all and of those at least 0.3 apart (of 4)."""
    said = np.asarray(reward(prompts, pictures)).reshape(gold.shape)
    apart = gold[:, 0] - gold[:, 1]
    right = (said[:, 0] - said[:, 1]) * apart > 0
    return {
        "all": round(float(right[apart != 0].mean()), 3), "apart": round(float(right[np.abs(apart) >= 0.3].mean()), 3)
    }  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
