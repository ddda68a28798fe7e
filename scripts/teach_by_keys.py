"""A robot sits in for a person: it presses real keys in the viewer's real window, and training goes on meanwhile.

    python scripts/teach_by_keys.py                    # the command of the README, 150 answers, then the score
    python scripts/teach_by_keys.py --labels 20 --steps 20000

Needs Xvfb (without a screen) and xdotool. The robot reads from the record which segments are on the screen and presses
the arrow key of the one with the larger true return; training never sees that return.
"""

import argparse
import contextlib
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
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="runs/taught-by-keys")
given = parser.parse_args()

if not os.environ.get("DISPLAY"):
    os.environ["DISPLAY"] = ":93"
    screen = subprocess.Popen(["Xvfb", ":93", "-screen", "0", "1400x900x24"], stderr=subprocess.DEVNULL)
    time.sleep(1.0)
command = ["train", given.env, "--annotator", "human", "--labels", str(given.labels), "--seed", str(given.seed)]
command += ["--out", given.out, "--baseline", "--json", "--no-video"]
command += ["--steps", str(given.steps)] if given.steps else []
training = subprocess.Popen([sys.executable, "-m", "prefrl", *command], stdout=subprocess.PIPE, text=True)

record = Path(given.out) / "record.sqlite"
claimed: list[tuple[str, str, list[int]]] = []  # what the viewer has claimed, in the order in which it shows it
answered, began = 0, None
while training.poll() is None and answered < 3 * given.labels:
    time.sleep(0.02)
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(record, timeout=10)) as rows:
        held = rows.execute("SELECT token, query_id, shown FROM claims ORDER BY rowid").fetchall()
        claimed = [known for known in claimed if known[0] in [token for token, _, _ in held]]
        for token, query_id, shown in held:
            if token not in [known for known, _, _ in claimed]:
                claimed.append((token, query_id, json.loads(shown)))
        if not claimed:
            continue
        if began is None:
            began = time.time()
            time.sleep(3.0)  # the window opens
            subprocess.run(["xdotool", "key", "space"], check=True)  # past the instruction
        token, query_id, shown = claimed[0]
        time.sleep(given.seconds)
        with PreferenceStore(record) as store:
            returns = [segment.true_rewards.sum() for segment in store.query(query_id).segments]
        key = "Up" if returns[0] == returns[1] else "Left" if returns[shown[0]] > returns[shown[1]] else "Right"
        subprocess.run(["xdotool", "key", key], check=True)
        for _ in range(500):
            if rows.execute("SELECT count(*) FROM answers WHERE token = ?", (token,)).fetchone()[0]:
                claimed.pop(0)
                answered += 1
                break
            time.sleep(0.01)
score = json.loads(training.communicate()[0].splitlines()[-1])
share = (score["true_return_mean"] - score["random_true_return_mean"]) / (
    score["baseline_true_return_mean"] - score["random_true_return_mean"]
)
print(json.dumps({**score, "answers": answered, "share_of_true_reward_gain": round(share, 3)}, indent=2))
