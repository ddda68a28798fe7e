"""The image demo on several seeds: gold and proxy of every method, at its best point and at its end, with their spread.

    python scripts/benchmarks/benchmark_image.py --seeds 0 1 2                   # makes what is missing, then the table
    python scripts/benchmarks/benchmark_image.py --seeds 0 1 2 --write table.md

Each demo goes on where it stopped. A best point is the best of the evaluations along the way, on the pictures that it
is told of: it is a little too good, of every method alike.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from prefrl.files import read_json
from prefrl.image.demo import curves


def main(seeds: tuple[int, ...] = (0, 1, 2), out: Path = Path("runs/image-demos"), write: Path | None = None) -> None:
    """Make the demos, print the table.

    Args:
        seeds: of the demos.
        out: folder of all, each in a folder of its seed.
        write: a file for the table as well.
    """
    for seed in seeds:
        begun = time.monotonic()
        place = out / str(seed)
        command = [sys.executable, "-m", "prefrl", "image", "demo", "--seed", str(seed), "--out", str(place), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    found = [curves(out / str(seed)) for seed in seeds]
    quality = [read_json(out / str(seed) / "quality.json") for seed in seeds]
    lines = [
        "| method | gold at first | best gold | more than at first | gold at the end | proxy at the end "
        "| nats at the end | diversity at the end | Fréchet distance |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(name, [curve[name] for curve in found], quality) for name in found[0]),
    ]
    print("\n".join(lines))
    if write is not None:
        write.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(name: str, curves_of: list[list[dict[str, Any]]], quality: list[dict[str, float]]) -> str:
    """Return a row: means over the seeds and, after ±, their standard deviations."""
    best = [max(rows, key=lambda row: row["gold"])["gold"] for rows in curves_of]
    first, last = [rows[0] for rows in curves_of], [rows[-1] for rows in curves_of]
    cells = [
        _spread([row["gold"] for row in first]), _spread(best),
        _spread([most - row["gold"] for most, row in zip(best, first, strict=True)]),
        *(_spread([row.get(key, np.nan) for row in last]) for key in ("gold", "proxy", "kl_nats", "diversity")),
        _spread([of.get(name, np.nan) for of in quality]),
    ]  # fmt: skip
    return f"| {name} | {' | '.join(cells)} |"


def _spread(values: list[float]) -> str:
    if not np.isfinite(values).all():
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
