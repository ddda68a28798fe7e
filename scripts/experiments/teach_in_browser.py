"""A robot sits in for a person at the page: it presses keys in a real browser, and training goes on meanwhile.

    python scripts/experiments/teach_in_browser.py    # the command of the README, 150 answers, then the score
    python scripts/experiments/teach_in_browser.py --labels 20 --steps 20000

Needs the package playwright and Debian's chromium. The robot reads from the record which segments are on the page and
presses the arrow of the one with the larger true return; training never sees that return.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import tyro
from playwright.sync_api import sync_playwright
from robot import answer_page, print_score

from prefrl.feedback import Query
from prefrl.store import PreferenceStore


def main(
    env: str = "Pendulum-v1",
    labels: int = 150,
    steps: int | None = None,
    seconds: float = 1.0,
    seed: int = 0,
    out: Path = Path("runs/taught-in-browser"),
    size: str = "1280x800",
    pictures: Path | None = None,
) -> None:
    """Teach, then print the score.

    Args:
        env: what to train on.
        labels: answers to give.
        seed: of the run.
        steps: least steps of the training; None: the environment's.
        seconds: looked at each pair of clips for.
        out: the run folder; a run that was stopped there goes on.
        size: of the page; small ones take less of a machine that trains beside.
        pictures: folder for pictures of the page; None: none.
    """
    command = ["train", env, "--annotator", "human", "--labels", str(labels), "--seed", str(seed), "--out", str(out)]
    command += ["--baseline", *(["--steps", str(steps)] if steps else [])]
    command += ["--instruction", "Swing up, then stand still on top."] if env == "Pendulum-v1" else []
    if (out / "config.json").is_file():  # it was stopped
        command = ["resume", str(out)]
        with PreferenceStore(out / "record.sqlite") as store:
            store.set_facts({"served_at": None})  # it will be served anew
    command += ["--serve", "--no-viewer", "--json"]
    training = subprocess.Popen([sys.executable, "-m", "prefrl", *command], stdout=subprocess.PIPE, text=True)
    record = out / "record.sqlite"
    while not record.exists():
        time.sleep(0.5)
    with PreferenceStore(record) as store, sync_playwright() as playwright:
        while not store.facts().get("served_at"):
            time.sleep(0.5)
        invite = [sys.executable, "-m", "prefrl", "invite", str(out), "--name", "robot"]
        link = subprocess.run(invite, capture_output=True, text=True, check=True).stdout.strip()
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        width, height = map(int, size.split("x"))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(link)
        page.click("#begin")
        while training.poll() is None and store.facts().get("training_state") != "finished":
            answer_page(page, store, true_returns, seconds)
            if pictures is not None and store.num_answers() in (1, labels // 2, labels):
                page.screenshot(path=pictures / f"after_{store.num_answers()}.png")
        print_score(training, store)
        if pictures is not None:
            time.sleep(15)
            page.screenshot(path=pictures / "end.png")
        browser.close()


def true_returns(query: Query) -> list[float]:
    """Return the true return of each segment."""
    return [float(part.true_rewards.sum()) for part in query.segments]


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
