"""Letters of any script with pygame: other fonts of the system where the usual one has none, and typesetting."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pygame

from prefrl.human_ui.markup import Block, as_blocks
from prefrl.human_ui.theme import Colour

KEPT = 600  # pieces of text that are kept as pictures
CODE_FONTS = "dejavusansmono,liberationmono,notosansmono,menlo,consolas,couriernew"
LIKELY = ("notosans", "noto", "cjk", "wenquanyi", "unifont", "dejavu", "arial", "symbol")
NO_LETTER = "\U0002ffff"
_TOKENS = re.compile(r"\n|[^\S\n]+|\S+")
_INVISIBLE = re.compile(r"[\s\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f]")
Span = tuple[str, str]
"""A text and its style: "", "strong", "em", "code" or "mark"."""


@dataclass(frozen=True)
class Row:
    """One line of typeset text."""

    spans: tuple[Span, ...]
    indent: int = 0
    """In pixels."""
    scale: float = 1.0
    """Of the letters, by the size asked for."""


class Lettering:
    """Draws and measures text."""

    def __init__(self) -> None:
        self._fonts: dict[tuple[str | None, int], pygame.font.Font] = {}
        self._texts: OrderedDict[tuple[str, int, Colour, str], pygame.Surface] = OrderedDict()
        self._font_of: dict[str, str | None] = {}
        self._paths: list[str] | None = None
        self._code: str | None = None
        self._seen: dict[tuple[str | None, str], bytes] = {}
        self.missing: set[str] = set()
        """Letters that no font here has."""

    def render(self, text: str, size: int, colour: Colour, style: str = "") -> pygame.Surface:
        """Return a piece of text as a picture, on one line."""
        key = (text, size, colour, style)
        if key in self._texts:
            self._texts.move_to_end(key)
            return self._texts[key]
        parts = [
            self._font(path, size).render(part, True, colour) for part, path in self._runs(_printable(text), style)
        ]
        if len(parts) == 1:
            drawn = parts[0]
        else:
            height = max((part.get_height() for part in parts), default=self._font(None, size).get_height())
            drawn = pygame.Surface((sum(part.get_width() for part in parts), height), pygame.SRCALPHA)
            x = 0
            for part in parts:
                drawn.blit(part, (x, (height - part.get_height()) // 2))
                x += part.get_width()
        self._texts[key] = drawn
        while len(self._texts) > KEPT:
            self._texts.popitem(last=False)
        return drawn

    def width(self, text: str, size: int, style: str = "") -> int:
        """Return how many pixels wide a piece of text is."""
        return sum(self._font(path, size).size(part)[0] for part, path in self._runs(_printable(text), style))

    def cut(self, text: str, size: int, width: int) -> str:
        """Shorten a line to what fits."""
        if self.width(text, size) <= width:
            return text
        while text and self.width(text + "...", size) > width:
            text = text[:-1]
        return text + "..."

    def wrap(self, text: str, size: int, width: int) -> list[str]:
        """Break a text into lines that fit; words that are too long are broken too."""
        rows = self._rows([(_printable(text), "")], size, width, 0, 1.0)
        return ["".join(part for part, _ in row.spans) for row in rows]

    def typeset(self, text: str, marks: Sequence[tuple[str, bool]] | None, size: int, width: int) -> list[Row]:
        """Return a text as rows that fit: Markdown as such, or with what only this text has marked.

        Args:
            text: as it was written.
            marks: its parts, and whether each is in this text alone; None: it is shown as Markdown.
            size: of its letters.
            width: in pixels.
        """
        if marks is not None:
            spans = [(_printable(part), "mark" if alone else "") for part, alone in marks]
            return self._rows(spans, size, width, 0, 1.0)
        rows: list[Row] = []
        for number, block in enumerate(as_blocks(_printable(text))):
            if number and block["kind"] not in ("item", "plain"):
                rows.append(Row(()))
            rows += self._block(block, size, width)
        return rows

    # ------------------------------------------------------------------------------------------------ inside

    def _block(self, block: Block, size: int, width: int) -> list[Row]:
        kind, indent = block["kind"], round(1.2 * size) * block.get("depth", 0)
        if kind == "plain":
            return self._rows([(block["text"], "")], size, width, 0, 1.0)
        if kind == "code":
            return self._rows([(block["text"], "code")], size, width, indent or size, 0.92)
        if kind == "rule":
            return [Row((("\u2014" * 8, ""),))]
        if kind == "table":
            cells = [["".join(part for part, _ in cell) for cell in row] for row in block["rows"]]
            widths = [
                max(len(row[at]) for row in cells if at < len(row)) for at in range(max(map(len, cells), default=0))
            ]
            lines = ["  ".join(cell.ljust(widths[at]) for at, cell in enumerate(row)) for row in cells]
            return self._rows([("\n".join(lines), "code")], size, width, size, 0.92)
        spans = [(part, style) for part, style in block["spans"]]
        if kind == "item":
            spans = [(f"{block['mark'] or ' '} ", ""), *spans]
        if kind == "heading":
            return self._rows(spans, size, width, 0, 1.25 if block["level"] < 3 else 1.1)
        return self._rows(spans, size, width, size if kind == "quote" else indent, 1.0)

    def _rows(self, spans: Sequence[Span], size: int, width: int, indent: int, scale: float) -> list[Row]:
        """Break spans into rows; spaces at the beginning of a line that was written so are kept."""
        letters, room = round(size * scale), max(20, width - indent)
        rows: list[Row] = []
        row: list[Span] = []
        x, written = 0, True  # the row begins where the writer began one

        def end() -> None:
            nonlocal row, x
            rows.append(Row(tuple(row), indent, scale))
            row, x = [], 0

        for text, style in spans:
            for token in _TOKENS.findall(text):
                if token == "\n":  # noqa: S105  (of a text)
                    end()
                    written = True
                    continue
                if token.isspace() and not row and not written:
                    continue
                wide = self.width(token, letters, style)
                if x + wide > room and row and not token.isspace():
                    end()
                    written = False
                while wide > room and len(token) > 1:
                    fits = (n for n in range(len(token) - 1, 1, -1) if self.width(token[:n], letters, style) <= room)
                    cut = next(fits, 1)
                    row.append((token[:cut], style))
                    end()
                    written, token = False, token[cut:]
                    wide = self.width(token, letters, style)
                row.append((token, style))
                x += wide
        end()
        return rows

    def _font(self, path: str | None, size: int) -> pygame.font.Font:
        key = (path, size)
        if key not in self._fonts:
            self._fonts[key] = pygame.font.Font(path, round(size * (1.35 if path is None else 1.1)))
        return self._fonts[key]

    def _runs(self, text: str, style: str) -> Iterator[tuple[str, str | None]]:
        """Yield parts of a text, each with the font that has all of its letters."""
        usual = self._code_font() if style == "code" else None
        if text.isascii() or not text:
            yield text, usual
            return
        begin, now = 0, self._path_of(text[0], usual)
        for place, letter in enumerate(text):
            path = now if _INVISIBLE.match(letter) else self._path_of(letter, usual)
            if path != now:
                yield text[begin:place], now
                begin, now = place, path
        yield text[begin:], now

    def _path_of(self, letter: str, usual: str | None) -> str | None:
        if letter.isascii() or self._has(usual, letter):
            return usual
        if letter not in self._font_of:
            found = next((path for path in self._system_fonts() if self._has(path, letter)), None)
            if found is None:
                self.missing.add(letter)
            self._font_of[letter] = found
        return self._font_of[letter]

    def _has(self, path: str | None, letter: str) -> bool:
        """Tell whether a font has a letter: it does not look like one that no font has, whose box is drawn instead."""
        try:
            return self._looks(path, letter) != self._looks(path, NO_LETTER)
        except (pygame.error, UnicodeError, FileNotFoundError):
            return False

    def _looks(self, path: str | None, letter: str) -> bytes:
        if (path, letter) not in self._seen:
            drawn = self._font(path, 12).render(letter, False, (255, 255, 255), (0, 0, 0))
            self._seen[path, letter] = pygame.image.tobytes(drawn, "RGB")
        return self._seen[path, letter]

    def _system_fonts(self) -> list[str]:
        if self._paths is None:
            found = dict.fromkeys(filter(None, (pygame.font.match_font(name) for name in pygame.font.get_fonts())))

            def likely(path: str) -> int:
                name = Path(path).stem.lower().replace("-", "")
                return next((place for place, word in enumerate(LIKELY) if word in name), len(LIKELY))

            self._paths = sorted((str(path) for path in found), key=likely)
        return self._paths

    def _code_font(self) -> str | None:
        if self._code is None:
            self._code = pygame.font.match_font(CODE_FONTS) or ""
        return self._code or None


def _printable(text: str) -> str:
    return text.replace("\t", "    ").replace("\r", "").replace("\0", "")
