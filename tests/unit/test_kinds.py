"""What every kind of answer keeps to, the three of the package and one of a user's own."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from torch import Tensor

from prefrl.annotators import make_teacher
from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer, Comparison, Query, Ranking, Rating, Strength
from prefrl.feedback.answers import groups_of
from prefrl.likelihood import mixed_with_chance
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.seams import consent
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

pytestmark = pytest.mark.lowest


@dataclass(frozen=True, kw_only=True)
class Best(Answer):
    """Which of several is the best; nothing is said of the others."""

    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 9
    best: int | None

    def check(self, num_items: int, scale: int | None) -> None:
        if self.best is not None and not 0 <= self.best < num_items:
            raise UserError(f"One of {num_items} is the best. Received {self.best}")

    def pairs(self, num_items: int) -> list[tuple[int, int, float]]:
        both = itertools.combinations(range(num_items), 2)
        return [(i, j, float(i == self.best)) for i, j in both if self.best in (i, j)]

    @classmethod
    def from_order(cls, groups: Sequence[Sequence[int]], num_items: int) -> Any:
        return groups[0][0]

    @classmethod
    def encode(cls, answers: Sequence[Any]) -> tuple[Any, ...]:
        return (np.array([answer.best for answer in answers]),)

    @classmethod
    def log_likelihood(cls, scores: Tensor, encoded: Sequence[Tensor], error_rate: float | Tensor) -> Tensor:
        best = encoded[0].expand(len(scores), -1).unsqueeze(-1)
        chosen = scores.log_softmax(-1).gather(-1, best).squeeze(-1)
        return mixed_with_chance(chosen, error_rate, (scores > -math.inf).sum(-1).log())


EVERY_KIND = [Comparison, Ranking, Rating, Strength, Best]
SCALE = 4
DEGREES = list(range(-3, 4))
CUTS = torch.tensor([-1.0, 0.5, 2.0, *[math.inf] * 5])


def said_of(kind: type[Answer], num_items: int) -> list[Any]:
    """Return every answer without a tie that could be given."""
    if kind is Rating:
        return list(range(1, SCALE + 1))
    if kind is Strength:
        return DEGREES
    if kind is Ranking:
        return [tuple(order) for order in itertools.permutations(range(1, num_items + 1))]
    return [1.0, 0.0] if kind is Comparison else list(range(num_items))


def answer(kind: type[Answer], value: Any) -> Answer:
    return kind.saying(value, query_id="q", annotator="anna")


def log_likelihood(kind: type[Answer], scores: Sequence[float], values: Sequence[Any], error_rate: float) -> Tensor:
    given = torch.tensor(scores, dtype=torch.float64).expand(1, len(values), -1)
    encoded = [torch.from_numpy(part) for part in kind.encode([answer(kind, value) for value in values])]
    if kind.graded:
        cuts = CUTS if kind is Rating else torch.tensor([-3.0, -1.5, -0.4, 0.4, 1.5, 3.0, math.inf, math.inf])
        encoded.append(cuts.double().expand(1, len(values), -1))
    return kind.log_likelihood(given, encoded, error_rate)[0]


def num_items_of(kind: type[Answer]) -> int:
    return min(max(kind.fewest, 4), kind.most)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("error_rate", [0.0, 0.1])
def test_the_answers_that_could_be_given_have_probabilities_that_sum_to_one(kind: Any, error_rate: float) -> None:
    num_items = num_items_of(kind)
    values = said_of(kind, num_items)
    assert len(values) == kind.num_outcomes(num_items, SCALE if kind.graded else None)
    found = log_likelihood(kind, [0.3, -1.2, 2.5, 0.1][:num_items], values, error_rate).exp()
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float(found.min()) >= error_rate / len(values) - 1e-6


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_the_likeliest_answer_is_the_one_that_a_teacher_with_these_sums_gives(kind: Any) -> None:
    if kind.graded:
        pytest.skip("a grade depends on cut points")
    scores = [0.3, -1.2, 2.5, 0.1][: num_items_of(kind)]
    best_first = [[int(item)] for item in np.argsort(-np.array(scores))]
    values = said_of(kind, len(scores))
    likeliest = values[int(log_likelihood(kind, scores, values, 0.0).argmax())]
    assert kind.from_order(best_first, len(scores)) == likeliest


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_an_answer_is_the_same_after_it_was_written_as_json(kind: Any) -> None:
    for value in [*said_of(kind, num_items_of(kind)), None]:
        given = answer(kind, value)
        written = json.dumps(given.to_json())
        assert kind.from_json(json.loads(written), query_id="q", annotator="anna") == given
        assert given.value == value


def test_what_is_written_is_what_records_have_always_held() -> None:
    values = [answer(Comparison, 0.5), answer(Ranking, (2, 1, 2)), answer(Rating, 4), answer(Ranking, None)]
    assert [json.dumps(given.to_json()) for given in values] == ["0.5", "[2, 1, 2]", "4", "null"]


@given(st.lists(st.integers(1, 4), min_size=3, max_size=9))
def test_the_pairs_of_a_ranking_are_those_of_its_order_and_its_opposite_turns_each_round(drawn: list[int]) -> None:
    places = sorted(set(drawn))
    ranking = answer(Ranking, tuple(places.index(rank) + 1 for rank in drawn))
    pairs = ranking.pairs(len(drawn))
    assert pairs == [
        (i, j, 0.5 if drawn[i] == drawn[j] else float(drawn[i] < drawn[j]))
        for i, j in itertools.combinations(range(len(drawn)), 2)
    ]
    assert Ranking.from_order(groups_of(ranking.value), len(drawn)) == ranking.value
    assert ranking.opposite(None).pairs(len(drawn)) == [(i, j, 1 - preference) for i, j, preference in pairs]


def test_opposites_of_comparisons_and_ratings() -> None:
    assert [answer(Comparison, p).opposite(None).value for p in (1.0, 0.5, 0.0, None)] == [0.0, 0.5, 1.0, None]
    assert [answer(Rating, grade).opposite(5).value for grade in (1, 3, 5, None)] == [5, 3, 1, None]
    with pytest.raises(UserError, match=r"opposite of an answer of the kind .*:Best cannot be told"):
        answer(Best, 2).opposite(None)


# ---------------------------------------------------------------------------------------------------- of one's own


def segments(num: int, seed: int = 0, length: int = 3) -> list[Segment]:
    rng = np.random.default_rng(seed)
    observations = [rng.normal(size=(length + 1, 2)).astype(np.float32) for _ in range(num)]
    return [
        Segment(observations=o, actions=np.zeros((length, 1), np.float32), true_rewards=o[1:, 0].astype(np.float64))
        for o in observations
    ]


def ensemble() -> RewardEnsemble:
    box = spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1, 1, (1,))
    return RewardEnsemble(*box, RewardSettings(), seed=0)


def test_a_kind_of_ones_own_goes_from_a_teacher_through_the_record_into_the_data_of_a_fit(tmp_path: Path) -> None:
    shown = segments(240)
    sizes = itertools.cycle((3, 5))  # queries of unlike size lie in one minibatch
    queries = []
    while len(shown) >= 5:
        size = next(sizes)
        queries.append(Query(segments=tuple(shown[:size]), kind=Best))
        del shown[:size]
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        store.add_queries(queries)
        store.add_answers(make_teacher("oracle", seed=0).answer(queries))
        answers = [entry for _, entry in store.answers() if isinstance(entry, Best)]
        assert store.num_answers() == len(queries) and store.num_open() == 0
        with pytest.raises(UserError, match=r"One of 3 is the best\. Received 3"):
            store.add_answers([Best(best=3, query_id=queries[0].id, annotator="ben")])
        with pytest.raises(UserError, match=r"asks for a .*:Best; got a comparison"):
            store.add_answers([Comparison(preference=1.0, query_id=queries[0].id, annotator="ben")])
    sums = {query.id: [float(segment.true_rewards.sum()) for segment in query.segments] for query in queries}
    assert [given.best for given in answers] == [int(np.argmax(sums[given.query_id])) for given in answers]
    reward = ensemble()
    data = ComparisonData(reward, 3)
    counts = data.draw_counts(len(answers), np.random.default_rng(0))
    items = [data.encode(query.segments) for query in queries]
    data.add_answers(items, answers, [None] * len(answers), counts)
    report = Fitter(reward, FitSettings(first_steps=300, learning_rate=3e-3)).fit(data, torch.Generator())
    assert min(value for value in report.held_out_accuracy if value is not None) > 0.7
    assert min(value for value in report.train_accuracy if value is not None) > 0.75


def test_the_viewer_asks_for_a_kind_of_ones_own_by_its_numbers() -> None:
    pytest.importorskip("av")
    from prefrl.human_ui.actions import Action, Save
    from prefrl.human_ui.questions import Item, Question, Standing
    from prefrl.human_ui.session import Session

    session = Session(Standing(run="r", environment="e"))
    session.press(Action.CONFIRM)
    items = tuple(Item(text=text) for text in "abc")
    session.offer(Question(query_id="q", kind=KINDS.name(Best), annotator="anna", items=items, order=(2, 0, 1)))
    session.press(Action.LEFT)
    assert session.notice == Best.keys and session.take_commands() == []
    session.digit(1)
    (command,) = session.take_commands()
    assert isinstance(command, Save) and isinstance(command.answer, Best)
    assert (command.answer.best, command.answer.shown) == (2, (2, 0, 1))


def test_a_record_whose_kind_of_answer_is_not_here_says_so_and_is_not_called_damaged(tmp_path: Path) -> None:
    module = ModuleType("kinds_elsewhere")
    sys.modules[module.__name__] = module
    exec("from tests.unit.test_kinds import *\nclass Mine(Best): pass", vars(module))
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        query = Query(segments=tuple(segments(3)), kind="kinds_elsewhere:Mine")
        store.add_queries([query])
        store.add_answers([module.Mine(best=0, query_id=query.id, annotator="anna")])
        del sys.modules[module.__name__]
        for read in (store.answers, lambda: store.query(query.id)):
            with pytest.raises(UserError, match=r"^The kind of answer 'kinds_elsewhere:Mine' is code, which"):
                read()
        consent(["kinds_elsewhere:Mine"])
        for read in (store.answers, lambda: store.query(query.id)):
            with pytest.raises(UserError, match=r"^There is no module 'kinds_elsewhere' to load the kind of"):
                read()
        assert store.num_answers() == 1 and [card.kind for card in store.cards([query.id])] == [query.kind]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict, r"must be a dataclass that extends prefrl.feedback.Answer"),
        (type("Two", (Best,), {"__annotations__": {"more": "int"}, "more": 1}), None),
        (type("Wide", (Best,), {"most": 12}), r"fewest and most, 1 to 9. Received 2 and 12"),
        (type("Bare", (Best,), {"from_order": Answer.from_order}), r"has no from_order; see prefrl.feedback.Answer"),
        (type("Grades", (Best,), {"graded": True}), r"most must be 1. Received 9"),
    ],
)
def test_what_is_no_kind_of_answer_is_refused(wrong: Any, message: str | None) -> None:
    if message is None:
        wrong, message = dataclass(frozen=True, kw_only=True)(wrong), r"must add one field.*\['best', 'more'\]"
    with pytest.raises(UserError, match=message):
        KINDS.find(wrong)


def test_unknown_kinds_offer_near_ones() -> None:
    with pytest.raises(UserError, match=r"There is no kind of answer 'rankin'.*Did you mean 'ranking'"):
        Query(kind="rankin")
    assert KINDS.name(Ranking) == "ranking" and Query(segments=tuple(segments(3)), kind=Ranking).kind == "ranking"


# ---------------------------------------------------------------------------------------------------- data of a fit


def test_cut_points_stay_with_their_annotator_when_the_order_of_answers_changes() -> None:
    """As after a resume: anna rated first, took that back and rated again after ben."""
    reward, shown = ensemble(), segments(12)

    def data_of(names: str) -> ComparisonData:
        data = ComparisonData(reward, 3, bootstrap=False)
        answers = [
            Rating(rating=4 if name == "a" else 1, query_id="q", annotator={"a": "anna", "b": "ben"}[name])
            for name in names
        ]
        items = [data.encode([segment]) for segment, _ in zip(shown, names, strict=False)]
        data.add_answers(items, answers, [SCALE] * len(names), data.draw_counts(len(names), np.random.default_rng(0)))
        return data

    fitter = Fitter(reward, FitSettings(first_steps=20, num_steps=1))
    fitter.fit(data_of("aabbab"), torch.Generator())
    assert fitter.cut_points.names == [("anna", SCALE, "rating"), ("ben", SCALE, "rating")]
    before = fitter.cut_points.table()[:, :, 0].mean(0).detach()
    assert before[0] < before[1] - 0.5  # anna, who grades high, has the lower ones
    fitter.fit(data_of("bbaaba"), torch.Generator())
    after = fitter.cut_points.table()[:, :, 0].mean(0).detach()
    assert fitter.cut_points.names == [("anna", SCALE, "rating"), ("ben", SCALE, "rating")]
    assert abs(float(after[0] - before[0])) < 0.2 and abs(float(after[1] - before[1])) < 0.2


@given(data=st.data())
def test_what_was_removed_leaves_no_trace_in_the_data(data: st.DataObject) -> None:
    reward, shown = ensemble(), segments(9)
    whole, kept = ComparisonData(reward, 3), []
    for step in range(data.draw(st.integers(1, 8))):
        kind: Any = data.draw(st.sampled_from([Comparison, Ranking, Rating]))
        num_items = num_items_of(kind)
        given = answer(kind, data.draw(st.sampled_from(said_of(kind, num_items))))
        counts, scale = np.full((1, reward.num_members), float(step)), SCALE if kind.graded else None
        whole.add_answers([whole.encode(shown[:num_items])], [given], [scale], counts)
        kept.append((given, num_items, scale, float(step)))
        if data.draw(st.booleans()):
            row = data.draw(st.integers(0, len(kept) - 1))
            whole.remove(row)
            del kept[row]
    assert whole.answers == [given for given, *_ in kept]
    assert [len(items) for items in whole.items] == [num_items for _, num_items, *_ in kept]
    assert (whole.scales, whole.counts[:, 0].tolist()) == ([k[2] for k in kept], [k[3] for k in kept])


# ---------------------------------------------------------------------------------------------------- strengths


def test_a_strength_with_two_degrees_left_is_bradley_terry() -> None:
    """With every cut point at one place, all that is said is which is better (Agresti 1992)."""
    near = torch.tensor([-3e-4, -2e-4, -1e-4, 1e-4, 2e-4, 3e-4, math.inf, math.inf], dtype=torch.float64)
    scores = torch.tensor([[[0.9, -0.4]]], dtype=torch.float64)
    grades = torch.arange(1, 8).unsqueeze(1)
    each = torch.stack([Strength.log_likelihood(scores, (g, near.expand(1, 1, -1)), 0.0)[0, 0] for g in grades]).exp()
    better = float(torch.sigmoid(torch.tensor(1.3)))
    assert float(each[6]) == pytest.approx(better, abs=1e-3) and float(each[0]) == pytest.approx(1 - better, abs=1e-3)


@pytest.mark.parametrize(
    ("grade", "shown", "degree"), [(1, (0, 1), 3), (1, (1, 0), -3), (4, (1, 0), 0), (6, (0, 1), -2)]
)
def test_a_number_says_how_much_better_what_is_shown_there_is(grade: int, shown: Any, degree: int) -> None:
    assert Strength.from_grade(grade, shown) == degree
    assert Strength.saying(degree, query_id="q", annotator="a").opposite(7).degree == -degree


def test_a_strength_has_seven_degrees_and_says_so() -> None:
    with pytest.raises(UserError, match=r"A strength is from -3 .* to 3 .* Received 4"):
        Strength(query_id="q", annotator="a", degree=4)
    with pytest.raises(UserError, match=r"A strength has a scale of 7\. Received 5"):
        Query(segments=tuple(segments(2)), kind="strength", scale=5)


def test_strengths_teach_a_reward_and_a_coins_do_not() -> None:
    held_out = {}
    for teacher in ("oracle", "coin"):
        reward, shown = ensemble(), segments(160)
        queries = [Query(segments=tuple(shown[i : i + 2]), kind=Strength, scale=7) for i in range(0, 160, 2)]
        answers = make_teacher(teacher, seed=0).answer(queries)
        assert {answer.value for answer in answers} >= {-1, 0, 1}
        for query, said in zip(queries, answers, strict=True):
            difference = float(query.segments[0].true_rewards.sum() - query.segments[1].true_rewards.sum())
            assert teacher == "coin" or said.value * difference >= 0
        data = ComparisonData(reward, 3)
        items = [data.encode(query.segments) for query in queries]
        data.add_answers(items, answers, [7] * 80, data.draw_counts(80, np.random.default_rng(0)))
        fitter = Fitter(reward, FitSettings(first_steps=600, learning_rate=3e-3))
        report = fitter.fit(data, torch.Generator())
        held_out[teacher] = np.mean([value for value in report.held_out_accuracy if value is not None])
    assert held_out["oracle"] > 0.63 > held_out["coin"]


def test_strengths_and_ratings_of_one_annotator_keep_their_own_cut_points() -> None:
    reward, shown = ensemble(), segments(20)
    queries = [Query(segments=tuple(shown[i : i + 2]), kind=Strength, scale=7) for i in range(0, 20, 2)]
    answers = make_teacher("oracle", seed=0).answer(queries)
    data = ComparisonData(reward, 3)
    items = [data.encode(query.segments) for query in queries]
    data.add_answers(items, answers, [7] * 10, data.draw_counts(10, np.random.default_rng(0)))
    rated = [Rating(rating=4, query_id="q", annotator=answers[0].annotator)]
    data.add_answers([data.encode(shown[:1])], rated, [7], data.draw_counts(1, np.random.default_rng(1)))
    fitter = Fitter(reward, FitSettings(first_steps=20))
    fitter.fit(data, torch.Generator())
    assert [kind for _, _, kind in fitter.cut_points.names] == ["strength", "rating"]


def test_cut_points_of_earlier_checkpoints_are_those_of_ratings() -> None:
    fitter = Fitter(ensemble(), FitSettings())
    fitter.cut_points.restore({"names": [["anna", 4]], "values": [torch.zeros(3, 3)]})
    assert fitter.cut_points.names == [("anna", 4, "rating")]
