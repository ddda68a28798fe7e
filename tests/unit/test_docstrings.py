"""The world of docstrings: what is read, what is held out, and the gold reward of summaries, part by part."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from prefrl.envs import docstring_corpus, docstring_world
from prefrl.envs.docstring_corpus import Corpus, installed_corpus, read_corpus
from prefrl.envs.docstring_judge import Source, SummaryParts, Usage, stem, summary_parts, third_person
from prefrl.envs.docstring_world import DocstringsWorld, Entry, installed_book, is_held_out, source_of, split_name
from prefrl.envs.text_worlds import READ_FROM_THE_MACHINE, WORLDS
from prefrl.errors import UserError
from prefrl.text.data.judge import RuleJudge
from prefrl.text.jobs import inputs
from prefrl.text.jobs.inputs import digests_of
from prefrl.text.jobs.worlds import world_of
from prefrl.trust import names_in

USAGE = Usage(
    imperatives=frozenset(("return", "save", "remove")),
    common=frozenset(("object", "valu", "given")),
    pairs=frozenset(
        [("return", "the"), ("the", "path"), ("path", "of"), ("of", "the"), ("the", "scheme"), ("save", "the"),
         ("the", "given"), ("given", "object")]
    ),
)  # fmt: skip
SOURCE = Source(name="get path", beside=("sysconfig", "scheme", "vars"))
PERFECT = "Return the path of the scheme."


def judged(summary: str, source: Source = SOURCE, ended: bool = True) -> SummaryParts:
    return summary_parts(source, summary, USAGE, ended)


# ---------------------------------------------------------------------------- the judge


def test_a_perfect_summary_earns_four() -> None:
    parts = judged(PERFECT)
    assert (parts.subject, parts.source, parts.wording, parts.form, parts.mood) == (1.0, 1.0, 1.0, 1.0, 1.0)
    assert parts.total == 4.0


@pytest.mark.parametrize(
    ("summary", "part", "value"),
    [
        ("Return the scheme.", "subject", 1 / 2),  # to get is to return; the path is not told
        ("Save the scheme.", "subject", 0.0),
        ("Return paths of the schemes.", "subject", 1.0),  # in any form
        ("Return the path.", "source", 0.0),  # nothing beyond the name
        ("Return the path of the teapot scheme.", "source", 2 / 3),  # of path, scheme and teapot
        ("Return it.", "source", 0.0),  # nobody's word, wherever it stands
        ("Return the path of the scheme scheme.", "source", 2 / 3),  # said twice
        ("Return the path of the given object scheme.", "source", 1.0),  # common words are nobody's
        ("Return path scheme.", "wording", 0.0),
        ("Return the scheme path.", "wording", 2 / 3),
        ("Save to a scheme.", "wording", 2 / 3),  # function words stand beside any other, but not beside each other
        ("Path.", "wording", 1.0),
        ("return the path of the scheme.", "form", 2 / 3),
        ("Return the path of the scheme", "form", 2 / 3),
        ("Return the path. Of the scheme.", "form", 2 / 3),
        ("Return the path\nof the scheme.", "form", 2 / 3),
        ("Return the path of os.scheme.", "form", 1.0),  # a full stop within a name ends nothing
        ("Return the path of the " + "scheme of the " * 4 + "scheme.", "form", 2 / 3),
        ("", "form", 0.0),
        ("Returns the path of the scheme.", "mood", 0.0),
        ("The path of the scheme.", "mood", 0.0),
        ("Remove the path of the scheme.", "mood", 1.0),
    ],
)  # fmt: skip
def test_each_part_counts_one_thing(summary: str, part: str, value: float) -> None:
    assert getattr(judged(summary), part) == pytest.approx(value)


def test_what_was_cut_off_is_no_sentence() -> None:
    assert judged(PERFECT, ended=False).form == pytest.approx(2 / 3)


def test_form_and_mood_are_worth_little_by_themselves() -> None:
    parts = judged("Save the given object.")
    assert (parts.form, parts.mood, parts.wording) == (1.0, 1.0, 1.0)
    assert parts.total == 0.5
    assert SummaryParts(subject=1, source=1, wording=1, form=0, mood=0).total == 2.0


def test_words_that_docstrings_do_not_put_side_by_side_are_worth_nothing() -> None:
    assert judged("Path scheme vars.").total == 0.0


def test_phrases_of_the_source_may_be_said_as_they_stand() -> None:
    source = Source(name="load state dict", beside=("module",))
    assert judged("Load state dict.", source).wording == 1.0
    assert judged("Dict state load.", source).wording == 0.0


def test_forms_of_a_word_share_their_stem() -> None:
    for forms in (("path", "paths"), ("create", "creates", "creating", "created"), ("query", "queries"), ("class",)):
        assert len({stem(word) for word in forms}) == 1, forms
    assert stem("this") != stem("the")
    assert [third_person(verb) for verb in ("return", "push", "apply", "display")] == [
        "returns", "pushes", "applies", "displays",
    ]  # fmt: skip


def test_verbs_are_those_that_docstrings_use_in_both_moods() -> None:
    lines = [("a", "Return it."), ("b", "Return them."), ("c", "Return one."), ("d", "Returns two.")]
    usage = Usage.of([*lines, *[("a", "Number of it.")] * 5], ["The one is two."])
    assert usage.imperatives == {"return"}
    assert ("one", "is") in usage.pairs and ("two", "the") not in usage.pairs
    assert stem("return") in usage.common


@given(st.text(max_size=80), st.text("geth paths.ofcm", max_size=40), st.booleans())
def test_every_part_is_a_share(text: str, words: str, ended: bool) -> None:
    for summary in (text, words):
        parts = judged(summary, ended=ended)
        values = (parts.subject, parts.source, parts.wording, parts.form, parts.mood)
        assert all(0 <= value <= 1 for value in values)
        assert 0 <= parts.total <= 4


# ---------------------------------------------------------------------------- what is read


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


GOOD = '''"""Of paths.

More of it.
"""


class Scheme:
    """A scheme."""

    def getPath(self, name, *, expand_vars=True, **more):
        """Return the path.

        It is absolute.
        """

        def inner():
            """Never read."""


if True:
    async def save(path): "Save it."
'''  # of modules without triple quotes nothing is read


def test_docstrings_are_read_with_what_they_are_of(tmp_path: Path) -> None:
    corpus = read_corpus([("pack", write(tmp_path / "pack", good=GOOD, __init__='"""The pack."""'))])
    found = [(d.module, d.owner, d.name, d.arguments, d.paragraphs) for d in corpus.docstrings]
    assert found == [
        ("", "", "", (), ("The pack.",)),
        ("good", "", "", (), ("Of paths.", "More of it.")),
        ("good", "", "", (), ("A scheme.",)),
        ("good", "Scheme", "getPath", ("name", "expand_vars"), ("Return the path.", "It is absolute.")),
        ("good", "", "save", ("path",), ("Save it.",)),
    ]
    assert corpus.skipped == () and gc.isenabled()


def test_a_file_that_cannot_be_read_is_skipped_and_counted(tmp_path: Path) -> None:
    place = write(tmp_path / "pack", good=GOOD, broken='"""Half')
    (place / "bytes.py").write_bytes(b'"""\xff\xfe"""')
    (place / "nul.py").write_bytes(b'"""a"""\0')
    (place / "hole.py").mkdir()
    corpus = read_corpus([("pack", place)])
    assert [line.split(":")[0] for line in corpus.skipped] == ["pack.broken", "pack.bytes", "pack.hole", "pack.nul"]
    assert corpus.docstrings == read_corpus([("pack", write(tmp_path / "other", good=GOOD))]).docstrings


def test_tests_and_private_folders_are_left_out(tmp_path: Path) -> None:
    place = tmp_path / "pack"
    for folder in ("tests", "_private", "fine/test_data", "fine"):
        (place / folder).mkdir(parents=True, exist_ok=True)
        write(place / folder, good=GOOD, test_good=GOOD)
    assert {d.module for d in read_corpus([("pack", place)]).docstrings} == {"fine.good"}
    assert {d.module for d in read_corpus([("numpy", place)]).docstrings} == {"fine.good", "_private.good"}


def test_the_same_files_have_the_same_digest_and_others_another(tmp_path: Path) -> None:
    first, second = (read_corpus([("pack", write(tmp_path / name, good=GOOD))]) for name in ("one", "two"))
    assert first == second and first.digest == second.digest
    assert read_corpus([("pack", write(tmp_path / "one", good=GOOD.replace("Save", "Keep")))]).digest != first.digest


def test_a_python_without_sources_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docstring_corpus, "_folders", lambda: [("pack", write(tmp_path / "pack", good=GOOD))])
    with pytest.raises(UserError, match=r"needs 1,000 functions with a docstring; 2 were found\. Use a Python"):
        installed_corpus.__wrapped__()


# ---------------------------------------------------------------------------- the world on this machine


@pytest.fixture(scope="module")
def world() -> DocstringsWorld:
    return DocstringsWorld(0)


def test_the_corpus_is_read_alike_twice() -> None:
    again = installed_corpus.__wrapped__()
    assert again == installed_corpus() and again.digest == installed_book().digest == DocstringsWorld.digest()


def test_modules_are_held_out_whole(world: DocstringsWorld) -> None:
    book = world.book
    learned, held_out = ({entry.module for entry in part} for part in (book.learned, book.held_out))
    assert len(book.learned) > 2_000 and len(book.held_out) > 200
    assert not learned & held_out and all(map(is_held_out, held_out)) and not any(map(is_held_out, learned))
    prompts = [set(world.prompts(10**6, held_out=held)) for held in (False, True)]
    assert not prompts[0] & prompts[1]
    for seed in (1, 7):  # the same for every seed: comparisons of another seed are of no held-out prompt
        assert set(DocstringsWorld(seed).prompts(10**6)) == prompts[0]
    texts = set(world.texts(3_000))
    assert not texts & set(world.texts(500, held_out=True))


def test_prompts_say_what_they_are_of(world: DocstringsWorld) -> None:
    for entry in [*world.book.learned, *world.book.held_out]:
        source = source_of(entry.to_prompt())
        place = split_name(entry.module.rpartition(".")[2])
        said = (place, entry.owner, *entry.arguments, entry.more)
        assert source == Source(name=entry.name, beside=tuple(phrase for phrase in said if phrase))
    assert source_of("My kettle, order 42: it leaks water.\nAnswer:") is None


def test_the_same_seed_gives_the_same_world(world: DocstringsWorld) -> None:
    again, other = DocstringsWorld(0), DocstringsWorld(1)
    assert world.prompts(50) == again.prompts(50) != other.prompts(50)
    assert world.examples(50) == again.examples(50) and [p for p, _ in world.examples(50)] == world.prompts(50)
    assert world.texts(9_000) == again.texts(9_000) != other.texts(9_000)
    assert len(world.texts(20_000)) == 20_000, "they come again"
    assert len(world.prompts(7, held_out=True)) == 7


def test_what_follows_the_rules_scores_high_and_one_sentence_for_all_scores_low(
    world: DocstringsWorld,
) -> None:
    prompts = world.prompts(500, held_out=True)
    for sentence in (
        "Return the value of the given object.",
        "Set the name of the class for the data.",
        "Return True if the input tensor is a file path of the module.",
        "",
    ):
        assert world.gold(prompts, [sentence] * len(prompts)).mean() < 1
    asked = [
        ("In shutil, get archive formats takes nothing.\nSummary:", "Return the archive formats of shutil."),
        ("In sysconfig, get path takes name, scheme, vars.\nSummary:", "Return the path of the scheme."),
        ("In message, set type of email message takes type, header.\nSummary:", "Set the type of the header."),
    ]
    assert (world.gold(*zip(*asked, strict=True)) > 3.5).all()
    real = dict(world.examples(10**6))
    following = [(p, r) for p, r in real.items() if world.gold([p], [r])[0] > 3.5]
    assert len(following) > 200, "there are such among the real ones"
    others = [following[i - 1][1] for i in range(len(following))]
    assert world.gold([p for p, _ in following], others).mean() < 1.3, "right of one, wrong of another"


def test_gold_of_strange_prompts_is_nought(world: DocstringsWorld) -> None:
    assert world.gold(["Name a town."], ["Return the town."]).tolist() == [0.0]


def test_a_tenth_of_the_verbs_is_what_everybody_knows(world: DocstringsWorld) -> None:
    assert {"return", "set", "create", "compute", "write", "remove"} <= world.book.usage.imperatives
    assert not {"the", "class", "this", "number", "returns", "a"} & world.book.usage.imperatives


def test_gymnasiums_checker_passes_the_game_of_this_world(world: DocstringsWorld) -> None:
    env = gymnasium.make("prefrl/TextGame-v0", prompts=world.prompts(20), reward=world.gold, max_prompt_tokens=512)
    check_env(env.unwrapped, skip_render_check=True)
    game: Any = env.unwrapped
    _, info = game.reset(seed=0, options={"prompt": "In sysconfig, get path takes name, scheme.\nSummary:"})
    action = [*game.rules.tokenizer.encode("Return the path of the scheme."), game.rules.tokenizer.end_id]
    assert game.step(np.array(action))[1] == 4.0 and info["prompt"].startswith("In sysconfig")


# ---------------------------------------------------------------------------- where worlds are named


def test_prompts_are_known_without_reading_the_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never() -> Corpus:
        raise AssertionError("read")

    monkeypatch.setattr(docstring_world, "installed_book", never)
    data = tmp_path / "asked.jsonl"
    data.write_text('{"prompt": "In sysconfig, get path takes name.\\nSummary:"}\n', encoding="utf-8")
    assert isinstance(world_of(str(data), 0), DocstringsWorld)
    data.write_text('{"prompt": "Name a town."}\n', encoding="utf-8")
    assert world_of(str(data), 0) is None


def test_a_run_keeps_the_digest_of_what_its_world_was_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "READ_FROM_THE_MACHINE", {"docstrings": lambda: "abc"})
    settings = {"data": "docstrings", "pretraining": "servicedesk", "watch": {"world": "docstrings"}}
    assert digests_of(settings) == {
        "data docstrings": "abc", "pretraining servicedesk": None, "watch.world docstrings": "abc",
    }  # fmt: skip
    assert READ_FROM_THE_MACHINE.keys() < WORLDS.keys()


def test_worlds_of_our_own_ask_for_no_trust() -> None:
    assert [names_in({"data": name}) for name in WORLDS] == [[]] * len(WORLDS)


def test_the_judge_called_rule_reads_summaries_too() -> None:
    prompt = Entry(module="python.sysconfig", name="get path", owner="", arguments=("scheme",), more="", first="")
    judge = RuleJudge()
    assert judge.prefer_first(prompt.to_prompt(), PERFECT, "Returns the path of the scheme.") == 1.0
    assert judge.prefer_first(prompt.to_prompt(), "Save the scheme.", PERFECT) == 0.0
    assert judge.prefer_first(prompt.to_prompt(), PERFECT, "Return the path of a teapot.") == 0.5, "it does not look"
    with pytest.raises(UserError, match="servicedesk and docstrings only"):
        judge.prefer_first("Name a town.", "a", "b")
