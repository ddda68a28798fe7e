"""Takes pictures of the viewer at every turn: start, question, pause, help, ranking, rating, text, end, high contrast.

    python scripts/tools/viewer_pictures.py --folder pictures --size 1280x800

Needs Xvfb and xdotool; real keys are pressed in a real window, as a person would.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.control.rendering import choose_gl_backend, prepare_pictures
from prefrl.envs import make_env
from prefrl.feedback import Query, Response
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

STORY = "A fox asked a dog to stay where it was, to practise its jump. The dog slept. "
TOUR = [
    ("start", []),
    ("question", ["space"]),
    ("pause", ["space", "period"]),
    ("help", ["h"]),
    ("contrast", ["h", "c"]),
    ("instruction", ["c", "i"]),
    ("ranking", ["i", "Left", "Right", "2", "3"]),
    ("ranking9", ["1", "4", "5", "Up", "7"]),
    ("rating", ["1", "2", "3", "4", "6", "8", "9"]),
    ("text", ["5"]),
    ("text4", ["Right"]),
    ("end", list("1234")),
]
"""Names of the pictures, and the keys that lead to each."""


def fill(path: Path, env_id: str) -> None:
    """Make a record with questions of every kind, about episodes at random."""
    choose_gl_backend()
    env, segments = make_env(env_id, render_mode="rgb_array"), []
    prepare_pictures(env)
    env.action_space.seed(3)
    with PreferenceStore(path) as store:
        clips = []
        for number in range(9):
            seen, frames = [env.reset(seed=number)[0]], []
            for _ in range(30):
                seen.append(env.step(env.action_space.sample())[0])
                frames.append(np.array(env.render()))
            segments.append(Segment(observations=np.stack(seen), actions=np.zeros(30), true_rewards=np.ones(30)))
            made = encode_clip(frames, 30)
            shape = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
            clips.append(Clip(data=made.data, format=FORMAT, frames_per_second=30, **shape))
        texts = [Response(prompt="Tell of a fox and a dog.", text=STORY * times) for times in (2, 30, 1, 3)]
        queries = [Query(segments=tuple(segments[:2])), Query(segments=tuple(segments[2:4]))]
        queries += [Query(segments=tuple(segments[:k]), kind="ranking", session=k) for k in (4, 9)]
        queries += [Query(segments=(segments[1],), kind="rating", scale=7, session=10)]
        queries += [
            Query(responses=tuple(texts[:2]), session=11),
            Query(responses=tuple(texts), kind="ranking", session=12),
        ]
        store.add_queries(queries)
        for segment, clip in zip(segments, clips, strict=True):
            store.add_clip(segment.id, clip)
        agreement = {"num": 120, "share": 0.87, "low": 0.8, "high": 0.92}
        about = {"labels_wanted": 150, "training": "training: 61,440 steps, 27 answers learned from"}
        store.set_facts(
            {
                **about,
                "held_out_agreement": agreement,
                "instruction": "Which one moves more like what you want? There is no wrong answer.",
            }
        )


def take_picture(screen: Path, path: Path) -> None:
    """Save what is on a virtual screen: the file that Xvfb keeps it in, in the format xwd."""
    data = screen.read_bytes()
    header = struct.unpack(">25I", data[:100])
    rows = np.frombuffer(data[header[0] + 12 * header[19] :], np.uint8)[: header[12] * header[5]].reshape(header[5], -1)
    picture = rows[:, : 4 * header[4]].reshape(header[5], header[4], 4)[:, :, 2::-1]
    Image.fromarray(picture).quantize(128).save(path)


def main(folder: Path = Path("pictures"), size: str = "1280x800", env: str = "CartPole-v1") -> None:
    work = Path(tempfile.mkdtemp())
    fill(work / "demo.sqlite", env)
    os.environ["DISPLAY"] = ":94"
    os.environ.pop("SDL_VIDEODRIVER", None)
    screen = subprocess.Popen(
        ["Xvfb", ":94", "-screen", "0", f"{size}x24", "-fbdir", str(work)], stderr=subprocess.DEVNULL
    )
    time.sleep(1.0)
    command = [
        sys.executable,
        "-m",
        "prefrl",
        "label",
        str(work / "demo.sqlite"),
        "--size",
        size,
        "--repeat-share",
        "0",
    ]
    viewer = subprocess.Popen([*command, "--name", "anna"])
    time.sleep(6.0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, keys in TOUR:
        for key in keys:
            subprocess.run(["xdotool", "key", key], check=True)
            time.sleep(0.6)
        time.sleep(1.5)
        take_picture(work / "Xvfb_screen0", folder / f"{name}.png")
    viewer.terminate()
    screen.terminate()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
