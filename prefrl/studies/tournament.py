"""Which of several agents or language models is liked best: pairs of what they do, compared by people or a program.

The pairs are chosen where they tell most about the order (`prefrl.theory.ratings.next_pair`); both of a pair begin at
the same start, or answer the same prompt. What was compared lies in a record as everywhere, so that people can answer
over days, in window or browser, and a tournament that was stopped goes on. A folder holds `tournament.json` (who
plays), `games.jsonl` (which question is between whom, written before it is asked), `record.sqlite`, `ratings.json` and
`ratings.png`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prefrl.annotators import Annotator
from prefrl.errors import UserError, first_line
from prefrl.feedback import Comparison, Query
from prefrl.files import append_to, parse_json, read_json, read_plain, write_atomically
from prefrl.runs.streams import stream
from prefrl.store import Clip, PreferenceStore
from prefrl.store.addition import Addition
from prefrl.theory.linear import Floats
from prefrl.theory.ratings import ELO_PER_NAT, ELO_START, Game, Ratings, elo, next_pair, rate, win_matrix

FORMAT = "prefrl.tournament"
OPEN_AT_ONCE = 20
"""Questions that wait for people; what is asked after them builds on their answers."""


class Contestant(Protocol):
    """Who plays: a policy, a language model."""

    name: str

    def show(self, number: int) -> tuple[Any, Clip | None]:
        """Return what it does at a start or to a prompt: a segment or a response, and its clip if it was drawn.

        Args:
            number: of the start or the prompt, the same for both of a pair.
        """


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a tournament stands."""

    names: tuple[str, ...]
    games: list[Game]
    """In the order in which they were answered."""
    num_open: int
    """Questions that wait for an answer."""
    num_cannot_tell: int
    ratings: Ratings | None
    """None: nothing was answered yet."""

    def order(self) -> list[int]:
        """Return the players, the best first."""
        assert self.ratings is not None, "who asks for an order has ratings"
        return np.argsort(-self.ratings.ratings, kind="stable").tolist()

    def elo(self) -> Floats:
        """Return Elo ratings of the same games in their order."""
        return elo(self.games, len(self.names))

    def wins(self) -> Floats:
        """Return `(P, P)`: games that the row won against the column, ties by half."""
        return win_matrix(self.games, len(self.names))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON; ratings are on Elo's scale, about 1000."""
        rows: list[dict[str, Any]] = []
        if self.ratings is not None:
            by_elo, played = self.elo(), self.wins() + self.wins().T
            for player in self.order():
                rows.append(
                    {
                        "name": self.names[player],
                        "rating": on_scale(float(self.ratings.ratings[player])),
                        "low": on_scale(float(self.ratings.low[player])),
                        "high": on_scale(float(self.ratings.high[player])),
                        "elo": float(by_elo[player]),
                        "games": float(played[player].sum()),
                    }
                )
        return {
            "players": rows,
            "games": len(self.games),
            "ties": sum(game.score == 0.5 for game in self.games),
            "cannot_tell": self.num_cannot_tell,
            "open": self.num_open,
            "names": self.names,
            "wins": self.wins().tolist(),
        }


def on_scale(nats: float) -> float:
    """Return a Bradley-Terry rating on Elo's scale: 400 points are odds of ten to one, 1000 is the mean."""
    return ELO_START + ELO_PER_NAT * nats


class Tournament:
    """A tournament in a folder.

    Args:
        path: the folder; `play` makes it if it is missing.
        names: of the players; of one that is there already: the same, in any order, or none.
        described: what else is to be kept of the players, e.g. where they lie.

    Raises:
        UserError: fewer than two players, two of one name, other players than before, or the folder is something else.
    """

    def __init__(self, path: Path, names: Sequence[str] = (), described: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._config_path, self._games_path = path / "tournament.json", path / "games.jsonl"
        self.record = path / "record.sqlite"
        if self._config_path.is_file():
            self.config = _read_config(self._config_path)
            if names and sorted(names) != sorted(self.config["players"]):
                known = ", ".join(self.config["players"])
                raise UserError(f"The tournament in {path} is between {known}. For others choose another --out.")
        else:
            if len(names) < 2 or len(set(names)) < len(names):
                raise UserError(f"A tournament needs two players or more, no two of one name. Received {list(names)}")
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(f"{path} exists already and is not a tournament. Choose another --out.")
            self.config = {"format": FORMAT, "players": list(names), **(described or {})}
        self.names: tuple[str, ...] = tuple(self.config["players"])

    def standing(self) -> Standing:
        """Return how it stands, from the answers in the record.

        Raises:
            UserError: the list of games or the record is damaged.
        """
        between = self._between()
        if not self.record.is_file():
            return Standing(names=self.names, games=[], num_open=0, num_cannot_tell=0, ratings=None)
        with PreferenceStore(self.record, create=False) as store:
            store.check()
            self._asked_of(between, store)
            return self._standing(between, store)

    def _standing(self, between: Mapping[str, tuple[int, int]], store: PreferenceStore) -> Standing:
        scores = _scores(store)
        games = _games(between, scores)
        return Standing(
            names=self.names,
            games=games,
            num_open=store.num_open(),
            num_cannot_tell=sum(score is None for score in scores.values()),
            ratings=rate(games, len(self.names)) if games else None,
        )

    def play(
        self, players: Sequence[Contestant], num_games: int, annotator: Annotator | None, *, seed: int
    ) -> Standing:
        """Ask about pairs until so many questions were put, and let an annotator answer, if there is one.

        Without one the questions wait in the record for people, at most `OPEN_AT_ONCE` at a time: what is asked next
        depends on what they say, so that a tournament is called again when they have answered.

        Args:
            players: as the folder names them.
            num_games: questions in all, those of earlier calls among them.
            annotator: None: people.
            seed: of the pairs and of their starts.

        Raises:
            UserError: a player cannot show anything.
        """
        by_name = {player.name: player for player in players}
        contestants = [by_name[name] for name in self.names]
        between = self._between()
        if not self._config_path.is_file():
            for player in contestants:
                player.show(0)  # who cannot is refused before anything is written
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self._config_path, json.dumps(self.config, indent=1).encode())
        with PreferenceStore(self.record, create=not between) as store:
            if between:
                store.check()  # before anything is added to it
            between = self._asked_of(between, store)
            if self._games_path.is_file():  # without what was cut short, or never asked
                write_atomically(self._games_path, "".join(map(self._line, between, between.values())))
            if annotator is not None:
                store.add_annotator(annotator.name, "teacher")
                store.add_answers(list(annotator.answer(store.open_queries())))  # left when it was stopped
            while len(between) < num_games and (annotator is not None or store.num_open() < OPEN_AT_ONCE):
                scores = _scores(store)
                # A question that waits counts as a tie: asking about the same pair again and again would tell little.
                waiting = {name: 0.5 for name in between if name not in scores}
                known = _games(between, scores | waiting)
                pair = next_pair(known, len(self.names), stream(seed, "tournament", len(between)))
                query, clips = self._question(contestants, pair, len(between))
                self._note(query, pair)
                store.add_together(partial(_add, query, clips))
                between[query.id] = pair
                if annotator is not None:
                    store.add_answers(list(annotator.answer([query])))
            return self._standing(between, store)

    def _question(
        self, contestants: Sequence[Contestant], pair: tuple[int, int], number: int
    ) -> tuple[Query, dict[str, Clip]]:
        shown = [contestants[player].show(number) for player in pair]
        items = tuple(item for item, _ in shown)
        what: Any = {"segments": items} if hasattr(items[0], "true_rewards") else {"responses": items}
        query = Query(**what, kind="comparison", session=number, instruction=self.config.get("instruction", ""))
        return query, {item.id: clip for item, clip in shown if clip is not None}

    def _asked_of(self, between: dict[str, tuple[int, int]], store: PreferenceStore) -> dict[str, tuple[int, int]]:
        """Return the questions that the record holds: the last may be missing, if a kill came before it was asked."""
        known = set(store.query_ids()) - set(store.asked_again())
        asked = {name: pair for name, pair in between.items() if name in known}
        if len(between) - len(asked) > 1:
            raise UserError(
                f"The record {self.record} lacks {len(between) - len(asked)} of the {len(between)} questions in "
                f"{self._games_path}. Restore it from a copy."
            )
        if len(asked) < len(known):
            raise UserError(
                f"{self._games_path} does not say between whom {len(known) - len(asked)} of the {len(known)} questions "
                f"in {self.record} are. Restore it from a copy."
            )
        return asked

    def _line(self, query_id: str, pair: tuple[int, int]) -> str:
        return json.dumps({"query": query_id, "players": [self.names[player] for player in pair]}) + "\n"

    def _note(self, query: Query, pair: tuple[int, int]) -> None:
        """Write down who a question is between, before it is asked."""
        with append_to(self._games_path) as file:
            file.write(self._line(query.id, pair).encode())
            file.flush()
            os.fsync(file.fileno())

    def _between(self) -> dict[str, tuple[int, int]]:
        """Return the players of each question, by number."""
        if not self._games_path.is_file():
            return {}
        found: dict[str, tuple[int, int]] = {}
        try:
            lines = read_plain(self._games_path).split(b"\n")
        except (OSError, ValueError) as error:
            raise UserError(f"{self._games_path} cannot be read: {first_line(error)}.") from None
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last end of a line was cut short
            try:
                row = parse_json(line)
                first, second = (self.names.index(name) for name in row["players"])
                if first == second:
                    raise ValueError("it is between a player and itself")
                if found.setdefault(str(row["query"]), (first, second)) != (first, second):
                    raise ValueError("an earlier line has the same question between others")
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self._games_path}, line {number} is damaged: {first_line(error)}.") from None
        if found and not self.record.is_file():
            raise UserError(f"The record {self.record} is gone, and {len(found)} questions were in it. Restore it.")
        return found


def _add(query: Query, clips: Mapping[str, Clip], addition: Addition) -> None:
    """Add a question with its clips: one that is asked without them could never be shown."""
    addition.add_queries([query])
    for segment_id, clip in clips.items():
        addition.add_clip(segment_id, clip)


def _scores(store: PreferenceStore) -> dict[str, float | None]:
    """Return what was answered to each question, the oldest answer first; None: can't tell."""
    answers = store.answers(standing=True, repeats=False)
    return {answer.query_id: answer.preference for _, answer in answers if isinstance(answer, Comparison)}


def _games(between: Mapping[str, tuple[int, int]], scores: Mapping[str, float | None]) -> list[Game]:
    """Return the games that were decided."""
    decided = ((between[name], score) for name, score in scores.items() if name in between and score is not None)
    return [Game(*pair, score=score) for pair, score in decided]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
        names = config["players"]
        if config["format"] != FORMAT or len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise ValueError("it names no players of a tournament")
        if len(set(names)) < len(names) or not isinstance(config.get("instruction", ""), str):
            raise ValueError("it names a player twice, or its instruction is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}. Restore it from a copy.") from None
    return dict(config)
