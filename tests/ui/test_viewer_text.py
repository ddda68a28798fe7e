"""From a model's answers to a reward model, by hand: asked, compared in the window, learned from."""

from __future__ import annotations

import json
from pathlib import Path

from screens import Display, Viewer, answers, needs_screen, press

from prefrl.cli import main
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore

pytestmark = needs_screen


def test_pairs_of_answers_labelled_in_the_window_train_a_reward_model(tmp_path: Path, display: Display) -> None:
    record, fast = tmp_path / "people.sqlite", ["--device", "cpu", "--quiet"]
    base, sft, reward = str(tmp_path / "base"), str(tmp_path / "sft"), tmp_path / "reward"
    assert main(["text", "pretrain", "--size", "tiny", "--paragraphs", "150", "--out", base, *fast]) == 0
    learning = ["--examples", "100", "--training.optimiser.learning-rate", "1e-3"]
    assert main(["text", "sft", "--model", base, *learning, "--out", sft, *fast]) == 0
    ask = ["--prompts", "100", "--max-tokens", "48", "--device", "cpu"]
    assert main(["text", "ask", "--model", sft, "--record", str(record), *ask]) == 0
    viewer = Viewer(record, display, ("--name", "anna"))
    display.key("space")  # past the instruction
    with PreferenceStore(record) as store:
        num = store.num_open()
    assert num >= 12  # prompts to which the small model gave two different answers that came to an end
    keys = [*(["Left", "Right"] * num)[: num - 2], "Down", "Up"]
    press(display, record, *keys)
    display.key("q")
    assert f"{num} answers given as 'anna'" in viewer.process.communicate(timeout=20)[0]
    given = [answer for answer in answers(record) if isinstance(answer, Comparison)]
    assert [answer.preference for answer in given[-2:]] == [None, 0.5]
    for key, answer in zip(keys, given[:-2], strict=False):
        assert answer.shown is not None and answer.preference == float(answer.shown[key == "Right"] == 0)
    options = ["--training.epochs", "1", "--training.batch-size", "4"]
    data = ["--model", sft, "--data", str(record)]
    assert main(["text", "reward", *data, "--out", str(reward), *options, *fast]) == 0
    assert json.loads((reward / "summary.json").read_text())["steps"] >= 1
