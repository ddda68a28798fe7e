"""Tables for the terminal in which nothing is cut off."""

from __future__ import annotations

from typing import Any

import rich.table
from rich.table import Column


class Table(rich.table.Table):
    """rich's table, but what is too wide for its column goes on in the next line; by default rich cuts its end off.

    Args:
        headers: names of the columns, or columns.
        options: of rich's table, by name.
    """

    def __init__(self, *headers: Column | str, **options: Any) -> None:
        columns = (Column(header, overflow="fold") if isinstance(header, str) else header for header in headers)
        super().__init__(*columns, **options)

    def add_column(self, header: Any = "", **options: Any) -> None:  # type: ignore[override]
        """Add a column, as rich's does."""
        super().add_column(header, **{"overflow": "fold", **options})
