"""The Python code of the README and the documents works as it stands."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from house import ROOT, module_paths

from tests.documents import blocks, file_of, write_files

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_blocks_are_found_with_their_lines(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("text\n\n```python\nx = 1\n```\n\n~~~sh\nls\n~~~\n", encoding="utf-8")
    assert blocks(document) == [(4, "python", "x = 1\n"), (8, "sh", "ls\n")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_block_escapes_being_run(document: Path) -> None:
    named = [(line, info) for line, info, _ in blocks(document) if info.lower().startswith("py") and info != "python"]
    assert named == [], 'mark Python blocks with "python" and nothing else'


@pytest.mark.slow  # some of them train
@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if any(info == "python" for _, info, _ in blocks(d))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_python_blocks_run_in_order(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    files = write_files(document, tmp_path)
    for line, info, source in blocks(document):
        if info == "python" and file_of(source) is None:
            exec(compile("\n" * (line - 1) + source, str(document), "exec"), namespace)
    for file in files:
        importlib.import_module(file.stem)
        del sys.modules[file.stem]


@pytest.mark.parametrize("module", [name for name in module_paths() if not name.endswith("__main__")])
def test_examples_in_docstrings_work(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if ">>>" not in module_paths()[module].read_text(encoding="utf-8"):
        return
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert missing == []
