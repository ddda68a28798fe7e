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

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)^ {0,3}\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[tuple[int, str, str]]:
    """Return the fenced blocks of a document: number of the first line inside, what follows the fence, content."""
    text = document.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(3)) + 1, match.group(2).strip(), match.group(3))
        for match in FENCE.finditer(text)
    ]


def file_of(source: str) -> str | None:
    """Return the file that a block is part of, where its first line is `# NAME.py`."""
    named = re.match(r"# (\w+\.py)\n", source)
    return named.group(1) if named else None


def write_files(document: Path, folder: Path) -> list[Path]:
    """Write the files that blocks of a document are part of; the blocks of one file follow each other."""
    parts: dict[str, str] = {}
    for _, info, source in blocks(document):
        name = file_of(source)
        if info == "python" and name is not None:
            parts[name] = parts.get(name, "") + source
    for name, text in parts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in parts]


def test_blocks_are_found_with_their_lines(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("text\n\n```python\nx = 1\n```\n\n~~~sh\nls\n~~~\n", encoding="utf-8")
    assert blocks(document) == [(4, "python", "x = 1\n"), (8, "sh", "ls\n")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_block_escapes_being_run(document: Path) -> None:
    named = [(line, info) for line, info, _ in blocks(document) if info.lower().startswith("py") and info != "python"]
    assert named == [], 'mark Python blocks with "python" and nothing else'


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
