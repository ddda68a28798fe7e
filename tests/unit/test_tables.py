"""Tables for the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from prefrl.tables import Table


def test_what_is_too_wide_goes_on_in_the_next_line_and_nothing_is_cut_off() -> None:
    table = Table("runs", "returns")
    table.add_column("done")
    names = ["queries.recent-share=0.0_and_some_more", "queries.recent-share=0.5_and_some_more"]
    for name in names:
        table.add_row(name, "-418.6 [-438.7, -407.5]", "10_of_10_and_so_on")
    told = io.StringIO()
    Console(file=told, width=40).print(table)
    cells = [line.split("│")[1:-1] for line in told.getvalue().splitlines() if line.startswith("│")]
    assert "…" not in told.getvalue()
    assert "".join(cell[0].strip() for cell in cells) == "".join(names)
    assert "".join(cell[2].strip() for cell in cells) == "10_of_10_and_so_on" * 2
