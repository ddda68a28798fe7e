"""How long it takes from the command `prefrl label RUN` to the first picture in its window.

    python scripts/benchmarks/benchmark_viewer_start.py RUN

Needs Xvfb, on whose screen the window opens; RUN is a run folder or a record.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro


def main(run: tyro.conf.Positional[str], starts: int = 7) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = ["Xvfb", ":95", "-screen", "0", "1280x800x24", "-fbdir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.5)
        screen, seconds = Path(folder) / "Xvfb_screen0", []
        empty = screen.read_bytes()
        for _ in range(starts):
            begin = time.monotonic()
            viewer = subprocess.Popen(
                [sys.executable, "-m", "prefrl", "label", run],
                env={**os.environ, "DISPLAY": ":95"},
                stdout=subprocess.DEVNULL,
            )
            while screen.read_bytes() == empty and viewer.poll() is None and time.monotonic() < begin + 30:
                time.sleep(0.01)
            seconds.append(time.monotonic() - begin)
            viewer.kill()
            viewer.wait()
            time.sleep(1.0)
        server.terminate()
    print(f"{statistics.median(seconds):.2f} s (least {min(seconds):.2f}, most {max(seconds):.2f})")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
