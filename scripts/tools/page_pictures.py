"""Takes the pictures of the page that the documents show: a campaign on Pendulum, through Debian's Chromium.

    python scripts/tools/page_pictures.py --folder docs

Needs the extra serve, the package playwright and Debian's chromium.
"""

import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tyro
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.control.rendering import choose_gl_backend, prepare_pictures
from prefrl.envs import make_env
from prefrl.feedback import Comparison, Query
from prefrl.human_ui.examples import pin_example
from prefrl.human_ui.page.app import Page, make_app
from prefrl.human_ui.page.command import make_server
from prefrl.human_ui.page.gate import Campaign
from prefrl.human_ui.page.host import Host
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

LENGTH, FRAMES_PER_SECOND = 40, 20
INSTRUCTION = "It should swing up, then stand still on top."
CONSENT = """\
You are shown pairs of short clips of a simulated pendulum, and say which of the two does better what is asked for.
It takes about twenty minutes.

What you choose, and when, is kept under the name that you were given; no address is. You may stop at any time, and have
everything removed with "Withdraw" in the help. The answers train a program, and are published without names."""
PEOPLE = {"anna": 0.95, "ben": 0.85, "cleo": 0.5}  # how often they say what the true reward says


def record_segments(store: PreferenceStore, num: int) -> list[str]:
    """Record questions about episodes of random lengths of swing, with clips; return their names."""
    choose_gl_backend()
    env, segments = make_env("Pendulum-v1", render_mode="rgb_array"), []
    clips: list[Clip] = []
    prepare_pictures(env)
    rng = np.random.default_rng(0)
    for number in range(num + 1):
        seen, rewards, frames = [env.reset(seed=number)[0]], [], []
        torque = rng.uniform(-2, 2)
        for _ in range(LENGTH):
            observation, reward, *_ = env.step(np.array([torque * np.sign(seen[-1][2] or 1.0)], np.float32))
            seen.append(observation)
            rewards.append(float(reward))
            frames.append(np.array(env.render()))
        actions = np.zeros((LENGTH, 1), np.float32)
        segments.append(Segment(observations=np.stack(seen), actions=actions, true_rewards=np.array(rewards)))
        made = encode_clip(frames, FRAMES_PER_SECOND)
        shape = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
        clips.append(Clip(data=made.data, format=FORMAT, frames_per_second=FRAMES_PER_SECOND, **shape))
        if number:
            query = Query(segments=(segments[-2], segments[-1]), session=number, overlap=3, num_env_steps=500 * number)
            store.add_queries([query])
    for segment, clip in zip(segments, clips, strict=True):
        store.add_clip(segment.id, clip)
    return store.query_ids()


def answer(store: PreferenceStore, names: list[str]) -> None:
    """Let people answer, each as well as they do."""
    rng = np.random.default_rng(1)
    for name, right in PEOPLE.items():
        store.add_annotator(name, "person")
        store.links.make(name)
        for query in store.queries(names):
            better = float(query.segments[0].true_rewards.sum() > query.segments[1].true_rewards.sum())
            said = better if rng.random() < right else 1 - better
            told = (
                {"comment": "both fall at the end", "flagged": True} if name == "anna" and rng.random() < 0.05 else {}
            )
            shown = tuple(int(place) for place in rng.permutation(2))
            seconds = float(rng.lognormal(1.1, 0.4) if name != "cleo" else rng.uniform(0.1, 0.6))
            row = Comparison(query_id=query.id, annotator=name, preference=said, seconds=seconds, shown=shown, **told)
            store.add_answers([row])


def main(*, folder: Path = Path("docs")) -> None:
    """Take the pictures.

    Args:
        folder: where to write campaign.png, consent.png and phone.png.
    """
    with tempfile.TemporaryDirectory() as scratch, PreferenceStore(Path(scratch) / "record.sqlite") as store:
        names = record_segments(store, 40)
        answer(store, names[:30])
        pin_example(store, names[2], 0, True, "swings high")
        pin_example(store, names[3], 1, False, "hangs")
        campaign = Campaign(consent=CONSENT, must_see=0.0, repeat_share=0.0)
        host = Host(store, run="swing", environment="Pendulum-v1", instruction=INSTRUCTION, campaign=campaign)
        listener = socket.create_server(("127.0.0.1", 0))
        server = make_server(make_app({"": Page(host)}))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        at = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            owner = browser.new_page(viewport={"width": 1200, "height": 860})
            owner.goto(f"{at}#{store.links.make('owner', 'owner')}")
            owner.click("#peopleButton")
            owner.wait_for_selector("#disagreements video")
            _picture(owner, folder / "campaign.png")
            person = browser.new_page(viewport={"width": 1000, "height": 560})
            person.goto(f"{at}#{store.links.make('dora')}")
            person.wait_for_selector("#agree:visible")
            _picture(person, folder / "consent.png")
            phone = browser.new_context(
                viewport={"width": 390, "height": 750}, has_touch=True, is_mobile=True
            ).new_page()
            phone.goto(f"{at}#{store.links.make('emil')}")
            phone.locator("#agree").tap()
            phone.locator("#begin").tap()
            phone.wait_for_selector(".card video")
            _picture(phone, folder / "phone.png")
            browser.close()
        server.should_exit = True
        thread.join()


def _picture(page: Tab, path: Path) -> None:
    time.sleep(2.0)  # clips have come
    page.screenshot(path=path)
    print(f"Wrote {path}")


if __name__ == "__main__":
    tyro.cli(main)
