"""Texts as people wrote them: Markdown as blocks that page and window draw, code as such, and where two texts differ.

A text without any of Markdown's signs is one block that is shown letter by letter. Of Markdown, HTML, links and images
stay what they are: letters. A paragraph whose lines are indented keeps its spaces, since it may be code without fences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from prefrl.errors import require

LONGEST_MARKED = 20_000  # characters; longer texts are shown plainly
_SIGNS = re.compile(
    r"^\s*(```|~~~|#{1,6} |[-*+] |\d+[.)] |> |\|.*\|)"  # at the beginning of a line
    r"|\*\*\S|__\S|(?<!\w)[*_]\S[^*_\n]*[*_](?!\w)|`[^`\n]+`",
    re.MULTILINE,
)
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
Block = dict[str, Any]
"""`kind`: text, plain, heading, code, item, quote, rule or table; `spans`: pairs of a text and its style ("", "strong",
"em", "code"); of a heading its `level`, of an item its `mark` and `depth`, of code and plain text `text`, of a table
its `rows`."""


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[Any, ...]:
    parser = require("markdown_it", "ui").MarkdownIt("commonmark", {"html": False, "breaks": True})
    return tuple(parser.enable("table").disable(["link", "image", "autolink", "html_inline", "html_block"]).parse(text))


def as_blocks(text: str) -> list[Block]:
    """Return a text as blocks, from top to bottom."""
    if len(text) > LONGEST_MARKED or not _SIGNS.search(text):
        return [{"kind": "plain", "text": text}]
    lines = text.split("\n")
    blocks: list[Block] = []
    depth, items, quoted = 0, list[str](), 0  # marks of the items that we are in, "" once used
    row: list[list[tuple[str, str]]] = []
    pending: Block = {}
    for token in _parsed(text):
        kind = token.type
        if kind in ("fence", "code_block"):
            blocks.append({"kind": "code", "text": token.content.rstrip("\n"), "depth": depth})
        elif kind == "heading_open":
            pending = {"kind": "heading", "level": int(token.tag[1])}
        elif kind in ("bullet_list_open", "ordered_list_open"):
            depth += 1
        elif kind in ("bullet_list_close", "ordered_list_close"):
            depth -= 1
        elif kind == "list_item_open":
            items.append(f"{token.info}{token.markup}" if token.info else "•")
        elif kind == "list_item_close":
            items.pop()
        elif kind == "blockquote_open":
            quoted += 1
        elif kind == "blockquote_close":
            quoted -= 1
        elif kind == "hr":
            blocks.append({"kind": "rule"})
        elif kind == "table_open":
            blocks.append({"kind": "table", "rows": []})
        elif kind == "tr_open":
            row = []
        elif kind == "tr_close":
            blocks[-1]["rows"].append(row)
        elif kind == "paragraph_open":
            source = lines[token.map[0] : token.map[1]]
            indented = any(line[:1] in " \t" for line in source[1:])
            pending = {"kind": "text", "verbatim": "\n".join(source)} if indented and not depth else {"kind": "text"}
        elif kind == "inline":
            if blocks and blocks[-1]["kind"] == "table" and not pending:
                row.append(_spans(token))
                continue
            if "verbatim" in pending:
                blocks.append({"kind": "plain", "text": pending["verbatim"]})
            elif pending.get("kind") == "heading":
                blocks.append({**pending, "spans": _spans(token)})
            elif items:
                blocks.append({"kind": "item", "mark": items[-1], "depth": depth, "spans": _spans(token)})
                items[-1] = ""
            else:
                blocks.append({"kind": "quote" if quoted else "text", "depth": depth, "spans": _spans(token)})
            pending = {}
    return blocks


def _spans(token: Any) -> list[tuple[str, str]]:
    spans: list[tuple[str, str]] = []
    styles: list[str] = []
    for child in token.children:
        if child.type in ("strong_open", "em_open"):
            styles.append(child.type.removesuffix("_open"))
        elif child.type in ("strong_close", "em_close"):
            styles.pop()
        elif child.type in ("softbreak", "hardbreak"):
            spans.append(("\n", ""))
        elif child.type == "code_inline":
            spans.append((child.content, "code"))
        elif child.content:
            spans.append((child.content, styles[-1] if styles else ""))
    return spans


def differences(texts: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """Return each text in parts, and whether a part is not in the other one: of two texts, by words.

    Args:
        texts: of any number; only two are compared, and only where they are not too long.
    """
    if len(texts) != 2 or sum(map(len, texts)) > LONGEST_MARKED:
        return [[(text, False)] for text in texts]
    first, second = (_WORDS.findall(text) for text in texts)
    found: list[list[tuple[str, bool]]] = [[], []]
    for what, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        for parts, words in ((found[0], first[a:b]), (found[1], second[c:d])):
            if words:
                parts.append(("".join(words), what != "equal"))
    return found
