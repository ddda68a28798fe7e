"""Tokenizers: loading them with a padding and an end token, training a small one, and prompts as token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prefrl.envs.text_tokens import TextTokenizer
from prefrl.errors import UserError, require

transformers = require("transformers", "text")

END_NAMES = ("<|endoftext|>", "</s>", "<|im_end|>", "<eos>", "<|eot_id|>", "[SEP]")
PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"
ANCHOR = "\n"
"""A text that tokenizers do not join with what follows."""


class Templated(str):
    """A text that a chat template made: all its special tokens stand in it, and the tokenizer adds none."""

    __slots__ = ()


class Tokens:
    """A Hugging Face tokenizer with a padding token that is not the end token; also the text game's tokenizer.

    The masks of every batch say where tokens are, so the padding token is never read; it has to differ from the end
    only so that other programs that load the saved tokenizer do not mask the end away. Where the tokenizer has no other
    special token, an ordinary one fills up arrays (`pad_id`), and the tokenizer does not learn of it: it would leave
    that token out of every text.

    Args:
        tokenizer: a `transformers` tokenizer; its padding token is set here if it has none but another special token,
            with a warning that says which.

    Raises:
        UserError: it has no end token and none of the usual names is in its vocabulary.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
        vocabulary = tokenizer.get_vocab()
        if tokenizer.eos_token_id is None:
            known = next((end for end in END_NAMES if end in vocabulary), None)
            if known is None:
                raise UserError(
                    f"{name} has no end token, so no response could ever end, and none of {', '.join(END_NAMES)} is "
                    "in its vocabulary. Set one: tokenizer.eos_token = ... and save it."
                )
            tokenizer.eos_token = known
            warnings.warn(f"{name} has no end token; {known!r} is taken.", stacklevel=2)
        self.end_id = int(tokenizer.eos_token_id)
        self.end_ids: frozenset[int] = frozenset([self.end_id])
        """All that end a response: `end_id` closes texts that are learned from, `turn_end_id` conversations."""
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == self.end_id:
            before = "no padding token" if tokenizer.pad_token_id is None else "the end token for padding"
            special = (tokenizer.unk_token, tokenizer.bos_token)
            chosen = next((token for token in special if vocabulary.get(token, self.end_id) != self.end_id), None)
            if chosen is not None:
                tokenizer.pad_token = chosen
            self.pad_id = min(set(vocabulary.values()) - {self.end_id}) if chosen is None else vocabulary[chosen]
            taken = tokenizer.convert_ids_to_tokens(self.pad_id)
            warnings.warn(f"{name} has {before}; {taken!r} is taken. Masks tell it from text.", stacklevel=2)
        else:
            self.pad_id = int(tokenizer.pad_token_id)
        turn_end = self._turn_end()
        self.turn_end_id = self.end_id if turn_end is None else turn_end
        self.add_ends(self.turn_end_id, len(tokenizer))
        self._anchor = self._plain(ANCHOR)
        self._adds_a_space = self._plain(ANCHOR + "a") != [*self._anchor, *self._plain("a")]
        self.vocab_size = max(len(tokenizer), max(vocabulary.values()) + 1)

    def add_ends(self, named: object, size: int) -> None:
        """Have more ids end a response.

        Args:
            named: one, several or none.
            size: ids that the model knows; others, and padding, end nothing.

        Raises:
            UserError: these are no ids.
        """
        ends: Sequence[Any] = [] if named is None else named if isinstance(named, list | tuple) else [named]
        if not all(type(end) is int for end in ends):
            raise UserError(
                "Expected the eos_token_id of a model (generation_config.json or config.json) to be the id of a token, "
                f"or a list of ids. Received {named!r}"
            )
        self.end_ids |= {end for end in ends if 0 <= end < size and end != self.pad_id}

    def _turn_end(self) -> int | None:
        """Return the special token with which the chat template closes a turn of the assistant, if it does."""
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        talk = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Yes."}]
        try:
            behind = str(self.tokenizer.apply_chat_template(talk, tokenize=False)).rpartition("Yes.")[2]
        except Exception:  # whatever the template raises; conversations are refused with it
            return None
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return next((i for i in self._plain(behind) if i in special or i == self.end_id), None)

    @classmethod
    def load(cls, model: str | Path) -> Tokens:
        """Load the tokenizer of a model: a folder, or an id of the hub.

        Raises:
            UserError: it cannot be had.
        """
        try:
            return cls(
                transformers.AutoTokenizer.from_pretrained(
                    str(model), local_files_only=without_hub(model), trust_remote_code=False
                )
            )
        except UserError:
            raise
        except Exception as error:  # transformers raises many kinds
            raise UserError(unreachable("tokenizer", model, error)) from error

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text as it stands behind another, without special tokens: no space is put before it."""
        ids = self._plain(text)
        if not text or self._plain(ANCHOR + text)[: len(self._anchor)] != self._anchor:
            return ids
        behind = self._plain(ANCHOR + text)[len(self._anchor) :]
        return behind if self._adds_a_space else ids

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a text of its own, without special tokens."""
        return self._plain(text)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the ids of a prompt, with what the tokenizer puts before a text unless the prompt begins with it.

        What the tokenizer puts behind a text is left out; an end that the prompt has itself stays. What a chat template
        made gets nothing.
        """
        if isinstance(prompt, Templated):
            return self._plain(prompt)
        whole, plain = list(self.tokenizer(prompt)["input_ids"]), self._plain(prompt)
        before = _place(plain, whole)
        if before is None:  # special tokens change how a text is cut: keep them, but no end that was not there
            return whole[:-1] if whole and whole[-1] == self.end_id and plain[-1:] != [self.end_id] else whole
        added = whole[:before]
        return plain if added and plain[: len(added)] == added else added + plain

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids as it stands behind another, without end and padding."""
        kept = [int(i) for i in ids]
        if not self._adds_a_space:
            return str(self.tokenizer.decode(kept, skip_special_tokens=True))
        text = str(self.tokenizer.decode(self._anchor + kept, skip_special_tokens=True))
        return text[len(self.tokenizer.decode(self._anchor, skip_special_tokens=True)) :]

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _place(part: list[int], whole: list[int]) -> int | None:
    """Return where ids stand within others; None if they do not."""
    starts = range(len(whole) - len(part) + 1)
    return next((start for start in starts if whole[start : start + len(part)] == part), None)


def response_ids(tokens: TextTokenizer, prompt: str, response: str) -> list[int]:
    """Return the ids of a response with its end, so that those of the prompt and these are what a model reads.

    They are what the tokenizer makes of both texts in one behind the prompt's ids; where it would join the two at the
    border, the prompt's ids stand, as they do when a model writes the response, and the response's follow. A response
    that closes with an end token of its own gets no second one, and one that a chat template made is as that has it.

    Args:
        tokens: the tokenizer.
        prompt: what comes before.
        response: the text behind it.
    """
    whole_text = Templated(prompt + response) if isinstance(prompt, Templated) else prompt + response
    before, whole = tokens.encode_prompt(prompt), tokens.encode_prompt(whole_text)
    ids = whole[len(before) :] if whole[: len(before)] == before else tokens.encode(response)
    if isinstance(response, Templated) or (ids and ids[-1] in end_ids_of(tokens)):
        return ids
    turn_end = getattr(tokens, "turn_end_id", tokens.end_id)
    return [*ids, turn_end if isinstance(prompt, Templated) else tokens.end_id]


def text_ids(tokens: TextTokenizer, text: str) -> list[int]:
    """Return the ids of a text of its own, without special tokens."""
    encode = getattr(tokens, "encode_text", tokens.encode)
    return list(encode(text))


def end_ids_of(tokens: TextTokenizer) -> frozenset[int]:
    """Return the ids that end a response: of a language model all that its generation configuration names."""
    ids: frozenset[int] = getattr(tokens, "end_ids", frozenset([tokens.end_id]))
    return ids


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Train a byte-pair tokenizer on texts and return it as a `transformers` tokenizer.

    Spaces go with the word that follows, line ends and marks stand alone, and characters that the texts do not have
    become `<unk>`. Its padding, end and unknown tokens are its first three.

    Args:
        texts: what it is trained on.
        vocab_size: number of tokens; fewer if the texts have no more to merge.
    """
    tokenizers = require("tokenizers", "text")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split("\n", "isolated"),
            tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first"),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[.,:;!?]"), "isolated"),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, END, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )


def without_hub(model: str | Path) -> bool:
    """Tell whether a model is no folder and the hub does not answer, so that only what was had before can be loaded.

    The hub is asked once, for at most 5 s; loading asks many times and waits longer.
    """
    if Path(model).exists():
        return False
    hub = require("huggingface_hub", "text")
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=5.0)
    except Exception:  # of the connection, the certificate, the proxy, or told to be offline
        return True
    return False


def unreachable(what: str, model: str | Path, error: Exception) -> str:
    """Return the sentence that says why a tokenizer or model could not be had."""
    place = Path(model)
    if place.exists():
        return f"{place} holds no {what} that transformers can load: {first_line(error)}"
    return (
        f"There is no folder {str(model)!r}, nor could a {what} of that name be had from the hub: "
        f"{first_line(error)} Check the name and the connection, or give a folder that save_pretrained wrote."
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
