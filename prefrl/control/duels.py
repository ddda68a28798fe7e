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
    settings = folder.settings
    session = store.next_session(judging=True)
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
    store.add_queries(queries)
    for name in {segment.id for query in queries for segment in query.segments} & clips.keys():
        store.add_clip(name, clips[name])
    if not settings.asks_people:
        store.add_answers(make_run_teacher(settings).answer(queries))
    return len(queries)
