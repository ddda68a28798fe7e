"""Kills runs of every kind at random instants, and damages each file of their folders in four ways; counts the losses.

    python scripts/experiments/kill_matrix.py --kills 1000
    python scripts/experiments/kill_matrix.py --kills 1000 --work PLACE     # stopped, and started again: goes on
    python scripts/experiments/kill_matrix.py --kills 0 --damage-files      # the files

Each trial makes a small run in a process forked from this one, kills it with SIGKILL at a random instant, goes on with
`prefrl resume` (a tournament: with the same command), now and then killed again, and compares what it came to with what
it came to unkilled: answers, policies, rewards, models and metrics, bit for bit. A damaged file must be refused with a
sentence, said, or make no difference. Runs that people teach are killed by `kill_at_random.py`. Only on Linux.
"""

import collections
import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import safetensors.torch
import torch
import tyro

from prefrl import start
from prefrl.store import PreferenceStore
from prefrl.verbs import training

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
    "td3": ["Pendulum-v1", "--agent", "td3", "--hyper", "batch_size=16", "train_freq=16", "gradient_steps=1"],
    "sb3-sac": ["Pendulum-v1", "--agent", "sb3-sac", "--hyper", "batch_size=16", "train_freq=16", "gradient_steps=1"],
    "dqn": ["CartPole-v1", "--agent", "dqn", "--fixed-horizon", "0", "--hyper", "batch_size=16", "train_freq=16"],
    "sb3-ppo": ["Pendulum-v1", "--agent", "sb3-ppo", "--hyper", "n_steps=50", "batch_size=50", "n_epochs=1"],
    "ppo, ratings of a panel": ["Pendulum-v1", *PPO, "--queries.feedback", "rating", "--panel", "oracle", "noisy"],
    "ppo, groups": ["Pendulum-v1", *PPO, "--reward.groups", "2", "--panel", "oracle", "inverted"],
    "ppo, entropy first": ["Pendulum-v1", *PPO, "--warmup", "entropy"],
}  # fmt: skip
GIVEN = ["offline", "{place}/swings", "--env", "Pendulum-v1", "--labels", "6", "--steps", "40", "--segment-length", "5",
         "--eval-episodes", "1", "--fit.num-steps", "5", "--fit.first-steps", "5", "--learner.hidden", "8",
         "--learner.batch-size", "16", "--quiet", "--no-video"]  # fmt: skip
TINY = ["--model", "{place}/model", "--device", "cpu", "--quiet", "--watch.times", "2", "--watch.prompts", "4",
        "--max-tokens", "12"]  # fmt: skip
DRAWN = ["--data", "{place}/pairs.jsonl", "--reward", "{place}/reward", "--training.episodes", "16",
         "--training.batch-size", "4", "--training.minibatch-size", "4"]  # fmt: skip
OTHERS = {
    "offline, iql": [*GIVEN, "--controls", "zero", "cloning"],
    "offline, cpl": [*GIVEN, "--method", "cpl"],
    "tournament": ["tournament", "{place}/whole", "--policies", "before", "last", "--games", "12"],
    "text sft": ["text", "sft", *TINY[:5], "--data", "{place}/examples.jsonl", "--training.batch-size", "2"],
    "text reward": ["text", "reward", *TINY[:5], "--data", "{place}/pairs.jsonl", "--training.batch-size", "2"],
    "text dpo": ["text", "dpo", *TINY, "--data", "{place}/pairs.jsonl", "--training.batch-size", "2"],
    "text ppo": ["text", "ppo", *TINY, *DRAWN],
    "text rloo": ["text", "rloo", *TINY, *DRAWN],
    "text grpo": ["text", "grpo", *TINY, *DRAWN, "--training.samples-per-prompt", "4"],
}
FIGURES = ("num_env_steps", "num_updates", "step", "labels", "episodes", "true_return", "learned_return", "reward_loss",
           "reward_accuracy", "loss", "reward", "kl")  # fmt: skip


def fork(arguments: list[str], log: Path) -> int:
    """Run the command in a fork of this process; return its number."""
    while True:
        begun, tell = os.pipe()
        child = os.fork()
        if not child:
            break
        os.close(tell)
        runs = bool(select.select([begun], [], [], 20)[0])
        os.close(begun)
        if runs:
            return child
        os.kill(child, signal.SIGKILL)  # CPython 3.11 now and then hangs in a fork beside threads of libraries
        os.waitpid(child, 0)
    status = 70
    with contextlib.suppress(BaseException):
        os.setpgid(0, 0)
        os.close(tell)
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
    """Return a digest of what a run came to: answers, policies, rewards, models, metrics, games."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "checkpoints" in path.parts or path.is_dir():
            continue
        if path.name == "record.sqlite":
            with PreferenceStore(path, create=False) as store:
                for row, entry in store.answers():
                    sha.update(f"{row} {entry.query_id} {entry.kind} {getattr(entry, 'value', None)!r}".encode())
        elif path.suffix == ".pt":
            _feed(sha, torch.load(path, weights_only=True))
        elif path.suffix == ".safetensors":
            _feed(sha, safetensors.torch.load_file(path))
        elif path.name in ("metrics.jsonl", "evaluations.jsonl"):
            for line in path.read_text().splitlines():
                row = json.loads(line)
                sha.update(repr([row.get(figure) for figure in FIGURES]).encode())
        elif path.name == "games.jsonl":
            sha.update(path.read_bytes())
        else:
            continue
        sha.update(name.encode())
    return sha.hexdigest()


def command(name: str, place: Path, out: Path) -> list[str]:
    """Return what makes a run of a kind."""
    words = ["train", *KINDS[name], *COMMON] if name in KINDS else OTHERS[name]
    return [*(word.replace("{place}", str(place)) for word in words), "--out", str(out)]


def make_inputs(place: Path) -> None:
    """Make what runs learn from: episodes, rows of text, a model, a reward model, a run whose policies play."""
    rng = np.random.default_rng(0)
    (place / "swings").mkdir()
    for number in range(4):
        seen, done = rng.uniform(-1, 1, (21, 3)).astype("f4"), rng.uniform(-2, 2, (20, 1)).astype("f4")
        np.savez(place / "swings" / f"{number}.npz", observations=seen, actions=done, rewards=-np.abs(done[:, 0]))
    asked = [f"Question {n}?" for n in range(24)]
    pairs = [{"prompt": p, "chosen": " Yes.", "rejected": " No, no."} for p in asked]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    examples = [{"prompt": p, "response": " Yes."} for p in asked]
    (place / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    model, text = place / "model", ["--device", "cpu", "--quiet"]
    must(["text", "pretrain", "--size", "tiny", "--paragraphs", "20", *text, "--out", str(model)], place)
    data = ["--data", str(place / "pairs.jsonl"), "--training.epochs", "1"]
    must(["text", "reward", "--model", str(model), *data, *text, "--out", str(place / "reward")], place)
    must(command("ppo", place, place / "whole"), place)


def must(arguments: list[str], place: Path) -> None:
    """Run a command that must end well."""
    if wait(fork(arguments, place / "log")) != 0:
        raise SystemExit(f"{arguments}\n{(place / 'log').read_text()}")


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
    """Make a run of a kind with kills on the way; return what came of it, and how often it was killed."""
    out, log, kills = place / "run", place / "log", 0
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    status: int | None = None
    for _ in range(40):
        made = (out / "config.json").exists()
        if status == 0:
            break
        if out.exists() and not made and name != "tournament":
            shutil.rmtree(out)  # killed before there was a run
        again = ["resume", str(out), "--quiet", "--no-video", "--no-viewer"]
        child = fork(again if made else command(name, place, out), log)
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


def warm() -> None:
    """Do here, once, what each command would do for itself; reports and films do not change what a run comes to."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    for name in ("torch.utils.tensorboard", "matplotlib.pyplot", "stable_baselines3", "scipy.stats",
                 "gymnasium.envs.classic_control.pendulum", "transformers.models.llama.modeling_llama",
                 "prefrl.studies.report_plot", "prefrl.studies.quality_plot", "prefrl.text.jobs.commands"):  # fmt: skip
        importlib.import_module(name)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # a command that looked for garbage here would copy all of it


def kill_all(kills: int, minutes: float, seed: int, place: Path, kinds: tuple[str, ...]) -> bool:
    """Kill runs of all kinds in turn until there were so many kills; print the table, tell whether any was wrong."""
    results, until = place / "results.jsonl", time.monotonic() + 60 * minutes
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    undisturbed: dict[str, tuple[str, float]] = {row["kind"]: row["expected"] for row in rows if "expected" in row}
    trials = [row for row in rows if "result" in row]

    def note(row: dict[str, object]) -> None:
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    with contextlib.ExitStack() as stack:
        stack.callback(setattr, training, "_after_training", training._after_training)
        training._after_training = lambda *_, **__: None  # no report or film after each
        while sum(row["kills"] for row in trials) < kills and time.monotonic() < until:
            name = kinds[len(trials) % len(kinds)]
            if name not in undisturbed:
                out, began = place / name.replace(" ", "-"), time.monotonic()
                must(command(name, place, out), place)
                undisturbed[name] = came_to(out), time.monotonic() - began
                note({"kind": name, "expected": undisturbed[name]})
            result, killed = kill(name, undisturbed[name], place, random.Random(f"{seed}/{len(trials)}"))
            trials.append({"kind": name, "result": result, "kills": killed})
            note(trials[-1])
            if result != "the same":
                print(f"{name}: {result}", flush=True)
    print("| run | kills | runs that came to the same | others |\n|---|---|---|---|")
    for name in [*kinds, "all"]:
        of_it = [row for row in trials if name in (row["kind"], "all")]
        same = sum(row["result"] == "the same" for row in of_it)
        print(f"| {name} | {sum(row['kills'] for row in of_it)} | {same} | {len(of_it) - same} |", flush=True)
    return any(row["result"] != "the same" for row in trials)


def main(
    kills: int = 1000, damage_files: bool = False, seed: int = 0, minutes: float = 1e6, work: Path | None = None,
    kinds: tuple[str, ...] = (*KINDS, *OTHERS),
) -> None:  # fmt: skip
    """Run the matrix; end with status 1 where anything differed.

    Args:
        kills: how many, over all kinds in turn.
        damage_files: damage files as well.
        seed: of the instants.
        minutes: stop after these.
        work: folder to work in, which keeps the results: another call with it goes on. Default: a temporary one.
        kinds: of runs.
    """
    warm()
    place = (work or Path(tempfile.mkdtemp(prefix="prefrl-kills-"))).resolve()
    place.mkdir(exist_ok=True)
    os.environ["XDG_CONFIG_HOME"] = str(place / "config")
    if not (place / "whole" / "summary.json").exists():
        make_inputs(place)
    bad = kill_all(kills, minutes, seed, place, kinds) if kills else False
    if damage_files:
        for stopped in (False, True):
            counts = damage(place / "whole", place, stopped)
            bad |= any(found.startswith("FAULT") for found in counts)
            print("a stopped run:" if stopped else "a finished run:", dict(counts), flush=True)
    if work is None:
        shutil.rmtree(place, ignore_errors=True)
    sys.exit(bad)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
