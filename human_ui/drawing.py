"""Drawing a session with pygame."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pygame
from numpy.typing import NDArray

from prefrl.human_ui.actions import Action, Screen
from prefrl.human_ui.keys import ANSWER_KEYS, HELP, HINTS
from prefrl.human_ui.layout import Box, Layout, lay_out, unit_of
from prefrl.human_ui.lettering import Lettering, Row
from prefrl.human_ui.markup import differences
from prefrl.human_ui.questions import Item, Question, Result
from prefrl.human_ui.session import Session
from prefrl.human_ui.theme import HIGH_CONTRAST, PLAIN, Colour, Theme

MAX_SMOOTH = 1000  # pixels: larger clips are enlarged the quick way
LEAVING = "Not in the record yet: {num}. The window closes when they are. Q again gives them up; any other key stays."
EXAMPLES_SHARE = 0.3  # of the window's height, where there are any
GOOD, BAD = (0, 158, 115), (213, 94, 0)
MISSING = "Some letters cannot be shown: no font here has them. Install one, e.g. Debian's fonts-noto."
GALLERY_HINT = "LEFT, RIGHT others     UP, DOWN order: {order}     ENTER answer again     G back"


class Painter:
    """Draws sessions onto a surface of any size."""

    def __init__(self) -> None:
        self._letters = Lettering()
        self.hints: list[tuple[pygame.Rect, Action]] = []
        """What can be clicked on, and what that does."""
        self.layout: Layout | None = None
        self.most_scroll = 0
        """Lines by which the longest text of the last picture can be scrolled."""

    def paint(self, surface: pygame.Surface, session: Session) -> None:
        """Draw the whole window as the session is now."""
        theme = HIGH_CONTRAST if session.high_contrast else PLAIN
        surface.fill(theme.paper)
        width, height = surface.get_size()
        unit = unit_of(width, height)
        self.layout, self.most_scroll = None, 0
        question = session.visible
        if session.screen in (Screen.QUESTION, Screen.GALLERY) and question is not None:
            aspect = next((i.clip.frames.shape[2] / i.clip.frames.shape[1] for i in question.items if i.clip), None)
            if aspect is None and question.prompt is None:
                aspect = 1.0
            self.layout = lay_out(
                width,
                height,
                len(question.items),
                aspect=aspect,
                has_prompt=question.prompt is not None,
                has_instruction=bool(session.look_for) or session.browsing,
                points=question.scale if question.answer_kind.graded and not session.browsing else 0,
            )
            self._question(surface, session, question, self.layout, theme)
        elif session.screen is Screen.OUTCOME or (session.screen is Screen.END and session.result is not None):
            self._outcome(surface, session, theme, unit)
        else:
            self._page(surface, session, theme, unit)
        self._header(surface, session, theme, unit)
        self._footer(surface, session, theme, unit)
        if session.show_help:
            self._help(surface, theme, unit)
        elif session.draft is not None:
            self._comment(surface, session, theme, unit)
        elif session.show_instruction:
            told = session.look_for or "No instruction was given."
            self._panel(surface, theme, unit, "What to look for", told, session.scroll, self._room(surface, session))
            self._examples(surface, session, theme, unit)

    def paint_frame(self, surface: pygame.Surface, session: Session) -> list[pygame.Rect]:
        """Draw only what another frame changes, after `paint`; return where."""
        layout, question = self.layout, session.visible
        if layout is None or question is None:
            return []
        theme = HIGH_CONTRAST if session.high_contrast else PLAIN
        self._clips(surface, session, question, layout, theme)
        self._progress(surface, session, question, layout, theme)
        shown = [box for item, box in zip(question.shown, layout.items, strict=True) if item.clip is not None]
        return [pygame.Rect(box) for box in (*shown, layout.progress)]

    # ------------------------------------------------------------------------------------------------ parts

    def _header(self, surface: pygame.Surface, session: Session, theme: Theme, unit: float) -> None:
        standing = session.standing
        width = surface.get_width()
        gap, size = round(14 * unit), round(19 * unit)
        title = " - ".join(part for part in (standing.environment, standing.run) if part)
        rate = session.per_hour
        counts = f"{standing.answered}" + (f" of {standing.wanted}" if standing.wanted else "") + " answered"
        figures = [counts, f"{standing.left} left", "- per hour" if rate is None else f"{rate:.0f} per hour"]
        agreement = standing.agreement
        learned = "not known yet" if agreement is None else f"{agreement.share:.0%} of {agreement.num} answers held out"
        second = [f"learned reward agrees with: {learned}"]
        if standing.training:
            second.insert(0, standing.training)
        right = self._text("     ".join(figures), size, theme.ink)
        surface.blit(right, (width - gap - right.get_width(), gap // 2))
        room = width - 3 * gap - right.get_width()
        surface.blit(self._text(self._letters.cut(title, size, room), size, theme.ink), (gap, gap // 2))
        line = self._letters.cut("     ".join(second), round(16 * unit), width - 2 * gap)
        surface.blit(self._text(line, round(16 * unit), theme.pale_ink), (gap, gap // 2 + round(27 * unit)))
        look_for = "Look for: " + " ".join(session.look_for.split()) if session.look_for else ""
        browsed = session.past if session.screen is Screen.GALLERY else None
        told = look_for if browsed is None else browsed.told
        if self.layout is not None and told:
            told = self._letters.cut(told, round(16 * unit), width - 2 * gap)
            surface.blit(self._text(told, round(16 * unit), theme.ink), (gap, gap // 2 + round(51 * unit)))

    def _footer(self, surface: pygame.Surface, session: Session, theme: Theme, unit: float) -> None:
        width, height = surface.get_size()
        size = round(16 * unit)
        question = session.visible
        lines: list[tuple[str, Colour]] = []
        if session.leaving and session.unsaved:
            lines.append((LEAVING.format(num=session.unsaved), theme.warning))
        if session.problem:
            lines.append((session.problem, theme.warning))
        elif session.notice:
            lines.append((session.notice, theme.warning))
        elif session.paused and question is not None:
            lines.append(
                (f"PAUSED at frame {session.frame + 1} of {question.num_frames}: space goes on", theme.warning)
            )
        elif session.screen is Screen.GALLERY and session.past is not None:
            number = f"answer {session.past.index + 1} of {session.past.total}"
            lines.append((f"{number}     {GALLERY_HINT.format(order=session.order)}", theme.ink))
        if question is not None and self._letters.missing and question.prompt is not None:
            lines.append((MISSING, theme.warning))
        rows = [
            (row, colour) for text, colour in lines for row in self._letters.wrap(text, size, width - round(28 * unit))
        ]
        actions = self._lay_hints(session, question, size, width - round(28 * unit))
        if lines and question is not None and len(actions) > 1:
            actions = actions[1:]  # the keys of answers give way to what is told
        top = height - round(9 * unit) - (len(rows) + len(actions)) * round(24 * unit)
        surface.fill(theme.paper, pygame.Rect(0, top - round(4 * unit), width, height))
        for index, (row, colour) in enumerate(rows):
            self._centred(surface, row, size, colour, width // 2, top + index * round(24 * unit))
        self.hints = []
        for index, line in enumerate(actions, len(rows)):
            gap = round(22 * unit)
            x = (width - sum(self._letters.width(text, size) for text, _ in line) - gap * (len(line) - 1)) // 2
            for text, action in line:
                on = (action is Action.FLAG and session.flagged) or (action is Action.COMMENT and bool(session.comment))
                drawn = self._text(text, size, theme.warning if on else theme.pale_ink if index else theme.ink)
                box = surface.blit(drawn, (x, top + index * round(24 * unit)))
                self.hints.append((box.inflate(gap // 2, round(6 * unit)), action))
                x += drawn.get_width() + gap

    def _lay_hints(
        self, session: Session, question: Question | None, size: int, width: int
    ) -> list[list[tuple[str, Action]]]:
        """Return lines of what can be pressed or clicked: the keys of answers first, then those of all questions."""
        lines: list[list[tuple[str, Action]]] = []
        if session.screen is Screen.QUESTION and question is not None:
            parts = [part.strip() for part in question.hint.split("     ") if part.strip()]
            known = [next((act for key, act in ANSWER_KEYS if part.startswith(key)), Action.HELP) for part in parts]
            lines.append(list(zip(parts, known, strict=True)))
        line: list[tuple[str, Action]] = []
        for hint in HINTS:
            if line and sum(self._letters.width(text, size) + size for text, _ in (*line, hint)) > width:
                lines.append(line)
                line = []
            line.append(hint)
        return [*lines, line]

    def _question(
        self, surface: pygame.Surface, session: Session, question: Question, layout: Layout, theme: Theme
    ) -> None:
        unit = layout.unit
        if layout.prompt is not None:
            self._text_box(
                surface, layout.prompt, f"Prompt: {question.prompt}", theme, theme.pale_ink, unit, 0, session.scroll
            )
        border = max(2, round(theme.border * unit))
        for place, (item, box) in enumerate(zip(question.shown, layout.items, strict=True)):
            colour = theme.places[place]
            if item.clip is not None:
                pygame.draw.rect(surface, colour, pygame.Rect(box).inflate(2 * border, 2 * border), border)
            elif item.text is not None:
                marks = None
                if session.marked:
                    marks = _differences(tuple(one.text or "" for one in question.shown))[place]
                rows = self._letters.typeset(item.text, marks, round(19 * unit), box[2] - 2 * round(12 * unit))
                self._text_box(surface, box, rows, theme, colour, unit, border, session.scroll)
            else:
                told = f"This clip cannot be shown: {item.problem}"
                self._text_box(surface, box, told, theme, theme.warning, unit, border, session.scroll)
        self._clips(surface, session, question, layout, theme)
        for point, box in enumerate(layout.scale, 1):
            pygame.draw.rect(surface, theme.panel, box)
            pygame.draw.rect(surface, theme.places[0], box, border)
            self._centred(surface, str(point), round(26 * unit), theme.ink, box[0] + box[2] // 2, box[1] + box[3] // 4)
        if layout.scale:
            size, (first, last) = round(16 * unit), (layout.scale[0], layout.scale[-1])
            ends = ("left", "right") if len(question.items) == 2 else ("worst", "best")
            worst = self._text(ends[0], size, theme.ink)
            middle = first[1] + first[3] // 2 - worst.get_height() // 2
            surface.blit(worst, (first[0] - worst.get_width() - round(10 * unit), middle))
            surface.blit(self._text(ends[1], size, theme.ink), (last[0] + last[2] + round(10 * unit), middle))
        self._progress(surface, session, question, layout, theme)

    def _clips(
        self, surface: pygame.Surface, session: Session, question: Question, layout: Layout, theme: Theme
    ) -> None:
        """Draw the clips, and what is written on the items."""
        ranks = {place: rank for rank, group in enumerate(session.ranked, 1) for place in group}
        for place, (item, box) in enumerate(zip(question.shown, layout.items, strict=True)):
            colour = theme.places[place]
            if item.clip is not None:
                self._picture(surface, item, session.frame, box)
            if len(question.items) == 2:
                self._badge(surface, ("LEFT", "RIGHT")[place], box, colour, layout.unit)
            elif len(question.items) > 2:
                self._badge(surface, str(place + 1), box, colour, layout.unit)
                if place in ranks:
                    self._badge(surface, f"rank {ranks[place]}", box, theme.chosen, layout.unit, right=True)

    def _progress(
        self, surface: pygame.Surface, session: Session, question: Question, layout: Layout, theme: Theme
    ) -> None:
        if question.num_frames > 1:
            pygame.draw.rect(surface, theme.panel, layout.progress)
            left, top, width, height = layout.progress
            done = round(width * (session.frame + 1) / question.num_frames)
            pygame.draw.rect(surface, theme.pale_ink, (left, top, done, height))

    def _picture(self, surface: pygame.Surface, item: Item, frame: int, box: Box) -> None:
        assert item.clip is not None
        pixels = item.clip.frames[min(frame, item.num_frames - 1)]
        picture = pygame.image.frombuffer(pixels, (pixels.shape[1], pixels.shape[0]), "RGB").convert(surface)
        quick = max(box[2:]) > MAX_SMOOTH
        (pygame.transform.scale if quick else pygame.transform.smoothscale)(picture, box[2:], surface.subsurface(box))

    def _badge(
        self,
        surface: pygame.Surface,
        text: str,
        box: Box,
        colour: Colour,
        unit: float,
        *,
        right: bool = False,
    ) -> None:
        label = self._text(text, round(17 * unit), (0, 0, 0))
        pad = round(6 * unit)
        back = pygame.Rect(box[0], box[1], label.get_width() + 2 * pad, label.get_height() + pad)
        if right:
            back.right = box[0] + box[2]
        pygame.draw.rect(surface, colour, back)
        surface.blit(label, (back.x + pad, back.y + pad // 2))

    def _text_box(
        self,
        surface: pygame.Surface,
        box: Box,
        text: str | list[Row],
        theme: Theme,
        colour: Colour,
        unit: float,
        border: int,
        scroll: int,
    ) -> None:
        pygame.draw.rect(surface, theme.panel, box)
        size, pad = round(19 * unit), round(12 * unit)
        top_pad = pad + (round(28 * unit) if border else 0)  # room for the badge
        height = round(size * 1.35)
        rows = text
        if isinstance(rows, str):
            rows = [Row(((row, ""),)) for row in self._letters.wrap(rows, size, box[2] - 2 * pad)]
        visible = max(1, (box[3] - pad - top_pad) // height)
        first = self._scrolled(len(rows), visible, scroll)
        for index, row in enumerate(rows[first : first + visible]):
            self._row(surface, row, (box[0] + pad, box[1] + top_pad + index * height), size, theme)
        self._scroll_bar(surface, pygame.Rect(box), theme, colour, pad // 2, (first, visible, len(rows)))
        if border:
            pygame.draw.rect(surface, colour, box, border)

    def _row(self, surface: pygame.Surface, row: Row, place: tuple[int, int], size: int, theme: Theme) -> None:
        """Draw one line of typeset text; what is marked is underlined too, for it is not told by colour alone."""
        x, y = place[0] + row.indent, place[1]
        for text, style in row.spans:
            colour = theme.chosen if style in ("mark", "strong") else theme.pale_ink if style == "em" else theme.ink
            drawn = self._letters.render(text, round(size * row.scale), colour, style)
            box = surface.blit(drawn, (x, y))
            if style == "mark":
                pygame.draw.line(surface, colour, (box.left, box.bottom), (box.right, box.bottom), 2)
            x += drawn.get_width()

    def _comment(self, surface: pygame.Surface, session: Session, theme: Theme, unit: float) -> None:
        told = f"{session.draft}_\n\nENTER keeps it, ESCAPE leaves it."
        self._panel(surface, theme, unit, "A note on this question", told, max(0, len(told)))

    def _scrolled(self, num_rows: int, visible: int, scroll: int) -> int:
        """Return the row to begin with, and note how far a text can be scrolled."""
        most = max(0, num_rows - visible)
        self.most_scroll = max(self.most_scroll, most)
        return min(scroll, most)

    def _scroll_bar(
        self,
        surface: pygame.Surface,
        box: pygame.Rect,
        theme: Theme,
        colour: Colour,
        width: int,
        rows: tuple[int, int, int],
    ) -> None:
        """Show how much text there is and where we are, unless all is seen; `rows`: the first, those seen, all."""
        first, visible, total = rows
        if total <= visible:
            return
        bar = pygame.Rect(box.right - width, box.y, width, box.h)
        pygame.draw.rect(surface, theme.paper, bar)
        thumb = pygame.Rect(bar.x, bar.y + bar.h * first // total, bar.w, max(8, bar.h * visible // total))
        pygame.draw.rect(surface, colour, thumb)

    def _page(self, surface: pygame.Surface, session: Session, theme: Theme, unit: float) -> None:
        standing = session.standing
        if session.screen is Screen.INSTRUCTION:
            text = session.look_for or "Say which one is better."
            told = f"{text}\n\nPress any key to begin; H shows all keys."
            self._panel(surface, theme, unit, "What to look for", told, session.scroll, self._room(surface, session))
            self._examples(surface, session, theme, unit)
        elif session.screen is Screen.BREAK:
            told = "You have answered for a while. Look out of the window for a minute or two; no time counts.\n\n"
            self._panel(surface, theme, unit, "Time for a rest", f"{told}Any key goes on.")
        elif session.screen is Screen.END:
            given = len(session.given)  # what came of them is being fetched
            told = f"You gave {given} answer{'' if given == 1 else 's'} in this session; everything is in the record."
            if not standing.wanted or standing.left:
                told += "\nNo query is open. If the training was stopped, resume it with: prefrl resume RUN"
            self._panel(surface, theme, unit, "All answers are in", f"{told}\n\nQ leaves; Z takes answers back.")
        elif session.screen is Screen.GALLERY:
            self._panel(surface, theme, unit, "Answers given", "One moment.")
        else:
            if not standing.open:
                told = "The training will ask again soon."
            elif standing.running:
                told = "The next questions are being prepared."
            else:
                told = (
                    "Somebody else has what is left, or its clips are not drawn yet: "
                    "that is done while the training runs. Resume it with: prefrl resume RUN"
                )
            self._panel(surface, theme, unit, "One moment", told)

    def _outcome(self, surface: pygame.Surface, session: Session, theme: Theme, unit: float) -> None:
        """Draw what the answers have come to: sentences, the film beneath, and pictures along the training."""
        width, height = surface.get_size()
        result, gap = session.result, round(14 * unit)
        if result is None:
            self._panel(surface, theme, unit, "What the answers have come to", "One moment.")
            return
        top, bottom = round(72 * unit), height - round(78 * unit)
        title = "All answers are in" if session.screen is Screen.END else "What the answers have come to"
        surface.blit(self._text(title, round(25 * unit), theme.ink), (gap, top))
        top += round(38 * unit)
        size, step = round(18 * unit), round(25 * unit)
        beside = result.film is not None and width > height  # sentences at the left, the film at the right
        room = (width // 2 if beside else width) - 2 * gap
        for line in result.lines:
            for row in self._letters.wrap(line, size, room):
                surface.blit(self._text(row, size, theme.ink), (gap, top))
                top += step
            top += step // 3
        if result.strip:
            bottom = self._strip(surface, result, theme, unit, bottom)
        if result.film is None:
            return
        box = (width // 2 + gap, round(72 * unit), width // 2 - 2 * gap, bottom - round(72 * unit) - gap)
        if not beside:
            box = (gap, top, width - 2 * gap, bottom - top - gap)
        surface.blit(self._text(result.film_title, size, theme.pale_ink), (box[0], box[1]))
        self._fitted(surface, result.film.frames[session.film_frame], (box[0], box[1] + step, box[2], box[3] - step))

    def _strip(self, surface: pygame.Surface, result: Result, theme: Theme, unit: float, bottom: int) -> int:
        """Draw pictures of the agent along its training in a row; return where the row begins."""
        gap, size = round(14 * unit), round(14 * unit)
        side = min(round(110 * unit), (surface.get_width() - gap) // len(result.strip) - gap)
        top = bottom - side - round(24 * unit)
        for number, (steps, picture) in enumerate(result.strip):
            left = gap + number * (side + gap)
            self._fitted(surface, picture, (left, top, side, side))
            self._centred(surface, steps, size, theme.pale_ink, left + side // 2, top + side + round(3 * unit))
        return top

    def _fitted(self, surface: pygame.Surface, pixels: NDArray[np.uint8], box: Box) -> None:
        """Draw a picture as large as it fits into a box, in its middle."""
        high, wide = pixels.shape[:2]
        scale = min(box[2] / wide, box[3] / high)
        if scale <= 0:
            return
        size = (max(1, int(wide * scale)), max(1, int(high * scale)))
        picture = pygame.image.frombytes(pixels.tobytes(), (wide, high), "RGB").convert(surface)
        scaled = pygame.transform.smoothscale(picture, size)
        surface.blit(scaled, (box[0] + (box[2] - size[0]) // 2, box[1] + (box[3] - size[1]) // 2))

    def _help(self, surface: pygame.Surface, theme: Theme, unit: float) -> None:
        width, height = surface.get_size()
        size, step = round(18 * unit), round(28 * unit)
        box = pygame.Rect(0, 0, min(width - 20, round(820 * unit)), round(70 * unit) + step * len(HELP))
        box.center = (width // 2, height // 2)
        self._back(surface, theme, unit, box)
        self._centred(surface, "Keys", round(24 * unit), theme.ink, width // 2, box.y + round(16 * unit))
        for index, (key, what) in enumerate(HELP):
            y = box.y + round(56 * unit) + index * step
            surface.blit(self._text(key, size, theme.places[0]), (box.x + round(24 * unit), y))
            surface.blit(self._text(what, size, theme.ink), (box.x + round(270 * unit), y))

    def _panel(
        self, surface: pygame.Surface, theme: Theme, unit: float, title: str, text: str, scroll: int = 0, below: int = 0
    ) -> None:
        width, height = surface.get_size()
        size, inner = round(21 * unit), min(width - round(80 * unit), round(860 * unit))
        rows = self._letters.wrap(text, size, inner)
        step = round(30 * unit)
        height -= below
        visible = min(len(rows), max(1, (height - round(240 * unit)) // step))  # between header and footer
        first = self._scrolled(len(rows), visible, scroll)
        if len(rows) > visible:
            title += " (page up, page down)"
        box = pygame.Rect(0, 0, inner + round(60 * unit), round(90 * unit) + step * visible)
        box.center = (width // 2, height // 2)
        self._back(surface, theme, unit, box)
        self._centred(surface, title, round(27 * unit), theme.ink, width // 2, box.y + round(20 * unit))
        for index, row in enumerate(rows[first : first + visible]):
            surface.blit(
                self._text(row, size, theme.ink), (box.x + round(30 * unit), box.y + round(70 * unit) + index * step)
            )
        self._scroll_bar(surface, box, theme, theme.pale_ink, round(8 * unit), (first, visible, len(rows)))

    @staticmethod
    def _room(surface: pygame.Surface, session: Session) -> int:
        return round(EXAMPLES_SHARE * surface.get_height()) if session.examples else 0

    def _examples(self, surface: pygame.Surface, session: Session, theme: Theme, unit: float) -> None:
        """Draw what was pinned in a row above the footer: of a clip its first, middle and last frame."""
        if not session.examples:
            return
        width, height = surface.get_size()
        gap, caption, size = round(12 * unit), round(26 * unit), round(16 * unit)
        high = self._room(surface, session) - caption - gap
        wide = min(round(300 * unit), (width - gap) // len(session.examples) - gap)
        top = height - round(70 * unit) - high - caption
        left = (width - len(session.examples) * (wide + gap) + gap) // 2
        for number, example in enumerate(session.examples):
            box = pygame.Rect(left + number * (wide + gap), top, wide, high)
            colour = GOOD if example.good else BAD
            pygame.draw.rect(surface, theme.panel, box)
            if example.item.clip is not None:
                frames = example.item.clip.frames
                chosen = (frames[0], frames[len(frames) // 2], frames[-1])
                scale = min(high / frames.shape[1], wide / 3 / frames.shape[2])
                shape = (int(frames.shape[2] * scale), int(frames.shape[1] * scale))
                for place, pixels in enumerate(chosen):
                    whole = pygame.image.frombuffer(pixels, (pixels.shape[1], pixels.shape[0]), "RGB")
                    x = box.x + (wide - 3 * shape[0]) // 2 + place * shape[0]
                    surface.blit(pygame.transform.smoothscale(whole, shape), (x, box.y + (high - shape[1]) // 2))
            else:
                rows = self._letters.wrap(example.item.text or example.item.problem or "", size, wide - gap)
                for line, row in enumerate(rows[: max(1, high // round(22 * unit))]):
                    surface.blit(self._text(row, size, theme.ink), (box.x + gap // 2, box.y + line * round(22 * unit)))
            pygame.draw.rect(surface, colour, box, max(2, round(theme.border * unit)))
            told = ("Good" if example.good else "Bad") + (f": {example.note}" if example.note else "")
            told = self._letters.cut(" ".join(told.split()), size, wide)
            surface.blit(self._text(told, size, theme.ink), (box.x, box.bottom + round(4 * unit)))

    def _back(self, surface: pygame.Surface, theme: Theme, unit: float, box: pygame.Rect) -> None:
        pygame.draw.rect(surface, theme.panel, box)
        pygame.draw.rect(surface, theme.pale_ink, box, max(1, round(theme.border * unit / 2)))

    # ------------------------------------------------------------------------------------------------ text

    def _text(self, text: str, size: int, colour: Colour) -> pygame.Surface:
        return self._letters.render(text, size, colour)

    def _centred(self, surface: pygame.Surface, text: str, size: int, colour: Colour, x: int, y: int) -> None:
        rendered = self._text(text, size, colour)
        surface.blit(rendered, (x - rendered.get_width() // 2, y))


@lru_cache(maxsize=16)
def _differences(texts: tuple[str, ...]) -> list[list[tuple[str, bool]]]:
    return differences(texts)


def icon() -> pygame.Surface:
    """Draw the window's icon: two clips, the right one chosen."""
    surface = pygame.Surface((64, 64), pygame.SRCALPHA)
    pygame.draw.rect(surface, PLAIN.places[0], (3, 16, 26, 32), border_radius=4)
    pygame.draw.rect(surface, PLAIN.places[1], (35, 16, 26, 32), border_radius=4)
    pygame.draw.rect(surface, (255, 255, 255), (35, 16, 26, 32), 3, border_radius=4)
    pygame.draw.polygon(surface, (255, 255, 255), [(42, 31), (47, 37), (56, 24), (56, 29), (47, 42), (42, 36)])
    return surface
