"""A window in which a person acts in an environment, by keys or a gamepad: for demonstrations."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

from prefrl.human_ui.lettering import Lettering
from prefrl.human_ui.steering import Held, Steering
from prefrl.human_ui.theme import PLAIN
from prefrl.human_ui.window import HIDES, open_surface

BUTTONS = ("space", "return", "x", "y")
"""The keys that the first buttons of a gamepad stand for."""
BAR = 56
"""Pixels of each line of text."""
SLOWEST = 1.0
"""Steps a second."""


class PlayWindow:
    """Shows what is seen, and takes actions.

    Args:
        steering: what keys mean.
        title: of the window.
        steps_per_second: the speed at the start; - and + change it.

    Attributes:
        closed: the person has closed it: nothing more comes from it.

    Raises:
        UserError: there is no screen.
    """

    def __init__(self, steering: Steering, title: str, steps_per_second: float) -> None:
        self.steering, self.speed = steering, max(SLOWEST, steps_per_second)
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")  # with OpenGL it is black beside MuJoCo's renderer
        self.surface = open_surface(title)
        pygame.joystick.init()
        self._pads = [pygame.joystick.Joystick(number) for number in range(pygame.joystick.get_count())]
        self._letters = Lettering()
        self._held: set[str] = set()
        self._tapped: set[str] = set()
        """Pressed since the last step, though perhaps let go again."""
        self.closed = self._paused = False
        self._due = 0.0

    def begin(self, picture: NDArray[np.uint8], told: str) -> bool:
        """Wait until the person begins an episode; False: they leave."""
        self._held.clear()
        key = self._ask(picture, told, "ENTER or SPACE begins     ESC leaves", {"return", "space", "escape"})
        self._tapped.clear()
        self._paused = False  # what was away while it waited is back
        self._due = time.perf_counter()
        return key not in ("escape", "")

    def keep(self, picture: NDArray[np.uint8], told: str) -> bool:
        """Ask whether an episode is kept."""
        return (
            self._ask(picture, told, "ENTER keeps it     BACKSPACE throws it away", {"return", "backspace"}) == "return"
        )

    def act(self, picture: NDArray[np.uint8], told: str) -> Any:
        """Show what is seen until the next step is due; return the action of what is held then, None to end it here."""
        self._due = max(self._due + 1 / self.speed, time.perf_counter() - 1 / self.speed)
        while not self.closed:
            state = "paused: P goes on" if self._paused else "P pauses"
            above = f"{told}   {self.speed:.0f} steps a second (- +)     {state}, ESC ends the episode"
            self._draw(picture, above, self.steering.legend)
            for key in self._take_keys():
                if key == "escape":
                    return None
                if key == "p":
                    self._paused = not self._paused
                if key in ("-", "+"):
                    self.speed = max(SLOWEST, self.speed * (0.8 if key == "-" else 1.25))
            left = self._due - time.perf_counter()
            if left > 0 or self._paused:
                time.sleep(min(0.01, max(left, 0.001)))
                if self._paused:
                    self._due = time.perf_counter()
                continue
            action = self.steering.action(Held(self._held | self._tapped, self._axes()))
            self._tapped.clear()
            if action is not None:
                return action
            self._due = time.perf_counter() + 1 / self.speed
        return None

    def close(self) -> None:
        """Close the window."""
        pygame.joystick.quit()
        pygame.display.quit()

    def _ask(self, picture: NDArray[np.uint8], told: str, question: str, keys: set[str]) -> str:
        while not self.closed:
            self._draw(picture, told, question)
            for key in self._take_keys():
                if key in keys:
                    return key
            time.sleep(0.02)
        return ""

    def _take_keys(self) -> list[str]:
        """Return the keys pressed since the last call, and note what is held, and whether the window was closed."""
        pressed = []
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.closed = True
            elif event.type == pygame.KEYDOWN:
                pressed.append({"enter": "return", "=": "+", "[+]": "+", "[-]": "-"}.get(
                    name := pygame.key.name(event.key), name
                ))  # fmt: skip
                self._press(name)
            elif event.type == pygame.KEYUP:
                self._held.discard(pygame.key.name(event.key))
            elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button < len(BUTTONS):
                name = BUTTONS[event.button]
                if event.type == pygame.JOYBUTTONUP:
                    self._held.discard(name)
                else:
                    pressed.append(name)
                    self._press(name)
            elif event.type == pygame.WINDOWFOCUSLOST or event.type in HIDES:  # keys let go elsewhere are not told
                self._held.clear()
                self._paused = True
            elif event.type == pygame.VIDEORESIZE:
                self.surface = pygame.display.get_surface() or self.surface
        return pressed

    def _press(self, name: str) -> None:
        if name in self.steering.keys:
            self._held.add(name)
            self._tapped.add(name)

    def _axes(self) -> list[float]:
        """Return the axes of the gamepads, up above 0, with the cross in place of the first two where it is pushed."""
        axes: list[float] = []
        for pad in self._pads:
            found = [pad.get_axis(number) * (-1 if number % 2 else 1) for number in range(pad.get_numaxes())]
            if pad.get_numhats() and any(pad.get_hat(0)):
                found[:2] = [float(value) for value in pad.get_hat(0)]
            axes += found
        return axes

    def _draw(self, picture: NDArray[np.uint8], above: str, below: str) -> None:
        width, height = self.surface.get_size()
        self.surface.fill(PLAIN.paper)
        rows, columns = picture.shape[:2]
        scale = min(width / columns, max(1, height - 2 * BAR) / rows)
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        seen = pygame.surfarray.make_surface(np.ascontiguousarray(picture.swapaxes(0, 1)))
        self.surface.blit(pygame.transform.scale(seen, size), ((width - size[0]) // 2, (height - size[1]) // 2))
        for text, middle, colour in ((above, BAR // 2, PLAIN.ink), (below, height - BAR // 2, PLAIN.pale_ink)):
            letters = self._letters.render(self._letters.cut(text, 22, width - 24), 22, colour)
            self.surface.blit(letters, (12, middle - letters.get_height() // 2))
        pygame.display.flip()
