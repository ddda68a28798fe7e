"""The list of packages in pyproject.toml against the folders, and its versions against those that are tested."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from house import MAPPED, ROOT, module_paths

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
FOR_WORK = {"dev", "docs"}  # extras in the versions of constraints.txt alone
NOT_AT_LOWEST = {"image"}  # diffusers needs a newer safetensors than the rest; `make lowest` leaves it out


def test_every_folder_with_modules_is_a_listed_package() -> None:
    paths = module_paths()
    folders = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in paths.items()}
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders)


def test_every_package_has_an_init_with_a_docstring() -> None:
    paths = module_paths()
    for package in SETUPTOOLS["packages"]:
        assert paths[package].name == "__init__.py"
        assert paths[package].read_text(encoding="utf-8").startswith('"""'), package


def test_mapped_packages_point_to_the_folders_at_the_root() -> None:
    mapped = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}
    assert mapped == {"prefrl": ROOT / "prefrl", **MAPPED}


@pytest.mark.parametrize("package", sorted(MAPPED))
def test_the_links_lead_to_the_mapped_folders(package: str) -> None:
    link = ROOT.joinpath(*package.split("."))
    assert link.is_symlink()
    assert link.resolve() == MAPPED[package]


def requirements(extras_for_work: bool, without: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield name and versions of what is required, of the core and the extras for users, or of those for work."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    listed = [] if extras_for_work else list(project["dependencies"])
    for extra, required in extras.items():
        if (extra in FOR_WORK) == extras_for_work and extra not in without:
            listed += required
    for requirement in listed:
        name, _, versions = re.match(r"([\w.-]+)(\[[\w,]+\])?([^;]*)", requirement).groups()  # type: ignore[union-attr]
        if name != "prefrl":
            yield _plain(name), versions.strip()


def pinned(file: str) -> dict[str, str]:
    """Return the versions in a file of constraints."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {
        _plain(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line and line[0] != "#"
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lowest_versions_declared_are_those_tested() -> None:
    lowest = pinned("constraints-lowest.txt")
    declared = {name: versions.split(",")[0] for name, versions in requirements(False, without=NOT_AT_LOWEST)}
    assert declared == {name: f">={lowest.get(name)}" for name in declared}


def test_the_makefile_tests_all_extras_for_users_at_their_lowest_versions_but_those_named() -> None:
    listed = re.search(r"^LOWEST_EXTRAS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    (everything,) = PYPROJECT["project"]["optional-dependencies"]["all"]
    assert listed is not None
    assert set(listed[1].split(",")) == set(everything[7:-1].split(",")) - NOT_AT_LOWEST


def test_everything_required_has_a_tested_version() -> None:
    names = {name for work in (False, True) for name, _ in requirements(work)}
    assert names - pinned("constraints.txt").keys() == set()


def test_who_only_answers_or_serves_installs_what_the_extras_ask_for_and_no_torch() -> None:
    lines = (ROOT / "requirements-viewer.txt").read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["ui"], *extras["serve"]}
    assert listed == {one for one in wanted if not one.startswith("torch")}


def test_questions_are_shown_served_and_answered_without_torch(tmp_path: Path) -> None:
    program = f"""
import sys
for name in ("torch", "mujoco", "stable_baselines3", "tyro", "rich", "transformers"): sys.modules[name] = None
from pathlib import Path
from prefrl.feedback import Comparison, Query, Response
from prefrl.store import PreferenceStore
record = Path({str(tmp_path / "record.sqlite")!r})
asked = Query(responses=(Response(prompt="p", text="a"), Response(prompt="p", text="b")))
with PreferenceStore(record) as store:
    store.add_queries([asked])
    store.add_answers([Comparison(query_id=asked.id, annotator="anna", preference=1.0)])
import prefrl.human_ui.desk, prefrl.human_ui.window, prefrl.human_ui.page.app, prefrl.human_ui.page.notebook
from prefrl.human_ui.page.host import Host, Person
from prefrl.human_ui.page import owner
from prefrl.start import main
pin = ["pin", record, asked.id, "1", "--good"]
for line in (["invite", record, "--name", "ben"], pin, ["show", record, asked.id[:6]]):
    assert main(list(map(str, line))) == 0
with PreferenceStore(record) as store:
    assert owner.overview(Host(store, run="r"), Person(name="boss", role="owner"))["people"][0]["name"] == "anna"
assert main(["forget", str(record), "--annotator", "anna"]) == 0
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "anna: 1 > 2" in outcome.stdout and "#" in outcome.stdout
