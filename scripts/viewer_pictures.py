"""Takes pictures of the viewer at every turn: start, question, pause, help, ranking, rating, text, end, high contrast.

    python scripts/viewer_pictures.py FOLDER [WIDTHxHEIGHT]

Needs Xvfb and xdotool; real keys are pressed in a real window, as a person would.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.feedback import Query, Response
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

folder, size = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "1280x800"
work = Path(tempfile.mkdtemp())
env, segments = gymnasium.make("CartPole-v1", render_mode="rgb_array"), []
told = "A fox once asked a dog to stay where it was, for it wanted to practise its jump. The dog agreed, and slept. "
prompt = "Tell a short story about a fox and a dog."
with PreferenceStore(work / "pole.sqlite") as store:
    for number in range(9):
        seen, frames = [env.reset(seed=number)[0]], []
        for step in range(30):
            seen.append(env.step((step + number) % 2 if number % 3 else number % 2)[0])
            frames.append(np.array(env.render()))
        segments.append(Segment(observations=np.stack(seen), actions=np.zeros(30), true_rewards=np.ones(30)))
    texts = [Response(prompt=prompt, text=told * times) for times in (2, 30, 1, 3)]
    queries = [Query(segments=tuple(segments[:2])), Query(segments=tuple(segments[2:4]))]
    queries += [Query(segments=tuple(segments[:k]), kind="ranking", session=k) for k in (4, 9)]
    queries += [Query(segments=(segments[1],), kind="rating", scale=7, session=10)]
    queries += [
        Query(responses=tuple(texts[:2]), session=11),
        Query(responses=tuple(texts), kind="ranking", session=12),
    ]
    store.add_queries(queries)
    for number, segment in enumerate(segments):
        env.reset(seed=number)
        frames = []
        for step in range(30):
            env.step((step + number) % 2 if number % 3 else number % 2)
            frames.append(np.array(env.render()))
        made = encode_clip(frames, 30)
        store.add_clip(segment.id, Clip(data=made.data, format=FORMAT, frames_per_second=30, width=made.width, height=made.height, num_frames=made.num_frames))  # fmt: skip  # noqa: E501
    about = {"labels_wanted": 150, "agreement": 0.87, "training": "training: 61,440 steps, 27 answers learned from"}
    store.set_facts({**about, "instruction": "The pole should stand upright, and the cart should stay in the middle."})
os.environ["DISPLAY"] = ":94"
screen = subprocess.Popen(["Xvfb", ":94", "-screen", "0", f"{size}x24", "-fbdir", str(work)], stderr=subprocess.DEVNULL)
time.sleep(1.0)
command = [sys.executable, "-m", "prefrl", "label", str(work / "pole.sqlite"), "--size", size, "--repeat-share", "0"]
viewer = subprocess.Popen([*command, "--name", "anna"])
time.sleep(6.0)
folder.mkdir(parents=True, exist_ok=True)
tour = [
    ("start", []),
    ("question", ["space"]),
    ("pause", ["space", "period"]),
    ("help", ["h"]),
    ("contrast", ["h", "c"]),
]
tour += [
    ("instruction", ["c", "i"]),
    ("ranking", ["i", "Left", "Right", "2", "3"]),
    ("ranking9", ["1", "4", "5", "Up", "7"]),
]
tour += [("rating", ["1", "2", "3", "4", "6", "8", "9"]), ("text", ["5"]), ("text4", ["Right"]), ("end", list("1234"))]
for name, keys in tour:
    for key in keys:
        subprocess.run(["xdotool", "key", key], check=True)
        time.sleep(0.6)
    time.sleep(1.5)
    data = (work / "Xvfb_screen0").read_bytes()
    header = struct.unpack(">25I", data[:100])
    rows = np.frombuffer(data[header[0] + 12 * header[19] :], np.uint8)[: header[12] * header[5]].reshape(header[5], -1)
    Image.fromarray(rows[:, : 4 * header[4]].reshape(header[5], header[4], 4)[:, :, 2::-1]).save(folder / f"{name}.png")
viewer.terminate()
screen.terminate()
