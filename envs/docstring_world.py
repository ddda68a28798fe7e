"""A world of real text: functions of installed packages, to be summarised in one line as PEP 257 has it.

A prompt says where a function is, the words of its name and of its arguments, and, where its docstring goes on after
the first line, a sentence of that. Example answers are the first lines of the docstrings as they are: many are not in
the imperative, have no full stop, are too long, or tell of other things than the name. Functions of one module in
eight are held out, the same for every seed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.docstring_corpus import Corpus, Docstring, installed_corpus
from prefrl.envs.docstring_judge import Source, Usage, summary_parts, words_in
from prefrl.envs.text_rewards import judge_each

SEPARATOR = "\nSummary:"
"""Ends a prompt; what follows is the response."""
HELD_OUT_OF = 8
"""One module of so many is held out."""
MOST_ARGUMENTS, MOST_NAME_WORDS = 4, 4
LONGEST_FIRST, LONGEST_MORE, LONGEST_PROSE = 140, 100, 600
"""Characters of a first line to imitate, of the sentence in a prompt, and of a paragraph to pretrain on."""
FEWEST_MODULES = 3
"""In whose prose a word must stand for names made of it to be taken: what nobody writes cannot be summarised."""
NUM_PROBES = 48

_PROMPT = re.compile(
    r"In (?P<module>[a-z0-9 ]+), (?P<name>[a-z0-9 ]+?)(?: of (?P<owner>[a-z0-9 ]+))? takes (?P<arguments>[a-z0-9, ]+)\."
    r"(?: (?P<more>[^\n]+))?" + re.escape(SEPARATOR)
)
_RESERVED = frozenset(("in", "of", "takes"))
"""Words of the prompt's form, which no name in it has."""
_NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]+)(?:<[^`]*>)?`")
_SENTENCE = re.compile(r"[A-Z][^.\\>{}|]*[a-z)]\.(?=\s|$)")
_HEADING = re.compile(r"\w+:|(Args|Arguments|Parameters|Returns?|Raises|Examples?|Notes?|See Also)\b")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A function, and the first line of its docstring."""

    module: str
    """With its package, dotted."""
    name: str
    """Words of its name, as all below in lower case and with one space between them."""
    owner: str
    """Words of its class; empty for functions."""
    arguments: tuple[str, ...]
    """Words of each argument."""
    more: str
    """A sentence of its docstring; empty if there is none."""
    first: str
    """The first paragraph of the docstring."""

    @property
    def place(self) -> str:
        """Words of the last part of the module's name."""
        return split_name(self.module.rpartition(".")[2])

    def to_prompt(self) -> str:
        """Return the prompt."""
        return f"{self._head()} {self.more}".rstrip() + SEPARATOR

    def to_index(self) -> str:
        """Return the function with the terms under which an index lists it: each is copied from what stands above."""
        terms = (self.name, self.owner, self.place, *self.arguments)
        return f"{self._head()}\nIndex: {'; '.join(term for term in terms if term)}."

    def _head(self) -> str:
        whose = f" of {self.owner}" if self.owner else ""
        return f"In {self.place}, {self.name}{whose} takes {', '.join(self.arguments) or 'nothing'}."


def source_of(prompt: str) -> Source | None:
    """Read a prompt; None if it is not of this world."""
    found = _PROMPT.fullmatch(prompt)
    if found is None:
        return None
    arguments = [] if found["arguments"] == "nothing" else found["arguments"].split(", ")
    beside = (found["module"], found["owner"] or "", *arguments, found["more"] or "")
    return Source(name=found["name"], beside=tuple(phrase for phrase in beside if phrase))


def split_name(name: str) -> str:
    """Return the words of an identifier: `get_path`, `getPath` and `GetPath` are all `get path`."""
    return " ".join(part.lower() for part in _NAME_PART.findall(name))


def plain(text: str) -> str:
    """Return a paragraph without the marks that documentation tools read."""
    return _ROLE.sub(r"\1", text).replace("`", "").replace("*", "")


def is_prose(paragraph: str) -> bool:
    """Tell whether a paragraph is made of sentences rather than of code, lists or headings."""
    return bool(_SENTENCE.match(paragraph)) and not _HEADING.match(paragraph) and len(paragraph) <= LONGEST_PROSE


def is_held_out(module: str) -> bool:
    """Tell whether a module is held out; it depends on its name alone."""
    return hashlib.sha256(module.encode("utf-8", "surrogatepass")).digest()[0] % HELD_OUT_OF == 0


class Book:
    """The entries and the prose of a corpus, in two halves, and what is usual in the half that is learned from.

    Args:
        corpus: all docstrings.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.digest = corpus.digest
        prose: dict[bool, list[str]] = {False: [], True: []}
        summaries: list[tuple[str, str]] = []
        modules_of: defaultdict[str, set[str]] = defaultdict(set)
        for docstring in corpus.docstrings:
            module = _module_of(docstring)
            held_out = is_held_out(module)
            paragraphs = [plain(text) for text in docstring.paragraphs]
            prose[held_out] += filter(is_prose, paragraphs[bool(docstring.name) :])
            if held_out:
                continue
            if docstring.name:
                summaries.append((module, paragraphs[0]))
            for word in {word for text in paragraphs for word in words_in(text)}:
                modules_of[word].add(module)
        known = frozenset(word for word, where in modules_of.items() if len(where) >= FEWEST_MODULES)
        self.usage = Usage.of(summaries, prose[False])
        entries = list(_entries(corpus.docstrings, known))
        self.learned = _each_once(entry for entry in entries if not is_held_out(entry.module))
        prompts = {entry.to_prompt() for entry in self.learned}
        self.held_out = [
            entry
            for entry in _each_once(entry for entry in entries if is_held_out(entry.module))
            if entry.to_prompt() not in prompts
        ]
        self._prose = prose

    def prose(self, *, held_out: bool) -> list[str]:
        """Return paragraphs of prose that are no first lines of functions, each once."""
        seen = set(self._prose[False]) if held_out else set()
        return [text for text in dict.fromkeys(self._prose[held_out]) if text not in seen]

    def telling(self, *, held_out: bool) -> list[Entry]:
        """Return entries whose first line tells every word of the name: who has read them knows how to copy."""
        found = []
        for entry in self.held_out if held_out else self.learned:
            source = source_of(entry.to_prompt())
            assert source is not None
            parts = summary_parts(source, entry.first, self.usage)
            if parts.subject == 1 and parts.source > 0.5:
                found.append(entry)
        return found

    @cached_property
    def probes(self) -> list[tuple[str, str]]:
        """Starts of summaries of held-out functions whose name is a verb and a noun, and the noun."""
        found = []
        for entry in self.held_out:
            verb, _, noun = entry.name.partition(" ")
            if verb in self.usage.imperatives and noun and " " not in noun and len(noun) > 3:
                found.append((f"{entry.to_prompt()} {verb.capitalize()} the", noun))
        order = np.random.default_rng(0).permutation(len(found))
        return [found[i] for i in order[:NUM_PROBES]]


@cache
def installed_book() -> Book:
    """Return the book of this machine.

    Raises:
        UserError: the packages are here without their sources.
    """
    return Book(installed_corpus())


class DocstringsWorld:
    """Functions of the installed packages, and docstrings to learn from; nothing is read until it is needed.

    Args:
        seed: in which order they come.
        book: of another corpus; None: of this machine.
    """

    def __init__(self, seed: int = 0, book: Book | None = None) -> None:
        self.seed, self._given = seed, book

    @staticmethod
    def digest() -> str:
        """Return a digest of what is read on this machine: other versions of the packages are another world."""
        return installed_book().digest

    @property
    def book(self) -> Book:
        """What all worlds of this machine share."""
        return self._given or installed_book()

    def knows(self, prompt: str) -> bool:
        """Tell whether a prompt is of this world, by its form."""
        return source_of(prompt) is not None

    def prompts(self, count: int, *, held_out: bool = False) -> list[str]:
        """Return up to `count` prompts, each once."""
        return [entry.to_prompt() for entry in self._drawn(count, held_out)]

    def examples(self, count: int) -> list[tuple[str, str]]:
        """Return up to `count` prompts, each with the first line of the docstring as it is."""
        return [(entry.to_prompt(), f" {entry.first}") for entry in self._drawn(count, held_out=False)]

    def texts(self, count: int, *, held_out: bool = False) -> list[str]:
        """Return texts: prose, functions whose first line tells their whole name, and functions with their index terms.

        Where more are asked for than there are, they come again in another order.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(31, int(held_out))))
        some = [*self.book.prose(held_out=held_out)]
        some += [f"{entry.to_prompt()} {entry.first}" for entry in self.book.telling(held_out=held_out)]
        some += [entry.to_index() for entry in (self.book.held_out if held_out else self.book.learned)]
        texts: list[str] = []
        while len(texts) < count and some:
            texts += [some[i] for i in rng.permutation(len(some))]
        return texts[:count]

    def gold(
        self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool] | None = None
    ) -> NDArray[np.float64]:
        """Return the gold reward of each summary, `(B,)` float64 in [0, 4]; 0 where the prompt is not of this world.

        Args:
            prompts: B prompts.
            responses: as many responses.
            ended: whether each was finished; None: all were.
        """
        return judge_each(self._gold_of, prompts, responses, ended)

    def _gold_of(self, prompt: str, response: str, ended: bool) -> float:
        source = source_of(prompt)
        return 0.0 if source is None else summary_parts(source, response, self.book.usage, ended).total

    def probes(self) -> dict[str, list[tuple[str, str]]]:
        """Return what copying from a prompt is measured by."""
        return {"copying": self.book.probes}

    def _drawn(self, count: int, held_out: bool) -> list[Entry]:
        entries = self.book.held_out if held_out else self.book.learned
        return [entries[i] for i in self._order(len(entries), stream=int(held_out))[:count]]

    def _order(self, length: int, stream: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(29, stream)))
        return rng.permutation(length)


def _module_of(docstring: Docstring) -> str:
    return f"{docstring.package}.{docstring.module}".rstrip(".")


def _entries(docstrings: Iterable[Docstring], known: frozenset[str]) -> Iterator[Entry]:
    """Return the functions whose names, and whose first lines, are made of words."""
    for docstring in docstrings:
        name = split_name(docstring.name)
        words = name.split()
        if not 1 <= len(words) <= MOST_NAME_WORDS or not known.issuperset(words) or _RESERVED & {*words}:
            continue
        first, *rest = (plain(text) for text in docstring.paragraphs)
        if not 3 <= len(first) <= LONGEST_FIRST or re.search(r">{3}|[\\{}|:]", first):
            continue
        arguments = [split_name(argument) for argument in docstring.arguments]
        told = [a for a in arguments if len(a) > 2 and known.issuperset(a.split()) and not _RESERVED & {*a.split()}]
        owner = split_name(docstring.owner)
        module = _module_of(docstring)
        if not split_name(module.rpartition(".")[2]) or _RESERVED & {*owner.split()}:
            continue
        yield Entry(
            module=module,
            name=name,
            owner=owner,
            arguments=tuple(told[:MOST_ARGUMENTS]),
            more=_sentence(rest),
            first=first,
        )


def _sentence(paragraphs: Iterable[str]) -> str:
    """Return the first sentence of prose that is short enough; empty if there is none."""
    for text in paragraphs:
        found = _SENTENCE.match(text) if is_prose(text) else None
        if found is not None and 12 <= len(found[0]) <= LONGEST_MORE:
            return found[0]
    return ""


def _each_once(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries without those that read as an earlier one, and without first lines that many share."""
    kept = {entry.to_prompt(): entry for entry in reversed(list(entries))}
    shared = Counter(entry.first for entry in kept.values())
    return [entry for entry in reversed(kept.values()) if shared[entry.first] <= HELD_OUT_OF]
