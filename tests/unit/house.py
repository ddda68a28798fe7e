"""What lies where: the modules of this checkout and what they import, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAPPED = {"prefrl.envs": ROOT / "envs", "prefrl.human_ui": ROOT / "human_ui"}


@dataclass(frozen=True)
class Import:
    """One imported name, as a dotted path, and where in the source it stands."""

    name: str
    line: int
    at_top: bool
    """Runs when the module is imported: outside functions and `if TYPE_CHECKING`."""


def module_paths() -> dict[str, Path]:
    """Return the file of every module, by dotted name; the two links inside `prefrl` are not followed."""
    found = dict(_walk("prefrl", ROOT / "prefrl"))
    for name, folder in MAPPED.items():
        found |= dict(_walk(name, folder))
    return found


def _walk(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.name == "__init__.py":
            yield package, path
        elif path.suffix == ".py":
            yield f"{package}.{path.stem}", path
        elif path.is_dir() and not path.is_symlink() and any(path.rglob("*.py")):
            yield from _walk(f"{package}.{path.name}", path)


def imports_of(tree: ast.Module) -> list[Import]:
    """Return all imports of a module; `from a import b` gives `a.b`."""
    found: list[Import] = []
    _collect(tree.body, True, found)
    return found


def _collect(body: list[ast.stmt], at_top: bool, found: list[Import]) -> None:
    for node in body:
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, at_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are banned by ruff's TID252"
            found += [Import(f"{node.module}.{alias.name}", node.lineno, at_top) for alias in node.names]
        else:
            inside = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(node, field, [])
                _collect(inner, inside and not (guarded and field == "body"), found)
            for handler in getattr(node, "handlers", []):
                _collect(handler.body, inside, found)
            for case in getattr(node, "cases", []):
                _collect(case.body, inside, found)


def parse_all() -> dict[str, ast.Module]:
    """Return the syntax tree of every module, by dotted name."""
    return {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in module_paths().items()}


def module_of(name: str, modules: dict[str, Path] | dict[str, ast.Module]) -> str | None:
    """Return the module of ours that an imported dotted name lies in, None if it is not ours."""
    while name:
        if name in modules:
            return name
        name = name.rpartition(".")[0]
    return None
