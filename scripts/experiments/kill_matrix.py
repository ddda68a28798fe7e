"""Kills runs of every kind at random instants, and damages each file of their folders in four ways; counts the losses.

    python scripts/experiments/kill_matrix.py --kills 1000
    python scripts/experiments/kill_matrix.py --kills 0 --damage-files     # the files

Each trial trains a small run in a process forked from this one, kills it with SIGKILL at a random instant, goes on with
`prefrl resume`, now and then killed again, and compares what the run came to with the run that was not killed: answers,
policies, reward and metrics, bit for bit. A damaged file must be refused with a sentence, said, or make no difference.
Only on Linux.
"""

import collections
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import safetensors.torch
import torch
import tyro

from prefrl import start
from prefrl.store import PreferenceStore

COMMON = ["--labels", "6", "--steps", "600", "--segment-length", "10", "--warmup-steps", "100", "--num-envs", "2",
          "--eval-episodes", "1", "--fit.num-steps", "5", "--fit.first-steps", "5", "--num-checkpoints", "3", "--quiet",
          "--no-video", "--no-viewer"]  # fmt: skip
PPO = ["--hyper", "n_steps=50", "batch_size=50", "n_epochs=1"]
KINDS = {
    "ppo": ["Pendulum-v1", *PPO],
    "ppo, with its baseline": ["Pendulum-v1", *PPO, "--baseline"],
    "ppo, mixed answers of a teacher that errs": ["Pendulum-v1", *PPO, "--queries.feedback", "mixed", "--teacher",
                                                  "mistake", "--queries.num-ranked", "3"],
    "ppo, rankings": ["Pendulum-v1", *PPO, "--queries.feedback", "ranking", "--teacher", "skip"],
    "ppo, discrete, disagreement": ["CartPole-v1", *PPO, "--fixed-horizon", "0", "--queries.method", "disagreement"],
    "a2c": ["Pendulum-v1", "--agent", "a2c", "--hyper", "n_steps=50"],
    "sac": ["Pendulum-v1", "--agent", "sac", "--hyper", "batch_size=16", "train_freq=8", "gradient_steps=1"],
    "sb3-sac": ["Pendulum-v1", "--agent", "sb3-sac", "--hyper", "batch_size=16", "train_freq=16", "gradient_steps=1"],
    "dqn": ["CartPole-v1", "--agent", "dqn", "--fixed-horizon", "0", "--hyper", "batch_size=16", "train_freq=16"],
}  # fmt: skip
FIGURES = ("num_env_steps", "labels", "episodes", "true_return", "learned_return", "reward_loss", "reward_accuracy")


def fork(arguments: list[str], log: Path) -> int:
    """Run the command in a fork of this process; return its number."""
    child = os.fork()
    if child:
        return child
    status = 70
    with contextlib.suppress(BaseException):
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
        try:
            status = start.main(arguments)
        except SystemExit as stopped:
            status = int(stopped.code or 0)
    os._exit(status)


def wait(child: int, kill_after: float | None = None) -> int | None:
    """Return the status of a process, None where it was killed after so many seconds."""
    until = None if kill_after is None else time.monotonic() + kill_after
    while True:
        done, code = os.waitpid(child, 0 if until is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(code)
        if until is not None and time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)


def came_to(folder: Path) -> str:
    """Return a digest of what a run came to: answers, policies, reward, metrics."""
    sha = hashlib.sha256()
    with PreferenceStore(folder / "record.sqlite", create=False) as store:
        for row, entry in store.answers():
            sha.update(f"{row} {entry.query_id} {entry.kind} {getattr(entry, 'value', None)!r}".encode())
    for name in ("last", "best"):
        _feed(sha, torch.load(folder / "policies" / f"{name}.pt", weights_only=True))
    _feed(sha, safetensors.torch.load_file(folder / "reward.safetensors"))
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        sha.update(repr([row.get(name) for name in FIGURES]).encode())
    return sha.hexdigest()


def _feed(sha: "hashlib._Hash", value: object) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            sha.update(str(key).encode())
            _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(sha, item)
    elif isinstance(value, torch.Tensor):
        sha.update(
            value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        )
    else:
        sha.update(repr(value).encode())


def kill(name: str, expected: tuple[str, float], place: Path, rng: random.Random) -> tuple[str, int]:
    """Train a run of a kind with kills on the way; return what came of it, and how often it was killed."""
    out, log, kills = place / "run", place / "log", 0
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    status: int | None = None
    for _ in range(40):
        made = (out / "config.json").exists()
        if made and (out / "summary.json").exists() and status == 0:
            break
        if out.exists() and not made:
            shutil.rmtree(out)  # killed before there was a run
        again = ["resume", str(out), "--quiet", "--no-video", "--no-viewer"]
        child = fork(again if made else ["train", *KINDS[name], *COMMON, "--out", str(out)], log)
        status = wait(child, rng.uniform(0, 1.2 * expected[1]) if rng.random() < 0.7 else None)
        kills += status is None
        if status == 2 and "is finished" in log.read_text():  # killed while it was judged, after its end
            status = 0
        if status not in (None, 0):
            return f"status {status}: {log.read_text()[-400:]}", kills
    if "Traceback" in log.read_text():
        return f"traceback: {log.read_text()[-400:]}", kills
    return ("the same" if came_to(out) == expected[0] else "another result"), kills


def damage(run: Path, place: Path, stopped: bool) -> collections.Counter[str]:
    """Damage each file of a run in four ways; count what its verbs make of that."""
    counts: collections.Counter[str] = collections.Counter()
    base, log = place / "base", place / "log"
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(run, base)
    verbs = [["evaluate", "--json"], ["quality", "--json"], ["export", "--to", str(place / "data")]]
    if stopped:
        for name in ("summary.json", "policies/last.pt"):
            (base / name).unlink()
        verbs = [["resume", "--quiet", "--no-video", "--no-viewer", "--json"]]

    def result(verb: list[str], damaged: Path) -> tuple[int | None, str, str]:
        shutil.rmtree(place / "data", ignore_errors=True)
        log.unlink(missing_ok=True)
        status = wait(fork([verb[0], str(damaged), *verb[1:]], log))
        said = [line for line in log.read_text().splitlines() if line.startswith("prefrl:")]
        plain = "".join(line for line in log.read_text().splitlines() if line.startswith(("{", "Wrote")))
        return status, "\n".join(said) or log.read_text() * ("Traceback" in log.read_text()), plain

    damaged = place / "damaged"
    for verb in verbs:
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(base, damaged)
        usual = result(verb, damaged)[2]
        for path in sorted(p for p in base.rglob("*") if p.is_file() and "tensorboard" not in p.parts):
            for how in ("emptied", "halved", "a bit flipped", "gone"):
                shutil.rmtree(damaged, ignore_errors=True)
                shutil.copytree(base, damaged)
                target, data = damaged / path.relative_to(base), bytearray(path.read_bytes())
                if how == "a bit flipped" and data:
                    data[len(data) // 3] ^= 4
                target.write_bytes({"emptied": b"", "halved": bytes(data[: len(data) // 2])}.get(how, bytes(data)))
                if how == "gone":
                    target.unlink()
                status, said, plain = result(verb, damaged)
                if "Traceback" in said or status not in (0, 1, 2):
                    found = "FAULT: traceback"
                elif status:
                    found = "refused" if said else "FAULT: refused without a word"
                elif said:
                    found = "said"
                else:
                    found = "no difference" if _untimed(plain) == _untimed(usual) else "FAULT: silent"
                counts[found] += 1
                if found.startswith("FAULT"):
                    print(f"{verb[0]}: {path.relative_to(base)} {how}: {found} {said[-300:]}", flush=True)
    return counts


def _untimed(text: str) -> str:
    return json.dumps({k: v for k, v in json.loads(text).items() if "seconds" not in k}) if text[:1] == "{" else text


def main(kills: int = 1000, damage_files: bool = False, seed: int = 0, minutes: float = 1e6) -> None:
    """Run the matrix; end with status 1 where anything differed.

    Args:
        kills: how many, over all kinds in turn.
        damage_files: damage files as well.
        seed: of the instants.
        minutes: stop after these.
    """
    for name in ("torch.utils.tensorboard", "matplotlib.pyplot", "stable_baselines3", "prefrl.cli", "scipy.stats",
                 "prefrl.studies.report_plot", "prefrl.studies.quality_plot"):  # fmt: skip
        importlib.import_module(name)
    torch.set_num_threads(1)
    rng, until = random.Random(seed), time.monotonic() + 60 * minutes
    place = Path(tempfile.mkdtemp(prefix="prefrl-kills-"))
    os.environ["XDG_CONFIG_HOME"] = str(place / "config")
    table: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in KINDS}
    expected: dict[str, tuple[str, float]] = {}
    done, bad = 0, False
    while done < kills and time.monotonic() < until:
        for name in KINDS:
            if name not in expected:
                out, began = place / name.replace(" ", "-"), time.monotonic()
                if wait(fork(["train", *KINDS[name], *COMMON, "--out", str(out)], place / "log")) != 0:
                    raise SystemExit((place / "log").read_text())
                expected[name] = came_to(out), time.monotonic() - began
            result, killed = kill(name, expected[name], place, rng)
            table[name][result[:9] if result.startswith("status") else result] += 1
            table[name]["kills"] += killed
            done += killed
            if result != "the same":
                bad = True
                print(f"{name}: {result}", flush=True)
            if done >= kills or time.monotonic() > until:
                break
    print("| run | kills | runs that came to the same | others |\n|---|---|---|---|")
    for name, row in table.items():
        others = row.total() - row["kills"] - row["the same"]
        print(f"| {name} | {row['kills']} | {row['the same']} | {others} |")
    print(f"| all | {done} | {sum(row['the same'] for row in table.values())} | {bad:d} |", flush=True)
    if damage_files:
        run = place / "whole"
        if wait(fork(["train", *KINDS["ppo"], *COMMON, "--out", str(run)], place / "log")) != 0:
            raise SystemExit((place / "log").read_text())
        for stopped in (False, True):
            counts = damage(run, place, stopped)
            bad |= any(found.startswith("FAULT") for found in counts)
            print("a stopped run:" if stopped else "a finished run:", dict(counts), flush=True)
    shutil.rmtree(place, ignore_errors=True)
    sys.exit(bad)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
