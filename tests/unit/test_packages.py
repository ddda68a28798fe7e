"""The list of packages in pyproject.toml against the folders."""

from __future__ import annotations

import tomllib

import pytest
from house import MAPPED, ROOT, module_paths

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


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
