"""The session of a person who answers: a pure object, driven by events, that knows nothing of windows or records.

Whoever owns it calls `press`, `click`, `tick` and `offer`, draws what its attributes say, and carries out what
`take_commands` gives: saving a reply, taking one back, fetching a question again, leaving.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from prefrl.human_ui.questions import Question, Reply, Standing

SPEEDS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
REST = 0.4  # seconds for which the last frame stands before the clips begin again
NOTICE_SECONDS = 4.0


class Action(Enum):
    """What a key or a click asks for."""

    LEFT = auto()
    RIGHT = auto()
    TIE = auto()
    CANNOT_TELL = auto()
    PAUSE = auto()
    REPLAY = auto()
    STEP_BACK = auto()
    STEP_ON = auto()
    FASTER = auto()
    SLOWER = auto()
    UNDO = auto()
    HELP = auto()
    INSTRUCTION = auto()
    CONTRAST = auto()
    SCROLL_UP = auto()
    SCROLL_DOWN = auto()
    CONFIRM = auto()
    QUIT = auto()


class Screen(Enum):
    """What fills the window."""

    INSTRUCTION = auto()
    QUESTION = auto()
    WAITING = auto()
    END = auto()


@dataclass(frozen=True)
class Save:
    """Put a reply into the record."""

    reply: Reply


@dataclass(frozen=True)
class TakeBack:
    """Undo the reply in the record and bring its question again."""

    reply: Reply


@dataclass(frozen=True)
class Leave:
    """Close the window."""


Command = Save | TakeBack | Leave


class Session:
    """One person, answering.

    Args:
        standing: how the run stands.
        instruction: what the person is asked to look for, shown first; "" for none.
        now: the clock, in seconds since 1970.
    """

    def __init__(self, standing: Standing, instruction: str = "", now: Callable[[], float] = time.time) -> None:
        self.standing, self.instruction, self._now = standing, instruction, now
        self.question: Question | None = None
        self.given: list[Reply] = []  # by this person in this session, those taken back left out
        self.ready: deque[Question] = deque()
        self.ranked: list[list[int]] = []  # places, best first; those in one list are tied
        self.show_help = self.show_instruction = False
        self.paused = self.high_contrast = False
        self.speed = 1.0
        self.position = 0.0  # seconds into the clips
        self.scroll = 0  # lines of text
        self.notice = ""
        self.problem = ""  # of the record, for as long as it lasts
        self.finished = False
        self.unsaved = 0  # replies and undos handed over that the record does not have yet
        self.leaving = False  # as soon as it has them
        self._notice_left = 0.0
        self._tie_next = False
        self._awaited: str | None = None  # query whose reply was taken back and which comes again
        self._more_undos = 0
        self._began = now()
        self._shown_at = now()
        self._commands: list[Command] = []
        self.introducing = True

    # ------------------------------------------------------------------------------------------------ what is seen

    @property
    def screen(self) -> Screen:
        """What fills the window now; help and the instruction may lie over it."""
        if self.introducing:
            return Screen.INSTRUCTION
        if self.question is not None:
            return Screen.QUESTION
        return Screen.END if self.finished and self._awaited is None else Screen.WAITING

    @property
    def frame(self) -> int:
        """Number of the frame that is shown, from 0; a clip that is shorter stands on its last."""
        if self.question is None:
            return 0
        return min(int(self.position * self.question.frames_per_second + 1e-6), self.question.num_frames - 1)

    @property
    def look_for(self) -> str:
        """What the person is told to judge by: the session's instruction, or else the question's own."""
        return self.instruction or (self.question.instruction if self.question is not None else "")

    @property
    def per_hour(self) -> float | None:
        """Replies per hour of this session; None before the first."""
        if not self.given:
            return None
        return 3600 * len(self.given) / max(self._now() - self._began, 1.0)

    # ------------------------------------------------------------------------------------------------ events

    def tick(self, seconds: float) -> None:
        """Let time go by."""
        if self.leaving and not self._num_pending:
            self._commands.append(Leave())
        self._notice_left -= seconds
        if self._notice_left <= 0:
            self.notice = ""
        question = self.question
        if question is None or self.paused or self.show_help or self.show_instruction or question.num_frames < 2:
            return
        self.position += seconds * self.speed
        length = question.num_frames / question.frames_per_second
        if self.position >= length + REST * self.speed:
            self.position = 0.0

    def offer(self, question: Question) -> None:
        """Take a question that is ready to be shown."""
        if question.query_id == self._awaited:
            self._awaited = None
            if self.question is not None:
                self.ready.appendleft(self.question)
            self._show(question)
            if self._more_undos:
                self._more_undos -= 1
                self._undo()
            return
        self.ready.append(question)
        if self.question is None and self._awaited is None:
            self._next()

    def report(
        self, *, standing: Standing | None = None, problem: str | None = None, finished: bool | None = None
    ) -> None:
        """Take news: how the run stands, what is wrong with the record ("": nothing), that nothing more will come."""
        if standing is not None:
            self.standing = standing
        if problem is not None:
            self.problem = problem
        if finished is not None:
            self.finished = finished

    def tell(self, notice: str, seconds: float = NOTICE_SECONDS) -> None:
        """Show a line for a few seconds."""
        self.notice, self._notice_left = notice, seconds

    def press(self, action: Action) -> None:
        """A key for `action` was pressed."""
        if action is Action.QUIT:
            if self.leaving or not self._num_pending:
                self._commands.append(Leave())
            self.leaving = True
            return
        self.leaving = False
        if action is Action.HELP:
            self.show_help, self.show_instruction = not self.show_help, False
        elif action is Action.INSTRUCTION and not self.introducing:
            self.show_instruction, self.show_help, self.scroll = not self.show_instruction, False, 0
        elif action is Action.CONTRAST:
            self.high_contrast = not self.high_contrast
        elif action in (Action.SCROLL_UP, Action.SCROLL_DOWN):
            self.scroll = max(0, self.scroll + (3 if action is Action.SCROLL_DOWN else -3))
        elif self.show_help or self.show_instruction:
            self.show_help = self.show_instruction = False  # any other key leads back
            self.scroll = 0
        elif self.introducing:
            self._begin()
        elif action is Action.UNDO:
            self._undo()
        elif action in (Action.FASTER, Action.SLOWER):
            self._change_speed(1 if action is Action.FASTER else -1)
        elif self.question is None:
            if action in (Action.LEFT, Action.RIGHT, Action.TIE, Action.CANNOT_TELL):
                self.tell("Nothing is shown yet: that key was not counted.")
        elif action is Action.PAUSE:
            self.paused = not self.paused
        elif action is Action.REPLAY:
            self.position, self.paused = 0.0, False
        elif action in (Action.STEP_BACK, Action.STEP_ON):
            self._step(1 if action is Action.STEP_ON else -1)
        else:
            self._judge(action, self.question)

    def digit(self, number: int) -> None:
        """A digit from 1 to 9 was pressed: the next best item of a ranking, or the points of a rating."""
        if self.show_help or self.show_instruction or self.introducing:
            self.press(Action.CONFIRM)
        elif self.question is None:
            self.tell("Nothing is shown yet: that key was not counted.")
        elif self.question.kind == "ranking":
            self._rank(number - 1, self.question)
        elif self.question.kind == "rating":
            if number <= self.question.scale:
                self._give(self.question, rating=number)
            else:
                self.tell(f"The scale goes from 1 to {self.question.scale}.")
        elif number <= 2:
            self.press((Action.LEFT, Action.RIGHT)[number - 1])
        else:
            self.tell("There are two to choose from: left or right arrow.")

    def click(self, place: int) -> None:
        """The item at a place, from 0 at the left, was clicked; for a rating, that point of its scale."""
        if self.question is None or self.question.kind in ("ranking", "rating") or place < 2:
            self.digit(place + 1)

    def take_commands(self) -> list[Command]:
        """Return what is to be done since the last call, in order."""
        commands, self._commands = self._commands, []
        return commands

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def _num_pending(self) -> int:
        return self.unsaved + sum(not isinstance(command, Leave) for command in self._commands)

    def _begin(self) -> None:
        self.introducing = False
        self._began = self._shown_at = self._now()
        self.position, self.scroll = 0.0, 0

    def _next(self) -> None:
        self.question = None
        if self._awaited is None and self.ready:
            self._show(self.ready.popleft())

    def _show(self, question: Question) -> None:
        self.question = question
        self.position, self.scroll, self.paused = 0.0, 0, False
        self.ranked, self._tie_next = [], False
        self._shown_at = self._now()

    def _change_speed(self, by: int) -> None:
        index = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[min(max(index, 0), len(SPEEDS) - 1)]
        self.tell(f"Speed x {self.speed:g}")

    def _step(self, by: int) -> None:
        question = self.question
        assert question is not None
        self.paused = True
        frame = (self.frame + by) % question.num_frames
        self.position = frame / question.frames_per_second

    def _judge(self, action: Action, question: Question) -> None:
        if action is Action.CANNOT_TELL:
            self._give(question)
        elif question.kind == "comparison":
            if action is Action.TIE:
                self._give(question, preference=0.5)
            elif action in (Action.LEFT, Action.RIGHT):
                place = 0 if action is Action.LEFT else 1
                self._give(question, preference=1.0 if question.order[place] == 0 else 0.0)
        elif question.kind == "ranking" and action is Action.TIE:
            if not self.ranked:
                self.tell("Press the number of the best one first; up, then a number, ties it with the one before.")
            else:
                self._tie_next = True
                self.tell("The next number ties with the one before.")
        elif question.kind == "ranking":
            self.tell("Press the numbers from the best to the worst.")
        elif question.kind == "rating" and action is not Action.CONFIRM:
            self.tell(f"Press a number from 1 (worst) to {question.scale} (best).")

    def _rank(self, place: int, question: Question) -> None:
        if place >= len(question.items):
            self.tell(f"There are {len(question.items)} to rank.")
            return
        if any(place in group for group in self.ranked):
            self.tell(f"{place + 1} is ranked already; Z takes the last one back.")
            return
        if self._tie_next:
            self.ranked[-1].append(place)
        else:
            self.ranked.append([place])
        self._tie_next = False
        if sum(len(group) for group in self.ranked) == len(question.items):
            ranks = [0] * len(question.items)
            for rank, group in enumerate(self.ranked, 1):
                for where in group:
                    ranks[question.order[where]] = rank
            self._give(question, ranks=tuple(ranks))

    def _give(
        self,
        question: Question,
        *,
        preference: float | None = None,
        ranks: tuple[int, ...] | None = None,
        rating: int | None = None,
    ) -> None:
        if any(item.problem is not None for item in question.items) and (preference, ranks, rating) != (None,) * 3:
            self.tell("One of these cannot be shown: press the down arrow (can't tell) to go on.")
            return
        reply = Reply(
            question=replace(question, items=tuple(replace(item, clip=None) for item in question.items)),
            preference=preference,
            ranks=ranks,
            rating=rating,
            shown_at=self._shown_at,
            answered_at=self._now(),
        )
        self.given.append(reply)
        self._commands.append(Save(reply))
        self.tell(f"Answer {len(self.given)} is taken; Z takes it back.", 1.0)
        self._next()

    def _undo(self) -> None:
        if self.ranked and self.question is not None:
            self.ranked[-1].pop()
            if not self.ranked[-1]:
                self.ranked.pop()
            self._tie_next = False
            return
        if self._awaited is not None:
            self._more_undos = min(self._more_undos + 1, len(self.given))  # when that one is back
            return
        if not self.given:
            self.tell("There is nothing to take back in this session.")
            return
        reply = self.given.pop()
        if self.question is not None:
            self.ready.appendleft(self.question)
            self.question = None
        self._awaited = reply.question.query_id
        self._commands.append(TakeBack(reply))
        self.tell("Taken back: answer it again.")
