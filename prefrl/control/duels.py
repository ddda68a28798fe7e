"""Duels of before training against after, put to whoever taught: the run judged by their own measure.

They come when the training is over, as questions of `JUDGING_SESSION`, from the same starts; nothing is learned from
them.
"""

from __future__ import annotations

from prefrl.control.folder import ControlFolder
from prefrl.control.played import draw_windows, play, play_unseen
from prefrl.control.reward_learner import make_run_teacher
from prefrl.feedback import Query
from prefrl.feedback.queries import JUDGING_SESSION
from prefrl.files import text_or_file
from prefrl.runs.streams import stream
from prefrl.store import Clip, PreferenceStore

NUM_DUELS = 10


def ask_duels(folder: ControlFolder, store: PreferenceStore, num: int = NUM_DUELS) -> int:
    """Put duels into the record, with their clips; where a function judges, it answers them; return how many are asked.

    Args:
        folder: a run whose training is over.
        store: its record.
        num: how many.

    Raises:
        UserError: the environment cannot be drawn here.
    """
    session = store.next_session(judging=True)
    if session > JUDGING_SESSION:  # also where a run was killed behind its end: what it asked then is not asked again
        queries, clips = _make_duels(folder, session - 1, num)
        known = {query.id for query in store.session_queries(session - 1)}
        if queries and known == {query.id for query in queries}:
            return _put(folder, store, queries, clips)
    return _put(folder, store, *_make_duels(folder, session, num))


def _make_duels(folder: ControlFolder, session: int, num: int) -> tuple[list[Query], dict[str, Clip]]:
    """Return the duels of a session, and the clips that people are shown; the same for the same policies."""
    settings = folder.settings
    windows = draw_windows(num, stream(settings.seed, "duels", session - JUDGING_SESSION))
    names = ("before", "last")
    clips: dict[str, Clip] = {}
    if settings.asks_people:
        both = []
        for name in names:
            played = play(folder, name, windows)
            clips |= {segment.id: clip for segment, clip in played}
            both.append([segment for segment, _ in played])
    else:  # a function needs no pictures
        both = [play_unseen(folder, name, windows) for name in names]
    instruction = text_or_file(settings.instruction)
    queries = [
        Query(segments=(before, after), session=session, instruction=instruction)
        for before, after in zip(*both, strict=True)
        if before.id != after.id
    ]
    return queries, clips


def _put(folder: ControlFolder, store: PreferenceStore, queries: list[Query], clips: dict[str, Clip]) -> int:
    """Put duels into the record, as far as they are not there; return how many there are."""
    known = {query.id for query in store.session_queries(queries[0].session)} if queries else set()
    store.add_queries([query for query in queries if query.id not in known])
    shown = {segment.id for query in queries for segment in query.segments} & clips.keys()
    for name in shown - store.clips(sorted(shown)).keys():
        store.add_clip(name, clips[name])
    if not folder.settings.asks_people:
        answered = {answer.query_id for answer in store.judgements()}
        left = [query for query in queries if query.id not in answered]
        store.add_answers(make_run_teacher(folder.settings).answer(left))
    return len(queries)
