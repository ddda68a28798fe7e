"""Questions without a trainer: segments of a run, of saved rollouts or of files of pictures, put into a record.

- of a stopped run itself: what its training would ask next, chosen by its reward from what the agent has done lately,
- of any run: windows of what its policies do, played anew,
- of episodes saved as `.npz`: windows of them,
- of a folder of videos or images, with a table if there is one: each file as it is (`prefrl.studies.media`).

Answers to a stopped run's own questions are learned from when it goes on; the others are a record to be exported, or
to fit a reward to.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.control.clip_worker import ClipRenderer, render_open
from prefrl.control.folder import ControlFolder
from prefrl.control.played import draw_windows, play
from prefrl.control.strip import kept
from prefrl.errors import UserError, first_line
from prefrl.feedback import KINDS, Query
from prefrl.files import npz_arrays, read_plain, text_or_file
from prefrl.history import History
from prefrl.queries import METHODS, QueryMaker, propose_pairs
from prefrl.rewards import RewardEnsemble
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.runs.guard import locked
from prefrl.runs.streams import check_seed, stream
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore
from prefrl.store.clips import clip_of
from prefrl.studies.run_quality import reward_of

Shown = tuple[Segment, Clip]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are put.

    Raises:
        UserError: a value out of its range.
    """

    num: int
    """How many questions."""
    kind: str = "comparison"
    num_ranked: int = 4
    """Items of a ranking."""
    scale: int = 5
    """Grades of a rating."""
    instruction: str = ""
    overlap: int = 1
    """People to ask each of."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("num", "overlap"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1. Received {getattr(self, name)}")
        KINDS.find(self.kind)

    def queries(self, segments: Sequence[Segment], session: int, num_env_steps: int = 0) -> list[Query]:
        """Return questions about segments, no two about the same; each segment is shown about equally often."""
        rng = np.random.default_rng(self.seed)
        kind = KINDS.find(self.kind)
        size = min(kind.most, max(kind.fewest, 1 if kind.graded else self.num_ranked if kind.most > 2 else 2))
        if len(segments) < size:
            raise UserError(f"A {self.kind} shows {size}, and there are {len(segments)} to show.")
        found: dict[frozenset[str], Query] = {}
        order: list[int] = []
        for _ in range(100 * self.num):
            if len(found) == self.num:
                break
            if len(order) < size:
                order = rng.permutation(len(segments)).tolist()
            chosen, order = order[:size], order[size:]
            query = Query(
                segments=tuple(segments[place] for place in chosen),
                kind=self.kind,
                scale=self.scale if kind.graded else None,
                instruction=text_or_file(self.instruction),
                overlap=self.overlap,
                session=session,
                num_env_steps=num_env_steps,
            )
            if len(query.pair) == size:
                found.setdefault(query.pair, query)
        return list(found.values())


def put(store: PreferenceStore, shown: Sequence[Shown], asking: Asking) -> int:
    """Put questions about segments into a record, with their clips; return how many there are."""
    queries = asking.queries([segment for segment, _ in shown], store.next_session())
    store.add_queries(queries)
    asked = {segment.id for query in queries for segment in query.segments}
    for segment, clip in shown:
        if segment.id in asked:
            store.add_clip(segment.id, clip)
    if asking.instruction and not store.facts().get("instruction"):
        store.set_facts({"instruction": text_or_file(asking.instruction)})
    return len(queries)


def of_run(folder: ControlFolder, asking: Asking) -> list[Shown]:
    """Return windows of what the policies do that a run has kept, from its beginning to its end.

    Raises:
        UserError: it has kept none, or nothing can be drawn here.
    """
    names = [*kept(folder).values(), *(n for n in ("during", "last") if (folder.policies / f"{n}.pt").is_file())]
    if not names:
        raise UserError(f"The run in {folder.path} has kept no policy yet.")
    rng = stream(asking.seed, "ask")
    parts = np.array_split(np.arange(2 * asking.num), len(names))
    found = []
    for name, part in zip(names, parts, strict=True):
        found += play(folder, name, draw_windows(len(part), rng))
    return found


def of_rollouts(place: Path, length: int, asking: Asking) -> list[Shown]:
    """Return windows of saved episodes.

    Args:
        place: a file `.npz`, or a folder of them, each an episode of T steps: `observations` `(T + 1, ...)`, `actions`
            `(T, ...)`, `frames` `(T, H, W, 3)` uint8; if they are known, `rewards` `(T,)` and `frames_per_second`.
        length: steps of a window.
        asking: how many are wanted.

    Raises:
        UserError: they do not hold that, or are shorter than a window.
    """
    paths = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    episodes = [_episode(path) for path in paths]
    room = np.array([max(0, len(episode["actions"]) - length + 1) for episode in episodes])
    if not room.sum():
        raise UserError(f"No episode in {place} has {length} steps, the length of a segment. Use --length N.")
    rng = stream(asking.seed, "ask")
    places = rng.choice(room.sum(), size=min(int(room.sum()), 2 * asking.num), replace=False)
    found = []
    for number in sorted(places.tolist()):
        index = int(np.searchsorted(room.cumsum(), number, side="right"))
        start = number - int(room[:index].sum())
        found.append(_window(episodes[index], index, start, length))
    return found


def _episode(path: Path) -> dict[str, Any]:
    try:
        arrays = npz_arrays(read_plain(path))
        shapes = {name: arrays[name].shape for name in ("observations", "actions", "frames")}
        rewards = arrays.get("rewards", np.full(shapes["actions"][:1], np.nan))
    except KeyError as error:
        raise UserError(f"{path} holds no {error}: expected observations, actions and frames of an episode.") from None
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    single = [name for name, shape in (shapes | {"rewards": rewards.shape}).items() if not shape]
    if single:
        raise UserError(f"{path}: {single[0]} must have a row for each step. Received a single value.")
    steps = shapes["actions"][0]
    if shapes["observations"][0] != steps + 1 or shapes["frames"][0] != steps or len(rewards) != steps:
        raise UserError(
            f"{path}: {steps} actions need {steps + 1} observations, and {steps} frames and rewards; got "
            f"{shapes['observations'][0]}, {shapes['frames'][0]} and {len(rewards)}."
        )
    if len(shapes["frames"]) != 4 or shapes["frames"][3] != 3 or arrays["frames"].dtype != np.uint8:
        got = f"{shapes['frames']} {arrays['frames'].dtype}"
        raise UserError(f"{path}: frames must be (T, H, W, 3) uint8. Received {got}")
    return {**arrays, "rewards": rewards}


def _window(episode: dict[str, Any], number: int, start: int, length: int) -> Shown:
    steps = slice(start, start + length)
    segment = Segment(
        observations=episode["observations"][start : start + length + 1],
        actions=episode["actions"][steps],
        true_rewards=np.asarray(episode["rewards"][steps], np.float64),
        episode=number,
        start=start,
    )
    return segment, clip_of(episode["frames"][steps], float(episode.get("frames_per_second", 30.0)))


def prepare(folder: ControlFolder, num: int) -> tuple[int, int]:
    """Put the next questions of a stopped training into its record, and draw the clips of all that are open.

    Args:
        folder: a run that people teach, stopped or over.
        num: how many more to ask; 0: only draw what is open.

    Returns:
        How many were added, and how many are open now.

    Raises:
        UserError: the training goes on, has no checkpoint yet, or saved nothing that its clips could be drawn from.
    """
    settings = folder.settings
    if not settings.asks_people:
        raise UserError(
            f"The run in {folder.path} was taught by a program, and saved nothing to draw clips from. Ask about what "
            f"its policies do instead: prefrl ask {folder.path} --of {folder.path} --num {max(1, num)}"
        )
    with locked(folder.path), folder.open_record() as store:
        added = _ask_next(folder, store, num) if num else 0
        renderer = ClipRenderer(folder)
        store.forget_render_failures()
        while render_open(store, renderer):
            pass
        renderer.close()
        return added, store.num_open()


def _ask_next(folder: ControlFolder, store: PreferenceStore, num: int) -> int:
    settings = folder.settings
    checkpoint, refused = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(" ".join([f"The run in {folder.path} has no readable checkpoint yet.", *refused]))
    part = checkpoint.state.part("history")
    history = History.restore(part.arrays, part.values)
    reward: RewardEnsemble | None = reward_of(folder)[0]
    session = store.next_session()
    queries = settings.queries
    maker: QueryMaker = queries.maker
    method = METHODS.find(queries.method)
    if reward is None and (queries.method != "uniform" or queries.drop_alike or queries.drop_even):
        warnings.warn(
            "No reward has been fitted in this run yet, so these questions are drawn uniformly and none is left out.",
            stacklevel=2,
        )
    pairs = propose_pairs(
        history,
        reward,
        maker.num_pairs(num),
        length=settings.segment_length,
        method=method if reward is not None else "uniform",
        candidates_per_query=queries.candidates,
        asked=store.asked_pairs(),
        end_share=queries.end_share,
        rng=stream(settings.seed, "queries", session),
        fewer=True,
        screen=None if reward is None else queries.screen(reward),
    )

    def shown(segment: Segment) -> Segment:
        source = history.clip_source(segment)
        if source is None:
            raise UserError(f"The run in {folder.path} saved nothing that its clips could be drawn from.")
        return replace(segment, replay=source.to_arrays())

    instruction = text_or_file(settings.instruction)
    added = [
        replace(query, segments=tuple(map(shown, query.segments)), instruction=instruction)
        for query in maker.make(pairs, num, session=session, num_env_steps=checkpoint.count)
    ]
    store.add_queries(added)
    return len(added)
