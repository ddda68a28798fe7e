"""What experiment trackers hold of a run, read back by their own libraries and compared with its metrics.jsonl.

    pip install wandb mlflow trackio aim
    python scripts/tools/check_trackers.py

A small run is trained with `--track` for all of them, offline, in a temporary folder.
"""

import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

Rows = dict[int, dict[str, float]]
BLOCK = 1 << 15


def of_wandb(run: Path, own: dict[str, Any]) -> Rows:
    """Read the files of an offline run: wandb has no reader of its own, their form is that of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    rows: Rows = {}
    for path in run.glob("wandb/offline-run-*/*.wandb"):
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
                step = int(items.pop("_step", record.history.step.num))
                numbers = {n: v for n, v in items.items() if isinstance(v, int | float) and n[0] != "_"}
                rows.setdefault(step, {}).update(numbers)
    return rows


def _records(data: bytes) -> Iterator[bytes]:
    """Split a log: blocks of 32 KiB, in them pieces with a checksum, a length, and first, middle, last or whole."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no room for a piece
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def of_mlflow(run: Path, own: dict[str, Any]) -> Rows:
    import mlflow

    client, rows = mlflow.MlflowClient(), {}
    for name in client.get_run(own["run"]).data.metrics:
        if not name.startswith("final/"):
            for metric in client.get_metric_history(own["run"], name):
                rows.setdefault(metric.step, {})[name] = metric.value
    return rows


def of_trackio(run: Path, own: dict[str, Any]) -> Rows:
    from trackio.sqlite_storage import SQLiteStorage

    rows: Rows = {}
    for name in SQLiteStorage.get_runs("prefrl"):
        name = name if isinstance(name, str) else name["name"]
        for row in SQLiteStorage.get_logs("prefrl", name):
            figures = {n: v for n, v in row.items() if isinstance(v, int | float) and not n.startswith("final/")}
            step = int(figures.pop("step"))
            if figures:
                rows.setdefault(step, {}).update(figures)
    return rows


def of_aim(run: Path, own: dict[str, Any]) -> Rows:
    import aim

    command = [
        str(Path(sys.executable).with_name("aim")),
        "storage",
        "--repo",
        ".",
        "reindex",
    ]  # what `aim up` does when it is opened
    subprocess.run(command, input="y\n", text=True, check=True, capture_output=True)
    rows: Rows = {}
    for metric in aim.Repo.from_path(".").get_run(own["run"]).metrics():
        steps, (values, *_) = metric.data.numpy()
        for step, value in zip(steps, values, strict=True):
            rows.setdefault(int(step), {})[metric.name] = float(value)
    return rows


READERS: dict[str, Callable[[Path, dict[str, Any]], Rows]] = {
    "wandb": of_wandb, "mlflow": of_mlflow, "trackio": of_trackio, "aim": of_aim,
}  # fmt: skip


def figures(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a row of metrics, flat."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= figures(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found


def main() -> None:
    """Train, read back, compare; end with status 1 where anything differs."""
    place = Path(tempfile.mkdtemp(prefix="prefrl-trackers-"))
    os.chdir(place)
    os.environ |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(place / "data")}
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
    options = "--labels 12 --steps 6000 --warmup-steps 1000 --eval-episodes 1 --out run --quiet --track"
    command = [sys.executable, "-m", "prefrl", "train", "Pendulum-v1", *options.split(), *READERS]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = place / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = {row["num_env_steps"]: figures({**row, "num_env_steps": None}) for row in rows}
    kept = json.loads((run / "tracking.json").read_text())["trackers"]
    wrong = False
    print("| tracker | version | rows | the same as metrics.jsonl |\n|---|---|---|---|")
    for name, read in READERS.items():
        try:
            found = read(run, kept[name]["own"])
            found = {step: row for step, row in found.items() if step in expected}
            same = found.keys() == expected.keys() and all(
                found[step].keys() >= expected[step].keys()
                and all(math.isclose(found[step][n], v, rel_tol=1e-6) for n, v in expected[step].items())
                for step in expected
            )
            said = "yes" if same else f"no: {len(found)} of {len(expected)} rows"
        except Exception as error:
            same, said = False, f"not read: {type(error).__name__}: {error}"
        wrong |= not same
        print(f"| {name} | {version(name)} | {len(rows)} | {said} |", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
