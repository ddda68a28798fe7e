"""A vision-language model in the place of a person: it answers the open questions of a record by their clips."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from prefrl.clips.codec import decode_clip
from prefrl.feedback import Comparison, Ranking
from prefrl.feedback.answers import groups_of
from prefrl.store import Claim, PreferenceStore
from prefrl.store.pulse import is_running
from prefrl.vision import VisionJudge, as_strip

CONSTITUTION = "Prefer the one that shows more of what is wanted, or comes closer to it."
ANSWERED = "answered"
ORDERED = {kind.kind: kind for kind in (Comparison, Ranking)}
"""What it can answer."""
STRIP_PIXELS = 320
"""Frames that are wider are made smaller."""
WAIT_SECONDS = 1.0


def judge_record(record: Path | str, judge: VisionJudge, *, num_frames: int, most: int | None = None) -> Counter[str]:
    """Answer the questions of a record whose clips are drawn, and while a training runs, those that come.

    Each pair is asked about in both orders. Where the judge goes by the place, or says neither, "can't tell" is
    recorded.

    Args:
        record: file or address.
        judge: who is asked.
        num_frames: of each clip, in a strip from left to right.
        most: answers to give at most; None: all.

    Returns:
        Numbers of answers: `ANSWERED`, and of "can't tell" by the reason.

    Raises:
        UserError: the judge does not answer; what was answered before is in the record.
    """
    said: Counter[str] = Counter()
    with PreferenceStore(record) as store:
        store.add_annotator(judge.name, "model")
        store.release_all(judge.name)
        while most is None or sum(said.values()) < most:
            claims = store.claim(judge.name, 1, kinds=tuple(ORDERED), with_clips=True, repeat_share=0.0)
            if not claims:
                if not is_running(store, store.facts()):
                    break
                time.sleep(WAIT_SECONDS)
                continue
            try:
                said[_answer(store, claims[0], judge, num_frames)] += 1
            except BaseException:
                store.release(claims)
                raise
    return said


def _answer(store: PreferenceStore, claim: Claim, judge: VisionJudge, num_frames: int) -> str:
    """Ask about one claimed question and record what is said; return how it is counted."""
    began, at = time.monotonic(), time.time()
    clips = store.clips(claim.query.segment_ids)
    strips = [
        as_strip(decode_clip(clips[name].data, STRIP_PIXELS).frames, num_frames) for name in claim.query.segment_ids
    ]
    found = judge.ranks(told_of(claim.query.instruction, num_frames), strips)
    value: Any = None
    if not isinstance(found, str):
        value = ORDERED[claim.query.kind].from_order(groups_of(found), len(found))
    answer = ORDERED[claim.query.kind].saying(
        value, query_id=claim.query.id, annotator=judge.name, claim=claim.token, shown_at=at, answered_at=time.time(),
        seconds=time.monotonic() - began,
    )  # fmt: skip
    store.add_answers([answer])
    return found if isinstance(found, str) else ANSWERED


def told_of(instruction: str, num_frames: int) -> str:
    """Return what a judge is told of two strips."""
    wanted = f"\nWhat is wanted: {instruction.strip()}" if instruction.strip() else ""
    return (
        f"Each picture shows up to {num_frames} moments of one clip, from the first on the left to the last on the "
        f"right.{wanted}"
    )
