"""`prefrl show` and `prefrl pin`: one question with all that was said of it, and examples, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prefrl.errors import USER_ERROR, UserError
from prefrl.feedback import Comparison, Edit, Query, Response
from prefrl.human_ui.show import find_query, in_words
from prefrl.segments import Segment
from prefrl.start import main
from prefrl.store import Clip, PreferenceStore


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.sqlite"
    texts = ("It is \x1b[31mred\x1b[0m, " + "and long, " * 20, "Blue.")
    asked = Query(responses=tuple(Response(prompt="Which?", text=text) for text in texts), instruction="Be brief.")
    with PreferenceStore(path) as store:
        store.add_queries([asked])
        common = {"query_id": asked.id, "annotator": "anna"}
        answers = [
            Comparison(**common, preference=None, reason="unclear", flagged=True, comment="what for?"),
            Edit(**common, item=1, text="Blue, then."),
            Comparison(query_id=asked.id, annotator="boss", preference=0.0, adjudicates=True),
        ]
        row, *_ = store.add_answers(answers)
        store.undo(row, "anna")
    return path


def test_a_question_is_shown_by_the_beginning_of_its_name_or_a_row_in_eighty_columns(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PreferenceStore(record) as store:
        (name,) = store.query_ids()
    for asked in (name, name[:5], "3"):
        assert main(["show", str(record), asked]) == 0
        told = capsys.readouterr().out
        assert name in told and "look for: Be brief." in told
        assert "row 1: anna: can't tell" in told and "taken back, flagged, what to look for is unclear" in told
        assert "note: what for?" in told and "Blue, then." in told
        assert "row 3: boss: 2 > 1 (0.0 s, settles it)" in told
        assert "\x1b" not in told, "a terminal would obey it"
        assert max(map(len, told.splitlines())) <= 100 and "of item" not in told


def test_clips_are_written_as_files_and_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = [
        Segment(observations=np.full((3, 1), float(n)), actions=np.zeros((2, 1)), true_rewards=np.zeros(2))
        for n in range(2)
    ]
    asked = Query(segments=tuple(segments))
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        store.add_queries([asked])
        clip = Clip(data=b"frames", format="mp4", frames_per_second=10.0, width=4, height=4, num_frames=2)
        store.add_clip(segments[0].id, clip)
    assert main(["show", str(tmp_path / "record.sqlite"), asked.id, "--to", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").iterdir()
    told = capsys.readouterr().out
    assert path.read_bytes() == b"frames" and str(path) in told
    assert "2. its clip was not drawn yet" in told and "Nobody has answered it yet." in told


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["show", "zzz"], "No question begins with 'zzz'"),
        (["pin", "zzz", "1", "--good"], "No question begins with 'zzz'"),
        (["pin", "", "1", "--good"], "No question begins with ''"),
    ],
)
def test_what_is_no_question_is_refused(
    record: Path, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command[0], str(record), *command[1:]]) == USER_ERROR
    assert message in capsys.readouterr().err


def test_examples_are_pinned_replaced_and_taken_down(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, num in (
        (["1", "--good", "--note", "short"], 1),
        (["2", "--bad"], 2),
        (["1", "--bad"], 2),
        (["1", "--remove"], 1),
    ):
        with PreferenceStore(record) as store:
            name = store.query_ids()[0]
        assert main(["pin", str(record), name[:6], *line]) == 0
        with PreferenceStore(record) as store:
            assert len(store.facts()["examples"]) == num
    assert capsys.readouterr().out.endswith("1 example is shown beside the instruction.\n")
    assert main(["pin", str(record), name, "3", "--good"]) == USER_ERROR
    assert "shows no item 3" in capsys.readouterr().err


def test_answers_in_words() -> None:
    said = [Comparison(query_id="q", annotator="a", preference=p) for p in (1.0, 0.0, 0.5, None)]
    assert [in_words(answer) for answer in said] == ["1 > 2", "2 > 1", "equal", "can't tell"]


def test_a_beginning_that_several_share_is_refused(record: Path) -> None:
    with PreferenceStore(record) as store:
        more = [Query(responses=tuple(Response(prompt=f"{n}", text=t) for t in "ab")) for n in range(40)]
        store.add_queries(more)
        first = sorted(store.query_ids())[0]
        assert find_query(store, first) == first
        shared = next(c for c in "abcdef" if sum(name.startswith(c) for name in store.query_ids()) > 1)
        with pytest.raises(UserError, match="questions begin with"):
            find_query(store, shared)
