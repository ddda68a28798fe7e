"""Many people at the page at once, while its server is killed again and again: is an answer lost, or there twice?

    python scripts/benchmarks/benchmark_many_people.py                                    # SQLite
    python scripts/benchmarks/benchmark_many_people.py --record postgresql://me@localhost/an_empty_database
    python scripts/benchmarks/benchmark_many_people.py --kills 0 --think-seconds 1 --training HalfCheetah-v5

Each person is a program that does what the page does: it signs in by a link, holds questions ahead, sends answers until
they are acknowledged, and fetches the clips. What the record holds at the end is compared with what was acknowledged.
The time from an answer to the next question is that of the two requests together, without waiting ahead of need. With
`--training`, a run of that environment learns from a simulated teacher on the same machine, in turn alone and while
people answer, and its times are compared.
"""

import http.client
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from itsdangerous import URLSafeSerializer

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.feedback import Answer, Query
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

NUM_SEGMENTS = 40


class Visitor:
    """What a browser does for one person.

    Args:
        port: of the server.
        token: of the person's link.
        think_seconds: that a question is looked at for.
    """

    paused = threading.Lock()
    """Held while nobody is to ask anything."""
    over = threading.Event()
    """Set when enough was asked."""

    def __init__(self, port: int, token: str, think_seconds: float) -> None:
        self.port, self.token, self.think_seconds = port, token, think_seconds
        self.acknowledged: list[str] = []
        self.seconds: list[float] = []
        self.error = ""
        self._headers: dict[str, str] = {"content-type": "application/json"}

    def work(self) -> None:
        """Answer until there is nothing more."""
        try:
            self._sign_in()
            while (found := self._ask("POST", "next", {"held": [], "want": 1}))["questions"] or not found["finished"]:
                for question in found["questions"]:
                    with self.paused:
                        if self.over.is_set():
                            return
                    self._answer(question)
                if not found["questions"]:
                    time.sleep(0.5)  # as the page does while it waits
                if self.over.is_set():
                    return
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def _answer(self, question: dict[str, Any]) -> None:
        for item in question["items"]:
            self._ask("GET", item["clip"])
        pause = self.pause()
        time.sleep(pause)
        begin = time.perf_counter()
        said = {"order": self.order(question), "seconds": pause, "ago": 0, "seen": 1}
        reply = self._ask("POST", "answer", {"ticket": question["ticket"], **said})
        if reply.get("recorded"):
            self.acknowledged.append(question["ticket"])
        self._ask("POST", "next", {"held": [], "want": 0})
        self.seconds.append(time.perf_counter() - begin)

    def pause(self) -> float:
        """Return for how many seconds a question is looked at."""
        return self.think_seconds

    def order(self, question: dict[str, Any]) -> list[list[int]]:
        """Return what is said of a question: the places of its items, best first, those of a tie together."""
        return [[0]]

    def _sign_in(self) -> None:
        status, _, headers = self._send("POST", "enter", {"token": self.token})
        assert status == 200
        self._headers["cookie"] = headers["set-cookie"].partition(";")[0]
        _, page, _ = self._send("GET", "")
        settings = json.loads(re.findall(rb'id="settings">(.*?)</script>', page)[0])
        self._headers["x-prefrl"] = settings["csrf"]

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        status, body, headers = self._send(method, path, content)
        if status == 410:
            return {}
        assert status == 200, f"{method} {path.partition('/')[0]}: {status} {body[:200]!r}"
        return json.loads(body) if "json" in headers.get("content-type", "") else body

    def _send(self, method: str, path: str, content: Any = None) -> tuple[int, bytes, dict[str, str]]:
        """Send a request until it is answered, as the page does."""
        for attempt in range(600):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                body = None if content is None else json.dumps(content)
                connection.request(method, f"/{path}", body, self._headers)
                answer = connection.getresponse()
                read = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
                if answer.status not in (429, 500, 502, 503, 504):
                    return answer.status, *read
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(min(1.0, 0.05 * 2**attempt) if attempt < 10 else 1.0)
        raise TimeoutError(f"{method} {path.partition('/')[0]} was not answered")


class Judge(Visitor):
    """Answers by the true returns, and looks about as long at each question, but never the same.

    Args:
        port: of the page.
        token: of the person's link.
        think_seconds: that a question is looked at for, about.
        store: the record, which says what the true returns are.
        seed: of how long each is looked at.
    """

    def __init__(self, port: int, token: str, think_seconds: float, store: PreferenceStore, seed: int) -> None:
        super().__init__(port, token, think_seconds)
        self._store, self._random = store, np.random.default_rng(seed)

    def pause(self) -> float:
        """Return for how many seconds a question is looked at."""
        return float(self.think_seconds * self._random.lognormal(0.0, 0.4))

    def order(self, question: dict[str, Any]) -> list[list[int]]:
        """Return which of the two at the left and at the right is better, as the page sends it."""
        _, query_id, shown = URLSafeSerializer("").loads_unsafe(question["ticket"])[1]
        worth = [part.true_rewards.sum() for part in self._store.query(query_id).segments]
        left, right = worth[shown[0]], worth[shown[1]]
        return [[0, 1]] if left == right else [[0], [1]] if left > right else [[1], [0]]


def main(
    record: str | None = None,
    people: int = 20,
    answers: int = 5000,
    kills: int = 20,
    think_seconds: float = 0.0,
    training: str | None = None,
    repeats: int = 3,
) -> None:
    """Let people answer, kill the server meanwhile, and count.

    Args:
        record: URL of an empty database; None: a file, for the time of this.
        people: at once.
        answers: in all.
        kills: of the server, spread over the answers.
        think_seconds: that each question is looked at for.
        training: an environment that is trained in meanwhile, on one thread.
        repeats: of the training, alone and beside people, who stop with the last.
    """
    with tempfile.TemporaryDirectory() as folder:
        where: Path | str = record or Path(folder) / "record.sqlite"
        with PreferenceStore(where) as store:
            fill(store, answers)
            tokens = [store.links.make(f"person {number}") for number in range(people)]
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            server = serve(where, port)
            visitors = [Visitor(port, token, think_seconds) for token in tokens]
            threads = [threading.Thread(target=visitor.work) for visitor in visitors]
            begin = time.perf_counter()
            for thread in threads:
                thread.start()
            if training:
                for _ in range(repeats):
                    train_in_turn(training, threads)
                Visitor.over.set()
            for kill in range(1, kills + 1):
                while store.num_answers() < kill * answers // (kills + 1) and any(t.is_alive() for t in threads):
                    time.sleep(0.1)
                server.kill()
                server.wait()
                server = serve(where, port)
            for thread in threads:
                thread.join()
            seconds = time.perf_counter() - begin
            server.terminate()
            report(store, visitors, answers, seconds, kills)


def train_in_turn(env_id: str, people: list[threading.Thread]) -> None:
    """Print the seconds that a run takes while the people wait, and while they answer."""
    with Visitor.paused:
        time.sleep(2.0)  # until the last of them has finished
        alone = train(env_id)
    beside = train(env_id)
    if not any(thread.is_alive() for thread in people):
        sys.exit("The people were done before the training was: give them more --answers.")
    print(f"{env_id}: {alone:.1f} s alone, {beside:.1f} s beside people: {beside / alone - 1:+.1%}", flush=True)


def train(env_id: str) -> float:
    """Return the seconds that a run from comparisons takes, with its start."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--steps", "100000", "--labels", "100", "--quiet", "--no-video", "--out", f"{folder}/run"]
        begin = time.perf_counter()
        command = [sys.executable, "-m", "prefrl", "train", env_id, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin


def fill(store: PreferenceStore, num: int) -> None:
    """Put questions into the record, about a few segments with clips."""
    rng = np.random.default_rng(0)
    segments = [
        Segment(observations=rng.normal(size=(26, 3)), actions=rng.normal(size=(25, 1)), true_rewards=np.zeros(25))
        for _ in range(NUM_SEGMENTS)
    ]
    for begin in range(0, num, 500):
        pairs = [rng.choice(NUM_SEGMENTS, 2, replace=False) for _ in range(begin, min(num, begin + 500))]
        store.add_queries(
            [Query(segments=(segments[a], segments[b]), session=begin + number) for number, (a, b) in enumerate(pairs)]
        )
    frames = rng.integers(0, 255, (25, 160, 160, 3), dtype=np.uint8)
    made = encode_clip(frames, 30)
    size = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
    for one in segments:
        store.add_clip(one.id, Clip(data=made.data, format=FORMAT, frames_per_second=30, **size))


def serve(where: Path | str, port: int) -> subprocess.Popen[bytes]:
    """Start the page."""
    options = ["--port", str(port), "--repeat-share", "0"]
    return subprocess.Popen([sys.executable, "-m", "prefrl", "serve", str(where), *options], stdout=subprocess.DEVNULL)


def report(store: PreferenceStore, visitors: list[Visitor], answers: int, seconds: float, kills: int) -> None:
    """Print what was acknowledged, what the record holds, and how long it took."""
    held = [answer for _, answer in store.answers(standing=True) if isinstance(answer, Answer)]
    acknowledged = sum(len(visitor.acknowledged) for visitor in visitors)
    waited = [one for visitor in visitors for one in visitor.seconds]
    figures = {
        "people": len(visitors),
        "kills": kills,
        "questions": answers,
        "acknowledged": acknowledged,
        "in the record": len(held),
        "lost": max(0, acknowledged - len(held)),
        "twice": len(held) - len({answer.query_id for answer in held}),
        "errors": [visitor.error for visitor in visitors if visitor.error],
        "answers per second": round(len(held) / seconds, 1),
        "answer and next question, median ms": round(1000 * statistics.median(waited), 1),
        "95th percentile ms": round(1000 * float(np.percentile(waited, 95)), 1),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
