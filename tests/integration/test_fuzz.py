"""A small fixed sample of damaged files and command lines: no traceback, nothing silent, nothing outside the folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "scripts" / "tools" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it watches processes as Linux lets it")
def test_a_sample_of_damaged_inputs_is_refused_or_told() -> None:
    command = [sys.executable, str(FUZZ), "--inputs", "30", "--no-text", "--log", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
