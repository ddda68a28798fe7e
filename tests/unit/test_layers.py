"""The layers of docs/architecture.md, and who may import or read what."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys

import pytest
from house import ROOT, imports_of, module_of, parse_all

pytestmark = pytest.mark.lowest

OPTIONAL = (
    "stable_baselines3",
    "sqlalchemy",
    "tyro",
    "rich",
    "tensorboard",
    "matplotlib",
    "scipy",
    "imageio",
    "imageio_ffmpeg",
    "PIL",
    "pygame",
    "mujoco",
    "ale_py",
    "dm_control",
    "minatar",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "pyarrow",
    "starlette",
    "uvicorn",
    "jinja2",
    "itsdangerous",
    "minari",
    "h5py",
)
CORE = (
    "errors",
    "program",
    "seams",
    "cpus",
    "threads",
    "gpu",
    "files",
    "spaces",
    "values",
    "runs",
    "segments",
    "feedback",
    "likelihood",
    "rewards",
    "queries",
    "annotators",
    "wrappers",
    "envs",
)
"""What works with numpy, torch, gymnasium and safetensors alone."""

MAY_READ_TRUE_REWARDS = {
    "prefrl.segments": "carries them",
    "prefrl.history": "keeps them with the episodes",
    "prefrl.store.rows": "records them",
    "prefrl.dataset": "exports them with the segments",
    "prefrl.annotators.simulated": "a teacher judges by them",
    "prefrl.rewards.epic": "compares the learned reward with them",
    "prefrl.rewards.report": "compares the learned reward with them",
    "prefrl.agents.ppo": "learns from them, in one place, when it is the baseline that is given them",
    "prefrl.agents.off_policy": "the same",
    "prefrl.agents.sb3": "hands them on, in one place, when the agent is the baseline that is given them",
    "prefrl.control.loop": "reports returns",
    "prefrl.control.rendering": "draws them under the frames",
    "prefrl.offline.data": "checks them with what else is given, and tells the returns of the data",
    "prefrl.offline.sources": "reads them with what else is given",
    "prefrl.offline.minari_data": "writes them into a data set",
    "prefrl.offline.trainer": "learns from them, in one place, when it is the control that is given them",
    "prefrl.studies.video": "draws them under the frames",
}
APART = {
    "prefrl.runs": {"prefrl.envs", "prefrl.agents", "prefrl.rewards", "prefrl.store"},
    "prefrl.control": {"prefrl.text"},
    "prefrl.text": {"prefrl.control", "prefrl.agents", "prefrl.offline"},
}
"""What layers do not know of, whatever their order."""
TEXT_ROOMS = ("model", "data", "learn", "jobs")
UNIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
NEVER_IMPORTED = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@functools.cache
def trees() -> dict[str, ast.Module]:
    return parse_all()


def layers() -> list[str]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = text.partition("<!-- layers -->")[2].partition("<!-- end of layers -->")[0]
    return re.findall(r"^\| `(prefrl\.\w+)`", listed, re.MULTILINE)


def layer_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def edges(module: str) -> list[tuple[str, int]]:
    """Return the modules of ours that `module` imports anywhere, with the line."""
    found = []
    for imported in imports_of(trees()[module]):
        target = module_of(imported.name, trees())
        if target is not None and target != module:
            found.append((target, imported.line))
    return found


def test_the_documented_layers_are_the_folders() -> None:
    found = {layer_of(module) for module in trees() if module not in ("prefrl", "prefrl.__main__")}
    assert set(layers()) == found, "docs/architecture.md lists other layers than there are"
    assert len(layers()) == len(set(layers()))


def test_each_layer_imports_only_from_those_above_it() -> None:
    order = {layer: number for number, layer in enumerate(layers())}
    order["prefrl.__main__"] = len(order)
    wrong = [
        f"{module}, line {line}: imports {target}"
        for module in trees()
        if module != "prefrl"
        for target, line in edges(module)
        if target == "prefrl" or order[layer_of(target)] > order[layer_of(module)]
    ]
    assert wrong == []


def test_what_is_trained_does_not_import_from_others_that_are() -> None:
    wrong = [
        f"{module}, line {line}: imports {target}"
        for module in trees()
        for target, line in edges(module)
        if layer_of(target) in APART.get(layer_of(module), ())
    ]
    assert wrong == []


def test_the_rooms_of_text_import_only_from_those_before_them() -> None:
    def room(module: str) -> int:
        return TEXT_ROOMS.index(module.split(".")[2])

    text = [module for module in trees() if module.startswith("prefrl.text.")]
    wrong = [
        f"{module}, line {line}: imports {target}"
        for module in text
        for target, line in edges(module)
        if target in text and room(target) > room(module)
    ]
    assert wrong == []


def test_no_module_imports_itself_through_others() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target, _ in edges(module):
                visit(target, (*path, module))
            done.add(module)

    for module in trees():
        visit(module, ())


def test_core_modules_import_optional_packages_only_where_they_are_used() -> None:
    wrong = [
        f"{module}, line {imported.line}: imports {imported.name}"
        for module, tree in trees().items()
        if module == "prefrl" or module.split(".")[1] in CORE
        for imported in imports_of(tree)
        if imported.at_top and imported.name.split(".")[0] in OPTIONAL
    ]
    assert wrong == []


def test_core_modules_can_be_imported_without_any_optional_package() -> None:
    modules = [m for m in trees() if m == "prefrl" or m.split(".")[1] in CORE]
    program = (
        f"import sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize(
    ("command", "slow"),
    [("text ppo", "transformers.modeling_utils"), ("image ddpo", "diffusers"), ("train", "transformers")],
)
def test_help_does_not_wait_for_the_libraries_that_only_the_work_needs(command: str, slow: str) -> None:
    program = (
        "import contextlib, sys\nfrom prefrl.start import main\n"
        f"with contextlib.suppress(SystemExit): main([*{command.split()!r}, '--help'])\n"
        f"sys.exit({slow!r} in sys.modules)"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert outcome.returncode == 0 and f"usage: prefrl {command}" in outcome.stdout, outcome.stderr


@pytest.mark.parametrize("attribute", ["true_rewards", "true_reward"])
def test_true_rewards_are_read_only_where_they_may_be(attribute: str) -> None:
    readers: dict[str, list[int]] = {}
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Load):
                readers.setdefault(module, []).append(node.lineno)
    assert {m: lines for m, lines in readers.items() if m not in MAY_READ_TRUE_REWARDS} == {}
    for agent in ("prefrl.agents.ppo", "prefrl.agents.off_policy", "prefrl.agents.sb3", "prefrl.offline.trainer"):
        assert len(readers.get(agent, [])) <= 1


def test_nothing_is_imported_that_only_unix_has() -> None:
    wrong = [
        f"{module}, line {imported.line}: imports {imported.name}"
        for module, tree in trees().items()
        for imported in imports_of(tree)
        if imported.name.split(".")[0] in UNIX_ONLY
    ]
    assert wrong == []


def test_nothing_is_pickled() -> None:
    """But what goes through a pipe between a training and the process that it began itself: no file comes into it."""
    wrong = []
    for module, tree in trees().items():
        if module == "prefrl.control.fit_worker":
            continue
        wrong += [
            f"{module}, line {imported.line}: imports {imported.name}"
            for imported in imports_of(tree)
            if imported.name.split(".")[0] in NEVER_IMPORTED
        ]
        wrong += [
            f"{module}, line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and _may_unpickle(node)
        ]
    assert wrong == []


def _may_unpickle(call: ast.Call) -> bool:
    """Tell whether a call is `torch.load` without `weights_only=True`, or allows pickles in arrays."""
    given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else ... for k in call.keywords}
    if ast.unparse(call.func) == "torch.load" and given.get("weights_only") is not True:
        return True
    return given.get("allow_pickle", False) is not False
