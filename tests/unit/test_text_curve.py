"""Best of n, the fits of the curve, win rates, judges and data: small exact things."""

from __future__ import annotations

import itertools
import json
import math
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrl.errors import UserError
from prefrl.text.data.annotating import rank_by
from prefrl.text.data.examples import RankedResponses, likes_of, ranks_from_order
from prefrl.text.data.judge import ServerJudge, judge_pairs, question
from prefrl.text.jobs.curve import MethodCurve, fit_curve, median_curve, over_optimisation, read_chain, summarise_chain
from prefrl.text.jobs.curve_plot import plot_curves
from prefrl.text.jobs.curve_words import describe
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.learn.best_of_n import best_of_n_kl, expected_best_of_n, pick_best
from prefrl.text.learn.policy_measures import win_rate
from prefrl.text.learn.reward_training import judge_reward


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    for n in range(1, 7):
        subsets = list(itertools.combinations(range(6), n))
        by_hand = [np.mean([gold[p, max(s, key=lambda i: proxy[p, i])] for s in subsets]) for p in range(3)]
        assert np.allclose(expected_best_of_n(proxy, gold, n), by_hand)
    with pytest.raises(UserError, match="n must lie in"):
        expected_best_of_n(proxy, gold, 7)


def test_the_divergence_of_best_of_n_by_simulation() -> None:
    """The pick of n uniform draws has density n u^(n - 1): its divergence from uniform, by quadrature."""
    u = (np.arange(200_000) + 0.5) / 200_000
    for n in (1, 2, 5, 16):
        density = n * u ** (n - 1)
        assert best_of_n_kl(n) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-4)


def test_the_best_is_picked_by_row() -> None:
    assert pick_best([["a", "b"], ["c", "d"]], np.array([[0.0, 1.0], [2.0, 1.0]])) == ["b", "c"]


@pytest.mark.parametrize("best_of_n", [True, False])
def test_fits_find_the_curve_they_were_drawn_from(best_of_n: bool) -> None:
    d = np.linspace(0, 4, 9)
    gains = [0.0 if x == 0 else x * (1.5 - 0.4 * (x if best_of_n else math.log(x))) for x in d]
    fit = fit_curve(d.tolist(), gains, best_of_n=best_of_n)
    assert fit is not None
    assert (fit.alpha, fit.beta) == (pytest.approx(1.5), pytest.approx(0.4))
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.peak is not None
    around = [fit.gold(fit.peak + step) for step in (-0.01, 0.0, 0.01)]
    assert max(around) == around[1]
    assert fit_curve([0.0, 1.0], [0.0, 1.0], best_of_n=True) is None


def row(step: int, kl: float, gold: float, proxy: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "kl_nats": kl, "gold": gold, "proxy": proxy, **more}


def test_over_optimisation_is_gold_lost_while_the_proxy_did_not_fall() -> None:
    rising = MethodCurve(name="ppo", seed=0, rows=(row(0, 0, 0, 0), row(1, 1, 2, 2), row(2, 4, 1.5, 3)))
    assert over_optimisation(rising) == pytest.approx(0.5)
    both = MethodCurve(name="ppo", seed=0, rows=(row(0, 0, 0, 0), row(1, 1, 2, 2), row(2, 4, 1.5, 1)))
    assert over_optimisation(both) == 0.0


def test_the_median_curve_goes_evaluation_by_evaluation() -> None:
    golds = ([0, 1, 5], [0, 3, 4], [0, 2])
    curves = [
        MethodCurve(name="dpo", seed=s, rows=tuple(row(i, i, g, 0, sample=["a"]) for i, g in enumerate(gold)))
        for s, gold in enumerate(golds)
    ]
    middle = median_curve(curves)
    assert [each["gold"] for each in middle.rows] == [0, 2]  # the third has no third evaluation
    assert set(middle.rows[0]) == {"step", "kl_nats", "gold", "proxy"}
    assert median_curve(curves[:1]).rows == tuple({k: v for k, v in r.items() if k != "sample"} for r in curves[0].rows)


def test_the_page_and_the_picture_are_made(tmp_path: Path) -> None:
    extra = {"length": 20.0, "repetition": 0.0, "end_rate": 1.0, "geography": 1.0, "language_loss": 0.5}
    worse = extra | {"length": 40.0, "geography": 0.25, "language_loss": 3.0}
    rows = (
        row(0, 0, 1, 0, gold_each=[1, 1], **extra),
        row(1, 1, 2, 1, gold_each=[2, 2], **extra),
        row(2, 9, 1, 2, **worse),
    )
    curves = [MethodCurve(name=name, seed=0, rows=rows) for name in ("ppo-beta0.02", "ppo-ptx")]
    curves.append(
        MethodCurve(name="bestofn", seed=0, rows=(row(1, 0, 1, 0), row(2, 0.2, 1.4, 0.5), row(4, 0.6, 1.6, 0.9)))
    )
    curves += [replace(curve, seed=1) for curve in curves]
    plot_curves(curves, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    text = describe(curves)
    assert "while the proxy did not fall: ppo-beta0.02 lost 1.00, ppo-ptx lost 1.00 of gold." in text
    assert "The most gold: ppo-beta0.02, +1.00 at sqrt(KL) 1.00." in text and "its distance: ppo-beta0.02" in text
    assert "ppo-ptx ends with responses 100% longer: 40 tokens, 20 at the start" in text
    assert "kto" not in text.lower() and "dpo" not in text.lower(), "of what was not run nothing is said"
    assert "25% after ppo-beta0.02" in text
    assert "Every method was better" in text
    table = summarise_chain(curves)
    assert table[0]["best_win_rate"] == (1.0, 1.0, 1.0)
    json.dumps(table)


def test_each_sentence_of_the_page_follows_from_the_curves() -> None:
    def curve(name: str, seed: int, *points: tuple[float, float, float | None]) -> MethodCurve:
        rows = [row(i, kl, gold, 0.0 if proxy is None else proxy) for i, (kl, gold, proxy) in enumerate(points)]
        for each, (_, _, proxy) in zip(rows, points, strict=True):
            if proxy is None:
                del each["proxy"]
        return MethodCurve(name=name, seed=seed, rows=tuple(rows))

    low = [curve("ppo-beta0.1", s, (0, 0, 0), (4, 1 + s, 2), (16, 0, 3)) for s in (0, 1, 2)]
    high = [curve("ppo-beta1", s, (0, 0, 0), (1, 1, 1), (1, 1, 1)) for s in (0, 1, 2)]
    text = describe([*low, *high, curve("dpo", 0, (0, 0, None), (1, 0.5, None), (4, 0.2, None))])
    assert "while the proxy did not fall: ppo-beta0.1 lost 2.00 of gold." in text, "the median over the seeds"
    assert "- After the best point: dpo lost 0.30 of gold." in text, "nothing is said of a proxy that there is not"
    assert "PPO with beta 0.1: gold 2.00 at best and 0.00 at the end, at sqrt(KL) 4.00; with beta 1: 1.00" in text
    fell = curve("ipo", 0, (0, 0, 0), (1, 1, 2), (4, 0.5, 1))
    assert "and the proxy fell too: ipo lost 0.50" in describe([fell])
    flat = describe([curve("kto", 0, (0, 1, 0), (1, 0.95, 0))])
    assert (
        "No method ended more than 0.1 gold below" in flat and "Never better than the start, on some seed: kto" in flat
    )
    assert "PPO" not in flat and "The most gold" not in flat


def test_win_rates_count_ties_half() -> None:
    share, low, high = win_rate([1, 2, 3, 4], [0, 2, 9, 1])
    assert share == pytest.approx(0.625)
    assert low < share < high


# ------------------------------------------------------------------------------------------ rankings and data


def test_rankings_name_every_response_once() -> None:
    assert ranks_from_order([2, [0, 3], 1], 4) == (1, 3, 0, 1)
    for order, message in (([0, 1], "leaves out response 2"), ([0, 1, 1, 2], "twice"), ([0, 1, 3], "0 to 2")):
        with pytest.raises(UserError, match=message):
            ranks_from_order(order, 3)


def test_pairs_and_likes_of_a_ranking() -> None:
    ranking = RankedResponses(prompt="p", responses=("a", "b", "c"), ranks=(1, 0, 1))
    assert ranking.pairs() == [(1, 0), (1, 2)]
    assert ranking.order() == [1, 0, 2]
    assert [(like.response, like.liked) for like in likes_of([ranking])] == [("b", True), ("c", False)]


def test_a_simulated_annotator_answers_like_bradley_terry() -> None:
    values = {"good": 1.0, "bad": 0.0}
    reward = lambda p, r: [values[text] for text in r]  # noqa: E731
    exact = rank_by(reward, ["p"] * 3, [["bad", "good"]] * 3)
    assert all(r.ranks == (1, 0) for r in exact)
    noisy = rank_by(reward, [str(i) for i in range(4000)], [["bad", "good"]] * 4000, temperature=0.5)
    share = np.mean([r.ranks == (1, 0) for r in noisy])
    assert share == pytest.approx(1 / (1 + math.exp(-2.0)), abs=0.02)
    assert rank_by(reward, ["p"], [["good", "good"]]) == []


def test_a_reward_is_judged_pair_by_pair() -> None:
    report = judge_reward([np.array([2.0, 0.0, 1.0])], [[0, 1, 1]])  # one tie of the annotator is left out
    assert (report.num_pairs, report.accuracy) == (2, 1.0)
    assert report.loss == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2)
    with pytest.raises(UserError, match="ties alone"):
        judge_reward([np.array([1.0, 2.0])], [[0, 0]])


# ---------------------------------------------------------------------------------------------------- judges


class Biased:
    """Prefers whatever is shown first, and a little the longer."""

    name = "biased"

    def prefer_first(self, prompt: str, first: str, second: str) -> float:
        return 0.9 if len(first) >= len(second) else 0.8


def test_asking_in_both_orders_cancels_the_side() -> None:
    rows: list[dict[str, Any]] = []
    assert judge_pairs(Biased(), ["p", "q"], [("long answer", "short"), ("same", "same")], rows) == {
        "both responses are the same": 1
    }
    assert rows == [
        {"prompt": "p", "chosen": "long answer", "rejected": "short", "certainty": 0.55, "annotator": "biased"}
    ]


def test_pairs_on_which_a_judge_prefers_a_place_or_says_neither_are_counted() -> None:
    class Second:
        name = "second"

        def prefer_first(self, prompt: str, first: str, second: str) -> float | None:
            return None if prompt == "odd" else 0.0

    rows: list[dict[str, Any]] = []
    left_out = judge_pairs(Second(), ["p", "odd", "q"], [("a", "b"), ("a", "b"), ("c", "d")], rows)
    assert rows == []
    assert left_out == {
        "the judge prefers neither, or whichever stands in one place": 2,
        "the judge answered neither A nor B": 1,
    }


@pytest.fixture
def server() -> Any:
    replies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = replies.pop(0)
            self.send_response(reply if isinstance(reply, int) else 200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_: Any) -> None:
            pass

    asked: list[Any] = []
    made = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/v1", replies, asked
    made.shutdown()
    made.server_close()


def test_a_server_is_asked_as_openais_again_when_busy_and_paid_once(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, replies, asked = server
    monkeypatch.setattr("prefrl.servers.FIRST_WAIT", 0.0)
    judge = ServerJudge(address, "m", "Be kind.", timeout=5)
    say = lambda text: {"choices": [{"message": {"content": text}}]}  # noqa: E731
    judge.keep_answers(tmp_path / "answers.jsonl")
    replies += [429, say("B"), say("Answer A."), say("Both are fine"), {"error": "busy"}]
    assert judge.prefer_first("p", "x", "y") == 0.0
    assert asked[0]["messages"][0]["content"] == question("Be kind.", "p", "x", "y")
    assert judge.prefer_first("p", "y", "x") == 1.0
    assert judge.prefer_first("q", "x", "y") is None
    with pytest.raises(UserError, match="no OpenAI-compatible answer"):
        judge.prefer_first("r", "x", "y")
    again = ServerJudge(address, "m", "Be kind.", timeout=5)
    again.keep_answers(tmp_path / "answers.jsonl")
    assert again.prefer_first("p", "x", "y") == 0.0 and len(asked) == 5


def test_a_curve_bears_the_seed_that_its_run_was_trained_with(tmp_path: Path) -> None:
    made = {"bestofn": {"place": {"seed": 3}}, "dpo": {"place": {"seed": 3}, "training": {"seed": 0}},
            "ppo": {"place": {"seed": 0}, "training": {"seed": 5}}}  # fmt: skip
    for name, settings in made.items():
        TextFolder.create(tmp_path / name, name, settings).add_evaluation({"step": 0, "gold": 1.0, "kl_nats": 0.0})
    assert {curve.name: curve.seed for curve in read_chain(tmp_path)} == {"bestofn": 3, "dpo": 3, "ppo": 5}


def test_answers_of_a_demo_are_read_beside_each_other_and_damaged_ones_told(tmp_path: Path) -> None:
    from prefrl.text.data.sources import write_rows
    from prefrl.text.jobs.answers import FILE, describe_answers, read_answers

    assert read_answers(tmp_path) == []
    rows = [
        {"prompt": prompt, "method": method, "response": text, "ended": ended, "gold": 1.5}
        for prompt in ("My fan, order 12: it leaks.\nAnswer:", "My fan, order 34: it leaks.\nAnswer:")
        for method, text, ended in (("sft", "We | found", False), ("dpo", "Order 12.", True))
    ]  # fmt: skip
    write_rows(tmp_path / FILE, rows)
    assert read_answers(tmp_path) == rows
    page = describe_answers(rows, 1)
    assert "> My fan, order 12: it leaks. Answer:" in page
    assert "| sft | 1.5 | We \\| found ... |" in page
    assert "| dpo | 1.5 | Order 12. |" in page
    assert "order 34" not in page
    (tmp_path / FILE).write_text('{"prompt": "a", "method": "sft", "response": "b", "ended": true}\n')
    with pytest.raises(UserError, match=r"answers\.jsonl is damaged"):
        read_answers(tmp_path)


def test_a_report_on_what_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    from prefrl.text.jobs.model_commands import report

    with pytest.raises(UserError, match="There are no evaluated methods"):
        report((tmp_path / "misspelt",))
    assert not any(tmp_path.iterdir())
