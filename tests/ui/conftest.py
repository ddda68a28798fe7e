"""A virtual screen for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from screens import Display, open_display


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Display]:
    shown, server = open_display(tmp_path / "screen")
    yield shown
    server.terminate()
    server.wait(timeout=10)
