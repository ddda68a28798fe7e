"""Verbs that compare and study: `tournament`, `study`, `envs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Column

from prefrl.annotators import Annotator, make_teacher
from prefrl.control.folder import ControlFolder
from prefrl.envs import list_envs
from prefrl.errors import UserError, refuse_unused
from prefrl.files import text_or_file, write_atomically
from prefrl.runs.folder import format_of
from prefrl.runs.streams import check_seed
from prefrl.studies.contestants import judge_of, models_of, policies_of
from prefrl.studies.tables import show_finding, show_standing
from prefrl.studies.tournament import Tournament
from prefrl.studies.tournament_plot import plot_standing
from prefrl.tables import Table
from prefrl.theory.catalogue import STUDIES, run_study
from prefrl.verbs.common import print_json


def envs() -> None:
    """List environments with settings known to work; any other Gymnasium environment can be named too."""
    table = Table(
        Column("environment", no_wrap=True),
        "needs",
        "installed",
        "note",
        title="Environments with settings of their own",
    )
    for row in list_envs():
        table.add_row(row.env_id, row.extra or "-", "yes" if row.installed else "no", row.note)
    Console().print(table)


def tournament(
    runs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN")]] = (), *, out: Path,
    games: int = 100, policies: tuple[str, ...] = ("last",), annotator: Literal["teacher", "human"] = "teacher",
    teacher: str = "oracle", judge: str | None = None, constitution: Path | None = None, data: str | None = None,
    max_tokens: int = 64, instruction: str = "", seed: int = 0, json: bool = False, trust: bool = False,
) -> None:  # fmt: skip
    """Compare what several runs do, pair by pair, and rate them; again with the same --out, it goes on.

    Args:
        runs: of one environment, or text runs and language models; without any, the standing of --out is shown.
        out: folder of the tournament.
        games: questions to put in all.
        policies: of control runs: last, best, during or before; each of each run is a player.
        annotator: who compares: a program, or people in window or browser.
        teacher: of control runs: the program, one of those of prefrl train.
        judge: of text: rule, a language model, or URL#MODEL; default: rule.
        constitution: of text: file with what the judge is to go by.
        data: of text: prompts; default: what the first run was trained on.
        max_tokens: of text: longest response.
        instruction: what people are told to look for: a text, or a file that holds it.
        seed: of pairs, starts and draws.
        json: print one JSON object.
        trust: the runs were made by another user or on another machine: use what they name, code among it.
    """
    if games < 1:
        raise UserError(f"--games must be at least 1. Received {games}")
    check_seed(seed)
    if not runs:
        if not (out / "tournament.json").is_file():
            raise UserError(
                f"There is no tournament in {out}. Name the runs that are to play: prefrl tournament RUN RUN"
            )
        _show_standing(Tournament(out), as_json=json)
        return
    by_people = annotator == "human"
    kinds = {format_of(Path(run)) == ControlFolder.FORMAT for run in runs}
    if kinds == {True, False}:
        raise UserError("Some of these are control runs and some are not; what they do cannot be compared.")
    who: Annotator | None
    of_teachers = {"--teacher": teacher != "oracle"}
    of_judges = {"--judge": judge, "--constitution": constitution}
    if by_people:
        refuse_unused({**of_teachers, **of_judges}, "programs that answer")
    if kinds == {True}:
        refuse_unused({**of_judges, "--data": data, "--max-tokens": max_tokens != 64}, "text runs")
    else:
        refuse_unused({"--policies": policies != ("last",), **of_teachers}, "control runs")
    if kinds == {True}:
        paths = [Path(run) for run in runs]
        players = policies_of(paths, policies, seed=seed, drawn=by_people, trust=trust)
        who = None if by_people else make_teacher(teacher, seed=seed)
    else:
        players = models_of(runs, data, max_tokens=max_tokens, seed=seed, trust=trust)
        law = None if constitution is None else text_or_file(str(constitution))
        who = None if by_people else judge_of(judge or "rule", law)
    contest = Tournament(out, [player.name for player in players], {"instruction": text_or_file(instruction)})
    contest.play(players, games, who, seed=seed)
    _show_standing(contest, as_json=json)


def _show_standing(contest: Tournament, *, as_json: bool) -> None:
    standing = contest.standing()
    found = standing.to_json()
    write_atomically(contest.path / "ratings.json", json.dumps(found, indent=1).encode())
    if standing.ratings is not None:
        plot_standing(standing, contest.path / "ratings.png")
    if as_json:
        print_json(found)
        return
    if standing.ratings is not None:
        show_standing(standing, Console())
        print(f"Wrote {contest.path / 'ratings.png'} and {contest.path / 'ratings.json'}")
    if standing.num_open:
        print(
            f"{standing.num_open} questions wait. Answer them with: prefrl label {contest.record}, or prefrl serve "
            f"{contest.record}; then call prefrl tournament again."
        )


def study(
    name: Annotated[str | None, tyro.conf.Positional] = None, *, out: Path | None = None,
    repetitions: int | None = None, seed: int = 0, json: bool = False,
) -> None:  # fmt: skip
    """Put a claim of the theory to the test on a small exact problem: a table, a picture, and whether it holds.

    Args:
        name: of the study, or module:Name of your own; without one they are listed.
        out: folder for figure.png and finding.json; default: runs/studies/NAME.
        repetitions: how often everything is drawn anew; default: what takes two minutes at most.
        seed: of everything drawn.
        json: print one JSON object.
    """
    if name is None:
        table = Table(Column("study", no_wrap=True), "question", "source", title="Studies")
        for one in STUDIES.values():
            table.add_row(one.name, one.question, one.source)
        Console().print(table)
        return
    chosen = STUDIES.find(name)
    folder = Path("runs/studies") / chosen.name if out is None else out
    finding = run_study(chosen, folder, repetitions=repetitions, seed=seed)
    if json:
        print((folder / "finding.json").read_text())
        return
    show_finding(chosen, finding, Console())
    print(f"Wrote {folder / 'figure.png'} and {folder / 'finding.json'}")
