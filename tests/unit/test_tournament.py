"""Tournaments: who is found best, that they go on where they stopped, and what is no tournament."""

from __future__ import annotations

import importlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrl.annotators import make_teacher
from prefrl.cli import main
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query, Response
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.studies.contestants import JudgeAnnotator, short_names
from prefrl.studies.tournament import OPEN_AT_ONCE, Tournament, on_scale


class Strong:
    """A player whose segments are worth so much, give or take."""

    def __init__(self, name: str, worth: float) -> None:
        self.name, self._worth = name, worth

    def show(self, number: int) -> tuple[Any, None]:
        rng = np.random.default_rng([number, len(self.name)])
        rewards = np.array([self._worth + rng.logistic(), 0.0])
        observations = rng.normal(size=(3, 2)).astype(np.float32)
        return Segment(observations=observations, actions=np.zeros((2, 1), np.float32), true_rewards=rewards), None


PLAYERS = [Strong("a", 0.0), Strong("bb", 2.0), Strong("ccc", 4.0)]
NAMES = ["a", "bb", "ccc"]


@pytest.mark.slow
def test_a_teacher_finds_the_order_and_a_stopped_tournament_goes_on(tmp_path: Path) -> None:
    once = Tournament(tmp_path / "once", NAMES).play(PLAYERS, 60, make_teacher("oracle", seed=0), seed=0)
    assert once.order() == [2, 1, 0]
    assert len(once.games) == 60
    for games in (25, 60):
        parts = Tournament(tmp_path / "parts", NAMES).play(PLAYERS, games, make_teacher("oracle", seed=0), seed=0)
        assert len(parts.games) == games
    assert parts.games == once.games
    rows = parts.to_json()["players"]
    assert [row["name"] for row in rows] == ["ccc", "bb", "a"]
    assert all(row["low"] <= row["rating"] <= row["high"] for row in rows)
    assert sum(row["games"] for row in rows) == 120
    assert np.mean([row["rating"] for row in rows]) == pytest.approx(on_scale(0.0))


def test_people_are_asked_a_few_at_a_time_and_their_answers_count(tmp_path: Path) -> None:
    contest = Tournament(tmp_path / "cup", NAMES)
    assert contest.play(PLAYERS, 30, None, seed=0).num_open == OPEN_AT_ONCE
    assert contest.play(PLAYERS, 30, None, seed=0).num_open == OPEN_AT_ONCE, "nothing is asked twice"
    with PreferenceStore(contest.record) as store:
        for number, query in enumerate(store.open_queries()):
            first, second = (segment.true_rewards.sum() for segment in query.segments)
            preference = None if number == 0 else float(first > second)
            store.add_answers([Comparison(query_id=query.id, annotator="anna", preference=preference)])
    standing = contest.play(PLAYERS, 30, None, seed=0)
    assert (len(standing.games), standing.num_cannot_tell, standing.num_open) == (OPEN_AT_ONCE - 1, 1, 10)
    assert standing.order()[0] == 2
    with PreferenceStore(contest.record) as store:
        row = store.answers()[-1][0]
        store.undo(row, "anna")
    assert len(contest.standing().games) == OPEN_AT_ONCE - 2, "what was taken back counts no longer"


def test_a_question_left_open_by_a_kill_is_answered(tmp_path: Path) -> None:
    contest = Tournament(tmp_path / "cup", NAMES)
    contest.play(PLAYERS, 5, None, seed=0)
    standing = contest.play(PLAYERS, 5, make_teacher("oracle", seed=0), seed=0)
    assert (len(standing.games), standing.num_open) == (5, 0)


def test_a_record_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    contest = Tournament(tmp_path / "cup", NAMES)
    contest.play(PLAYERS, 5, make_teacher("oracle", seed=0), seed=0)
    for path in tmp_path.glob("cup/record.sqlite*"):
        path.unlink()
    with pytest.raises(UserError, match="is gone"):
        contest.standing()
    with pytest.raises(UserError, match="is gone"):
        contest.play(PLAYERS, 6, make_teacher("oracle", seed=0), seed=0)


def play(path: Path, games: int) -> list[Any]:
    return Tournament(path, NAMES).play(PLAYERS, games, make_teacher("oracle", seed=0), seed=0).games


def test_a_kill_between_a_question_and_its_note_leaves_no_question_out(tmp_path: Path) -> None:
    once = play(tmp_path / "once", 8)
    play(tmp_path / "cup", 5)
    noted = tmp_path / "cup" / "games.jsonl"
    lost = noted.read_text().splitlines()[-1].replace('"query": "', '"query": "0')
    noted.write_text(noted.read_text() + lost + "\n" + lost[:20])
    assert play(tmp_path / "cup", 8) == once
    assert len(noted.read_text().splitlines()) == 8


def test_an_answer_to_no_question_there_is_damage(tmp_path: Path) -> None:
    play(tmp_path / "cup", 5)
    with sqlite3.connect(tmp_path / "cup" / "record.sqlite") as connection:
        connection.execute("UPDATE answers SET query_id = '0' WHERE id = 2")
    with pytest.raises(UserError, match="is damaged"):
        play(tmp_path / "cup", 6)


def test_a_record_that_lacks_questions_is_refused(tmp_path: Path) -> None:
    play(tmp_path / "cup", 5)
    noted = tmp_path / "cup" / "games.jsonl"
    noted.write_text(noted.read_text().replace('"query": "', '"query": "0'))
    with pytest.raises(UserError, match="lacks 5 of the 5 questions"):
        play(tmp_path / "cup", 8)
    (tmp_path / "cup" / "record.sqlite").write_bytes(b"")
    for look in (Tournament(tmp_path / "cup").standing, lambda: play(tmp_path / "cup", 8)):
        with pytest.raises(UserError, match="no record at"):
            look()


@pytest.mark.parametrize("again", ["left out", "renamed"])
def test_a_list_that_lacks_games_is_refused_and_the_tournament_ends(tmp_path: Path, again: str) -> None:
    play(tmp_path / "cup", 6)
    noted = tmp_path / "cup" / "games.jsonl"
    lines = noted.read_text().splitlines(keepends=True)
    lines[2:3] = [] if again == "left out" else [json.dumps({**json.loads(lines[2]), "query": "\0"}) + "\n"]
    noted.write_text("".join(lines))
    for look in (Tournament(tmp_path / "cup").standing, lambda: play(tmp_path / "cup", 8)):
        with pytest.raises(UserError, match="does not say between whom 1 of the 6 questions"):
            look()
    assert noted.read_text() == "".join(lines)


def test_a_question_between_two_pairs_is_refused(tmp_path: Path) -> None:
    play(tmp_path / "cup", 2)
    noted = tmp_path / "cup" / "games.jsonl"
    first = json.loads(noted.read_text().splitlines()[0])
    noted.write_text(noted.read_text() + json.dumps({**first, "players": first["players"][::-1]}) + "\n")
    with pytest.raises(UserError, match="line 3 is damaged: an earlier line has the same question between others"):
        play(tmp_path / "cup", 4)


@pytest.mark.parametrize(
    "content",
    [
        "", "[" * 100_000, "[]", '{"format": "prefrl.tournament", "players": ["a", "a"]}',
        '{"format": "prefrl.tournament", "players": ["a", "b"], "instruction": 3}',
    ],
)  # fmt: skip
def test_a_damaged_list_of_players_is_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "tournament.json").write_text(content)
    with pytest.raises(UserError, match=r"tournament\.json cannot be read"):
        Tournament(tmp_path)


@pytest.mark.parametrize("line", ["[" * 100_000, "{}", '{"query": "q", "players": ["a", "a"]}', "\udcff", "NaN"])
def test_a_damaged_list_of_games_is_a_sentence(line: str, tmp_path: Path) -> None:
    play(tmp_path / "cup", 2)
    noted = tmp_path / "cup" / "games.jsonl"
    noted.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n" + noted.read_bytes())
    with pytest.raises(UserError, match=r"games\.jsonl, line 1 is damaged"):
        Tournament(tmp_path / "cup").standing()


def test_a_judge_is_asked_in_both_orders() -> None:
    class Biased:
        name = "biased"

        def prefer_first(self, prompt: str, first: str, second: str) -> float | None:
            return {"good": 1.0, "odd": None}.get(first, 0.0 if second == "good" else 0.9)

    def query(first: str, second: str) -> Query:
        return Query(responses=tuple(Response(prompt="p", text=text) for text in (first, second)), kind="comparison")

    pairs = [("good", "bad"), ("bad", "good"), ("bad", "worse"), ("bad", "odd"), ("odd", "bad")]
    said = [answer.preference for answer in JudgeAnnotator(Biased()).answer([query(*pair) for pair in pairs])]
    assert said == [1.0, 0.0, 0.5, None, None]


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert short_names(["runs/a/x", "runs/b/x"]) == ["a/x", "b/x"]
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["/a", "a"]) in (["/a", "a"], ["//a", "a"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "{new}"], "no tournament in"),
        (["{new}", "--out", "{new}", "--games", "0"], "at least 1"),
        (["{empty}", "{full}", "--out", "{new}"], "prefrl"),
        (["{empty}", "{full}", "--out", "{new}", "--seed", "-1"], "must be from 0"),
    ],
)
def test_what_is_no_tournament_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").write_text("x")
    places = {name: str(tmp_path / name) for name in ("new", "empty", "full")}
    assert main(["tournament", *(one.format(**places) for one in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_folders_and_lists_that_are_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two players"):
        Tournament(tmp_path / "one", ["a"])
    with pytest.raises(UserError, match="no two of one name"):
        Tournament(tmp_path / "two", ["a", "a"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(UserError, match="is not a tournament"):
        Tournament(tmp_path / "other", NAMES)
    contest = Tournament(tmp_path / "cup", NAMES)
    contest.play(PLAYERS, 1, None, seed=0)
    with pytest.raises(UserError, match="between a, bb, ccc"):
        Tournament(tmp_path / "cup", ["a", "d"])
    (tmp_path / "cup" / "games.jsonl").write_text(json.dumps({"query": "q", "players": ["a", "nobody"]}) + "\n")
    with pytest.raises(UserError, match="line 1 is damaged"):
        contest.standing()
    (tmp_path / "cup" / "tournament.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Tournament(tmp_path / "cup")


@pytest.mark.slow
def test_language_models_answer_the_same_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    text_models = importlib.import_module("text_models")
    for seed, name in enumerate(("one", "two")):
        text_models.save(tmp_path / name, seed=seed)
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {number}."}) + "\n" for number in range(3)))
    models = [str(tmp_path / name) for name in ("one", "two")]
    cup = str(tmp_path / "cup")
    arguments = ["tournament", *models, "--data", str(data), "--max-tokens", "4", "--out", cup]
    assert main([*arguments, "--games", "4", "--annotator", "human"]) == 0
    assert "4 questions wait" in capsys.readouterr().out
    with PreferenceStore(tmp_path / "cup" / "record.sqlite") as store:
        asked = store.open_queries()
        assert {query.responses[0].prompt for query in asked} == {"Say 0.", "Say 1.", "Say 2."}
        assert all(query.responses[0].prompt == query.responses[1].prompt for query in asked)
        store.add_answers([Comparison(query_id=query.id, annotator="anna", preference=0.5) for query in asked])
    assert main(["tournament", "--out", cup]) == 0
    assert "From 4 answers" in capsys.readouterr().out
    assert json.loads((tmp_path / "cup" / "ratings.json").read_text())["ties"] == 4
    assert (tmp_path / "cup" / "ratings.png").is_file()


def test_conversations_are_put_to_each_model_through_its_own_template_and_shown_as_plain_transcripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    text_models = importlib.import_module("text_models")
    measures = importlib.import_module("prefrl.text.learn.policy_measures")
    for name, template in (("one", "chatml"), ("two", "gemma")):
        text_models.save(tmp_path / name, vocab_size=270)
        text_models.chat_tokenizer(template).save_pretrained(tmp_path / name)
    data = tmp_path / "prompts.jsonl"
    data.write_text(json.dumps({"prompt": [{"role": "user", "content": "Hi."}]}) + "\n")
    asked: list[str] = []
    real = measures.answer_prompts

    def noting(model: Any, encoder: Any, prompts: list[str], *given: Any, **options: Any) -> Any:
        asked.extend(prompts)
        return real(model, encoder, prompts, *given, **options)

    monkeypatch.setattr(measures, "answer_prompts", noting)
    models = [str(tmp_path / name) for name in ("one", "two")]
    cup = tmp_path / "cup"
    words = ["--data", str(data), "--max-tokens", "4", "--games", "1", "--annotator", "human", "--out", str(cup)]
    assert main(["tournament", *models, *words]) == 0
    assert sorted(asked) == [
        "<s><start_of_turn>user\nHi.<end_of_turn>\n<start_of_turn>model\n",
        "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n",
    ]
    with PreferenceStore(cup / "record.sqlite") as store:
        (query,) = store.open_queries()
    assert {response.prompt for response in query.responses} == {"\n\nHuman: Hi.\n\nAssistant:"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge", "rule"], "--judge would do nothing here: it is for text runs"),
        (["--data", "rows.jsonl", "--constitution", "law.md"], "--constitution, --data would do nothing"),
        (["--annotator", "human", "--teacher", "noisy"], "--teacher would do nothing here: it is for programs"),
        (["--seed", "9223372036854775808"], "A seed must be from 0 to"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        ControlFolder.create(tmp_path / name, TrainSettings(env_id="Pendulum-v1").resolve(), baseline=False)
    assert main(["tournament", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "t"), *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "t").exists()
