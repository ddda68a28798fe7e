"""A wheel holds the whole house, with and without the links, and works away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKS = {"prefrl/envs": "../envs", "prefrl/human_ui": "../human_ui"}
MAPPED = {"envs": "prefrl/envs", "human_ui": "prefrl/human_ui"}


def checkout(place: Path, *, links: bool) -> Path:
    """Copy what git tracks, or would if asked to; with or without the two links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if name not in LINKS and source.is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / name)
    if links:
        for name, target in LINKS.items():
            os.symlink(target, place / name)
    return place


def build_wheel(source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


def files_in(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the wheel from a checkout with the links and from one without."""
    place = tmp_path_factory.mktemp("wheels")
    with_links = build_wheel(checkout(place / "linked", links=True), place / "from-linked")
    without = build_wheel(checkout(place / "plain", links=False), place / "from-plain")
    return with_links, without


def test_the_links_change_nothing(wheels: tuple[Path, Path]) -> None:
    with_links, without = wheels
    assert sorted(files_in(with_links)) == sorted(files_in(without))


def test_the_wheel_holds_every_module_once_and_nothing_else(wheels: tuple[Path, Path]) -> None:
    expected = {"prefrl/py.typed"}
    for folder in ("prefrl", *MAPPED):
        page = [*(ROOT / folder).glob("page/static/*"), *(ROOT / folder).glob("page/templates/*")]
        for path in (*(ROOT / folder).rglob("*.py"), *page):
            name = path.relative_to(ROOT)
            if name.parts[:2] not in [tuple(link.split("/")) for link in LINKS]:
                expected.add(str(Path(MAPPED.get(folder, folder), *name.parts[1:])))
    for wheel in wheels:
        found = [name for name in files_in(wheel) if ".dist-info/" not in name]
        assert len(found) == len(set(found))
        assert set(found) == expected


@pytest.fixture(scope="module")
def installed(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Install the wheel into a clean environment; return its Python and its site-packages.

    The packages that prefrl needs are lent from the environment of the tests, after its own; this one's editable prefrl
    is not among them, as `.pth` files there are not read.
    """
    place = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    asked = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    packages = Path(asked.stdout.strip())
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheels[1])], check=True, timeout=120)
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python, packages


def run_away(python: Path, program: str, place: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, cwd=place, env=environment, timeout=300, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_every_module_is_imported_from_the_installed_wheel(installed: tuple[Path, Path], tmp_path: Path) -> None:
    python, packages = installed
    program = (
        "import importlib, pkgutil, prefrl\n"
        "print(prefrl.__file__)\n"
        "for module in pkgutil.walk_packages(prefrl.__path__, 'prefrl.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        print(importlib.import_module(module.name).__file__)\n"
    )
    files = [Path(line) for line in run_away(python, program, tmp_path).splitlines()]
    assert all(path.is_relative_to(packages) for path in files), files
    names = {path.relative_to(packages).as_posix() for path in files}
    assert {"prefrl/__init__.py", "prefrl/envs/__init__.py", "prefrl/human_ui/__init__.py"} <= names


def test_the_installed_command_runs(installed: tuple[Path, Path], tmp_path: Path) -> None:
    python, _ = installed
    outcome = subprocess.run(
        [python.with_name("prefrl"), "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "train" in outcome.stdout


def test_the_installed_command_says_its_version_and_trains(installed: tuple[Path, Path], tmp_path: Path) -> None:
    python, _ = installed
    options = "--labels 6 --steps 1600 --num-envs 2 --segment-length 10 --warmup-steps 200 --eval-episodes 1 --no-video"
    words = [
        "train",
        "Pendulum-v1",
        *options.split(),
        "--hyper",
        "n_steps=100",
        "batch_size=50",
        "--out",
        "run",
        "--json",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for given in (["--version"], words):
        outcome = subprocess.run(
            [python.with_name("prefrl"), *given], capture_output=True, text=True, cwd=tmp_path, timeout=300,
            env=environment, check=False,
        )  # fmt: skip
        assert outcome.returncode == 0, outcome.stderr
        if given == ["--version"]:
            version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
            assert outcome.stdout == f"prefrl {version}\n"
    assert (tmp_path / "run" / "reward.safetensors").is_file() and json.loads(outcome.stdout)["labels"] == 6


def test_the_source_archive_makes_the_same_wheel_and_both_hold_licence_and_description(
    wheels: tuple[Path, Path], tmp_path: Path
) -> None:
    source = checkout(tmp_path / "source", links=False)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "LICENSE").is_file() and (unpacked / "README.md").is_file()
    again = build_wheel(unpacked, tmp_path / "wheel")
    assert sorted(files_in(again)) == sorted(files_in(wheels[1]))
    metadata = (
        zipfile.ZipFile(again).read(next(name for name in files_in(again) if name.endswith("/METADATA"))).decode()
    )
    assert "License-Expression: MIT" in metadata and "License-File: LICENSE" in metadata
    assert "Description-Content-Type: text/markdown" in metadata and "Provides-Extra: sweep" in metadata
