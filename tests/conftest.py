"""Settings that hold for every test."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "tools"))
from postgres import PostgresServer

hypothesis.settings.register_profile(
    "prefrl", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("prefrl")
torch.set_num_threads(1)
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # what is trusted there is no business of tests
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server on loopback."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def new_record(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path | str]:
    """Names places for new records: files, and databases on a server."""
    if request.param == "sqlite":
        return lambda: tmp_path / f"record{next(_numbers)}.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda: server.new_database(f"record{next(_numbers)}")


@pytest.fixture
def where(new_record: Callable[[], Path | str]) -> Path | str:
    """A place for a new record."""
    return new_record()
