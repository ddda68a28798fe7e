"""Plots: what is drawn is read back from the figures, and every gap in the data is survived."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefrl.control import curves
from prefrl.control.curves import plot_learning_curves
from prefrl.errors import MissingExtraError, UserError
from prefrl.quality import AnnotatorQuality, Quality
from prefrl.rewards.calibration import Calibration
from prefrl.rewards.report import ReportCard, Tercile
from prefrl.runs import plotting
from prefrl.shares import Share
from prefrl.studies import report_plot
from prefrl.studies.report_plot import plot_report


def a_card(**changes: Any) -> ReportCard:
    third = Tercile(
        learned_return_from=-1.0,
        learned_return_to=1.0,
        num_segments=20,
        num_pairs=600,
        num_ties=0,
        accuracy=0.8,
        pearson_per_segment=0.7,
        spearman_per_segment=0.7,
    )
    calibration = Calibration(
        bin_edges=(0.0, 0.5, 1.0), counts=(3, 7), predicted=(0.2, 0.9), observed=(0.1, 0.8), expected_error=0.1
    )
    values: dict[str, Any] = {
        "num_segments": 60,
        "segment_length": 50,
        "num_pairs": 2000,
        "num_ties": 0,
        "accuracy": 0.9,
        "log_loss": 0.3,
        "calibration": calibration,
        "pearson_per_step": 0.5,
        "spearman_per_step": 0.6,
        "pearson_per_segment": 0.8,
        "spearman_per_segment": 0.7,
        "terciles": (third, third, third),
        "epic_distance": 0.25,
        "direct_distance": 0.4,
        "true_reward_r2": 0.97,
        "true_reward_model": "ridge",
        "gamma": 0.99,
        "error_rate": 0.0,
        "learned_returns": (1.0, 2.0, 3.0),
        "true_returns": (2.0, 4.0, 5.0),
    }
    return ReportCard(**values | changes)


UNKNOWN = dict.fromkeys(
    (
        *("accuracy", "log_loss", "calibration", "pearson_per_step", "spearman_per_step", "pearson_per_segment"),
        *("spearman_per_segment", "epic_distance", "direct_distance", "true_reward_r2", "true_reward_model"),
    )
)
ROWS = [{"num_env_steps": 1000 * i, "labels": 10 * i, "true_return": 5.0 * i, "learned_return": i} for i in range(1, 6)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved."""
    kept: list[Any] = []
    save = plotting.save_figure

    def keep(figure: Any, path: Path) -> None:
        kept.append(figure)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save(figure, path)

    for module in (curves, report_plot):
        monkeypatch.setattr(module, "save_figure", keep)
    return kept


def texts(figure: Any) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_the_report_shows_every_number(tmp_path: Path, drawn: list[Any]) -> None:
    plot_report(a_card(), ROWS, tmp_path / "deep" / "report.png")
    shown = texts(drawn[0])
    for expected in ("60 held-out segments of 50 steps", "EPIC distance 0.25", "R² 0.97", "Pearson distance 0.40"):
        assert expected in shown
    for expected in ("calibration error 0.100", "log-loss 0.30 nats", "share of 10 pairs", "Pearson 0.80", "0.90"):
        assert expected in shown
    with Image.open(tmp_path / "deep" / "report.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
        assert np.asarray(picture.convert("L")).std() > 10


def test_the_report_shows_the_answers_below(tmp_path: Path, drawn: list[Any]) -> None:
    share = Share(num=10, share=0.9, low=0.6, high=0.98)
    ann = AnnotatorQuality(
        name="ann",
        kind="person",
        num_answers=40,
        num_ties=2,
        num_cannot_tell=1,
        consistency=share,
        chose_left=None,
        agreement=None,
        median_seconds=2.0,
        too_fast=None,
        gold=None,
    )
    answers = Quality(annotators=(ann,), pairs=(), alpha_comparisons=0.71, alpha_ratings=None, seconds={"ann": (2.0,)})
    assert answers.anything_known
    assert not replace(answers, annotators=(replace(ann, consistency=None),)).anything_known
    plot_report(a_card(), ROWS, tmp_path / "report.png", answers=answers, reliability={"ann": 0.95})
    shown = texts(drawn[0])
    for expected in ("EPIC distance 0.25", "ann (40)", "alpha): 0.71", "reliability in the fit", "not known yet"):
        assert expected in shown


def test_what_cannot_be_told_is_said(tmp_path: Path, drawn: list[Any]) -> None:
    missing = {"calibration": "every pair ties", "epic_distance": "constant", "terciles": "too few segments"}
    plot_report(a_card(**UNKNOWN, terciles=(), missing=missing), [], tmp_path / "report.png")
    shown = texts(drawn[0])
    for expected in (
        "every pair ties",
        "no EPIC distance: constant",
        "too few segments",
        "no metrics of a training run",
    ):
        assert expected in shown
    assert shown.count("cannot be told") == 5


def test_thirds_of_ties_are_named_in_their_own_panel(tmp_path: Path, drawn: list[Any]) -> None:
    known = a_card().terciles[0]
    ties = replace(known, accuracy=None)
    plot_report(a_card(terciles=(ties, ties, known)), ROWS, tmp_path / "report.png")
    (panel,) = (axes for axes in drawn[0].axes if axes.get_title(loc="left").startswith("Accuracy within each third"))
    said = [text for text in panel.texts if text.get_text() == "only ties"]
    assert len(said) == 2
    frame = panel.get_window_extent()
    for text in said:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ROWS[:1],
        [{"num_env_steps": 10}],
        [{"num_env_steps": 10, "true_return": None, "learned_return": math.nan}],
        [{"num_env_steps": 10, "true_return": math.inf, "learned_return": 3.0}, {}],
    ],
)
def test_gaps_in_the_metrics_are_survived(rows: list[dict[str, Any]], tmp_path: Path, drawn: list[Any]) -> None:
    plot_report(a_card(), rows, tmp_path / "report.png")
    plot_learning_curves({"learned": rows, "true reward": []}, tmp_path / "curves.png", "Any-v0")
    assert len(drawn) == 2


def test_negative_agreement_is_drawn_to_the_left(tmp_path: Path, drawn: list[Any]) -> None:
    plot_report(a_card(pearson_per_step=-0.9), ROWS, tmp_path / "report.png")
    agreement = next(axes for axes in drawn[0].axes if axes.get_title(loc="left") == "Agreement with the true reward")
    assert agreement.get_xlim()[0] < -0.9
    assert min(bar.get_width() for bar in agreement.patches) == pytest.approx(-0.9)


def test_learning_curves_skip_missing_values_and_show_labels(tmp_path: Path, drawn: list[Any]) -> None:
    rows: list[dict[str, Any]] = [*ROWS, {"num_env_steps": 9000, "labels": 50, "true_return": None}]
    baseline = [{"num_env_steps": row["num_env_steps"], "labels": 0, "true_return": 7.0} for row in ROWS]
    path = tmp_path / "curves.png"
    plot_learning_curves({"learned from 50 comparisons": rows, "true reward": baseline}, path, "CartPole-v1")
    main, labels = drawn[0].axes
    first, second = main.lines
    np.testing.assert_array_equal(first.get_xydata(), [[1000 * i, 5 * i] for i in range(1, 6)])
    np.testing.assert_array_equal(second.get_ydata(), [7] * 5)
    assert first.get_color() != second.get_color() and first.get_linestyle() != second.get_linestyle()
    assert main.get_title(loc="left") == "CartPole-v1" and main.get_xlabel() == "environment steps"
    assert list(labels.get_yticks()) == [0, 50]
    legend = [text.get_text() for text in main.get_legend().get_texts()]
    assert legend == ["learned from 50 comparisons", "true reward", "labels asked (right axis)"]


def test_curves_without_labels_have_one_axis(tmp_path: Path, drawn: list[Any]) -> None:
    plot_learning_curves({"true reward": [{"num_env_steps": 5, "true_return": 1}]}, tmp_path / "c.png", "X")
    assert len(drawn[0].axes) == 1


def test_the_same_data_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot_learning_curves({"run": ROWS}, tmp_path / f"{name}.png", "X")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    plot_report(a_card(), ROWS, tmp_path / "report.png")


def test_a_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"prefrl\[train\]"):
        plot_learning_curves({"run": ROWS}, tmp_path / "c.png", "X")


def test_a_file_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "c.png").mkdir()
    with pytest.raises(UserError, match="Could not write"):
        plot_learning_curves({"run": ROWS}, tmp_path / "c.png", "X")
