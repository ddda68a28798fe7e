"""What stands between a person and the questions: consent, practice, a limit; and what leads back at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefrl.errors import UserError
from prefrl.human_ui.page.practice import Stage, num_practised, rights, stage_of
from prefrl.store import PreferenceStore
from prefrl.store.participants import consent_version

COMPLETION_URL = "https://app.prolific.com/submissions/complete?cc="
LONGEST_CODE = 64


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """How questions are put to everybody.

    Raises:
        UserError: a share that is none.
    """

    must_see: float = 0.25
    """Share of the clips' length that must have been shown before an answer counts."""
    repeat_share: float = 0.1
    """Share of the questions that are earlier ones of the same person's, with the sides swapped."""
    known_by: str | None = None
    """Annotator whose answers are taken to be right, for practice and gold questions; None: there are none."""
    practice: int = 0
    """Practice questions with known answers before the first real one."""
    pass_mark: float = 0.6
    """Share of them that must be right."""
    gold_share: float = 0.0
    """Share of the later questions whose answer is known."""
    consent: str = ""
    """What everybody must agree to before the first question; "": nothing."""
    limit: int | None = None
    """Answers after which a person is done, practice left out; None: as many as there are questions."""
    break_after: float = 20.0
    """Minutes of answering after which a rest is proposed; 0: never."""
    completion_code: str | None = None
    """What a person is told when they are done, for the platform that sent them."""

    def __post_init__(self) -> None:
        for name in ("must_see", "repeat_share", "pass_mark", "gold_share"):
            if not 0 <= getattr(self, name) <= 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is a share, from 0 to 1. Received {getattr(self, name)}")
        if self.practice < 0:
            raise UserError(f"--practice is a number of questions. Received {self.practice}")
        if (self.practice or self.gold_share) and self.known_by is None:
            raise UserError("--practice and --gold-share need somebody whose answers are right: --known-by NAME.")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is a number of answers, at least 1. Received {self.limit}")
        if not 0 <= self.break_after < 1e6:
            raise UserError(f"--break-after is a number of minutes, 0 for never. Received {self.break_after}")
        code = self.completion_code
        if code is not None and not (0 < len(code) <= LONGEST_CODE and code.isalnum()):
            raise UserError(f"--completion-code has 1 to {LONGEST_CODE} letters and digits. Received {code!r}")


class Gate:
    """How far a person has come; answers of one record are read for it.

    Args:
        store: the record.
        campaign: how questions are put.
    """

    def __init__(self, store: PreferenceStore, campaign: Campaign) -> None:
        self._store, self._campaign = store, campaign
        self._version = consent_version(campaign.consent) if campaign.consent else ""
        self._agreed: set[str] = set()

    def stage(self, name: str, *, owner: bool, more: bool = True) -> Stage:
        """Return what a person is to do next.

        Args:
            name: of the person.
            owner: they are the one who asks, who neither agrees nor practises.
            more: there are more questions with known answers.
        """
        campaign = self._campaign
        if owner:
            return Stage.PASSED
        if not self.has_agreed(name):
            return Stage.CONSENT
        if self.left(name) == 0:
            return Stage.DONE
        if not campaign.practice or campaign.known_by in (None, name):
            return Stage.PASSED
        right = rights(self._store.known_answers(name, str(campaign.known_by)))
        return stage_of(right, campaign.practice, campaign.pass_mark, more=more)

    def left(self, name: str) -> int | None:
        """Return how many answers a person may still give; None: there is no limit."""
        found = self._store.participants.of(name)
        most = self._campaign.limit if found is None or found.most_answers is None else found.most_answers
        if most is None:
            return None
        practised = 0
        if self._campaign.practice and self._campaign.known_by not in (None, name):
            right = rights(self._store.known_answers(name, str(self._campaign.known_by)))
            practised = num_practised(right, self._campaign.practice, self._campaign.pass_mark)
        return max(0, most - self._store.num_answers(name) + practised)

    def has_agreed(self, name: str) -> bool:
        """Tell whether a person agreed to what is asked of everybody now."""
        if not self._version or name in self._agreed:
            return True
        if self._store.participants.has_agreed(name, self._version):
            self._agreed.add(name)
            return True
        return False

    def consent(self) -> dict[str, str]:
        """Return what is to be agreed to, and its version."""
        return {"text": self._campaign.consent, "version": self._version}

    def agree(self, name: str, version: object) -> bool:
        """Note that a person agrees; return False if it is to another version than there is now."""
        if not self._version or version != self._version:
            return False
        self._store.participants.agree(name, self._campaign.consent)
        return True

    def forget(self, name: str) -> None:
        """Take it that a person never agreed."""
        self._agreed.discard(name)

    def complete(self, name: str) -> dict[str, Any] | None:
        """Note that a person is done; return what leads them back, None if nothing does."""
        self._store.participants.complete(name)
        code, found = self._campaign.completion_code, self._store.participants.of(name)
        if code is None:
            return None
        comes_from_there = found is not None and found.participant is not None
        return {"code": code, "url": COMPLETION_URL + code if comes_from_there else None}
