"""A record as a data set and back: nothing is lost, nothing comes twice, and what is no data set is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from prefrl.dataset import export_record, import_record
from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Edit, Query, Ranking, Rating, Response
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

pytestmark = pytest.mark.lowest

RESPONSES = tuple(Response(prompt="Où ?", text=text) for text in ("Ici.\n", "Là 🚚", "…"))


def segment(number: int, **where: Any) -> Segment:
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (9, 6, 6), np.uint8)
    return Segment(
        observations={"seen": np.stack([images[t : t + 4] for t in range(6)]), "felt": rng.normal(size=(6, 2))},
        actions=rng.normal(size=(5, 1)).astype(np.float32),
        true_rewards=np.array([0.5, np.nan, -0.0, np.inf, 1.0]),
        **where,
    )


def fill(store: PreferenceStore) -> None:
    """Record everything that a record can hold."""
    pairs = [Query(segments=(segment(2 * n), segment(2 * n + 1)), session=n // 6, num_env_steps=n) for n in range(12)]
    pairs[0] = replace(pairs[0], segments=(segment(0, replay={"qpos": np.arange(4.0)}, terminated=True), segment(1)))
    others = [
        Query(kind="ranking", segments=tuple(segment(n) for n in (3, 9, 7)), instruction="jump", overlap=2),
        Query(kind="rating", scale=7, segments=(segment(5),), session=1),
        Query(kind="ranking", responses=RESPONSES),
        Query(responses=RESPONSES[:2], session=2),
        Query(responses=RESPONSES[1:], session=2),
    ]
    store.add_queries(pairs + others)
    store.add_annotator("anna", "person")
    while claims := store.claim("anna", kinds=("comparison",), repeat_share=0.4):
        (claim,) = claims
        common = {"query_id": claim.query.id, "annotator": "anna", "shown": claim.shown, "claim": claim.token}
        times = {"shown_at": 10.5, "answered_at": 12.25, "seconds": 1.75}
        (row,) = store.add_answers([Comparison(preference=1.0, **common, **times)])
        if claim.query.id in (pairs[3].id, pairs[7].id):
            again = store.undo(row, "anna")
            store.add_answers([Comparison(preference=None, **{**common, "claim": again.token}, comment="blurred")])
    store.add_answers(
        [
            Ranking(query_id=others[0].id, ranks=(2, 1, 2), annotator="ben"),
            Rating(query_id=others[1].id, rating=7, annotator="ben", comment="wow"),
            Ranking(query_id=others[2].id, ranks=(1, 2, 2), annotator="ben"),
            Edit(query_id=others[4].id, item=1, text="Là-bas.", annotator="ben"),
        ]
    )
    clip = Clip(data=b"frames", format="mp4", frames_per_second=12.5, width=64, height=48, num_frames=5)
    store.add_clip(segment(3).id, clip)


def content(where: Path | str) -> dict[str, Any]:
    """Return everything that a record holds, in a form that can be compared."""
    with PreferenceStore(where) as store:
        cards = store.cards(store.query_ids())
        names = list(dict.fromkeys(name for card in cards for name in card.segment_ids))
        numbers: dict[int, int] = {}
        answers: list[tuple[Answer, Any]] = []
        for number, (row, answer) in enumerate(store.answers()):  # rows may be numbered with gaps
            numbers[row] = number
            undoes = getattr(answer, "undoes", None)
            answers.append((answer if undoes is None else replace(answer, undoes=0), numbers.get(undoes)))
        return {
            "cards": cards,
            "segments": {name: described(s) for name, s in store.segments(names, replay=True).items()},
            "answers": [(answer, answer.claim, undoes) for answer, undoes in answers],
            "annotators": store.annotators(),
            "clips": store.clips(names),
            "open": [query.id for query in store.open_queries()],
        }


def described(s: Segment) -> tuple[Any, ...]:
    arrays = {"rewards": s.true_rewards, "actions": s.actions, **s.observations, **(s.replay or {})}  # type: ignore[dict-item]
    return (
        [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in sorted(arrays.items())],
        (s.terminated, s.truncated, s.episode, s.start, s.replay is None),
    )


@pytest.mark.slow
def test_a_record_goes_out_and_comes_back_whole(new_record: Callable[[], Path | str], tmp_path: Path) -> None:
    where, back, folder = new_record(), new_record(), tmp_path / "data"
    with PreferenceStore(where) as store:
        fill(store)
    held = content(where)  # how many queries come back a second time is chance
    told = f"{len(held['cards'])} queries, {len(held['answers'])} answers, 24 segments, 1 clips"
    assert export_record(where, folder).endswith(told)
    import_record(folder, back)
    assert content(back) == content(where)
    import_record(folder, back)  # nothing comes twice
    assert content(back) == content(where)
    export_record(back, tmp_path / "again")
    for name in ("queries.parquet", "comparisons.jsonl", "clips.parquet", "annotators.parquet"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_data_set_is_added_to_what_is_there(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "a.sqlite") as store:
        fill(store)
    export_record(tmp_path / "a.sqlite", tmp_path / "data")
    other = Query(segments=(segment(50), segment(51)), session=9)
    with PreferenceStore(tmp_path / "b.sqlite") as store:
        store.add_queries([other])
        store.add_answers([Comparison(query_id=other.id, preference=0.0, annotator="carl")])
    import_record(tmp_path / "data", tmp_path / "b.sqlite")
    there, added = content(tmp_path / "a.sqlite"), content(tmp_path / "b.sqlite")
    assert len(added["cards"]) == len(there["cards"]) + 1
    assert [answer for answer, _, _ in added["answers"][1:]] == [answer for answer, _, _ in there["answers"]]


def test_parquet_and_json_lines_can_be_read_without_prefrl(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "a.sqlite") as store:
        fill(store)
    export_record(tmp_path / "a.sqlite", tmp_path / "data")
    table = pq.read_table(tmp_path / "data" / "queries.parquet")
    assert table.schema.metadata[b"version"] == b"2"
    rows = table.to_pylist()
    assert {row["kind"] for row in rows} == {"comparison", "ranking", "rating"}
    assert all((tmp_path / "data" / "segments" / f"{name}.npz").is_file() for row in rows for name in row["segments"])
    lines = [json.loads(line) for line in (tmp_path / "data" / "comparisons.jsonl").read_text().splitlines()]
    assert {"prompt": "Où ?", "chosen": "Là-bas.", "rejected": "…"} in lines  # the edit
    assert {"prompt": "Où ?", "chosen": "Ici.\n", "rejected": "…"} in lines  # of the ranking
    assert {"prompt": "Où ?", "chosen": "Là 🚚", "rejected": "…"} in lines  # the comparison
    assert {"prompt": "Où ?", "chosen": "…", "rejected": "Là 🚚"} not in lines  # tied


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "a.sqlite") as store:
        fill(store)
    folder, back = tmp_path / "data", tmp_path / "b.sqlite"
    with pytest.raises(UserError, match="no record at"):
        export_record(tmp_path / "nothing.sqlite", folder)
    with pytest.raises(UserError, match="no data set in"):
        import_record(folder, back)
    export_record(tmp_path / "a.sqlite", folder)
    with pytest.raises(UserError, match="holds something already"):
        export_record(tmp_path / "a.sqlite", folder)
    about = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(about.replace('"version": 2', '"version": 9'))
    with pytest.raises(UserError, match="newer prefrl"):
        import_record(folder, back)
    for other in ('{"format": "mine"}', "[]"):
        (folder / "dataset.json").write_text(other)
        with pytest.raises(UserError, match="not written by prefrl"):
            import_record(folder, back)
    (folder / "dataset.json").write_text(about)
    arrays = folder / "segments" / f"{segment(3).id}.npz"
    whole = arrays.read_bytes()
    for broken in (b"PK", b"", whole[: len(whole) // 2], whole[:-200] + bytes(100) + whole[-100:]):
        arrays.write_bytes(broken)
        with pytest.raises(UserError, match="damaged"):
            import_record(folder, back)
    (folder / "answers.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="damaged"):
        import_record(folder, back)
