"""Builds the documents as a site, strictly: a link that leads nowhere or a docstring that cannot be read fails it.

    python scripts/tools/build_docs.py      # needs the extra docs; then open build/site/index.html

First the pages are laid out in `build/docs`: those of `docs/` and of the root of the repository, a list of the
decisions, and the reference, made of docstrings; links that lead out of `docs/` bring along what they lead to. Then
MkDocs makes the site of them. So another maker of sites can take its place without touching a document.
"""

import ast
import itertools
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tyro
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS, BUILD = ROOT / "docs", ROOT / "build"
AT_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security_policy.md",
}
NO_REFERENCE = {
    "prefrl.human_ui",
    "prefrl.cli",
    "prefrl.start",
    "prefrl.verbs",
}  # for the command line, not to be imported
LINK = re.compile(r"(\]\()([^)\s#]+)([^)]*\))")


def lay_out(place: Path) -> None:
    """Write all pages, and what they link to, under `place`."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(DOCS, place)
    documents = {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))}
    for source, page in (documents | {ROOT / name: page for name, page in AT_ROOT.items()}).items():
        text = source.read_text(encoding="utf-8")
        for _, target, _ in LINK.findall(text):
            path = (source.parent / target).resolve()
            uri = site_uri(path)
            if uri and path.is_file() and not (place / uri).exists():
                (place / uri).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / uri)
        head = "---\nhide: [navigation]\n---\n\n" if page == "index.md" else ""
        (place / page).write_text(head + with_links(text, source, page), encoding="utf-8")
    made = itertools.chain(index_pages(), *(reference_pages(layer) for layer, _ in layers()))
    for page, text in made:
        (place / page).parent.mkdir(parents=True, exist_ok=True)
        (place / page).write_text(text, encoding="utf-8")


def with_links(text: str, source: Path, page: str) -> str:
    """Return a document with its links as they have to be on its page."""

    def moved(link: re.Match[str]) -> str:
        begin, target, end = link.groups()
        path = (source.parent / target).resolve()
        uri = None if "://" in target else site_uri(path)
        if uri is None or not path.exists():
            return link[0]
        return begin + posixpath.relpath(uri, posixpath.dirname(page) or ".") + end

    return LINK.sub(moved, text)


def site_uri(path: Path) -> str | None:
    """Return where a file or folder of the repository is in the site, None where it is not of the repository."""
    if not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT).as_posix()
    return AT_ROOT.get(name, name.removeprefix("docs/")) if name != "docs/decisions" else "decisions/index.md"


def index_pages() -> Iterator[tuple[str, str]]:
    """Yield the pages that list the decisions and the layers."""
    decisions = [f"- [{title(path)}]({path.name})" for path in decision_paths()]
    told = "# Decisions\n\nChoices that shape prefrl, why they were made, and what they cost.\n\n"
    yield "decisions/index.md", told + "\n".join(decisions) + "\n"
    told = "# Reference\n\nWhat can be imported; each layer imports from those above it.\n\n"
    yield "reference/index.md", told + table(layers(), "reference/index.md")


def decision_paths() -> list[Path]:
    return sorted((DOCS / "decisions").glob("*.md"))


def title(path: Path) -> str:
    """Return the first heading of a document."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def layers() -> list[tuple[str, str]]:
    """Return the layers of docs/architecture.md that others import, each with what it holds."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    listed = text.partition("<!-- layers -->")[2].partition("<!-- end of layers -->")[0]
    rows = re.findall(r"^\| `(prefrl\.\w+)` \| (.*) \|$", listed, re.MULTILINE)
    return [(layer, told) for layer, told in rows if layer not in NO_REFERENCE]


def reference_pages(module: str) -> Iterator[tuple[str, str]]:
    """Yield the page of a module; of a package that hands out nothing itself, also those of its modules."""
    tree, page = tree_of(module), page_of(module)
    names, told = exported(tree), ast.get_docstring(tree) or ""
    if names:
        yield page, "\n\n".join([f"# {module}", told, *(f"::: {module}.{name}" for name in names)]) + "\n"
    elif inside := modules_in(module):
        rows = [(name, (ast.get_docstring(tree_of(name)) or "").partition("\n")[0]) for name in inside]
        yield page, f"# {module}\n\n{told}\n\n{table(rows, page)}"
        for name in inside:
            yield from reference_pages(name)
    else:
        options = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
        yield page, f"# {module}\n\n::: {module}\n{options}"


def modules_in(package: str) -> list[str]:
    """Return the modules that have pages of their own: those of a package that hands out nothing itself."""
    folder = ROOT.joinpath(*package.split("."))
    if not folder.is_dir() or exported(tree_of(package)):
        return []
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return [f"{package}.{name}" for name in sorted(names) if not name.startswith("_")]


def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module, or of the `__init__` of a package."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def exported(init: ast.Module) -> list[str]:
    """Return what a module hands out: imported under its own name again, or listed in `__all__`."""
    names: list[str] = []
    for node in init.body:
        if isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names += ast.literal_eval(node.value)
    return names


def page_of(module: str) -> str:
    return "reference/" + "/".join(module.split(".")[1:]) + ("/index.md" if modules_in(module) else ".md")


def table(rows: Iterable[tuple[str, str]], page: str) -> str:
    """Return a table of modules that links from `page` to theirs."""
    here = posixpath.dirname(page)
    lines = [f"| [{module}]({posixpath.relpath(page_of(module), here)}) | {told} |" for module, told in rows]
    return "\n".join(["| module | contents |", "|---|---|", *lines]) + "\n"


def in_navigation(module: str) -> dict[str, Any]:
    """Return the entry of a module in the navigation."""
    inside = [in_navigation(name) for name in modules_in(module)]
    return {module: [page_of(module), *inside] if inside else page_of(module)}


def settings() -> dict[str, Any]:
    """Return `mkdocs.yml` with the pages that are made here in its navigation."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    decisions = ["decisions/index.md", *({title(path): f"decisions/{path.name}"} for path in decision_paths())]
    next(part["Inside"] for part in config["nav"] if "Inside" in part).append({"Decisions": decisions})
    reference = ["reference/index.md", *(in_navigation(layer) for layer, _ in layers())]
    about_the_project = ["contributing.md", "security_policy.md", "changelog.md"]
    config["nav"] += [{"Reference": reference}, {"Contributing": about_the_project}]
    return config


def main() -> None:
    lay_out(BUILD / "docs")
    path = BUILD / "mkdocs.yml"
    path.write_text(yaml.safe_dump(settings(), sort_keys=False, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        sys.exit(done.returncode)
    print(f"Open {BUILD / 'site' / 'index.html'}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
