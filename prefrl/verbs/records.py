"""Verbs of the record: `export`, `import`, `ask`, `judge`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import tyro

from prefrl.control.folder import ControlFolder
from prefrl.control.rendering import choose_gl_backend
from prefrl.dataset import export_record, import_record
from prefrl.errors import UserError, refuse_unused, require, tell
from prefrl.files import text_or_file
from prefrl.runs.folder import format_of, record_place
from prefrl.seams import trust_data
from prefrl.store import PreferenceStore
from prefrl.store.engine import shown_address
from prefrl.studies import asking, media, vision_judging
from prefrl.verbs.common import RecordPlace
from prefrl.vision import VisionJudge


def export(run: RecordPlace, *, to: Path, trust: bool = False) -> None:
    """Write the queries, answers, segments and clips of a run as a portable data set (docs/dataset.md).

    Args:
        run: folder of the run, or a record: a file or the URL of a database.
        to: the folder to write; it must not exist, or be empty.
        trust: let what is read name code of a user, e.g. a kind of answer.
    """
    if trust:
        trust_data()
    print(f"Wrote {export_record(record_place(run), to)} to {to}")


def import_(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")], *, to: str,
    trust: bool = False,
) -> None:  # fmt: skip
    """Add a data set that `prefrl export` wrote to a record; what is there already is not added twice.

    Args:
        folder: the data set.
        to: a run folder, the file of a record, or the URL of a database; a file is made if there is none.
        trust: let what is read name code of a user, e.g. a kind of answer.
    """
    if trust:
        trust_data()
    print(f"Read {import_record(folder, record_place(to))} into {shown_address(to)}")


def ask(
    record: RecordPlace, *, of: Path | None = None, prepare: int = 0, num: int = 50, table: Path | None = None,
    kind: str = "comparison", num_ranked: int = 4, scale: int = 5, instruction: str = "", overlap: int = 1,
    length: int | None = None, seed: int = 0, trust: bool = False,
) -> None:  # fmt: skip
    """Put questions into a record without training: of a stopped run, of any run, of saved episodes or of files.

    Args:
        record: run folder whose record it is, or a record: a file, made if there is none, or the URL of a database.
        of: what to ask about: a run folder, an episode .npz or a folder of them (observations, actions, frames), or a
            folder of videos or images; default: what the run in RUN would ask next, with --prepare.
        prepare: questions that the stopped training in RUN would ask next, with their clips, to be answered before it
            goes on; 0: only draw the clips of those that it left open.
        num: questions to put, with --of.
        table: of a folder of files: CSV with a column "file"; its columns of numbers are what a reward can see.
        kind: comparison, ranking or rating, with --of.
        num_ranked: items of a ranking.
        scale: grades of a rating.
        instruction: what to look for: a text, or a file that holds it.
        overlap: people to ask each question of.
        length: steps of a segment of saved episodes; default: 25.
        seed: of what is drawn at random.
        trust: the run was made by another user or on another machine: use what it names, code among it.
    """
    require("av", "ui")
    with contextlib.suppress(UserError):  # said again where something cannot be drawn
        choose_gl_backend()
    refuse_unused({"--num-ranked": num_ranked != 4 and kind != "ranking"}, "--kind ranking")
    refuse_unused({"--scale": scale != 5 and kind != "rating"}, "--kind rating")
    if of is None:
        of_others = {
            "--num": num != 50, "--table": table, "--kind": kind != "comparison", "--instruction": instruction,
            "--overlap": overlap != 1, "--length": length, "--seed": seed,
        }  # fmt: skip
        refuse_unused(of_others, "questions about something else, with --of")
        folder = ControlFolder.open(Path(record), trust=trust)
        added, open_now = asking.prepare(folder, prepare)
        print(
            f"Added {added} questions; {open_now} are open, with their clips. Answer them with: prefrl label {record}"
        )
        print(f"Then train on: prefrl resume {record}{f' --labels +{added}' if folder.finished else ''}")
        return
    refuse_unused({"--prepare": prepare}, "a stopped training, without --of")
    wanted = asking.Asking(
        num=num, kind=kind, num_ranked=num_ranked, scale=scale, instruction=instruction, overlap=overlap, seed=seed
    )
    remarks: list[str] = []
    is_run, is_episodes = format_of(of) == ControlFolder.FORMAT, of.suffix == ".npz" or any(of.glob("*.npz"))
    if is_run or is_episodes:
        refuse_unused({"--table": table}, "a folder of videos or images")
    if is_run or not is_episodes:
        refuse_unused({"--length": length}, "saved episodes")
    if is_run:
        shown = asking.of_run(ControlFolder.open(of, trust=trust), wanted)
    elif is_episodes:
        shown = asking.of_rollouts(of, length or 25, wanted)
    elif of.is_dir():
        shown, remarks = media.of_media(media.find_media(of, table))
    else:
        raise UserError(f"There is nothing to ask about at {of}: expected a run, an .npz, or a folder of files.")
    for remark in remarks:
        tell(f"prefrl: {remark}")
    with PreferenceStore(record_place(record)) as store:
        added = asking.put(store, shown, wanted)
        name = store.name
    short = f" ({num} were wanted: there are no more)" if added < num else ""
    print(
        f"Added {added} questions{short} to {name}. Answer them with: prefrl serve {record}, or prefrl label {record}"
    )


def judge(
    record: RecordPlace, *, by: str, constitution: str = vision_judging.CONSTITUTION, frames: int = 4,
    most: int | None = None,
) -> None:  # fmt: skip
    """Have a vision-language model answer open comparisons and rankings by their clips, also while a run trains.

    Each pair is put to it in both orders; where it goes by the place, "can't tell" is recorded. What it said is kept
    beside the record and not asked again. A key is read from the variable PREFRL_JUDGE_KEY.

    Args:
        record: run folder whose record it is, or a record: a file or the URL of a database.
        by: the model, behind an OpenAI-compatible address: URL#MODEL.
        constitution: what it judges by, beside what each question asks for: a text or a file that holds it.
        frames: of each clip, from left to right in one picture.
        most: answers to give at most.
    """
    require("av", "ui")
    require("PIL", "image")
    if frames < 1 or (most is not None and most < 1):
        raise UserError("--frames and --most must be at least 1.")
    place = record_place(record)
    if isinstance(place, Path) and not place.is_file():
        raise UserError(f"There is no record {record}. Put questions into one with: prefrl ask {record}")
    asker = VisionJudge(by, text_or_file(constitution))
    if isinstance(place, Path):
        asker.server.keep_answers(place.with_name(place.name + ".judge.jsonl"))
    said = vision_judging.judge_record(place, asker, num_frames=frames, most=most)
    answered = said.pop(vision_judging.ANSWERED, 0)
    print(f"{asker.name} answered {answered} questions.")
    if said:
        print("It could not tell: " + "; ".join(f"{count} where {reason}" for reason, count in said.items()) + ".")
    with PreferenceStore(place) as store:
        left = store.num_open(asker.name)
    if left:
        print(f"{left} questions are open still: of other kinds, without clips drawn, or over --most.")
