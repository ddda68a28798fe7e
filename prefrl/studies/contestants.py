"""Who plays in a tournament: policies of control runs, and models of text runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.control.folder import ControlFolder
from prefrl.control.played import draw_windows, play, play_unseen
from prefrl.errors import UserError, require
from prefrl.feedback import Comparison, Query, Response
from prefrl.history import Episode
from prefrl.runs.streams import stream
from prefrl.segments import Segment
from prefrl.store import Clip
from prefrl.studies.tournament import Contestant

if TYPE_CHECKING:
    from prefrl.text.data.judge import Judge

NUM_PROMPTS = 100


class PolicyContestant:
    """A policy of a control run.

    Args:
        name: under which it plays.
        folder: the run.
        policy: by its name in the folder.
        seed: of the starts, which are the same for every policy.
        drawn: its clips are drawn, for people.
    """

    def __init__(self, name: str, folder: ControlFolder, policy: str, *, seed: int, drawn: bool) -> None:
        folder.load_policy(policy)  # refuses what cannot be read before anything is asked
        self.name = name
        self._folder, self._policy, self._seed, self._drawn = folder, policy, seed, drawn

    def show(self, number: int) -> tuple[Segment, Clip | None]:
        """Return a segment of an episode of this number."""
        windows = draw_windows(1, stream(self._seed, "starts", number))
        if self._drawn:
            return play(self._folder, self._policy, windows)[0]
        return play_unseen(self._folder, self._policy, windows)[0], None


class ModelContestant:
    """A language model that answers the same prompts as the others.

    Args:
        name: under which it plays.
        model: its folder or id, or a text run.
        prompts: what is asked, over and over, as it is shown beside the responses.
        as_asked: the same prompts as the model is asked them, from its tokenizer.
        max_tokens: longest response.
        seed: of the draws.
    """

    def __init__(
        self,
        name: str,
        model: str,
        prompts: Sequence[str],
        as_asked: Callable[[Any], list[str]],
        *,
        max_tokens: int,
        seed: int,
    ) -> None:
        self.name, self._model = name, model
        self._prompts, self._as_asked, self._max_tokens, self._seed = list(prompts), as_asked, max_tokens, seed
        self._texts: list[str] | None = None

    def show(self, number: int) -> tuple[Response, None]:
        """Return its response to the prompt of this number; all are drawn when the first is wanted."""
        if self._texts is None:
            self._texts = self._draw()
        place = number % len(self._prompts)
        return Response(prompt=self._prompts[place], text=self._texts[place]), None

    def _draw(self) -> list[str]:
        from prefrl.text.data.examples import Encoder
        from prefrl.text.learn.policy_measures import answer_prompts
        from prefrl.text.model.generation import SamplingSettings
        from prefrl.text.model.models import context_length, load_model

        model, tokens = load_model(self._model)
        encoder = Encoder(tokens, context_length(model), self._max_tokens)
        settings = SamplingSettings(max_tokens=self._max_tokens)
        return answer_prompts(model, encoder, self._as_asked(tokens.tokenizer), settings, seed=self._seed).texts


class JudgeAnnotator:
    """A judge of responses as an annotator: each pair is put to it in both orders (`prefrl.text.data.judge`).

    Args:
        judge: who is asked.
    """

    def __init__(self, judge: Judge) -> None:
        self.name = judge.name
        self._judge = judge

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Do nothing: responses are no episodes."""

    def answer(self, queries: Sequence[Query]) -> list[Comparison]:
        """Return which response it prefers; a tie where the order decides, "can't tell" where it said neither."""
        return [
            Comparison(query_id=query.id, annotator=self.name, preference=self._prefer(*query.responses))
            for query in queries
        ]

    def state(self) -> dict[str, Any]:
        """Return nothing: a judge keeps no state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def _prefer(self, first: Response, second: Response) -> float | None:
        if first.text == second.text:
            return 0.5
        from prefrl.text.data.judge import ask_both_ways

        asked = ask_both_ways(self._judge, first.prompt, first.text, second.text)
        if asked is None:
            return None
        ahead, behind = asked
        return 0.5 if ahead == behind else float(ahead > behind)


def policies_of(
    runs: Sequence[Path], policies: Sequence[str], *, seed: int, drawn: bool, trust: bool
) -> list[Contestant]:
    """Return the policies of runs of one environment, each by the name of its run.

    Raises:
        UserError: no run, runs of different environments or segment lengths, or a policy that a run has not.
    """
    folders = [ControlFolder.open(run, trust=trust) for run in runs]
    first = folders[0].settings
    for folder in folders[1:]:
        here = folder.settings
        for what, mine, theirs in (
            ("of", first.env_id, here.env_id),
            ("with segments of", first.segment_length, here.segment_length),
            ("in a fixed-horizon form of", first.fixed_horizon, here.fixed_horizon),
        ):
            if mine != theirs:
                raise UserError(
                    f"All runs must show the same: {folders[0].path} is {what} {mine}, {folder.path} {what} {theirs}."
                )
    found: list[Contestant] = []
    for folder, short in zip(folders, short_names([str(folder.path) for folder in folders]), strict=True):
        for policy in policies:
            name = short if len(policies) == 1 else f"{short} ({policy})"
            found.append(PolicyContestant(name, folder, policy, seed=seed, drawn=drawn))
    return found


def models_of(models: Sequence[str], data: str | None, *, max_tokens: int, seed: int, trust: bool) -> list[Contestant]:
    """Return language models that answer the same prompts, each by the name of its run or folder.

    Conversations are put to each model through its own chat template, and shown as plain transcripts.

    Args:
        models: text runs, folders or ids.
        data: where prompts come from; None: what the first was trained on.
        max_tokens: longest response.
        seed: of the prompts and draws.
        trust: runs of others may name code.

    Raises:
        UserError: no prompts.
    """
    require("transformers", "text")
    from prefrl.text.data.chat import Chat, PlainChat, chat_of
    from prefrl.text.data.forms import Reading
    from prefrl.text.jobs.parts import run_of
    from prefrl.text.jobs.worlds import prompts_of_run

    folder = run_of(models[0], trust=trust)

    def written(chat: Chat) -> list[str]:
        return prompts_of_run(folder, data, seed=seed, count=NUM_PROMPTS, reading=Reading(chat=chat))[0]

    prompts = written(PlainChat())
    if not prompts:
        raise UserError("A tournament of language models needs prompts. There are none.")
    return [
        ModelContestant(
            name, model, prompts, lambda tokenizer: written(chat_of(tokenizer)), max_tokens=max_tokens, seed=seed
        )
        for name, model in zip(short_names(models), models, strict=True)
    ]


def short_names(places: Sequence[str]) -> list[str]:
    """Return the last parts of paths, or as much of each as tells them apart."""
    for parts in range(1, 1 + max(len(Path(place).parts) for place in places)):
        names = ["/".join(Path(place).parts[-parts:]) for place in places]
        if len(set(names)) == len(set(places)):
            return names
    return list(places)


def judge_of(name: str, constitution: str | None) -> JudgeAnnotator:
    """Return a judge of responses as an annotator: `rule`, a folder or hub id, or `URL#MODEL`.

    Raises:
        UserError: it cannot be had.
    """
    require("transformers", "text")
    from prefrl.text.data.judge import DEFAULT_CONSTITUTION, make_judge

    return JudgeAnnotator(make_judge(name, constitution or DEFAULT_CONSTITUTION))
