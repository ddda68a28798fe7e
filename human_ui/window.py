"""The window: turns keys and clicks into events of the session, draws it, and carries its commands to the desk."""

from __future__ import annotations

import os
import time

import pygame

from prefrl.errors import UserError
from prefrl.human_ui.actions import Action, Again, Browse, Leave, Look, Save, Screen, TakeBack
from prefrl.human_ui.desk import Desk
from prefrl.human_ui.drawing import Painter, icon
from prefrl.human_ui.keys import KEYS, digit_of, name_of
from prefrl.human_ui.questions import Past, Question, Result, Standing
from prefrl.human_ui.session import Session

FRAMES_PER_SECOND = 60
SMALLEST = (640, 480)
HIDDEN_TICKS = 4  # a second, while nobody can see the window
HIDES = (pygame.WINDOWMINIMIZED, pygame.WINDOWHIDDEN)
SHOWS = (pygame.WINDOWRESTORED, pygame.WINDOWSHOWN, pygame.WINDOWMAXIMIZED, pygame.WINDOWFOCUSGAINED)


def usual_size(width: int, height: int) -> tuple[int, int]:
    """Return how large a window opens on a screen: 1280 x 800 where that fits, more on a large one."""
    return min(max(1280, int(0.65 * width)), int(0.9 * width)), min(max(800, int(0.72 * height)), int(0.85 * height))


def open_surface(title: str, size: tuple[int, int] | None = None) -> pygame.Surface:
    """Open a window; return what is drawn on.

    Args:
        title: of the window.
        size: width and height; None: what suits the screen.

    Raises:
        UserError: there is no screen.
    """
    os.environ["SDL_VIDEO_X11_WMCLASS"] = "prefrl"
    try:
        pygame.display.init()
        pygame.font.init()
        info = pygame.display.Info()
        fits = usual_size(info.current_w, info.current_h)
        pygame.display.set_icon(icon())
        surface = pygame.display.set_mode(size or fits, pygame.RESIZABLE)
    except pygame.error as error:
        raise UserError(
            f"No window can be opened here ({error}). Run this where there is a screen, e.g. on your own machine "
            "with the run's folder, or through ssh -X."
        ) from None
    if pygame.display.get_driver() in ("dummy", "offscreen"):
        raise UserError(
            "There is no screen to show a window on. Run this where there is one, e.g. on your own machine with "
            "the run's folder, or through ssh -X."
        )
    pygame.display.set_caption(title)
    return surface


class Window:
    """A window that shows one session.

    Args:
        session: what is shown.
        desk: where questions come from and answers go; started already.
        title: of the window.
        size: width and height; None: what suits the screen.

    Raises:
        UserError: there is no screen.
    """

    def __init__(self, session: Session, desk: Desk, title: str, size: tuple[int, int] | None = None) -> None:
        self.session, self.desk = session, desk
        self.surface = open_surface(title, size)
        self._painter = Painter()
        self._drawn: object = None
        self._frame = 0
        self._leaving = False
        self._hidden = False
        self._unwritten = ""  # by the key that opened the note

    def run(self) -> None:
        """Show the session until the person leaves."""
        clock, before = pygame.time.Clock(), time.perf_counter()
        while not self._leaving:
            for event in pygame.event.get():
                self.handle(event)
            self.take_news()
            now = time.perf_counter()
            self.session.tick(0.0 if self._hidden else now - before)  # what nobody sees does not play
            before = now
            self._carry_out()
            if not self._hidden:
                self.draw()
            clock.tick(HIDDEN_TICKS if self._hidden else FRAMES_PER_SECOND)
        pygame.display.quit()

    def handle(self, event: pygame.event.Event) -> None:
        """Take in one event of pygame's."""
        if event.type == pygame.QUIT:
            self.session.press(Action.QUIT)
        elif event.type in HIDES:
            self._hidden = True
        elif event.type in SHOWS:
            self._hidden, self._drawn = False, None
        elif event.type == pygame.TEXTINPUT:
            if event.text != self._unwritten:
                self.session.write(event.text)
            self._unwritten = ""
        elif event.type == pygame.KEYDOWN and self.session.draft is not None:
            self._write_key(event.key)
        elif event.type == pygame.KEYDOWN:
            name = name_of(pygame.key.name(event.key), event.unicode, getattr(event, "scancode", 0))
            digit = digit_of(name)
            if digit is not None:
                self.session.digit(digit)
            elif name in KEYS:
                self.session.press(KEYS[name])
                if self.session.draft is not None:
                    self._unwritten = event.unicode
            elif self.session.introducing and event.unicode:
                self.session.press(Action.CONFIRM)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._click(event.pos)
        elif event.type == pygame.MOUSEWHEEL:
            self.session.press(Action.SCROLL_UP if event.y > 0 else Action.SCROLL_DOWN)
        elif event.type == pygame.VIDEORESIZE:
            self.surface = pygame.display.get_surface() or self.surface
            self._drawn = None
        elif event.type in (pygame.VIDEOEXPOSE, pygame.WINDOWEXPOSED):
            self._drawn = None

    def _write_key(self, key: int) -> None:
        """Take in a key while a note is written; letters come as text."""
        self._unwritten = ""
        if key == pygame.K_BACKSPACE:
            self.session.write("\b")
        elif key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            self.session.press(Action.CONFIRM)
        elif key == pygame.K_ESCAPE:
            self.session.press(Action.CLOSE)

    def take_news(self) -> None:
        """Hand what the desk has brought to the session."""
        self.session.unsaved = self.desk.num_unsaved
        while not self.desk.news.empty():
            news = self.desk.news.get()
            if isinstance(news, Question):
                self.session.offer(news)
            elif isinstance(news, Standing):
                self.session.report(standing=news)
            elif isinstance(news, Result):
                self.session.report(result=news)
            elif isinstance(news, Past) or news is None:
                self.session.show_past(news)
            elif isinstance(news, bool):
                self.session.report(finished=news)
            else:
                self.session.report(problem=news)

    def draw(self) -> None:
        """Draw the session, if anything on it has changed."""
        session = self.session
        rate = session.per_hour
        now = (
            *(session.screen, session.visible and session.visible.query_id, session.paused, session.show_help),
            *(session.result, session.past, session.order),
            session.screen in (Screen.OUTCOME, Screen.END) and session.film_frame,
            *(
                session.paused and session.frame,
                session.show_instruction,
                session.notice,
                session.problem,
                session.leaving and session.unsaved,
                session.standing,
            ),
            *(session.scroll, session.high_contrast, str(session.ranked), len(session.given)),
            *(session.flagged, session.comment, session.draft, session.resting, session.marked),
            *(self.surface.get_size(), None if rate is None else round(rate, -1)),
        )
        if now != self._drawn:
            self._painter.paint(self.surface, session)
            pygame.display.flip()
            session.scroll = min(session.scroll, self._painter.most_scroll)
        elif session.frame != self._frame and not (session.show_help or session.show_instruction):
            pygame.display.update(self._painter.paint_frame(self.surface, session))
        self._drawn, self._frame = now, session.frame

    def _click(self, position: tuple[int, int]) -> None:
        session, layout = self.session, self._painter.layout
        if session.draft is not None:
            return
        hint = next((action for box, action in self._painter.hints if box.collidepoint(position)), None)
        over = session.show_help or session.show_instruction or session.show_outcome
        if hint is not None and not (session.introducing or over):
            session.press(hint)
            return
        if session.introducing or session.resting or over:
            session.press(Action.CONFIRM)
            return
        if session.browsing:
            return
        place = None if layout is None else layout.item_at(*position)
        if place is not None:
            session.click(place)

    def _carry_out(self) -> None:
        for command in self.session.take_commands():
            if isinstance(command, Save):
                self.desk.save(command.answer)
            elif isinstance(command, TakeBack):
                self.desk.take_back(command.answer)
            elif isinstance(command, Again):
                self.desk.take_back_row(command.row)
            elif isinstance(command, Browse):
                self.desk.browse(command.index, command.order)
            elif isinstance(command, Look):
                self.desk.look()
            elif isinstance(command, Leave):
                self._leaving = True
