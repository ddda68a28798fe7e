"""The session of a person who answers: a pure object, driven by events, that knows nothing of windows or records.

Whoever owns it calls `press`, `click`, `tick` and `offer`, draws what its attributes say, and carries out what
`take_commands` gives: saving an answer, taking one back, fetching a question again, leaving.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from prefrl.feedback import Answer
from prefrl.human_ui.actions import (
    REASON_OF,
    Action,
    Again,
    Browse,
    Command,
    Leave,
    Look,
    Save,
    Screen,
    TakeBack,
)
from prefrl.human_ui.questions import Example, Past, Question, Result, Standing

SPEEDS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
REST = 0.4  # seconds for which the last frame stands before the clips begin again
NOTICE_SECONDS = 4.0
LONGEST_COMMENT = 2000


ORDERS = ("newest", "surprise", "disagreement")
BESIDE_BROWSING = (
    Action.HELP,
    Action.INSTRUCTION,
    Action.CONTRAST,
    Action.SCROLL_UP,
    Action.SCROLL_DOWN,
    Action.FASTER,
    Action.SLOWER,
    Action.DIFFERENCES,
    Action.OUTCOME,
)
"""What does the same while answers are looked through."""


class Session:
    """One person, answering.

    Args:
        standing: how the run stands.
        instruction: what the person is asked to look for, shown first; "" for none.
        now: the clock, in seconds since 1970.
        must_see: share of the clips' length that must have been shown before an answer counts, in [0, 1].
        break_after: seconds of answering after which a rest is proposed; 0: never.
        examples: good and bad ones, shown beside the instruction.
    """

    def __init__(
        self,
        standing: Standing,
        instruction: str = "",
        now: Callable[[], float] = time.time,
        must_see: float = 0.0,
        break_after: float = 0.0,
        examples: Sequence[Example] = (),
    ) -> None:
        self.standing, self.instruction, self._now, self.must_see = standing, instruction, now, must_see
        self.break_after, self.examples = break_after, tuple(examples)
        self.question: Question | None = None
        self.given: list[Answer] = []  # by this person in this session, those taken back left out
        self.ready: deque[Question] = deque()
        self.ranked: list[list[int]] = []  # places, best first; those in one list are tied
        self.show_help = self.show_instruction = False
        self.paused = self.high_contrast = False
        self.speed = 1.0
        self.position = 0.0  # seconds into the clips
        self.seen = 0.0  # share of the clips' length that has been shown
        self.scroll = 0  # lines of text
        self.notice = ""
        self.problem = ""  # of the record, for as long as it lasts
        self.finished = False
        self.unsaved = 0  # answers and undos handed over that the record does not have yet
        self.leaving = False  # as soon as it has them
        self.marked = False  # where two texts differ
        self.flagged = False  # the question that is shown
        self.comment = ""  # on it
        self.draft: str | None = None  # of a comment, while it is written
        self.resting = False
        self._rested_at = now()
        self._notice_left = 0.0
        self._tie_next = False
        self._awaited: str | None = None  # query whose answer was taken back and which comes again
        self._more_undos = 0
        self._began = now()
        self._shown_at = now()
        self._commands: list[Command] = []
        self.introducing = True
        self.result: Result | None = None  # what the answers have come to
        self.past: Past | None = None  # the answer that is looked at again
        self.browsing = self.show_outcome = False
        self.order = ORDERS[0]  # in which answers are looked through
        self.film_position = 0.0  # seconds

    # ------------------------------------------------------------------------------------------------ what is seen

    @property
    def screen(self) -> Screen:
        """What fills the window now; help and the instruction may lie over it."""
        if self.introducing:
            return Screen.INSTRUCTION
        if self.resting:
            return Screen.BREAK
        if self.browsing:
            return Screen.GALLERY
        if self.show_outcome:
            return Screen.OUTCOME
        if self.question is not None:
            return Screen.QUESTION
        return Screen.END if self.finished and self._awaited is None else Screen.WAITING

    @property
    def frame(self) -> int:
        """Number of the frame that is shown, from 0; a clip that is shorter stands on its last."""
        question = self.visible
        if question is None:
            return 0
        return min(int(self.position * question.frames_per_second + 1e-6), question.num_frames - 1)

    @property
    def visible(self) -> Question | None:
        """The question whose items are shown: the one that is asked, or that of an answer that is looked at again."""
        if self.browsing:
            return None if self.past is None else self.past.question
        return self.question

    @property
    def film_frame(self) -> int:
        """Number of the frame of the film that is shown."""
        film = None if self.result is None else self.result.film
        return 0 if film is None else int(self.film_position * film.frames_per_second) % len(film.frames)

    @property
    def look_for(self) -> str:
        """What the person is told to judge by: the session's instruction, or else the question's own."""
        return self.instruction or (self.question.instruction if self.question is not None else "")

    @property
    def per_hour(self) -> float | None:
        """Answers per hour of this session; None before the first."""
        if not self.given:
            return None
        return 3600 * len(self.given) / max(self._now() - self._began, 1.0)

    # ------------------------------------------------------------------------------------------------ events

    def tick(self, seconds: float) -> None:
        """Let time go by: clips play on, and notices go."""
        if self.leaving and not self._num_pending:
            self._commands.append(Leave())
        self._notice_left -= seconds
        if self._notice_left <= 0:
            self.notice = ""
        question = self.visible
        self.film_position += seconds
        covered = self.introducing or self.resting or self.show_help or self.show_instruction or self.show_outcome
        if question is None or self.paused or covered or question.num_frames < 2:
            return
        self.position += seconds * self.speed
        if self.browsing:
            if self.position >= question.num_frames / question.frames_per_second + REST * self.speed:
                self.position = 0.0
            return
        length = question.num_frames / question.frames_per_second
        self.seen = max(self.seen, min(1.0, self.position / length))
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

    def show_past(self, past: Past | None) -> None:
        """Take the answer that was asked for; None: there is none."""
        self.past, self.position, self.paused, self.scroll = past, 0.0, False, 0
        if past is not None:
            return
        self.tell("There is no such answer.")
        if not self.browsing:  # it was to be answered again, and somebody has taken it back
            self._awaited = None
            if self.question is None:
                self._next()
        self.browsing = False

    def report(
        self,
        *,
        standing: Standing | None = None,
        problem: str | None = None,
        finished: bool | None = None,
        result: Result | None = None,
    ) -> None:
        """Take news: how the run stands, what is wrong with the record ("": nothing), that nothing more will come.

        And what the answers have come to.
        """
        if result is not None:
            self.result = result
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
        """Take in that a key for `action` was pressed."""
        if action is Action.QUIT:
            if self.leaving or not self._num_pending:
                self._commands.append(Leave())
            self.leaving = True
            return
        self.leaving = False
        if action is Action.CLOSE:
            self._close()
        elif self.draft is not None:
            if action is Action.CONFIRM:
                self._finish_comment()
        elif self.browsing and not (self.show_help or self.show_instruction) and action not in BESIDE_BROWSING:
            self._browse(action)
        elif action is Action.OUTCOME and not (self.introducing or self.resting):
            self.show_outcome, self.show_help, self.show_instruction = not self.show_outcome, False, False
            self._commands += [Look()] * self.show_outcome
        elif action is Action.GALLERY and not (self.introducing or self.resting):
            self.browsing, self.past, self.show_outcome = True, None, False
            self._commands.append(Browse(0, self.order))
        elif self.show_outcome and action not in (Action.HELP, Action.CONTRAST, Action.SCROLL_UP, Action.SCROLL_DOWN):
            self.show_outcome = False  # any other key leads back
        elif action is Action.HELP:
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
        elif self.resting:
            self._go_on()
        elif action is Action.UNDO:
            self._undo()
        elif action in (Action.FASTER, Action.SLOWER):
            self._change_speed(1 if action is Action.FASTER else -1)
        elif self.question is None:
            if action in (Action.LEFT, Action.RIGHT, Action.TIE, Action.CANNOT_TELL, *REASON_OF):
                self.tell("Nothing is shown yet: that key was not counted.")
        elif action is Action.PAUSE:
            self.paused = not self.paused
        elif action is Action.REPLAY:
            self.position, self.paused = 0.0, False
        elif action in (Action.STEP_BACK, Action.STEP_ON):
            self._step(1 if action is Action.STEP_ON else -1)
        elif action is Action.FLAG:
            self.flagged = not self.flagged
            self.tell("Flagged: whoever asked will look at it." if self.flagged else "No longer flagged.")
        elif action is Action.DIFFERENCES:
            self.marked = not self.marked
        elif action is Action.COMMENT:
            self.draft, self.paused = self.comment, True
        elif action in REASON_OF:
            self._give(self.question, None, REASON_OF[action])
        else:
            self._judge(action, self.question)

    def digit(self, number: int) -> None:
        """Take in that a digit from 1 to 9 was pressed: the next best item of a ranking, or the points of a rating."""
        if self.draft is not None or self.browsing:
            return
        if self.show_help or self.show_instruction or self.introducing or self.resting or self.show_outcome:
            self.press(Action.CONFIRM)
        elif self.question is None:
            self.tell("Nothing is shown yet: that key was not counted.")
        elif not self.question.answer_kind.graded:
            self._choose([number - 1], self.question)
        elif number <= self.question.scale:
            self._give(self.question, self.question.answer_kind.from_grade(number, self.question.order))
        else:
            self.tell(f"The scale goes from 1 to {self.question.scale}.")

    def click(self, place: int) -> None:
        """Take in that the item at a place, from 0 at the left, was clicked; where there is a scale, that point."""
        self.digit(place + 1)

    def write(self, text: str) -> None:
        r"""Take in what was typed while a comment is written; "\b" takes the last letter away."""
        if self.draft is not None:
            self.draft = self.draft[:-1] if text == "\b" else (self.draft + text)[:LONGEST_COMMENT]

    def take_commands(self) -> list[Command]:
        """Return what is to be done since the last call, in order."""
        commands, self._commands = self._commands, []
        return commands

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def _num_pending(self) -> int:
        return self.unsaved + sum(not isinstance(command, Leave) for command in self._commands)

    def _close(self) -> None:
        """Leave what lies over the question; nothing else: a window is left by another key."""
        if self.draft is not None:
            self.draft, self.paused = None, False
        elif self.show_help or self.show_instruction:
            self.show_help = self.show_instruction = False
            self.scroll = 0
        elif self.show_outcome or self.browsing:
            self.show_outcome = self.browsing = False
        elif not self.introducing:
            self.tell("Q leaves; everything that you answered is kept.")

    def _finish_comment(self) -> None:
        self.comment, self.draft, self.paused = (self.draft or "").strip(), None, False
        self.tell("Your comment goes with the answer." if self.comment else "No comment.")

    def _go_on(self) -> None:
        self.resting = False
        self._rested_at = self._shown_at = self._now()
        self.position = 0.0

    def _browse(self, action: Action) -> None:
        """Look through the answers that were given; keys that have no meaning there do nothing."""
        past = self.past
        if action is Action.GALLERY:
            self.browsing, self.position = False, 0.0
        elif past is None:
            pass
        elif action in (Action.LEFT, Action.RIGHT):
            index = (past.index + (1 if action is Action.RIGHT else -1)) % past.total
            self._commands.append(Browse(index, self.order))
        elif action in (Action.TIE, Action.CANNOT_TELL):
            step = 1 if action is Action.CANNOT_TELL else -1
            self.order = ORDERS[(ORDERS.index(self.order) + step) % len(ORDERS)]
            self._commands.append(Browse(0, self.order))
        elif action is Action.CONFIRM:
            self._answer_again(past)
        elif action is Action.UNDO:
            self.tell("Enter answers this one again; Z takes answers back where questions are asked.")
        elif action in (Action.STEP_BACK, Action.STEP_ON):
            self.paused = True
            by = 1 if action is Action.STEP_ON else -1
            frame = (self.frame + by) % past.question.num_frames
            self.position = frame / past.question.frames_per_second
        elif action is Action.PAUSE:
            self.paused = not self.paused
        elif action is Action.REPLAY:
            self.position, self.paused = 0.0, False

    def _answer_again(self, past: Past) -> None:
        if not past.mine:
            self.tell("Only whoever gave an answer can give another in its place.")
            return
        if self._awaited is not None:
            return
        self.browsing = False
        if self.question is not None:
            self.ready.appendleft(self.question)
            self.question = None
        self.given = [answer for answer in self.given if answer.query_id != past.question.query_id]
        self._awaited = past.question.query_id
        self._commands.append(Again(past.row))
        self.tell("Taken back: answer it again.")

    def _begin(self) -> None:
        self.introducing = False
        self._began = self._shown_at = self._rested_at = self._now()
        self.position, self.scroll = 0.0, 0

    def _next(self) -> None:
        self.question = None
        if self._awaited is None and self.ready:
            self._show(self.ready.popleft())

    def _show(self, question: Question) -> None:
        self.question = question
        self.position, self.seen, self.scroll, self.paused = 0.0, 0.0, 0, False
        self.ranked, self._tie_next = [], False
        self.flagged, self.comment, self.draft = False, "", None
        self._shown_at = self._now()
        if self.break_after and self._shown_at - self._rested_at >= self.break_after:
            self.resting = True

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
        self.seen = max(self.seen, (frame + 1) / question.num_frames)

    def _judge(self, action: Action, question: Question) -> None:
        arrows = {Action.LEFT: [0], Action.RIGHT: [1], Action.TIE: [0, 1]}
        if action is Action.CANNOT_TELL:
            self._give(question, None)
        elif len(question.items) == 2 and action in arrows:
            self._choose(arrows[action], question)
        elif action is Action.TIE and self.ranked:
            self._tie_next = True
            self.tell("The next number ties with the one before.")
        elif action is not Action.CONFIRM:
            self.tell(question.hint)

    def _choose(self, places: list[int], question: Question) -> None:
        """Choose the next best, or several that are equally good."""
        num = len(question.items)
        if self._refused(question):
            return
        if places[-1] >= num:
            self.tell("There are two to choose from: left or right arrow." if num == 2 else f"There are {num} of them.")
            return
        if any(place in group for group in self.ranked for place in places):
            self.tell(f"{places[0] + 1} is ranked already; Z takes the last one back.")
            return
        if self._tie_next:
            self.ranked[-1] += places
        else:
            self.ranked.append(places)
        self._tie_next = False
        groups = [[question.order[place] for place in group] for group in self.ranked]
        said = question.answer_kind.from_order(groups, num)
        if said is not None:
            self._give(question, said)

    def _refused(self, question: Question) -> bool:
        """Tell a person where they cannot judge what cannot be shown, or was not seen; return whether that is so."""
        if any(item.problem is not None for item in question.items):
            self.tell("One of these cannot be shown: press the down arrow (can't tell) to go on.")
            return True
        unseen = question.num_frames > 1 and self.seen < self.must_see
        if unseen:
            self.tell("Look at the clips first: that was not counted.")
        return unseen

    def _give(self, question: Question, said: Any, reason: str = "") -> None:
        if said is not None and self._refused(question):
            return
        now = self._now()
        answer = question.answer_kind.saying(
            said,
            query_id=question.query_id,
            annotator=question.annotator,
            seconds=max(0.0, now - self._shown_at),
            shown=question.order,
            shown_at=self._shown_at,
            answered_at=now,
            claim=question.claim,
            reason=reason,
            flagged=self.flagged,
            comment=self.comment,
        )
        self.given.append(answer)
        self._commands.append(Save(answer))
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
        answer = self.given.pop()
        if self.question is not None:
            self.ready.appendleft(self.question)
            self.question = None
        self._awaited = answer.query_id
        self._commands.append(TakeBack(answer))
        self.tell("Taken back: answer it again.")
