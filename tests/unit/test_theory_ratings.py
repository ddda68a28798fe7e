"""Ratings: against choix, by hand, and over seeds for what intervals and chosen pairs promise."""

from __future__ import annotations

import numpy as np
import pytest

from prefrl.errors import UserError
from prefrl.theory.ratings import RIDGE, Game, elo, next_pair, rate, win_matrix
from prefrl.theory.tournaments import play


def test_ratings_are_those_of_choix() -> None:
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(0)
    players = [rng.choice(5, 2, replace=False).tolist() for _ in range(200)]
    games = [play(first, second, rng) for first, second in players]
    pairs = [(game.first, game.second) if game.score else (game.second, game.first) for game in games]
    assert rate(games, 5, draws=0).ratings == pytest.approx(choix.opt_pairwise(5, pairs, alpha=RIDGE / 2), abs=1e-5)


def test_ties_are_half_a_win_of_each() -> None:
    tied = rate([Game(0, 1, 0.5)] * 10, 2)
    assert tied.ratings == pytest.approx([0.0, 0.0])
    assert win_matrix([Game(0, 1, 0.5), Game(1, 0, 1.0)], 2).tolist() == [[0.0, 0.5], [1.5, 0.0]]


def test_ratings_do_not_depend_on_the_order_of_games_and_elo_does() -> None:
    games = [Game(0, 1, 1.0)] * 10 + [Game(0, 1, 0.0)] * 10
    assert rate(games, 2).ratings == pytest.approx(rate(games[::-1], 2).ratings)
    assert rate(games, 2).ratings == pytest.approx([0.0, 0.0], abs=1e-9)
    first, last = elo(games, 2), elo(games[::-1], 2)
    assert first[0] < first[1]
    assert last[0] > last[1]


def test_elo_by_hand() -> None:
    assert elo([Game(0, 1, 1.0)], 2) == pytest.approx([1016.0, 984.0])
    after = elo([Game(0, 1, 1.0), Game(0, 1, 1.0)], 2)
    assert after[0] == pytest.approx(1016 + 32 * (1 - 1 / (1 + 10 ** (-32 / 400))))


def test_who_has_not_played_yet_comes_first_then_the_pair_in_doubt() -> None:
    rng = np.random.default_rng(0)
    assert set(next_pair([], 2, rng)) == {0, 1}
    assert 2 in next_pair([Game(0, 1, 1.0)], 3, rng)
    clear = [Game(0, 2, 1.0)] * 20 + [Game(1, 2, 1.0)] * 20 + [Game(0, 1, 1.0), Game(0, 1, 0.0)]
    assert set(next_pair(clear, 3, rng)) == {0, 1}


def test_a_player_who_won_every_game_has_a_finite_rating() -> None:
    found = rate([Game(0, 1, 1.0)] * 20, 2)
    assert np.isfinite(found.ratings).all()
    assert found.ratings[0] > 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Game(0, 0, 1.0), "two players"),
        (lambda: Game(0, 1, 0.7), "0, 1/2 or 1"),
        (lambda: rate([], 2), "no games"),
        (lambda: rate([Game(0, 2, 1.0)], 2), "2 players"),
    ],
)
def test_what_is_no_game_is_refused(make: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()  # type: ignore[operator]
