"""A robot sits in for a person: it presses real keys in the viewer's real window, and training goes on meanwhile.

    python scripts/teach_by_keys.py                    # the command of the README, 150 answers, then the score
    python scripts/teach_by_keys.py --labels 20 --steps 20000

Needs xdotool, and Xvfb where there is no screen. The robot reads from the record which segments are on the screen and
presses the arrow of the one with the larger true return; training never sees that return.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from prefrl.store import PreferenceStore

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--env", default="Pendulum-v1")
parser.add_argument("--labels", type=int, default=150)
parser.add_argument("--steps", type=int, default=None, help="least steps of the training; default: the environment's")
parser.add_argument("--seconds", type=float, default=1.0, help="looked at each pair of clips for")
parser.add_argument("--out", type=Path, default=Path("runs/taught-by-keys"))
given = parser.parse_args()

if not os.environ.get("DISPLAY"):
    os.environ["DISPLAY"] = ":93"
    screen = subprocess.Popen(["Xvfb", ":93", "-screen", "0", "1400x900x24"], stderr=subprocess.DEVNULL)
    time.sleep(1.0)
command = ["train", given.env, "--annotator", "human", "--labels", str(given.labels), "--out", str(given.out)]
command += ["--baseline", "--json", "--no-video", *(["--steps", str(given.steps)] if given.steps else [])]
training = subprocess.Popen([sys.executable, "-m", "prefrl", *command], stdout=subprocess.PIPE, text=True)

while not (given.out / "record.sqlite").exists():
    time.sleep(0.5)
store, rows = PreferenceStore(given.out / "record.sqlite"), sqlite3.connect(given.out / "record.sqlite", timeout=30)
claimed: dict[str, tuple[str, list[int]]] = {}  # what the viewer has claimed, in the order in which it shows it
last_answer = time.time()
while training.poll() is None and store.facts().get("training_state") != "finished":
    time.sleep(0.05)
    held = rows.execute("SELECT token, query_id, shown FROM claims ORDER BY rowid").fetchall()
    claimed |= {token: (query_id, json.loads(shown)) for token, query_id, shown in held if token not in claimed}
    claimed = {token: value for token, value in claimed.items() if token in [row[0] for row in held]}
    if not claimed or time.time() - last_answer < given.seconds:
        continue
    query_id, shown = next(iter(claimed.values()))
    returns = [segment.true_rewards.sum() for segment in store.query(query_id).segments]
    key = "Up" if returns[0] == returns[1] else "Left" if returns[shown[0]] > returns[shown[1]] else "Right"
    subprocess.run(["xdotool", "key", key], check=True)  # the first one only leads past the instruction
    time.sleep(0.3)
    last_answer = time.time()
score = json.loads(training.communicate()[0].splitlines()[-1])
random, best = score["random_true_return_mean"], score["baseline_true_return_mean"]
score["share_of_true_reward_gain"] = round((score["true_return_mean"] - random) / (best - random), 3)
print(json.dumps({**score, "answers": store.num_answers()}, indent=2))
