"""ComparisonData: the answers that a reward is fitted to, and the features of the segments that they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison
from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.rewards.images import ImageBank
from prefrl.rewards.networks import Features
from prefrl.segments import Segment
from prefrl.spaces import Array, channels_first

HELD_OUT, MOST_HELD_OUT = 0.2, 0.5
SEGMENTS_AT_ONCE = 20  # to give the features of


def share_held_out(held_out: float | None, *, bootstrap: bool) -> float:
    """Return what share of the answers folds hold out of each member: 0.2 if nothing is said, 0 with the bootstrap.

    Raises:
        UserError: no such share, or one beside the bootstrap, which holds out what it does not draw.
    """
    if bootstrap and held_out is not None:
        raise UserError(
            "The bootstrap holds out 1/e of the answers of each member by itself: leave out --fit.bootstrap or "
            f"--fit.held-out. Received {held_out}"
        )
    if held_out is not None and not 0 <= held_out <= MOST_HELD_OUT:
        raise UserError(f"held_out must be in [0, {MOST_HELD_OUT}]. Received {held_out}")
    if bootstrap:
        return 0.0
    return HELD_OUT if held_out is None else held_out


class ComparisonData:
    """Answers of any kinds about segments of k steps, for `prefrl.rewards.fit`.

    Vector features of every segment are kept as one tensor `(S, k, D)`, as they are, and standardised batch by batch,
    since the ensemble's input statistics move; image stacks as single images, in an
    `ImageBank`, expanded batch by batch. Every answer carries one count per member, drawn once when it arrives: how
    often it is learned from, once or, of members in turn, not at all. What is left out is that member's held-out data,
    now and in every later fit. With the bootstrap the counts are Poisson(1), the limit of n draws with replacement from
    n, which leaves an answer out of a member's data with probability exactly 1/e. (Christiano et al. 2017, s. 2.2.3
    draw anew from all comparisons; with warm-started members that would leak held-out comparisons into the fit.)

    Args:
        ensemble: the ensemble whose features are kept.
        length: k, steps per segment.
        bootstrap: draw the counts as Christiano et al. 2017 do.
        held_out: share of the answers that is held out of each member; with 0 nothing is. None: 0.2.
        capacity: number of pairs of segments to make room for at first.

    Raises:
        UserError: no such share, or one beside the bootstrap.
    """

    def __init__(
        self, ensemble: RewardEnsemble, length: int, *, bootstrap: bool = False,
        held_out: float | None = None, capacity: int = 256,
    ) -> None:  # fmt: skip
        self.ensemble, self.length, self.bootstrap = ensemble, length, bootstrap
        self.held_out = share_held_out(held_out, bootstrap=bootstrap)
        self._index: dict[str, int] = {}
        # one for each answer, in the order in which they came
        self.answers: list[Answer] = []
        self.items: list[tuple[int, ...]] = []  # segments that it is about, by their numbers
        self.scales: list[int | None] = []  # number of grades, of those that give one
        self.counts = np.zeros((0, ensemble.num_members), np.float32)
        self.annotators: list[str] = []  # in the order in which they first answered
        self._capacity = max(1, capacity) * 2
        self._vector: Tensor | None = None
        self.images = ImageBank(ensemble.device)

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, pairs: Sequence[Sequence[Segment]], preferences: Sequence[float], rng: np.random.Generator) -> None:
        """Take in answered comparisons.

        Args:
            pairs: the segments of each.
            preferences: probability that the first is better: 1, 0 or 1/2.
            rng: source of the counts.
        """
        answers = [Comparison(query_id="", annotator="anybody", preference=float(p)) for p in preferences]
        items = [self.encode(pair) for pair in pairs]
        self.add_answers(items, answers, [None] * len(answers), self.draw_counts(len(answers), rng))

    def draw_counts(self, num: int, rng: np.random.Generator) -> Array:
        """Draw how often each member is fitted to answers that have come, `(num, M)`: alike in each group of members.

        Without the bootstrap that is once, or 0 where one is held out: of members one after another, so that none
        misses what another misses as long as there are answers enough.
        """
        groups = self.ensemble.num_groups
        members = self.ensemble.num_members // groups
        if self.bootstrap:
            counts: Array = rng.poisson(1.0, (num, members))
        elif self.held_out:
            turned = rng.random((num, 1)) + self.held_out * np.arange(members)
            counts = turned % 1.0 >= self.held_out
        else:
            counts = np.ones((num, members))
        return np.tile(counts, (1, groups))

    @property
    def holds_out(self) -> bool:
        """Whether there are answers that a member is not fitted to."""
        return self.bootstrap or self.held_out > 0

    def encode(self, segments: Sequence[Segment]) -> tuple[int, ...]:
        """Keep the features of segments; return their numbers, for `add_answers`."""
        return tuple(self._segment_index(segment) for segment in segments)

    def add_answers(
        self, items: Sequence[Sequence[int]], answers: Sequence[Answer], scales: Sequence[int | None], counts: Array
    ) -> None:
        """Take in answers, in the order given.

        Args:
            items: segments of each query, numbered by `encode`.
            answers: of any kinds, none of them "can't tell".
            scales: number of grades of each query, None where it has none.
            counts: how often each member is fitted to each `(N, M)`, of `draw_counts`.

        Raises:
            UserError: an answer says nothing.
        """
        for answer in answers:
            if answer.value is None:
                raise UserError(f"Only an answer that says something can be learned from; got {answer}.")
        self.items += [tuple(shown) for shown in items]
        self.answers += answers
        self.scales += scales
        self.counts = np.concatenate([self.counts, counts.astype(np.float32)])
        self.annotators = list(dict.fromkeys([*self.annotators, *(answer.annotator for answer in answers)]))

    def remove(self, row: int) -> None:
        """Leave out the answer numbered `row`, which was taken back; those after it move up."""
        for rows in (self.answers, self.items, self.scales):
            del rows[row]
        self.counts = np.delete(self.counts, row, axis=0)

    def share_of_ties(self, start: int = 0) -> float | None:
        """Return the share of ties among the answers about two segments, from number `start` on; None without any."""
        pairs = zip(self.items[start:], self.answers[start:], strict=True)
        ties = [answer.pairs(2) == [(0, 1, 0.5)] for items, answer in pairs if len(items) == 2]
        return float(np.mean(ties)) if ties else None

    def num_telling(self) -> int:
        """Return how many answers tell one thing from another: all but ties, and grades other than the commonest."""
        told = list(zip(self.items, self.answers, strict=True))
        several = [answer.pairs(len(items)) for items, answer in told if len(items) > 1]
        grades = Counter(answer.grade for items, answer in told if len(items) == 1)
        commonest = max(grades.values(), default=0)
        return sum(any(p != 0.5 for *_, p in pairs) for pairs in several) + sum(grades.values()) - commonest

    def pair_embeddings(self) -> Array | None:
        """Return the features of all pairs `(N, 2 k D)`, as `prefrl.queries.pair_embeddings`; None for images."""
        if self._vector is None or len(self.images):
            return None
        pairs = torch.tensor([items for items in self.items if len(items) == 2], dtype=torch.int64).reshape(-1, 2)
        vector = self.ensemble.standardise(self._vector[pairs])
        rows: Array = vector.flatten(1).cpu().numpy()
        return rows

    def _segment_index(self, segment: Segment) -> int:
        if segment.id in self._index:
            return self._index[segment.id]
        if len(segment) != self.length:
            raise UserError(f"Expected segments of {self.length} steps; got one of {len(segment)}.")
        index = len(self._index)
        if self.ensemble.images:
            self._store_images(segment)
        if self.ensemble.num_inputs:
            features = self.ensemble.encode(*segment.transitions()).vector
            assert features is not None
            self._vector = self._room(self._vector, index, features)
            self._vector[index] = features
        self._index[segment.id] = index
        return index

    def _room(self, bank: Tensor | None, index: int, like: Tensor) -> Tensor:
        if bank is None:
            return torch.empty((self._capacity, *like.shape), dtype=like.dtype, device=self.ensemble.device)
        if index < len(bank):
            return bank
        return torch.cat([bank, torch.empty_like(bank)])

    def _store_images(self, segment: Segment) -> None:
        space, values = self.ensemble.observation_space, segment.observations
        assert isinstance(space, spaces.Box) and isinstance(values, np.ndarray)
        self.images.append(values if channels_first(space) else np.moveaxis(values, -1, 1))

    def features(self, segments: Tensor) -> Features:
        """Return the features of all steps of the segments numbered `(n,)`, joined: `(n * k, ...)`."""
        vector = None if self._vector is None else self.ensemble.standardise(self._vector[segments].flatten(0, 1))
        return Features(self._image_batch(segments) if len(self.images) else None, vector, self.length)

    def sample_features(self, num: int, rng: np.random.Generator) -> Iterator[Features]:
        """Yield the features of up to `num` different segments that were asked about, a few segments at a time."""
        chosen = torch.from_numpy(rng.permutation(len(self._index))[:num]).to(self.ensemble.device)
        yield from map(self.features, chosen.split(SEGMENTS_AT_ONCE))

    def _image_batch(self, segments: Tensor) -> Tensor:
        observations = self.images.batch(segments)
        now = observations[:, :-1]
        if self.ensemble.reads_next:
            now = torch.cat([now, observations[:, 1:]], dim=2)
        return now.flatten(0, 1)
