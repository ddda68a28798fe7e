"""Damaged files and nonsense on the command line, thousands of times: what the commands make of it, counted.

    python scripts/tools/fuzz.py --inputs 1000
    python scripts/tools/fuzz.py --inputs 10000 --work PLACE --results FILE     # stopped, and started again: goes on
    python scripts/tools/fuzz.py --inputs 1 --first 4711     # one of them again, with what it printed

Each input is a damaged copy of a small run, record, data set or data file, or a command line, and the command that
reads it, in a process forked from this one. Of each it is checked that

- it ends with a status of its own and a sentence, never with a traceback or a signal;
- it says 0 only where it prints what the undamaged one prints, says what is different, or where what was damaged still
  says something that can be true;
- it writes no file outside of its folder, reads no other's, runs nothing and connects to nobody that data name;
- its memory and time are bounded;
- where it refuses, what was there is there still.

The same seed and number make the same input. Only on Linux.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import fuzz_corpus as corpus
import torch
import tyro

from prefrl import servers, start
from prefrl.rewards import epic
from prefrl.verbs import training

MEMORY = 3 << 30
"""Bytes of address space that a command may take beyond what this process has."""
SECONDS = 60
"""Of the processor that a command may take; ten times as many may pass where others take it."""
START_SECONDS = 20
"""That may pass before a child begins."""
STRANGER = "open('RAN', 'w').close()\nclass Thing: pass\ndef thing(*_): return 0.0\n"
HARMLESS = ("uname", "/sbin/ldconfig", "lscpu")
"""What libraries start to look at the machine."""
OWN = {"record.sqlite", "record.sqlite-wal", "record.sqlite-shm", "metrics.jsonl", "out.jsonl"}
"""What a command that ends with an error may have written to, by name."""


@dataclass
class Outcome:
    """What a command came to."""

    status: int
    out: str
    err: str
    seconds: float
    processor_seconds: float
    most_bytes: int
    broken: list[str]
    """Rules that it broke while it ran."""
    modules: list[str]
    """That it imported."""


def in_child(arguments: list[str], place: Path, work: Path) -> Outcome:
    """Run the command in a fork of this process, in the folder `place`."""
    out, err, broken, modules = (work / name for name in ("out", "err", "broken", "modules"))
    began = time.monotonic()
    modules.unlink(missing_ok=True)
    while True:
        child = os.fork()
        if child == 0:
            os._exit(_child(arguments, place, work, out, err, broken, modules))
        handle = os.pidfd_open(child)
        if select.select([handle], [], [], START_SECONDS)[0] or modules.exists():
            break
        os.kill(child, signal.SIGKILL)  # CPython 3.11 now and then hangs in a fork beside threads of libraries
        os.waitpid(child, 0)
        os.close(handle)
    late = not select.select([handle], [], [], 10 * SECONDS)[0]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it, or what it left behind
    os.close(handle)
    _, code, used = os.wait4(child, 0)
    status = os.waitstatus_to_exitcode(code)
    late |= status == -signal.SIGXCPU
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err, broken)]
    rules = sorted(set(texts[2].splitlines())) + (["took too long"] if late else [])
    imported = modules.read_text().split() if status == 0 else []
    taken, processor = time.monotonic() - began, used.ru_utime + used.ru_stime
    return Outcome(status, texts[0], texts[1], taken, processor, used.ru_maxrss * 1024, rules, imported)


def _child(arguments: list[str], place: Path, work: Path, out: Path, err: Path, broken: Path, modules: Path) -> int:
    status, before = 70, set(sys.modules)
    names = os.open(modules, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        os.setpgid(0, 0)
        os.chdir(place)
        for path, number in ((out, 1), (err, 2)):
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(descriptor, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(HOME=str(place), XDG_CONFIG_HOME=str(place / ".config"), TMPDIR=str(place / ".tmp"))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place / ".tmp" / "inductor")  # torch makes it, and not under TMPDIR
        tempfile.tempdir = None
        (place / ".tmp").mkdir()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 29, 1 << 29))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        sys.path.insert(0, "")
        record = os.open(broken, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        sys.addaudithook(_guard(place, work, lambda said: os.write(record, (said + "\n").encode("utf-8", "replace"))))
        status = start.main(arguments)
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 70
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(names, "\n".join(sorted(set(sys.modules) - before)).encode())
    return status or 0


def _guard(place: Path, work: Path, tell: Callable[[str], object]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that tells of files outside of a folder, processes, connections and strange code."""
    inside, root = f"{place.resolve()}/", f"{work.resolve()}/"
    named = ("model", "pairs.jsonl", "swings")  # by the user's own runs
    names = tuple(f"{root}corpus/{name}" for name in named)

    def check(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if f"{path}/".startswith(inside) or (writes and path in ("/dev/null", "/dev/tty")):
                return
            if writes:
                tell(f"wrote {path}")
            elif (path.startswith(root) and not path.startswith(names)) or path in ("/etc/passwd", "/dev/zero"):
                tell(f"read {path}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"):
            for path in (os.path.realpath(os.fsdecode(one)) for one in args[:2] if isinstance(one, str | bytes)):
                if not f"{path}/".startswith(inside):
                    tell(f"{event} {path}")
        elif event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1"):
            tell(f"connected to {args[1][0]}")
        elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen") and not (
            args[0] in HARMLESS or Path(os.fsdecode(args[0])).name.startswith("ffmpeg-")
        ):
            tell(f"started {str(args[0])[:60]}")
        elif event == "pickle.find_class" and args[0] in ("builtins", "os", "posix", "subprocess"):
            tell(f"unpickled {args[0]}.{args[1]}")

    return check


class Fuzzer:
    """Makes inputs and judges what comes of them."""

    def __init__(self, work: Path, seed: int, *, text: bool) -> None:
        self.work, self.seed = work, seed
        self.corpus = work / "corpus"
        self.targets = corpus.CONTROL + (corpus.LANGUAGE if text else ())
        self.lines = corpus.LINES + (corpus.TEXT_LINES if text else ())
        self._kept = work / "expected.json"
        self._expected: dict[str, tuple[str, str]] = {}
        self._options: dict[str, list[tuple[str, str]]] = {}
        self._reply, self.port = work / "reply", 0
        if text:
            self.port = _serve(self._reply)
        self.corpus.mkdir(parents=True, exist_ok=True)
        corpus.make_corpus(self.corpus, self._make, text=text)
        if self._kept.exists():
            self._expected = {name: tuple(said) for name, said in json.loads(self._kept.read_text()).items()}

    def _make(self, arguments: list[str], place: Path) -> int:
        done = in_child(arguments, place, self.work)
        shutil.rmtree(place / ".tmp", ignore_errors=True)
        if done.status:
            print(done.err, file=sys.stderr)
        return done.status

    def one(self, number: int) -> tuple[str, str, dict[str, Any]]:
        """Run input `number`; return its class, the verdict, and what it was."""
        rng = random.Random(f"{self.seed}/{number}")
        place = self.work / "case"
        shutil.rmtree(place, ignore_errors=True)
        if rng.random() < 0.2:
            kind, base, told, plausible, command = self._line(rng, place)
            expected = None
        else:
            target = rng.choices(self.targets, [target.weight for target in self.targets])[0]
            template = rng.choice(target.commands)
            expected = self._undamaged(target.base, template)
            self._copy(target.base, place, [name for name in corpus.BESIDE if name in template])
            kind, base = target.kind, target.base
            told, plausible = self._damage(target, rng, place)
            command = self._words(template, base)
        before = _contents(place)
        done = in_child(command, place, self.work)
        if "../outside" in command:  # where the command itself says so
            done.broken = [rule for rule in done.broken if f"{place.resolve().parent}/outside" not in rule]
        verdict, why = self._judge(done, place, before, expected, plausible)
        case = {"number": number, "class": kind, "base": base, "damage": told, "command": " ".join(command)[:600],
                "verdict": verdict, "why": why, "status": done.status, "seconds": round(done.seconds, 1),
                "processor_seconds": round(done.processor_seconds, 3), "megabytes": done.most_bytes >> 20,
                "err": done.err[-3000:], "out": done.out[-800:]}  # fmt: skip
        return kind, verdict, case

    def _line(self, rng: random.Random, place: Path) -> tuple[str, str, str, bool, list[str]]:
        template = rng.choice(self.lines)
        base = "stopped" if template[0] == "resume" else "record.sqlite" if template[:1] == ("label",) else "run"
        self._copy(base, place, corpus.BESIDE)
        shown = template[:2] if template[0] == "text" else template[:1]
        words, plausible = corpus.damage_line(template, self._known(shown), rng)
        kind = "command line of text" if template[0] == "text" else "command line"
        return kind, base, "", plausible, self._words(words, base)

    def _known(self, verb: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the options of a verb and what each takes, from its help."""
        name = " ".join(verb)
        if name not in self._options:
            place = self.work / "help"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            said = in_child([*verb, "--help"], place, self.work).out
            found = re.findall(r"(--[a-z][\w.-]*)(?:[ =](?:\{None\}\|)?([A-Z]+))?", said)
            self._options[name] = sorted({pair for pair in found if pair[0] not in ("--help", "--serve")})
        return self._options[name]

    def _words(self, template: Any, base: str) -> list[str]:
        return [word.replace("{base}", base).replace("{port}", str(self.port)) for word in template]

    def _copy(self, base: str, place: Path, beside: Iterable[str]) -> None:
        """Lay out a folder with a copy of a base, and beside it what the command reads and must leave alone."""
        place.mkdir()
        (place / "stranger.py").write_text(STRANGER)
        for name in {base, *beside, *(["run"] if base == "league" else [])}:
            there = self.corpus / name
            if there.is_dir():
                shutil.copytree(there, place / name)
            elif there.exists():
                shutil.copy(there, place / name)
        if (self.corpus / ".config").exists():
            shutil.copytree(self.corpus / ".config", place / ".config")
        for name in ("reply.json", "rewards.json"):
            if base == name or (name == "reply.json" and base == "drawn.jsonl" and (self.corpus / name).exists()):
                body = (self.corpus / name).read_bytes()
                self._reply.write_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _damage(self, target: corpus.Target, rng: random.Random, place: Path) -> tuple[str, bool]:
        pattern = rng.choice(target.files)
        base = place / target.base
        path = base if pattern == "." else rng.choice(sorted(base.glob(pattern)))
        shape = rng.choice(("gone", "folder", "link", "pipe", "loop")) if target.shape and rng.random() < 0.06 else ""
        if not shape:
            data, told, plausible = target.damage(path.read_bytes(), rng)
            if target.base in ("reply.json", "rewards.json"):
                path = self._reply
            path.write_bytes(data)
            return f"{pattern}: {told}", plausible
        path.unlink()
        if shape == "folder":
            path.mkdir()
        elif shape == "pipe":
            os.mkfifo(path)
        elif shape in ("link", "loop"):
            path.symlink_to("/dev/zero" if shape == "link" else path.name)
        return f"{pattern}: became {shape}", shape == "gone" and pattern == "*.npz"  # of several episodes

    def _undamaged(self, base: str, template: tuple[str, ...]) -> tuple[str, str]:
        """Return what a command prints, and makes, of the undamaged base."""
        name = f"{base}: {' '.join(template)}"
        if name not in self._expected:
            place = self.work / "case"
            shutil.rmtree(place, ignore_errors=True)
            self._copy(base, place, corpus.BESIDE)
            done = in_child(self._words(template, base), place, self.work)
            if done.status not in (0, 2) or done.broken:
                raise SystemExit(f"{template} of an undamaged {base}: {done.status} {done.broken}\n{done.err}")
            self._expected[name] = _plain(done.out), _made(place)
            self._kept.write_text(json.dumps(self._expected))
            shutil.rmtree(place)
            _import(done.modules)
        return self._expected[name]

    @staticmethod
    def _judge(
        done: Outcome, place: Path, before: dict[str, str], expected: tuple[str, str] | None, plausible: bool
    ) -> tuple[str, str]:
        """Return the verdict, and the reason where it is a fault."""
        if done.broken:
            return "FAULT", "; ".join(done.broken)
        if (place / "RAN").exists() or (place / "ran").exists():
            return "FAULT", "ran a stranger's code"
        if "Traceback (most recent" in done.err or done.status not in (0, 1, 2, 130):
            return "FAULT", f"traceback or signal ({done.status})"
        if "too little memory" in done.err:
            return "FAULT", "memory"
        said = "prefrl:" in done.err
        if done.status:
            now = _contents(place)
            lost = [name for name in before if before[name] != now.get(name) and Path(name).name not in OWN]
            if lost:
                return "FAULT", f"refused, and changed {', '.join(lost[:3])}"
            if not said and "╭" not in done.err + done.out and "usage:" not in done.err:
                return "FAULT", "no sentence"
            if max(map(len, done.err.splitlines()), default=0) > 8000:
                return "FAULT", "a sentence without end"
            return "refused", ""
        if expected is None:
            return ("taken" if plausible else "FAULT"), "" if plausible else "status 0 on nonsense"
        if expected == (_plain(done.out), _made(place)):
            return "no difference", ""
        if said or "left out" in done.err or "Left out" in done.err:
            return "said", ""
        return ("another value" if plausible else "FAULT"), "" if plausible else "silent: another result, and no word"


def _contents(place: Path) -> dict[str, str]:
    found = {}
    for path in place.rglob("*"):
        if (
            path.is_file()
            and ".tmp" not in path.parts
            and ".config" not in path.parts
            and "tensorboard" not in path.parts
        ):
            if os.path.realpath(path).startswith("/dev"):
                continue
            found[str(path.relative_to(place))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _made(place: Path) -> str:
    """Return a digest of the data set that a command wrote, if it did."""
    files = sorted(path for path in (place / "out").glob("**/*.parquet"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest() if files else ""


def _plain(text: str) -> str:
    return re.sub(r'("?(?:seconds|steps_per_second)"?:? )[\d.e+-]+|#\S+|[\w-]{20,}', r"\1", text)


def _serve(reply: Path) -> int:
    """Answer every connection with the content of a file, in a process of its own; return the port."""
    server = socket.create_server(("127.0.0.1", 0))
    parent = os.getpid()
    if os.fork() == 0:
        server.settimeout(1.0)
        while os.getppid() == parent:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(2.0)
                    connection.recv(1 << 20)
                    connection.sendall(reply.read_bytes())
        os._exit(0)
    port: int = server.getsockname()[1]
    server.close()
    return port


WARM = ("matplotlib.backends.backend_agg", "matplotlib.pyplot", "pandas", "pyarrow.parquet", "scipy.stats", "typeguard",
        "gymnasium.envs.classic_control.pendulum", "rich.progress", "torch.utils.tensorboard", "prefrl.cli",
        "prefrl.studies.quality_plot", "prefrl.studies.report_plot")  # fmt: skip
WARM_TEXT = ("transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto",
             "transformers.convert_slow_tokenizer", "prefrl.text.jobs.commands")  # fmt: skip
"""What the commands import: once for all of them."""


def _warm(text: bool) -> None:
    """Do here, once, what each command would do for itself, and shorten what does not depend on its input."""
    os.environ.setdefault("MUJOCO_GL", "egl")  # no command draws with it, and each would look for it
    _import([*WARM, *(WARM_TEXT if text else ())])
    torch.set_num_threads(1)
    epic._fit_network.__defaults__ = (50,)  # of 600 steps
    training.report_run = lambda _: None  # which is a command of its own here
    servers.FIRST_WAIT = servers.LONGEST_WAIT = 0.01


def _import(names: Iterable[str]) -> None:
    """Import modules for the commands to come, which then share their memory."""
    for name in names:
        if name != "stranger" and not name.startswith("prefrl_user"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a command that looked for garbage here would copy all of it


def _numbers(first: int, inputs: int, minutes: float, done: Collection[int]) -> Iterator[int]:
    until = time.monotonic() + 60 * minutes
    for number in range(first, first + inputs):
        if time.monotonic() > until:
            return
        if number not in done:
            yield number


def _results(path: Path | None) -> dict[int, dict[str, Any]]:
    """Return what an earlier call wrote into a file of results, by the number of the input."""
    if path is None or not path.exists():
        return {}
    return {row["number"]: row for row in map(json.loads, path.read_text().splitlines())}


def main(
    inputs: int = 1000, first: int = 0, seed: int = 0, minutes: float = 1e6, text: bool = True,
    work: Path | None = None, log: Path | None = None, results: Path | None = None,
) -> None:  # fmt: skip
    """Run the fuzzer; end with status 1 where there was a fault.

    Args:
        inputs: how many.
        first: number of the first.
        seed: of all of them.
        minutes: stop after these.
        text: language models too.
        work: folder to work in; what it holds of an earlier run's corpus is used again. Default: a temporary one.
        log: a file to which each fault is added as a line of JSON.
        results: a file to which the class and verdict of each input is added; what it holds is counted, not run again.
    """
    place = (work or Path(tempfile.mkdtemp(prefix="prefrl-fuzz-"))).resolve()
    _warm(text)
    fuzzer = Fuzzer(place, seed, text=text)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    before = _results(results)
    for row in before.values():
        counts[row["class"]][row["verdict"]] += 1
    most, began, done = max((row["megabytes"] for row in before.values()), default=0), time.monotonic(), 0
    for number in _numbers(first, inputs, minutes, before.keys()):
        kind, verdict, case = fuzzer.one(number)
        counts[kind][verdict] += 1
        most, done = max(most, case["megabytes"]), done + 1
        if results is not None:
            with results.open("a") as file:
                kept = ("number", "class", "verdict", "megabytes", "processor_seconds")
                file.write(json.dumps({name: case[name] for name in kept}) + "\n")
        if done % 100 == 0:
            print(f"{done} inputs, {sum(row['FAULT'] for row in counts.values())} faults", flush=True)
        if inputs == 1:
            print(json.dumps(case, indent=1).replace("\\n", "\n"))
        if verdict in ("FAULT", "another value", "taken") and log is not None:
            with log.open("a") as file:
                file.write(json.dumps(case) + "\n")
    verdicts = ("refused", "no difference", "said", "another value", "taken", "FAULT")
    print("| inputs | number | " + " | ".join(verdicts) + " |\n|" + "---|" * (len(verdicts) + 2))
    for kind in [*sorted(counts), "all"]:
        row = counts[kind] if kind != "all" else sum(counts.values(), collections.Counter())
        print(f"| {kind} | {row.total()} | " + " | ".join(str(row[verdict]) for verdict in verdicts) + " |")
    print(f"{done} inputs in {time.monotonic() - began:.0f} s; at most {most} MB each")
    if work is None:
        shutil.rmtree(place, ignore_errors=True)
    sys.exit(1 if any(row["FAULT"] for row in counts.values()) else 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
