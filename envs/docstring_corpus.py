"""Docstrings that a machine with prefrl has anyway: those of Python's standard library, numpy, gymnasium and torch.

They are read from source files with `ast`; nothing is imported, and nothing is fetched. What there is depends on the
versions installed, so a corpus has a digest, which runs keep. A file that cannot be read is left out and counted.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.util
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

from prefrl.errors import UserError

PACKAGES = ("numpy", "gymnasium", "torch")
"""Beside the standard library: what prefrl cannot do without, so that every machine has them."""
LEFT_OUT = frozenset(
    ("site-packages", "dist-packages", "test", "tests", "testing", "idlelib", "lib2to3", "turtledemo", "ensurepip",
     "encodings", "distutils", "__pycache__")
)  # fmt: skip
"""Folders that hold other packages, tests, or next to no docstrings."""
PRIVATE_FOLDERS = frozenset(("numpy",))
"""Packages whose functions are written in folders that begin with an underscore; of others, these are left out."""
FEWEST = 1_000
"""Functions with a docstring; with fewer there are no sources here, as in some stripped installations."""

_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, kw_only=True)
class Docstring:
    """The docstring of one function, method, class or module."""

    package: str
    """`python` for the standard library."""
    module: str
    """Dotted, within the package; empty for the package itself."""
    owner: str
    """The class of a method; empty for others."""
    name: str
    """Of a function or method; empty for classes and modules."""
    arguments: tuple[str, ...]
    """Names of the arguments, without self, cls and stars."""
    paragraphs: tuple[str, ...]
    """Its paragraphs, each on one line; the first is the summary."""


@dataclass(frozen=True)
class Corpus:
    """What was read."""

    docstrings: tuple[Docstring, ...]
    """In the order of packages, files and lines."""
    skipped: tuple[str, ...]
    """Files that could not be read, each with the reason."""

    @property
    def digest(self) -> str:
        """SHA-256 of all docstrings, as hexadecimal digits."""
        content = hashlib.sha256()
        for docstring in self.docstrings:
            content.update(repr(astuple(docstring)).encode("utf-8", "surrogatepass"))
        return content.hexdigest()


@cache
def installed_corpus() -> Corpus:
    """Return the docstrings of this machine; read once in a process, in some ten seconds of a slow core.

    Raises:
        UserError: the packages are here without their sources.
    """
    corpus = read_corpus(_folders())
    found = sum(bool(docstring.name) for docstring in corpus.docstrings)
    if found < FEWEST:
        raise UserError(
            "The world docstrings is read from the source files of Python's standard library and of "
            f"{', '.join(PACKAGES)}. It needs {FEWEST:,} functions with a docstring; {found} were found. Use a Python "
            "that has its library as .py files, or another world."
        )
    return corpus


def read_corpus(folders: Iterable[tuple[str, Path]]) -> Corpus:
    """Return the docstrings of all Python files in folders.

    Args:
        folders: packages, by name.
    """
    docstrings: list[Docstring] = []
    skipped: list[str] = []
    with _without_collections():
        for package, folder in folders:
            paths = {path.relative_to(folder).with_suffix("").parts: path for path in folder.rglob("*.py")}
            for parts in sorted(paths):
                if _is_left_out(package, parts):
                    continue
                module = ".".join(part for part in parts if part != "__init__")
                try:
                    docstrings += _of_module(package, module, paths[parts].read_bytes())
                except (OSError, SyntaxError, ValueError, RecursionError) as error:
                    skipped.append(f"{package}.{module}: {type(error).__name__}")
    return Corpus(tuple(docstrings), tuple(skipped))


@contextmanager
def _without_collections() -> Iterator[None]:
    """Have no garbage looked for: trees of syntax are many objects without circles, and looking doubles the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _folders() -> Iterator[tuple[str, Path]]:
    yield "python", Path(sysconfig.get_path("stdlib"))
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        for place in (found.submodule_search_locations if found else None) or []:
            yield package, Path(place)


def _is_left_out(package: str, parts: Sequence[str]) -> bool:
    return any(
        part in LEFT_OUT or part.startswith("test") or (part.startswith("_") and package not in PRIVATE_FOLDERS)
        for part in parts[:-1]
    ) or parts[-1].startswith("test")


def _of_module(package: str, module: str, source: bytes) -> list[Docstring]:
    """Return the docstrings of one module.

    Raises:
        SyntaxError: it is no Python.
        ValueError: it is no text.
    """
    if b'"""' not in source and b"'''" not in source:  # most of the time is parsing
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the sources of others
        tree = ast.parse(source)
    found = []
    for owner, node in [("", tree), *_definitions(tree.body)]:
        paragraphs = paragraphs_of(ast.get_docstring(node) or "")
        if not paragraphs:
            continue
        function = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
        found.append(
            Docstring(
                package=package,
                module=module,
                owner=owner if function else "",
                name=function.name if function else "",
                arguments=_arguments(function) if function else (),
                paragraphs=paragraphs,
            )
        )
    return found


def _definitions(body: Iterable[ast.stmt], owner: str = "") -> Iterator[tuple[str, _Named]]:
    """Return classes and functions with the class they are in; those within functions are nobody's interface."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield owner, node
            yield from _definitions(node.body, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield owner, node
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions([*node.body, *node.orelse], owner)


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    listed = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return tuple(argument.arg for argument in listed if argument.arg not in ("self", "cls"))


def paragraphs_of(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, each on one line, without empty ones."""
    lines = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return tuple(line for line in lines if line)
