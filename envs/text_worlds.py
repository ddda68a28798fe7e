"""Worlds of text: where prompts, examples and pretraining text come from, and the gold reward that no learner sees.

`prefrl.text` knows a world by this protocol alone. `servicedesk` is one, with an invented geography beside it
(`prefrl.envs.service_desk`, `prefrl.envs.geography`), `docstrings` another, of real text
(`prefrl.envs.docstring_world`); one of a user's own is named `module:Name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.docstring_world import DocstringsWorld
from prefrl.envs.geography import Geography
from prefrl.envs.service_desk import Message, ServiceDesk
from prefrl.envs.service_desk_writers import write_responses
from prefrl.seams import Registry, made_from_seed


class TextWorld(Protocol):
    """What a language model can be taught and measured on. All of it follows from the seed that the world is made with.

    A world that has no examples, texts or probes gives empty ones: what needs them is refused, the rest works.
    """

    def knows(self, prompt: str) -> bool:
        """Tell whether a prompt is of this world, so that `gold` can judge responses to it."""

    def prompts(self, count: int, *, held_out: bool = False) -> Sequence[str]:
        """Return `count` prompts, or all if there are fewer; those held out are others than those learned from."""

    def examples(self, count: int) -> Sequence[tuple[str, str]]:
        """Return up to `count` prompts with a response to imitate, the space before it included."""

    def texts(self, count: int, *, held_out: bool = False) -> Sequence[str]:
        """Return up to `count` texts to pretrain on, or held-out ones to measure the loss on."""

    def gold(self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool] | None = None) -> Any:
        """Return the true reward of each response, `(B,)` floats.

        Args:
            prompts: B prompts.
            responses: one to each.
            ended: whether each came to its end; None: all did.
        """

    def probes(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Return what pretraining taught, by the name of its figure: starts of sentences and the word that follows."""


MakeWorld = Callable[[int], TextWorld]
"""Makes a world from a seed, at least 0."""


class ServiceDeskWorld:
    """Customers of a service desk, and an invented geography that has nothing to do with them.

    Args:
        seed: which customers come, and which town belongs to which country.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._desk, self._geography = ServiceDesk(seed), Geography(seed)

    def knows(self, prompt: str) -> bool:
        """Tell whether a customer wrote the prompt."""
        return Message.from_prompt(prompt) is not None

    def prompts(self, count: int, *, held_out: bool = False) -> list[str]:
        """Return messages of customers."""
        return self._desk.prompts(count, held_out=held_out)

    def examples(self, count: int) -> list[tuple[str, str]]:
        """Return messages, each with the answer of a writer drawn for it."""
        messages = self._desk.messages(count)
        answers = write_responses(messages, self.seed)
        return [(message.to_prompt(), f" {answer}") for message, answer in zip(messages, answers, strict=True)]

    def texts(self, count: int, *, held_out: bool = False) -> list[str]:
        """Return paragraphs of geography, small talk and old exchanges."""
        return self._geography.corpus(count, stream=2 if held_out else 0)

    def gold(
        self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool] | None = None
    ) -> NDArray[np.float64]:
        """Return the gold reward of each answer, `(B,)` float64."""
        return ServiceDesk.gold(prompts, responses, ended)

    def probes(self) -> dict[str, list[tuple[str, str]]]:
        """Return the 48 questions of the geography."""
        return {"geography": self._geography.questions()}


DEFAULT_WORLD = "servicedesk"
DOCSTRINGS = "docstrings"
WORLDS: Registry[MakeWorld] = Registry(
    "text world", {DEFAULT_WORLD: ServiceDeskWorld, DOCSTRINGS: DocstringsWorld}, made_from_seed(TextWorld)
)
"""Every world of text that data can name."""
READ_FROM_THE_MACHINE: Mapping[str, Callable[[], str]] = {DOCSTRINGS: DocstringsWorld.digest}
"""Worlds that do not follow from their seed alone, and what gives a digest of the rest; a run keeps it."""
