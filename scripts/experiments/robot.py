"""A robot that sits in for a person at the viewer: it presses real keys in the real window, with xdotool."""

import atexit
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefrl.feedback import Query
from prefrl.store import PreferenceStore


def open_screen() -> None:
    """Start a virtual screen where there is none; it ends with this program."""
    if not os.environ.get("DISPLAY"):
        number, told = os.pipe()  # the screen chooses a number that no other has
        command = ["Xvfb", "-displayfd", str(told), "-screen", "0", "1400x900x24"]
        screen = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[told])
        atexit.register(screen.terminate)
        os.close(told)
        with os.fdopen(number) as read:
            os.environ["DISPLAY"] = f":{read.readline().strip()}"


def print_score(training: subprocess.Popen[str], store: PreferenceStore) -> None:
    """Wait for the end of a training that prints its summary as JSON, and print what the answers came to."""
    score = json.loads(training.communicate()[0].splitlines()[-1])
    random, best = score["random_true_return_mean"], score["baseline_true_return_mean"]
    score["share_of_true_reward_gain"] = round((score["true_return_mean"] - random) / (best - random), 3)
    print(json.dumps({**score, "answers": store.num_answers()}, indent=2))


def answer_page(page: Any, store: PreferenceStore, judge: Callable[[Query], Sequence[float]], seconds: float) -> None:
    """Answer what a page shows, once it has been looked at for long enough: press the arrow of the better of two.

    Args:
        page: of Playwright.
        store: the record, which tells what the page shows.
        judge: how good each item of a query is.
        seconds: looked at it for.
    """
    from itsdangerous import URLSafeSerializer  # which robots at the keys of a window do without

    asked = page.evaluate("document.body.dataset.screen === 'question' ? prefrl.session.question : null")
    if asked is None:
        time.sleep(0.2)
        return
    time.sleep(seconds)
    _, query_id, shown = URLSafeSerializer("").loads_unsafe(asked["ticket"])[1]
    worth = judge(store.query(query_id))
    left, right = worth[shown[0]], worth[shown[1]]
    page.keyboard.press("ArrowUp" if left == right else "ArrowLeft" if left > right else "ArrowRight")
    time.sleep(0.3)


class Robot:
    """Reads from the record what is on the screen and presses the arrow of the better of two.

    Args:
        record: the file that the viewer writes to.
        judge: how good each item of a query is.
        seconds: looked at each query for.
    """

    def __init__(self, record: Path, judge: Callable[[Query], Sequence[float]], seconds: float) -> None:
        self.store, self.judge, self.seconds = PreferenceStore(record), judge, seconds
        self._rows = sqlite3.connect(record, timeout=30)
        self._claimed: dict[str, tuple[str, list[int]]] = {}  # by the viewer, in the order in which it shows them
        self._last_answer = time.time()

    def look(self) -> None:
        """Answer what is shown, if it has been looked at for long enough."""
        time.sleep(0.05)
        held = self._rows.execute("SELECT token, query_id, shown FROM claims ORDER BY rowid").fetchall()
        known = self._claimed
        self._claimed = {token: (query_id, json.loads(shown)) for token, query_id, shown in held}
        in_order = [token for token in known if token in self._claimed]
        self._claimed = {token: self._claimed[token] for token in dict.fromkeys([*in_order, *self._claimed])}
        if not self._claimed or time.time() - self._last_answer < self.seconds:
            return
        query_id, shown = next(iter(self._claimed.values()))
        worth = self.judge(self.store.query(query_id))
        key = "Up" if worth[0] == worth[1] else "Left" if worth[shown[0]] > worth[shown[1]] else "Right"
        subprocess.run(["xdotool", "key", key], check=True)  # the first one only leads past the instruction
        time.sleep(0.3)
        self._last_answer = time.time()
