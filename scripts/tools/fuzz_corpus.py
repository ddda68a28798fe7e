"""What a fuzzer starts from: small whole runs, records, data sets and data files, and what reads each of them.

Made once by the commands themselves.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_inputs as inputs
import numpy as np

from prefrl.feedback import Comparison, Edit, Query, Ranking, Rating, Response
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

Run = Callable[[list[str], Path], int]
"""Runs the command in a folder; returns its status."""

BESIDE = ("record.sqlite", "model", "swings", "drawn.jsonl", "remarks.jsonl", "pairs.jsonl", "examples.jsonl")
"""What command lines name beside their base."""
TRAIN = ["--segment-length", "10", "--warmup-steps", "100", "--eval-episodes", "1", "--max-episode-steps", "20",
         "--num-envs", "2", "--fit.num-steps", "5", "--fit.first-steps", "5", "--num-checkpoints", "3", "--quiet",
         "--no-video", "--no-viewer"]  # fmt: skip
PPO = ["--hyper", "n_steps=50", "batch_size=50", "n_epochs=1"]
TEXT = ["--device", "cpu", "--quiet"]
BRIEF = ["--episodes", "1", "--max-episode-steps", "20", "--json"]
OFFLINE = ["offline", "swings", "--env", "Pendulum-v1", "--labels", "4", "--steps", "10", "--segment-length", "5",
           "--eval-episodes", "1", "--fit.num-steps", "5", "--fit.first-steps", "5",
           "--learner.hidden", "8", "--learner.batch-size", "16", "--quiet", "--no-video"]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A file of a base, how it is damaged, and the commands that read it; they run in a copy of the base."""

    kind: str
    base: str
    files: tuple[str, ...]
    damage: inputs.Damage
    commands: tuple[tuple[str, ...], ...]
    weight: float = 1.0
    shape: bool = True
    """The file may also be gone, or be something else than a file."""


def make_corpus(place: Path, run: Run, *, text: bool) -> None:
    """Make the bases in a folder, those that are not there yet.

    Raises:
        SystemExit: a command failed.
    """

    def made(*arguments: str) -> None:
        if not (place / arguments[-1]).exists() and (status := run(list(arguments), place)) != 0:
            raise SystemExit(f"prefrl {' '.join(arguments)} ended with {status}")

    control = ["--labels", "6", "--steps", "600", *TRAIN]
    made("train", "Pendulum-v1", *control, *PPO, "--baseline", "--out", "run")
    shutil.copytree(place / "run", place / "stopped", dirs_exist_ok=True)
    for name in ("summary.json", "policies/last.pt", "baseline/summary.json", "baseline/policies/last.pt"):
        (place / "stopped" / name).unlink(missing_ok=True)
    made(
        "train",
        "CartPole-v1",
        "--fixed-horizon",
        "0",
        *control,
        *PPO,
        "--queries.feedback",
        "mixed",
        "--queries.num-ranked",
        "3",
        "--out",
        "mixed",
    )
    made("export", "run", "--to", "data")
    made("tournament", "run", "--policies", "before", "last", "--games", "6", "--out", "league")
    if not (place / "swings").exists():
        _make_episodes(place / "swings")
    made(*OFFLINE, "--controls", "zero", "--out", "given")
    if not (place / "record.sqlite").exists():
        _make_record(place)
    made("export", "record.sqlite", "--to", "mixed-data")
    _make_rows(place)
    if text:
        made("text", "pretrain", "--size", "tiny", "--paragraphs", "20", *TEXT, "--out", "model")
        watch = ["--watch.times", "1", "--watch.prompts", "4", "--max-tokens", "64"]
        made("text", "dpo", "--model", "model", "--data", "pairs.jsonl", *watch, *TEXT, "--out", "dpo")
        made("text", "reward", "--model", "model", "--data", "pairs.jsonl", *TEXT, "--out", "reward")
        (place / "reply.json").write_text('{"choices": [{"message": {"content": "A"}}]}')
        (place / "rewards.json").write_text(json.dumps({"rewards": [1.0] * 4}))


def _make_record(place: Path) -> None:
    """Make a record with what people can say: of segments and texts, taken back, edited, with clips and notes."""
    rng = np.random.default_rng(0)

    def segment() -> Segment:
        seen, done = rng.normal(size=(4, 3)).astype("f4"), rng.normal(size=(3, 1)).astype("f4")
        return Segment(observations=seen, actions=done, true_rewards=np.ones(3))

    with PreferenceStore(place / "record.sqlite") as store:
        pairs = [Query(segments=(segment(), segment()), session=n, instruction="stand") for n in range(4)]
        ranked = Query(kind="ranking", segments=tuple(segment() for _ in range(3)))
        rated = Query(kind="rating", segments=(segment(),), scale=5, overlap=2)
        texts = Query(responses=(Response(prompt="Hi.", text="A"), Response(prompt="Hi.", text="B")), session=5)
        store.add_queries([*pairs, ranked, rated, texts])
        store.add_annotator("anna", "person")
        said = {"annotator": "anna", "seconds": 2.0, "shown_at": 1e9, "answered_at": 1e9 + 2, "shown": (1, 0)}
        rows = store.add_answers(
            [
                Comparison(query_id=pairs[0].id, preference=1.0, **said),  # type: ignore[arg-type]
                Comparison(query_id=pairs[1].id, preference=None, **said),  # type: ignore[arg-type]
                Ranking(query_id=ranked.id, ranks=(1, 2, 2), annotator="ben", comment="so-so"),
                Rating(query_id=rated.id, rating=4, annotator="ben"),
                Comparison(query_id=texts.id, preference=0.0, annotator="ben"),
                Edit(query_id=texts.id, item=0, text="Better", annotator="ben"),
            ]
        )
        store.undo(rows[0], "anna")
        clip = Clip(data=b"\0" * 100, format="mp4", frames_per_second=20.0, width=64, height=64, num_frames=3)
        store.add_clip(pairs[0].segments[0].id, clip)
        store.set_facts({"instruction": "stand"})
        store.links.make("carla")


def _make_episodes(place: Path) -> None:
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        seen, done = rng.uniform(-1, 1, (21, 3)).astype("f4"), rng.uniform(-2, 2, (20, 1)).astype("f4")
        np.savez(place / f"{number}.npz", observations=seen, actions=done, rewards=-np.abs(done[:, 0]), seed=number)


def _make_rows(place: Path) -> None:
    asked = [f"Question {n}?" for n in range(12)]
    forms = {
        "pairs": [{"prompt": p, "chosen": " Yes.", "rejected": " No, " * 3} for p in asked],
        "examples": [{"prompt": p, "response": " Yes."} for p in asked],
        "ranked": [{"prompt": p, "responses": [" a", " b", " c"], "ranks": [1, 2, 2]} for p in asked],
        "liked": [{"prompt": p, "completion": " a", "label": n % 2 == 0} for n, p in enumerate(asked)],
        "chat": [{"chosen": [{"role": "user", "content": p}, {"role": "assistant", "content": "a"}],
                  "rejected": [{"role": "user", "content": p}, {"role": "assistant", "content": "b"}]} for p in asked],
        "drawn": [{"prompt": p, "responses": [" a", " b"]} for p in asked[:3]],
        "remarks": [{"prompt": p, "response": " a", "edited": " b", "critique": "c"} for p in asked],
    }  # fmt: skip
    for name, rows in forms.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


READ = (("evaluate", "{base}", *BRIEF), ("quality", "{base}", "--json"), ("fit", "{base}", "--json"),
        ("export", "{base}", "--to", "out"))  # fmt: skip
REPORT = ("report", "{base}", "--json")
RESUME = ("resume", "{base}", "--quiet", "--no-video", "--no-viewer", "--json")
RECORD = (("export", "{base}", "--to", "out"), ("invite", "{base}", "--list"), ("invite", "{base}", "--name", "dora"),
          ("forget", "{base}", "--annotator", "anna"), ("text", "tell", "--record", "{base}", "--data", "remarks.jsonl",
          "--annotator", "eve"))  # fmt: skip
CHECKPOINT = tuple(f"checkpoints/000000000600/{name}" for name in
                   ("manifest.json", "state.json", "state.pt", "arrays.safetensors"))  # fmt: skip
JUDGE = ("text", "judge", "--judge", "http://127.0.0.1:{port}/v1#m", "--data", "drawn.jsonl", "--out", "out.jsonl",
         "--timeout", "2")  # fmt: skip
ONE_STEP = ("--training.batch-size", "4", "--training.epochs", "1")
WATCH = ("--watch.times", "1", "--watch.prompts", "2", "--max-tokens", "4")

PLAY = ("tournament", "run", "--policies", "before", "last", "--games")
LEAGUE = (("tournament", "--out", "{base}", "--json"), (*PLAY, "7", "--out", "{base}", "--json"))

CONTROL = (
    Target("configuration", "run", ("config.json",), inputs.damage_json, (*READ, *READ, REPORT), 3),
    Target("configuration", "stopped", ("config.json", "baseline/config.json"), inputs.damage_json, (RESUME,), 0.7),
    Target("configuration", "mixed", ("config.json",), inputs.damage_json, READ, 1),
    Target("configuration (bytes)", "run", ("config.json", "summary.json"), inputs.damage_bytes, READ, 1.5),
    Target("record: values", "run", ("record.sqlite",), inputs.damage_values, (*READ[1:], *READ[1:], REPORT), 2),
    Target("record: values", "record.sqlite", (".",), inputs.damage_values, RECORD, 5),
    Target("record: values", "stopped", ("record.sqlite",), inputs.damage_values, (RESUME,), 0.7),
    Target("record: pages", "run", ("record.sqlite",), inputs.damage_pages, READ[1:], 2),
    Target("record: pages", "record.sqlite", (".",), inputs.damage_pages, RECORD, 4),
    Target("record: pages", "stopped", ("record.sqlite",), inputs.damage_pages, (RESUME,), 0.7),
    Target("data set: tables", "mixed-data", ("queries.parquet", "answers.parquet", "annotators.parquet",
           "clips.parquet"), inputs.damage_parquet, (("import", "{base}", "--to", "out.sqlite"),), 6),
    Target("data set: dataset.json", "mixed-data", ("dataset.json",), inputs.damage_json,
           (("import", "{base}", "--to", "out.sqlite"),), 2),
    Target("data set: segments", "mixed-data", ("segments/*.npz",), inputs.damage_zip,
           (("import", "{base}", "--to", "out.sqlite"),), 3),
    Target("metrics", "run", ("metrics.jsonl",), inputs.damage_rows, (READ[0], ("report", "{base}", "--json")), 1),
    Target("metrics", "stopped", ("metrics.jsonl", "baseline/metrics.jsonl"), inputs.damage_rows, (RESUME,), 0.7),
    Target("summary", "run", ("summary.json",), inputs.damage_json, (READ[0], RESUME), 1.5),
    Target("policies", "run", ("policies/last.pt", "policies/best.pt", "policies/before.pt"), inputs.damage_zip,
           (READ[0],), 3),
    Target("rewards", "run", ("reward.safetensors",), inputs.damage_safetensors, (READ[1], READ[1], REPORT), 2),
    Target("checkpoints", "stopped", CHECKPOINT, inputs.damage_bytes, (RESUME,), 0.7),
    Target("checkpoints", "stopped", CHECKPOINT[:2], inputs.damage_json, (RESUME,), 0.7),
    Target("digests", "run", ("digests.json",), inputs.damage_json, (READ[0],), 0.7),
    Target("tournament", "league", ("tournament.json",), inputs.damage_json, LEAGUE, 1),
    Target("tournament", "league", ("games.jsonl",), inputs.damage_rows, LEAGUE, 1.5),
    Target("tournament", "league", ("record.sqlite",), inputs.damage_values, LEAGUE, 1),
    Target("offline: episodes", "swings", ("*.npz",), inputs.damage_zip,
           ((*OFFLINE, "--json", "--out", "out"),), 1),
    Target("offline: run", "given", ("config.json", "summary.json"), inputs.damage_json, (READ[0], READ[1]), 1.5),
    Target("offline: run", "given", ("policies/last.pt",), inputs.damage_zip, (READ[0],), 0.5),
    Target("offline: run", "given", ("reward.safetensors",), inputs.damage_safetensors, (READ[1],), 0.5),
)  # fmt: skip

LANGUAGE = (
    Target("configuration of text", "dpo", ("config.json",), inputs.damage_json,
           (("report", "{base}", "--json"), ("text", "resume", "{base}"), ("resume", "{base}"),
            ("text", "sample", "{base}", "--max-tokens", "2"), ("evaluate", "{base}", "--json"),
            ("evaluate", "{base}", "--episodes", "2")), 2),
    Target("figures of text", "dpo", ("metrics.jsonl", "evaluations.jsonl"), inputs.damage_rows,
           (("report", "{base}", "--json"), ("text", "report", "{base}")), 1),
    Target("figures of text", "dpo", ("summary.json",), inputs.damage_json, (("report", "{base}", "--json"),), 1),
    Target("model", "dpo", ("model/config.json", "model/generation_config.json", "model/tokenizer.json",
           "model/tokenizer_config.json"), inputs.damage_json,
           (("text", "sample", "{base}", "--prompt", "a", "--max-tokens", "2"),), 3),
    Target("model", "dpo", ("model/model.safetensors",), inputs.damage_safetensors,
           (("text", "sample", "{base}", "--prompt", "a", "--max-tokens", "2"),), 1),
    Target("rows of text", "pairs.jsonl", (".",), inputs.damage_rows,
           (("text", "dpo", "--model", "model", "--data", "{base}", *ONE_STEP, *WATCH, *TEXT, "--out", "out"),
            ("text", "reward", "--model", "model", "--data", "{base}", *ONE_STEP, *TEXT, "--out", "out")), 2),
    Target("rows of text", "examples.jsonl", (".",), inputs.damage_rows,
           (("text", "sft", "--model", "model", "--data", "{base}", *ONE_STEP, *TEXT, "--out", "out"),), 1.5),
    Target("rows of text", "ranked.jsonl", (".",), inputs.damage_rows,
           (("text", "reward", "--model", "model", "--data", "{base}", *ONE_STEP, *TEXT, "--out", "out"),), 1.5),
    Target("rows of text", "liked.jsonl", (".",), inputs.damage_rows,
           (("text", "kto", "--model", "model", "--data", "{base}", *ONE_STEP, *WATCH, *TEXT, "--out", "out"),), 1.5),
    Target("rows of text", "chat.jsonl", (".",), inputs.damage_rows,
           (("text", "dpo", "--model", "model", "--data", "{base}", *ONE_STEP, *WATCH, *TEXT, "--out", "out"),), 1.5),
    Target("rows of text", "remarks.jsonl", (".",), inputs.damage_rows,
           (("text", "tell", "--record", "record.sqlite", "--data", "{base}", "--annotator", "eve"),), 3),
    Target("rows of text", "drawn.jsonl", (".",), inputs.damage_rows, (JUDGE,), 2),
    Target("replies of a judge", "reply.json", (".",), inputs.damage_reply, (JUDGE,), 5, shape=False),
    Target("replies of a reward", "rewards.json", (".",), inputs.damage_reply,
           (("text", "bestofn", "--model", "model", "--reward", "http://127.0.0.1:{port}/", "--draws", "4", "--prompts",
             "1", "--max-tokens", "2", *TEXT, "--out", "out"),), 2, shape=False),
)  # fmt: skip

WORDS = ("", "x", "nan", "inf", "-inf", "1e400", "-1", "0", "1.5", "None", "True", "[]", "{}", "9" * 30, "../outside",
         "\u2028", "/dev/null",
         "a=b", "=", "a:b", "stranger:Thing", "stranger.py:thing", "-", "--", "%s", "~", ".", "/", "a" * 5000,
         "postgresql://user:secret@127.0.0.1:9/x", "http://[", "sqlite:////dev/null", "\x1b[31m", "run",
         "record.sqlite",
         "data", "pairs.jsonl", "model")  # fmt: skip
LINES: tuple[tuple[str, ...], ...] = (
    ("train", "CartPole-v1", "--labels", "2", "--steps", "120", "--out", "out", *TRAIN, *PPO),
    *((*command, "--trust") for command in READ),
    RESUME,
    ("import", "data", "--to", "out.sqlite"),
    *RECORD,
    ("video", "{base}", "--steps", "1"),
    ("label", "{base}"),
    ("envs",),
    (*OFFLINE, "--out", "out"),
    (*PLAY, "2", "--out", "out"),
    ("ask", "out.sqlite", "--of", "run", "--num", "3"),
    ("study", "k-wise", "--repetitions", "1", "--out", "out"),
    ("track", "{base}", "--to", "wandb"),
    ("show", "{base}", "0"),
    ("pin", "{base}", "0", "1", "--good"),
    ("text", "tell", "--record", "record.sqlite", "--data", "remarks.jsonl", "--annotator", "eve"),
)
TEXT_LINES: tuple[tuple[str, ...], ...] = (
    ("text", "sft", "--model", "model", "--data", "examples.jsonl", *ONE_STEP, *TEXT, "--out", "out"),
    ("text", "dpo", "--model", "model", "--data", "pairs.jsonl", *ONE_STEP, *WATCH, *TEXT, "--out", "out"),
    ("text", "sample", "model", "--prompt", "a", "--max-tokens", "2"),
    ("text", "judge", "--data", "drawn.jsonl", "--out", "out.jsonl"),
    ("text", "compare", "--model", "model", "--prompts", "2", "--max-tokens", "2", "--out", "out.jsonl"),
    ("text", "ask", "--model", "model", "--record", "out.sqlite", "--prompts", "2", "--max-tokens", "2"),
)


def damage_line(command: tuple[str, ...], options: list[tuple[str, str]], rng: random.Random) -> tuple[list[str], bool]:
    """Damage a command line: a word replaced, left out or added, or an option of the verb with nonsense for its value.

    Args:
        command: the words.
        options: of the verb: name, and what kind of value it takes, as the help shows it.
        rng: source of randomness.

    Returns:
        The words, and whether they may be right.
    """
    words, plausible = list(command), True
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(1, len(words) + 1)
        what = rng.choice(("replaced", "left out", "added", "option", "option", "option", "option"))
        if what == "replaced" and place < len(words):
            words[place] = rng.choice(WORDS)
        elif what == "left out" and place < len(words):
            del words[place]
        elif what == "added":
            words.insert(place, rng.choice(WORDS))
        elif options:
            name, kind = rng.choice(options)
            value = rng.choice(WORDS)
            words += [name, value]
            numbers = {
                "x",
                "",
                "nan",
                "1e400",
                "inf",
                "-inf",
                "[]",
                "{}",
                "True",
                "a=b",
                "../outside",
                "stranger:Thing",
            }
            plausible &= not (kind in ("INT", "FLOAT") and value in numbers)
    return words, plausible
