"""The gold reward of summaries of functions: exact, and computed from the prompt and the corpus alone.

A good summary has the form that PEP 257 asks of a docstring's first line (one sentence in the imperative that ends in a
full stop and fits on a line of 79 with its indent and quotes), names what the function's name names, takes its other
words from the source, and puts them side by side as docstrings do. Form and mood are worth little by themselves, one
half of four: a model that cannot yet read its prompt has something to learn, and one sentence for all earns little.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LONGEST = 72
"""Characters of a summary: 79 of a line, less four of indent and three quotes."""
COMMON_SHARE = 0.05
"""A word is common if it stands in the summaries of this share of modules: it says nothing of any one function."""
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
FEWEST_IMPERATIVES = 3
"""Summaries that must begin with a verb, for it to count as one."""
FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a about after all also an and any are as at be been before but by can could do does for from had has have if "
        "in into is it its itself may more must no not of off on one onto only or other our over own same should so "
        "some such than that the their them then there these they this those through to too under until up upon was "
        "were what when where whether which while who whose why will with within without would you your"
    )
)
"""Words that hold sentences together; they belong to no source."""
GETTING = frozenset(("get", "return", "fetch", "retriev", "obtain"))
"""Stems of one meaning: what is named get is mostly said to return."""

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def words_in(text: str) -> list[str]:
    """Return the words of a text in lower case, marks left out."""
    return _WORD.findall(text.lower())


def stem(word: str) -> str:
    """Return what forms of a word share, by their endings: `paths` and `path`, `creating` and `create` are one."""
    for ending, fewest in (("ies", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4)):
        if word.endswith(ending) and len(word) >= fewest and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def third_person(verb: str) -> str:
    """Return the form of a verb that PEP 257 advises against: `Returns` for `Return`."""
    if verb.endswith("y") and verb[-2:-1] not in tuple("aeiou"):
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What is usual in docstrings, counted in those that are learned from."""

    imperatives: frozenset[str]
    """Verbs with which summaries begin, in lower case."""
    common: frozenset[str]
    """Stems of common words."""
    pairs: frozenset[tuple[str, str]]
    """Words that stood side by side."""

    @classmethod
    def of(cls, summaries: Iterable[tuple[str, str]], prose: Iterable[str]) -> Usage:
        """Count what is usual.

        Args:
            summaries: first lines, each behind the name of its module. A word is an imperative if several begin with it
                and at least one with its third person: the corpus has both forms of nearly every verb.
            prose: other paragraphs.
        """
        first: Counter[str] = Counter()
        modules: defaultdict[str, set[str]] = defaultdict(set)
        pairs: set[tuple[str, str]] = set()
        all_modules = set()
        for module, summary in summaries:
            words = words_in(summary)
            all_modules.add(module)
            pairs.update(pairwise(words))
            if words and summary[:1].isupper():
                first[words[0]] += 1
            for word in words:
                modules[stem(word)].add(module)
        for text in prose:
            words = words_in(text)
            pairs.update(pairwise(words))
        return cls(
            imperatives=frozenset(
                word
                for word, count in first.items()
                if count >= FEWEST_IMPERATIVES and len(word) > 2 and first[third_person(word)]
            ),
            common=frozenset(word for word, where in modules.items() if len(where) >= COMMON_SHARE * len(all_modules)),
            pairs=frozenset(pairs),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a summary is of, in words."""

    name: str
    """Of the function."""
    beside: tuple[str, ...]
    """Phrases that say more than the name: class, module, arguments, a sentence."""


@dataclass(frozen=True, kw_only=True)
class SummaryParts:
    """The gold reward of one summary, part by part, each in [0, 1]; the reward is `total`."""

    subject: float
    """Share of the words of the function's name that are told."""
    source: float
    """Share of its content words that the source has, each counted once; 0 if none goes beyond the name."""
    wording: float
    """Share of neighbouring words that stand so in the source or in any docstring learned from; a function word may
    stand beside any word of content."""
    form: float
    """Share of these: begins with a capital; is one sentence and ends in its full stop; has at most 72 characters."""
    mood: float
    """1 if it begins with a verb in the imperative."""

    @property
    def total(self) -> float:
        """The gold reward, in [0, 4]: wording (c + f / 4 + 3 c f / 8), c = subject + source and f = form + mood."""
        content, shape = self.subject + self.source, self.form + self.mood
        return self.wording * (content + shape / 4 + 3 * content * shape / 8)


def summary_parts(source: Source, summary: str, usage: Usage, ended: bool = True) -> SummaryParts:
    """Judge a summary.

    Args:
        source: what it is to be of.
        summary: the response.
        usage: of docstrings.
        ended: whether its writer finished it.
    """
    text = summary.strip()
    words = words_in(text)
    return SummaryParts(
        subject=told_share(source.name, words),
        source=_source(source, words, usage),
        wording=_wording(source, words, usage),
        form=form_share(text, ended) if words else 0.0,
        mood=float(bool(words) and words[0] in usage.imperatives),
    )


def content_stems(text: str) -> list[str]:
    """Return the stems of the words of a text that are no function words, in order."""
    return [stem(word) for word in words_in(text) if word not in FUNCTION_WORDS]


def told_share(name: str, words: Sequence[str]) -> float:
    """Return the share of the words of a name that are among words, in [0, 1]."""
    wanted = dict.fromkeys(content_stems(name) or map(stem, words_in(name)))
    told = set(map(stem, words))
    return sum(word in told or (word in GETTING and bool(told & GETTING)) for word in wanted) / max(1, len(wanted))


def _source(source: Source, words: Sequence[str], usage: Usage) -> float:
    name = set(content_stems(source.name))
    beyond = {word for phrase in source.beside for word in content_stems(phrase)} - name - GETTING
    said = Counter(content_stems(" ".join(words)))
    right = [word for word in said if word in name | beyond]
    repeated = sum(said[word] - 1 for word in said)
    invented = [word for word in said if word not in name | beyond | usage.common | GETTING]
    if beyond.isdisjoint(right):
        return 0.0
    return len(right) / (len(right) + len(invented) + repeated)


def _wording(source: Source, words: Sequence[str], usage: Usage) -> float:
    own = {pair for phrase in (source.name, *source.beside) for pair in _neighbours(words_in(phrase))}
    pairs = _neighbours(words)
    usual = [pair for pair in pairs if pair in own or pair in usage.pairs or _is_mixed(pair)]
    return len(usual) / len(pairs) if pairs else 1.0


def _is_mixed(pair: tuple[str, str]) -> bool:
    first, second = (word in FUNCTION_WORDS for word in pair)
    return first != second


def _neighbours(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(words))


def form_share(text: str, ended: bool = True) -> float:
    """Return which share of what PEP 257 asks of the form of a first line a text has, in [0, 1]."""
    one_sentence = ended and text.endswith(".") and "\n" not in text and len(_SENTENCE_END.findall(text)) == 1
    return (text[:1].isupper() + one_sentence + (len(text) <= LONGEST)) / 3
