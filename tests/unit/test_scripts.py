"""Scripts lie in four folders, read their arguments in one way, and are where the documents say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house import ROOT, imports_of

SCRIPTS = ROOT / "scripts"
FOLDERS = {"examples", "experiments", "benchmarks", "tools"}
PATHS = sorted(SCRIPTS.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_script_lies_in_one_of_the_folders() -> None:
    outside = [path.name for path in PATHS if path.parent.name not in FOLDERS or path.parent.parent != SCRIPTS]
    assert outside == ["demo.py"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_arguments_are_read_by_tyro_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {imported.name.split(".")[0] for imported in imports_of(tree)}
    assert not imported & {"argparse", "click", "optparse", "getopt"}
    assert "sys.argv" not in {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_scripts_import_each_other_only_within_their_folder(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {imported.name.split(".")[0] for imported in imports_of(tree)}
    others = {other.stem for other in PATHS if other.parent != path.parent} | {"tests", "conftest", "house", "screens"}
    assert not imported & (others - {other.stem for other in path.parent.glob("*.py")})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_scripts_that_are_there(document: Path) -> None:
    named = set(re.findall(r"\bscripts/[\w/]+\.py", document.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
