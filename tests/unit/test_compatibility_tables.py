"""The tables of docs/compatibility.md are written anew, whole or in part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import compatibility

import prefrl

DOCUMENT = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text(encoding="utf-8")


def written(results: dict[str, object]) -> str:
    text = DOCUMENT
    for name, rows in compatibility.tables(results, DOCUMENT).items():
        text = compatibility.put(text, name, rows)
    return text


def test_what_was_not_tried_keeps_its_row() -> None:
    assert written({}) == DOCUMENT


def test_what_was_tried_has_a_row_anew_and_the_others_keep_theirs() -> None:
    found = {"versions": ["skrl 9.9", "gymnasium 1.4.0"], "episodes": 7, "difference": 2e-6, "largest": 31.4}
    changed = [line for line in written({"skrl": found}).splitlines() if line not in DOCUMENT.splitlines()]
    row = "| skrl 9.9 | gymnasium 1.4.0 | CartPole-v1 | 7 | at most 2e-06 of 31 | `scripts/examples/with_skrl.py` |"
    assert changed == [row]
    assert len(written({"skrl": found}).splitlines()) == len(DOCUMENT.splitlines())


def test_what_was_never_tried_before_gets_its_place_in_the_order_of_the_script() -> None:
    rows = compatibility.tables({"rllib": {"failed": "not done after 5 s"}}, DOCUMENT)["libraries"]
    assert rows[-1] == "| rllib | | CartPole-v1 | | not done after 5 s | `scripts/examples/with_rllib.py` |"


def test_other_environments_find_prefrl_where_it_is_installed_in_place(tmp_path: Path) -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; import prefrl.envs, numpy; print(prefrl.__file__)"
    command = [sys.executable, "-I", "-S", "-c", code, *compatibility.our_places()]
    found = subprocess.check_output(command, text=True, cwd=tmp_path).strip()
    assert Path(found) == Path(prefrl.__file__)
