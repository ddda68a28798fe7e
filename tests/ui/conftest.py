"""A virtual screen for each test, and one browser for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import browser
from screens import Display, open_display

__all__ = ["browser"]  # once: two of Playwright's loops do not go together


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Display]:
    shown, server = open_display(tmp_path / "screen")
    yield shown
    server.terminate()
    server.wait(timeout=10)
