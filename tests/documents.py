"""The fenced blocks of documents, and the files that some of them are part of."""

from __future__ import annotations

import re
from pathlib import Path

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
