"""Demonstrations beside preferences (Ibarz et al. 2018): a start, comparisons that nobody is asked, and when they end.

Before a run begins, what it needs of the demonstrations is put into its folder (`prefrl.offline.demonstrations`): a
policy cloned from them, and segments. Once the untaught agent has acted, the record gets comparisons that prefer a
demonstration to what it did, answered in the name of `demonstrations`. They are learned from as any answers are, and
are no labels.

Departures from Ibarz et al.: the agent is on-policy, so that demonstrations stay in no replay memory; the segments that
demonstrations are preferred to are of an agent that was taught nothing, not of one that imitates; and once the agent
has overtaken the demonstrations, what was said in their name is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.agents import Agent
from prefrl.control.earlier import Spaces
from prefrl.control.folder import ControlFolder
from prefrl.control.policies import make_run_env
from prefrl.control.settings import RunSettings
from prefrl.errors import UserError, first_line
from prefrl.feedback import Comparison, Query
from prefrl.files import npz_arrays, npz_bytes, read_plain, write_atomically
from prefrl.history import History
from prefrl.rewards import RewardEnsemble
from prefrl.runs.streams import stream
from prefrl.segments import Segment, segments_from_arrays, segments_to_arrays, stack_transitions
from prefrl.spaces import is_image, misfit
from prefrl.store import Addition, PreferenceStore

ANNOTATOR = "demonstrations"
"""In whose name the comparisons are answered."""
CLONED = "cloned"
"""Name of the policy among those of a run."""
LABELS_SHARE = 0.1  # comparisons for each label
SEGMENTS = 100  # of the demonstrations, and of what the agent did lately, that are held against each other
RECENT = 0.1  # share of the run, the newest, that counts as lately
CLEARLY = 2.0  # standard errors by which the agent must lead
IN_A_ROW = 2  # fits after which it must
HIDDEN = [64, 64]
"""Units of the layers of a cloned policy, and of the values that are learned beside it."""


def with_demonstrations(settings: RunSettings, given: dict[str, Any]) -> RunSettings:
    """Return settings with what demonstrations decide: whether they are cloned, and the network of the clone.

    Args:
        settings: resolved.
        given: the hyper-parameters that the user named.

    Raises:
        UserError: they are to be cloned and cannot be.
    """
    if settings.demonstrations is None:
        return settings
    place = settings.demonstrations
    if Path(place).exists():  # so that it is found from anywhere
        settings = replace(settings, demonstrations=str(Path(place).resolve()))
    pairs = settings.demonstration_pairs
    if pairs is None:
        pairs = max(1, round(LABELS_SHARE * settings.labels))
    clone, reason = settings.clone_demonstrations, _why_not_cloned(settings)
    if reason is not None:
        if clone or pairs == 0:
            raise UserError(f"The demonstrations cannot be cloned: {reason}.")
        if clone is None:
            warnings.warn(f"The demonstrations are compared with, but not cloned: {reason}.", stacklevel=2)
    clone = reason is None and clone is not False
    settings = replace(settings, demonstration_pairs=pairs, clone_demonstrations=clone)
    if not clone:
        return settings
    network = settings.hyperparameters.get("policy_kwargs", {})
    own = {"net_arch": {"pi": HIDDEN, "vf": HIDDEN}, "activation_fn": "relu"}
    for name in own:
        if name in given.get("policy_kwargs", {}):
            raise UserError(
                f"A clone brings its own network, so {name} cannot be chosen. Leave it out, or give "
                "--clone-demonstrations False."
            )
    # The statistics of the inputs stay those that it was cloned with: others would make it another policy.
    changes = {"policy_kwargs": {**network, **own}, "scale_actions": True, "normalize_until": 0.0}
    return replace(settings, hyperparameters={**settings.hyperparameters, **changes})


def _why_not_cloned(settings: RunSettings) -> str | None:
    """Return what stands against a clone as the start, None where nothing does."""
    if settings.agent != "ppo":
        return f"a clone is the policy of a ppo agent, and this one is {settings.agent}"
    if settings.from_offline is not None:
        return "--from-offline brings a policy to begin with"
    if settings.warmup == "entropy":
        return "an agent that learns to explore in the warm-up (--warmup entropy) would unlearn what it was cloned from"
    with closing(make_run_env(settings)) as env:
        return "observations are images" if is_image(env.observation_space) else None


# ------------------------------------------------------------------------------------------------ in the folder


def segments_path(folder: ControlFolder) -> Path:
    """Return where the segments of the demonstrations lie, of a run or of the run that it is the baseline of."""
    return _main(folder).path / "demonstrations" / "segments.npz"


def _main(folder: ControlFolder) -> ControlFolder:
    return ControlFolder(folder.path.parent) if folder.config["baseline"] else folder


def check_length(history: History, settings: RunSettings) -> None:
    """Check that segments can be cut from demonstrations.

    Raises:
        UserError: no demonstration is as long as a segment.
    """
    length, longest = settings.segment_length, max(episode.num_steps for episode in history.episodes)
    if longest < length:
        raise UserError(
            f"The longest of the demonstrations in {settings.demonstrations} has {longest} steps, and a segment has "
            f"{length}. Use --segment-length {longest}{' or less' * (longest > 1)}, or longer demonstrations."
        )


def keep_segments(folder: ControlFolder, history: History) -> None:
    """Draw segments of demonstrations and keep them in the folder of a run; that is done last.

    Args:
        folder: the run.
        history: of the demonstrations, which `check_length` found long enough.
    """
    settings = folder.settings
    num = max(SEGMENTS, settings.demonstration_pairs or 0)
    segments = history.sample(num, settings.segment_length, stream(settings.seed, "demonstrations"))
    write_atomically(segments_path(folder), npz_bytes(segments_to_arrays(segments), compressed=True))


def start_clone(folder: ControlFolder, agent: Agent) -> None:
    """Let an agent act as the policy cloned for a run does, with the noise that it has of its own.

    The noise that was cloned is how far the clone misses the demonstrations; with as little as that of a policy which
    acts always alike, an agent would find nothing better.
    """
    cloned, own = _main(folder).load_policy(CLONED), agent.policy_state()
    agent.load_policy_state({**cloned, "actions": own["actions"]})


# ------------------------------------------------------------------------------------------------ as it goes


class Demonstrations:
    """The demonstrations of a run, from the comparisons with them to the moment when the agent has overtaken them.

    Args:
        segments: of the demonstrations, of the run's length.
        num_pairs: comparisons to make.
        settings: of the run.
    """

    def __init__(self, segments: Sequence[Segment], num_pairs: int, settings: RunSettings) -> None:
        self._segments, self._num_pairs, self._settings = list(segments), num_pairs, settings
        self._pairs: list[tuple[Segment, Segment]] = []  # demonstration, agent
        self._times_ahead = 0  # fits in a row after which the agent led
        self._lead: float | None = None
        self.overtaken = False
        """The agent is better, so that nothing is learned from these comparisons any more."""

    @classmethod
    def open(cls, folder: ControlFolder, spaces: Spaces) -> Demonstrations | None:
        """Return the demonstrations of a run; None where it compares with none.

        Args:
            folder: the run.
            spaces: of observations and actions.

        Raises:
            UserError: they are missing, damaged, or of another environment.
        """
        settings = folder.settings
        if settings.demonstrations is None or not settings.demonstration_pairs:
            return None
        path = segments_path(folder)
        try:
            segments = segments_from_arrays(npz_arrays(read_plain(path)))
        except (OSError, ValueError, KeyError, IndexError, UserError) as error:
            raise UserError(f"{path} cannot be read: {first_line(error)}. Restore it from a copy.") from None
        for segment in segments:
            parts = zip(spaces, (segment.observations, segment.actions), strict=True)
            if len(segment) != settings.segment_length or any(misfit(space, values) for space, values in parts):
                raise UserError(f"{path} is damaged: its segments are not those of this run. Restore it from a copy.")
        return cls(segments, settings.demonstration_pairs, settings)

    def compare_with(self, history: History) -> None:
        """Choose what the demonstrations are preferred to: segments of what the untaught agent did.

        Where there are too few different pairs, there are fewer than wanted.
        """
        rng, length = stream(self._settings.seed, "untaught"), self._settings.segment_length
        if history.num_windows(length) == 0:
            raise UserError(
                f"The untaught agent made no {length} steps in one episode, so there is nothing to prefer the "
                "demonstrations to. Use a shorter --segment-length, or more --warmup-steps."
            )
        drawn = history.sample(self._num_pairs, length, rng)
        pairs = {(ours.id, its.id): (ours, its) for ours, its in zip(self._segments, drawn, strict=False)}
        self._pairs = [pair for (ours, its), pair in pairs.items() if ours != its]

    @property
    def chosen(self) -> bool:
        """Whether `compare_with` was called."""
        return bool(self._pairs)

    def record(self, store: PreferenceStore) -> int:
        """Put the comparisons into the record, in session 0; doing it again, after a kill, does no harm.

        Returns:
            how many there are.
        """
        store.add_annotator(ANNOTATOR, "teacher")
        first = stream(self._settings.seed, "sides").random(len(self._pairs)) < 0.5
        queries, answers = [], []
        for (ours, its), at_first in zip(self._pairs, first.tolist(), strict=True):
            query = Query(segments=(ours, its) if at_first else (its, ours), reserved_for=ANNOTATOR)
            queries.append(query)
            claim = f"{ANNOTATOR} {query.id}"
            answers.append(Comparison(query_id=query.id, annotator=ANNOTATOR, preference=float(at_first), claim=claim))

        def add(addition: Addition) -> None:
            addition.add_queries(queries)
            addition.add_answers(answers)

        store.add_together(add)
        return len(queries)

    def look(self, reward: RewardEnsemble, history: History, number: int) -> bool:
        """Hold what the agent did lately against the demonstrations; tell whether it has overtaken them just now.

        It has once the mean learned return of its segments is above that of the demonstrations', by more than chance,
        after two fits in a row. The reward that says so was fitted to these comparisons too: that errs on the side of
        the demonstrations.

        Args:
            reward: as it was just fitted.
            history: of the agent.
            number: of the fit.
        """
        settings = self._settings
        length, last = settings.segment_length, max(1, int(RECENT * settings.steps))
        if self.overtaken or history.num_windows(length, last) == 0:
            return False
        lately = history.sample(SEGMENTS, length, stream(settings.seed, "lately", number), last_steps=last)
        of_agent, ours = learned_returns(reward, lately), learned_returns(reward, self._segments[:SEGMENTS])
        self._lead = float(ours.mean() - of_agent.mean())
        ahead = is_ahead(of_agent, ours)
        self._times_ahead = self._times_ahead + 1 if ahead else 0
        self.overtaken = self._times_ahead >= IN_A_ROW
        return self.overtaken

    def metrics(self) -> dict[str, float | None]:
        """Return how far the demonstrations lead, in learned return of a segment; None once they are overtaken."""
        return {"demonstrations_lead": None if self.overtaken else self._lead}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, as JSON; pairs are in the record by then."""
        return {"times_ahead": self._times_ahead, "lead": self._lead, "overtaken": self.overtaken}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._times_ahead, self._lead, self.overtaken = state["times_ahead"], state["lead"], state["overtaken"]


def learned_returns(reward: RewardEnsemble, segments: list[Segment]) -> np.ndarray[Any, Any]:
    """Return the learned return of each of N segments, `(N,)`."""
    return np.asarray(reward(*stack_transitions(segments)), np.float64).reshape(len(segments), -1).sum(1)


def is_ahead(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Tell whether the mean of `(n,)` values is above that of `(m,)` others by two standard errors of the difference.

    Values that do not differ have no error: then any difference will do.
    """
    error = np.sqrt(first.var() / len(first) + second.var() / len(second))
    difference = first.mean() - second.mean()
    return bool(difference > 0 and difference >= CLEARLY * error)
