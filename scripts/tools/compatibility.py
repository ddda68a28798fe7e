"""Tries prefrl with other people's libraries and environments, and writes the tables of docs/compatibility.md.

    python scripts/tools/compatibility.py --write docs/compatibility.md
    python scripts/tools/compatibility.py --only skrl minigrid

What needs packages that prefrl does not bring gets a virtual environment of its own, in build/compatibility/NAME. It
sees the packages of this one, but for those that its own pins replace. What each came to is kept beside it as JSON, so
that a part can be tried anew. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import prefrl

ROOT = Path(__file__).parents[2]
HERE = "prefrl"  # what needs no environment of its own


@dataclass(frozen=True, kw_only=True)
class Library:
    """Somebody's training library, with the loop in scripts/examples/with_NAME.py."""

    name: str
    packages: tuple[str, ...] = ()
    environment: str = "CartPole-v1"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Somebody's environment, and the line that trains in it."""

    name: str
    line: str
    packages: tuple[str, ...] = ()
    venv: str = HERE


LIBRARIES = (
    Library(name="cleanrl"),
    Library(name="stable_baselines3"),
    Library(name="sb3_contrib", packages=("sb3-contrib",), environment="Pendulum-v1"),
    Library(name="sbx", packages=("sbx-rl",), environment="Pendulum-v1"),
    Library(name="tianshou", packages=("tianshou",)),
    Library(name="skrl", packages=("skrl",)),
    Library(name="torchrl", packages=("torchrl",)),
    Library(name="rllib", packages=("ray[rllib]",)),
)
FLAT = "--wrapper gymnasium.wrappers:FlattenObservation"
ENVIRONMENTS = (
    Environment(name="LunarLander", line="LunarLander-v3"),
    Environment(name="BipedalWalker", line="BipedalWalker-v3"),
    Environment(name="Taxi", line="Taxi-v4"),
    Environment(name="CliffWalking", line="CliffWalking-v1 --max-episode-steps 100"),
    Environment(name="Blackjack", line=f"Blackjack-v1 {FLAT} --fixed-horizon 50"),
    Environment(
        name="MiniGrid",
        line="minigrid:MiniGrid-Empty-5x5-v0 --wrapper minigrid.wrappers:ImgObsWrapper",
        packages=("minigrid",),
        venv="minigrid",
    ),
    Environment(
        name="gymnasium-robotics",
        line="gymnasium_robotics:FetchReach-v4",
        packages=("gymnasium-robotics", "mujoco<3.4"),
        venv="robotics",
    ),
    Environment(
        name="gymnasium-robotics' maze",
        line="gymnasium_robotics:PointMaze_UMaze-v3",
        packages=("gymnasium-robotics", "mujoco<3.4"),
        venv="robotics",
    ),
    Environment(
        name="dm_control through shimmy",
        line="shimmy:dm_control/cartpole-balance-v0 --max-episode-steps 100",
        packages=("shimmy[dm-control]", "dm_control", "mujoco<4"),
        venv="shimmy",
    ),
    Environment(name="highway-env", line="highway_env:highway-fast-v0", packages=("highway-env",), venv="highway"),
    Environment(
        name="mo-gymnasium",
        line="mo_gymnasium:mo-mountaincar-v0 --wrapper mo_gymnasium.wrappers:LinearReward",
        packages=("mo-gymnasium",),
        venv="mo",
    ),
)
VERBS = ("train", "evaluate", "report", "video", "clips")


def our_places() -> list[str]:
    """Return where the packages of this interpreter lie, prefrl too, which need not be among them (pip install -e)."""
    places = [sysconfig.get_paths()[key] for key in ("purelib", "platlib")]
    return list(dict.fromkeys([*places, str(Path(prefrl.__file__).parents[1])]))


def python_with(name: str, packages: tuple[str, ...], folder: Path) -> Path:
    """Return the interpreter of an environment that has the packages beside those of this one."""
    if not packages:
        return Path(sys.executable)
    place = folder / name
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(place, with_pip=False)
        theirs = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
        ).strip()
        (Path(theirs) / "parent.pth").write_text("\n".join(our_places()) + "\n", encoding="utf-8")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-input", *packages], check=True)
    return python


def asked(python: Path, *words: str, seconds: float) -> dict[str, Any]:
    """Run a check; return what it says of itself in the last line that it prints."""
    command = [str(python), str(ROOT / "scripts" / "tools" / "compatibility_checks.py"), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        outcome: dict[str, Any] = json.loads(lines[-1])
        return outcome
    reason = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing was said"]
    return {"failed": reason[-1].strip()}


LIBRARY_HEAD = (
    "| library | with | trains in | episodes | returns, ours minus theirs | loop |",
    "|---|---|---|---|---|---|",
)
ENVIRONMENT_HEAD = (
    f"| environment | `prefrl train` ... | {' | '.join(VERBS)} |",
    "|---|---|" + "---|" * len(VERBS),
)


def _loop(library: Library) -> str:
    return f"`scripts/examples/with_{library.name}.py`"


def library_row(library: Library, found: dict[str, Any]) -> str:
    """Return what came of a library as a row of its table."""
    if "failed" in found:
        return f"| {library.name} | | {library.environment} | | {found['failed']} | {_loop(library)} |"
    return (
        f"| {found['versions'][0]} | {', '.join(found['versions'][1:])} | {library.environment} | "
        f"{found['episodes']} | at most {found['difference']:.1g} of {found['largest']:.0f} | {_loop(library)} |"
    )


def environment_row(environment: Environment, found: dict[str, Any]) -> str:
    """Return what came of an environment as a row of its table."""
    cells = [found.get(verb, found.get("failed", "-")) for verb in VERBS]
    versions = ", ".join(found.get("versions", [environment.name]))
    return f"| {environment.name}: {versions} | `{environment.line}` | {' | '.join(cells)} |"


def tables(results: dict[str, Any], document: str = "") -> dict[str, list[str]]:
    """Return the rows of both tables; what was not tried has the row that it has in a document, if any.

    Args:
        results: what came of each library and environment that was tried, by name.
        document: text that holds the tables of before.
    """
    before = document.splitlines()

    def row_of(each: Library | Environment, mark: str) -> list[str]:
        if each.name not in results:
            return [line for line in before if line.startswith("|") and f"| {mark} |" in line]
        found = results[each.name]
        return [library_row(each, found) if isinstance(each, Library) else environment_row(each, found)]

    libraries = [row for library in LIBRARIES for row in row_of(library, _loop(library))]
    environments = [row for environment in ENVIRONMENTS for row in row_of(environment, f"`{environment.line}`")]
    return {"libraries": [*LIBRARY_HEAD, *libraries], "environments": [*ENVIRONMENT_HEAD, *environments]}


def put(text: str, name: str, rows: list[str]) -> str:
    """Return the text of a document with a table between its two marks."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    assert pattern.search(text), f"the document has no marks for the table of {name}"
    return pattern.sub(lambda m: f"{m[1]}{chr(10).join(rows)}\n{m[2]}", text)


def _kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def main(
    *,
    only: tuple[str, ...] = (),
    write: Path | None = None,
    out: Path = ROOT / "build" / "compatibility",
    seconds: float = 1800,
) -> None:
    """Try them.

    Args:
        only: libraries and environments, by their names; default: all.
        write: put the tables into this document; what was not tried keeps its row there.
        out: folder of the virtual environments and of what came of each.
        seconds: after which one is given up.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "results.json"
    results = _kept(kept)
    todo: list[Library | Environment] = [each for each in (*LIBRARIES, *ENVIRONMENTS) if not only or each.name in only]
    for each in todo:
        if isinstance(each, Library):
            python = python_with(each.name, each.packages, out)
            words = ("library", "--name", each.name, "--env-id", each.environment, "--packages", *each.packages)
        else:
            python = python_with(each.venv, each.packages, out)
            words = ("environment", "--line", each.line, "--packages", *each.packages)
        outcome = asked(python, *words, seconds=seconds)
        print(each.name, json.dumps(outcome), flush=True)
        results = _kept(kept) | {each.name: outcome}  # another part may be tried beside this one
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = "" if write is None else write.read_text(encoding="utf-8")
    for name, rows in tables(results, text).items():
        print("\n" + "\n".join(rows))
        text = text if write is None else put(text, name, rows)
    if write is not None:
        write.write_text(text, encoding="utf-8")
    failed = [each.name for each in todo if "failed" in json.dumps(results[each.name])]
    sys.exit(len(failed) > 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
