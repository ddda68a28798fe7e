"""A virtual screen for each test, and one browser for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def _close(context: Any) -> None:
    """Close a context once nothing loads in it: in the middle of a reload Chromium may never answer."""
    for page in context.pages:
        page.wait_for_load_state(timeout=30_000)
    context.close()


@pytest.fixture
def desktop(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context
    _close(context)


@pytest.fixture
def phone(browser: Any) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": 390, "height": 750}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    yield context
    _close(context)
