"""Takes every environment that a module registers through every verb, and prints what came of each as a table.

    python scripts/tools/run_environments.py my_environments.py
    python scripts/tools/run_environments.py my_environments.py --only Image Discrete --agents ppo sb3-ppo --steps 2000
    python scripts/tools/run_environments.py my_environments.py --agents off-policy

`off-policy` is an agent that learns from what it stored: dqn where actions are Discrete, else sac.

A cell says `ok`; `refused`, if the command said in a sentence what is wrong; `ERROR` where it broke off with a
traceback; `late` where it was not done in time; `-` where a verb had nothing to work on. Time is the processor's, so
that the table is the same on a machine with other work; what waits is late after ten times as long by the clock. The
sentences and tracebacks follow the table; the exit status is 1 if anything broke off or was late.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import tyro

from prefrl.cli import main as prefrl
from prefrl.wrappers import LearnedReward

AFTER_TRAINING = ("evaluate", "report", "video", "quality", "export", "import", "wrapper")
LABELS, SEGMENT, NUM_ENVS = 20, 10, 4
SMALL = ("--queries.num-sessions", 2, "--fit.first-steps", 40, "--fit.num-steps", 10, "--eval-episodes", 1)
OFF_POLICY = "off-policy"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one verb."""

    cell: str
    said: str = ""


class _Late(BaseException):
    """The time is up; no `except Exception` on the way takes it."""


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Raise `_Late` after so many seconds of processor time, or ten times as many by the clock."""

    def stop(*_: Any) -> None:
        raise _Late

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds))
    before = [signal.signal(number, stop) for _, number, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def attempt(work: Callable[[], int | None], seconds: int) -> Outcome:
    """Do one thing within a time; return what came of it."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with _at_most(seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = work()
    except _Late:
        return Outcome(
            cell="late", said=f"not done after {seconds} s of the processor, or {10 * seconds} s by the clock"
        )
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
    except Exception:
        return Outcome(cell="ERROR", said=traceback.format_exc())
    if status:
        return Outcome(cell="refused", said=err.getvalue().strip())
    return Outcome(cell="ok", said=err.getvalue().strip())


def _rewarded(env_id: str, run: Path) -> None:
    """Make 25 steps with the learned reward in the environment as a project of somebody's makes it."""
    env = LearnedReward(gymnasium.make(env_id, disable_env_checker=True), run)  # whose complaints are not ours
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(25):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert isinstance(reward, float)
        if terminated or truncated:
            env.reset()
    env.close()


def through_all_verbs(env_id: str, agent: str, folder: Path, steps: int, seconds: int) -> dict[str, Outcome]:
    """Train, and do with the run whatever can be done with a run.

    Args:
        env_id: of the environment.
        agent: name of the agent.
        folder: to write to; it must not exist.
        steps: of the training.
        seconds: of processor time for each verb.
    """
    run, data, record = folder / "run", folder / "data", folder / "imported.sqlite"
    name = env_id.rpartition(":")[2]
    train = [
        *("train", env_id, "--agent", agent, "--labels", LABELS, "--steps", steps, "--num-envs", NUM_ENVS),
        *("--segment-length", SEGMENT, "--out", run, "--no-video", "--quiet"),
        *SMALL,
        *(("--hyper", "n_epochs=1") if agent in ("ppo", "sb3-ppo") else ()),
    ]
    commands: dict[str, Callable[[], int | None]] = {
        "train": lambda: prefrl([str(word) for word in train]),
        "evaluate": lambda: prefrl(["evaluate", str(run), "--episodes", "2"]),
        "report": lambda: prefrl(["report", str(run)]),
        "video": lambda: prefrl(["video", str(run), "--steps", "12"]),
        "quality": lambda: prefrl(["quality", str(run)]),
        "export": lambda: prefrl(["export", str(run), "--to", str(data)]),
        "import": lambda: prefrl(["import", str(data), "--to", str(record)]),
        "wrapper": lambda: _rewarded(name, run),
    }
    outcomes: dict[str, Outcome] = {}
    for verb, work in commands.items():
        missing = not (run / "reward.safetensors").exists() if verb != "train" else False
        if missing or (verb == "import" and outcomes["export"].cell != "ok"):
            outcomes[verb] = Outcome(cell="-")
        else:
            outcomes[verb] = attempt(work, seconds)
    return outcomes


def agent_for(env_id: str, agent: str) -> str:
    """Return the name of an agent: of `OFF_POLICY`, the one that suits the actions of an environment."""
    if agent != OFF_POLICY:
        return agent
    try:
        env = gymnasium.make(env_id.rpartition(":")[2], disable_env_checker=True)
    except Exception:  # the command says what is wrong with it
        return "sac"
    return "dqn" if isinstance(env.action_space, gymnasium.spaces.Discrete) else "sac"


def registered_by(module: Path) -> list[str]:
    """Import a module; return the names of the environments that it registers, as `prefrl train` takes them."""
    sys.path.insert(0, str(module.parent.resolve()))
    before = set(gymnasium.registry)
    importlib.import_module(module.stem)
    return [f"{module.stem}:{name}" for name in gymnasium.registry if name not in before]


def main(
    module: tyro.conf.Positional[Path],
    *,
    only: tuple[str, ...] = (),
    agents: tuple[str, ...] = ("ppo", "sb3-ppo"),
    steps: int = 1200,
    seconds: int = 120,
    out: Path | None = None,
) -> None:
    """Run them all.

    Args:
        module: the file of a module that registers environments.
        only: environments whose name holds one of these; default: all.
        agents: to train, by their names, or `off-policy`.
        steps: of each training.
        seconds: of processor time after which a verb is given up.
        out: keep the runs in this folder.
    """
    folder = Path(tempfile.mkdtemp()) if out is None else out
    failed, said = 0, []
    print(f"{'environment':28} {'agent':8} " + " ".join(f"{verb:9}" for verb in ("train", *AFTER_TRAINING)))
    for env_id in registered_by(module):
        if only and not any(part in env_id for part in only):
            continue
        for agent in (agent_for(env_id, name) for name in agents):
            place = folder / f"{env_id.rpartition(':')[2]}-{agent}"
            outcomes = through_all_verbs(env_id, agent, place, steps, seconds)
            cells = " ".join(f"{outcome.cell:9}" for outcome in outcomes.values())
            print(f"{env_id.rpartition(':')[2]:28} {agent:8} {cells}", flush=True)
            for verb, outcome in outcomes.items():
                failed += outcome.cell in ("ERROR", "late")
                if outcome.said and outcome.cell != "-":
                    said.append(f"{env_id} {agent} {verb} {outcome.cell}: {outcome.said}")
            if out is None:
                shutil.rmtree(place, ignore_errors=True)
    print("\n" + "\n".join(said))
    sys.exit(failed > 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
