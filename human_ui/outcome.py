"""What the answers of a run have come to, for those who give them: figures, films, and what to do next.

Read from the record and from the run's folder, without torch. Both skins, the report and the table of quality show the
same figures: held-out agreement is the one that the last fit noted in the record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.clips.codec import FILM, FILMS
from prefrl.feedback import Answer
from prefrl.files import MOST_BYTES, parse_json
from prefrl.human_ui.questions import Standing
from prefrl.quality import duels
from prefrl.shares import Share
from prefrl.store import PreferenceStore

SAME_ORDER = 0.95
"""Share of pairs of segments that half as many answers again left in their order: more answers would change little."""
PAUSE_SECONDS = 120.0  # between answers, after which somebody was away
CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Film:
    """The agent at work, as it was after some steps."""

    num_env_steps: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the answers have come to."""

    lines: tuple[str, ...]
    """Sentences, the most important first."""
    advice: str
    """What to do next; "" for nothing in particular."""
    curve: tuple[tuple[int, float], ...]
    """Learned return along the training, as (steps, return)."""
    films: tuple[Film, ...]
    """Of the policy along the training, oldest first."""
    film: Path | None
    """Before, during and after, once the training has ended."""


def look(
    store: PreferenceStore, standing: Standing, annotator: str, folder: Path | None, before: Mapping[str, Any] | None
) -> Outcome:
    """Return what the answers have come to.

    Args:
        store: the record.
        standing: how it stands.
        annotator: who looks.
        folder: of the run; None: there is a record only.
        before: `mark` of when they looked last; None: this is the first time.
    """
    facts = store.facts()
    given = [a for _, a in store.answers(standing=True) if isinstance(a, Answer) and a.annotator == annotator]
    curve = () if folder is None else learned_returns(folder / "metrics.jsonl")
    lines = [_agreement(standing.agreement), _return(curve), _duels(duels(store)), _own(given)]
    lines += [_left(standing, given), _since(before, mark(standing, curve))]
    return Outcome(
        lines=tuple(line for line in lines if line),
        advice=advise(facts.get("steadiness"), standing),
        curve=curve,
        films=() if folder is None else films_of(folder),
        film=None if folder is None or not (folder / FILM).is_file() else folder / FILM,
    )


def mark(standing: Standing, curve: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Return what is noted of how things stand while somebody is there, as JSON; of the curve the end is enough."""
    return {
        "at": time.time(),
        "answered": standing.answered,
        "num_env_steps": standing.num_env_steps,
        "agreement": None if standing.agreement is None else standing.agreement.share,
        "learned_return": curve[-1][1] if curve else None,
    }


def advise(steadiness: Mapping[str, Any] | None, standing: Standing) -> str:
    """Return advice where more answers would change little, as far as the reward tells; "" elsewhere.

    Args:
        steadiness: what `prefrl.control.steadiness` noted last.
        standing: how the run stands.
    """
    if steadiness is None or steadiness["same_order"] < SAME_ORDER or (standing.wanted and not standing.left):
        return ""
    changed, since, now = 1 - steadiness["same_order"], steadiness["from"], steadiness["to"]
    return (
        f"From {since} to {now} answers the learned reward changed the order of {changed:.0%} of pairs of what the "
        "agent does: more answers would change little. If the newest behaviour is what you want, that is enough: stop "
        f"the training, then prefrl resume RUN --labels {standing.answered}"
    )


def films_of(folder: Path) -> tuple[Film, ...]:
    """Return the films of the policy along a training, oldest first."""
    found = [path for path in (folder / FILMS).glob("*.mp4") if path.stem.isdigit()]
    return tuple(Film(num_env_steps=int(path.stem), path=path) for path in sorted(found))


def learned_returns(path: Path, last_bytes: int | None = None) -> tuple[tuple[int, float], ...]:
    """Return the learned return along a training, as (steps, return), from its `metrics.jsonl`.

    Args:
        path: the file; it need not be there.
        last_bytes: read no more than these; None: all.
    """
    if not path.is_file():
        return ()
    with open(path, "rb") as file:
        if last_bytes is not None:
            file.seek(max(0, path.stat().st_size - last_bytes))
        lines = file.read(MOST_BYTES).decode("utf-8", "replace").splitlines()
    points = []
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:
            continue  # is being written, or was cut
        if (
            isinstance(row, dict)
            and isinstance(row.get("learned_return"), int | float)
            and isinstance(row.get("num_env_steps"), int)
        ):
            points.append((row["num_env_steps"], float(row["learned_return"])))
    every = max(1, len(points) // CURVE_POINTS)
    return tuple(points[(len(points) - 1) % every :: every])  # the newest among them


def _agreement(share: Share | None) -> str:
    if share is None:
        return "The learned reward has not been held against answers yet."
    return (
        f"The learned reward agrees with {share.share:.0%} of the {share.num} answers held out of its fit (95 % "
        f"interval {share.low:.0%} to {share.high:.0%}; a coin would with 50 %)."
    )


def _return(curve: Sequence[tuple[int, float]]) -> str:
    if len(curve) < 2:
        return ""
    return f"The learned return of an episode went from {curve[0][1]:.4g} to {curve[-1][1]:.4g}."


def _duels(share: Share | None) -> str:
    return "" if share is None else f"Before against after: the trained agent was preferred in {share}."


def _own(given: Sequence[Answer]) -> str:
    minutes = round(sum(answer.seconds for answer in given) / 60)
    num = f"{len(given)} answer{'' if len(given) == 1 else 's'}"
    return f"You have given {num}{f', in {minutes} min' if minutes else ''}." if given else ""


def seconds_each(given: Sequence[Answer]) -> float | None:
    """Return a person's usual time from one answer to the next, waiting included, pauses left out; None: not known."""
    times = sorted(answer.answered_at for answer in given if answer.answered_at is not None)
    gaps = [after - before for before, after in pairwise(times) if after - before < PAUSE_SECONDS]
    return float(np.median(gaps)) if len(gaps) >= 3 else None


def _left(standing: Standing, given: Sequence[Answer]) -> str:
    if not standing.left:
        return "All answers are in." if standing.wanted else ""
    pace = seconds_each(given)
    told = "" if pace is None else f": at your pace {_duration(pace * standing.left)}, less when others help"
    return f"{standing.left} answers are left{told}."


def _since(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    if before is None:
        return ""
    parts = []
    if (more := now["answered"] - before["answered"]) > 0:
        parts.append(f"{more} more answers")
    if (steps := now["num_env_steps"] - before["num_env_steps"]) > 0:
        parts.append(f"{steps:,} more steps of training")
    for name, form, told in (("agreement", ".0%", "agreement"), ("learned_return", ".4g", "learned return")):
        was, now_is = before.get(name), now[name]
        if was is not None and now_is is not None and was != now_is:
            parts.append(f"{told} {was:{form}} to {now_is:{form}}")
    ago = _duration(now["at"] - before["at"])
    return f"Since you left, {ago} ago: {', '.join(parts) or 'nothing has changed'}."


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 36 * 60 else f"{minutes / 1440:.0f} days"
