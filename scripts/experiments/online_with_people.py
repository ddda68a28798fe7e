"""A robot at real keys compares a policy's own answers while online DPO trains it; beside it, DPO on as many answers.

    prefrl text demo --out runs/text-0      # for its fine-tuned model
    python scripts/experiments/online_with_people.py runs/text-0/sft --where window
    python scripts/experiments/online_with_people.py runs/text-0/sft --where browser

The robot presses the arrow of the answer with the larger gold reward, which the policy never sees. The offline rivals
start from the same model with the same beta and rate: `own` learns from as many comparisons of that model's own
answers, made beforehand; `same` from the very answers that the robot gave, all at once. Each goes through its data
`--epochs` times, and its best number of passes counts. The window needs xdotool, and Xvfb where there is no screen; the
browser the package playwright and Debian's chromium.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import tyro
from robot import Robot, answer_page, open_screen

from prefrl.envs.service_desk import ServiceDesk
from prefrl.feedback import Query
from prefrl.store import PreferenceStore


def main(
    model: tyro.conf.Positional[Path],
    *,
    where: Literal["window", "browser"] = "window",
    labels: int = 300,
    seconds: float = 0.1,
    learning_rate: float = 5e-4,
    batch: int = 8,
    epochs: tuple[int, ...] = (1, 3, 6),
    seed: int = 0,
    out: Path = Path("runs/online-with-people"),
) -> None:
    """Train online beside the robot, then offline, and print the gold rewards.

    Args:
        model: a fine-tuned model.
        where: the robot answers.
        labels: answers that it gives.
        seconds: looked at each pair of answers for.
        learning_rate: of all.
        batch: answers to an update, of all.
        epochs: passes over the answers that the offline rivals try.
        seed: of all.
        out: a new folder.
    """
    out.mkdir(parents=True)
    rate = ["--training.optimiser.learning-rate", str(learning_rate)]
    more = ["--model", str(model), "--seed", str(seed), "--watch.times", "1", "--watch.world", "servicedesk"]
    both = [*more, *rate, "--quiet"]
    episodes = 2 * batch * (labels // batch)
    online = ["--annotator", "human", "--training.episodes", str(episodes)]
    for size in ("batch", "minibatch"):
        online += [f"--training.{size}-size", str(2 * batch)]
    training = subprocess.Popen(prefrl("text", "online-dpo", *both, *online, "--out", str(out / "online")))
    record = out / "online" / "record.sqlite"
    while not record.is_file():
        time.sleep(0.2)
    with PreferenceStore(record) as store, (window if where == "window" else browser)(record, store, seconds) as look:
        while training.poll() is None:
            if taught(store) < episodes // 2:  # more questions wait than the last steps need
                look()
            else:
                time.sleep(0.2)
        given = taught(store)
    own = out / "own.jsonl"
    pairs = ["--responses", "2", "--temperature", "0", "--prompts", str(episodes // 2), "--seed", str(seed + 1)]
    subprocess.run(prefrl("text", "compare", "--model", str(model), "--out", str(own), *pairs), check=True)
    found: dict[str, Any] = {"where": where, "answers": given, "online": golds(out / "online")}
    for name, data in (("own", own), ("same", record)):
        tried = []
        for passes in epochs:
            place = out / f"{name}-{passes}"
            sizes = ["--training.epochs", str(passes), "--training.batch-size", str(batch)]
            subprocess.run(prefrl("text", "dpo", *both, *sizes, "--data", str(data), "--out", str(place)), check=True)
            tried.append(golds(place)[-1])
        found[name] = dict(zip(map(str, epochs), tried, strict=True))
    print(json.dumps(found))


def prefrl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefrl", *arguments]


def gold(query: Query) -> list[float]:
    texts = [response.text for response in query.responses]
    return list(ServiceDesk.gold([response.prompt for response in query.responses], texts))


def taught(store: PreferenceStore) -> int:
    """Return how many answers are to be learned from: what the page asks again tells how steady people are."""
    return len(store.answers(repeats=False))


def golds(run: Path) -> list[float]:
    """Return the gold reward at each evaluation of a run, the one at the start first."""
    rows = map(json.loads, (run / "evaluations.jsonl").read_text().splitlines())
    return [round(row["gold"], 2) for row in rows]


@contextmanager
def window(record: Path, store: PreferenceStore, seconds: float) -> Iterator[Callable[[], None]]:
    """Open the viewer; give what has the robot look at it once."""
    open_screen()
    viewer = subprocess.Popen(prefrl("label", str(record), "--name", "robot", "--repeat-share", "0"))
    try:
        yield Robot(record, gold, seconds).look
    finally:
        viewer.terminate()
        viewer.wait(timeout=30)


@contextmanager
def browser(record: Path, store: PreferenceStore, seconds: float) -> Iterator[Callable[[], None]]:
    """Serve the record and open the page; give what has the robot look at it once."""
    from playwright.sync_api import sync_playwright

    serving = subprocess.Popen(prefrl("serve", str(record)), stdout=subprocess.DEVNULL)
    try:
        while not store.facts().get("served_at"):
            time.sleep(0.2)
        invite = prefrl("invite", str(record), "--name", "robot")
        link = subprocess.run(invite, capture_output=True, text=True, check=True).stdout.strip()
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            ).new_page(viewport={"width": 800, "height": 600})
            page.goto(link)
            page.click("#begin")
            yield lambda: answer_page(page, store, gold, seconds)
    finally:
        serving.terminate()
        serving.wait()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
