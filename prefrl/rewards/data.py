"""ComparisonData: comparisons, rankings and ratings, encoded once and kept on the device as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from prefrl.errors import UserError
from prefrl.feedback import MOST_RANKED, Answer, Comparison, Ranking, Rating
from prefrl.likelihood import choices
from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.rewards.images import ImageBank
from prefrl.rewards.networks import Features
from prefrl.segments import Segment
from prefrl.spaces import Array, channels_first

COMPARISON, RANKING, RATING = 0, 1, 2
SEGMENTS_AT_ONCE = 20  # to give the features of


class ComparisonData:
    """Answers about segments of k steps, for `prefrl.rewards.fit`: comparisons, rankings, ratings or all of these.

    Vector features of every segment are kept as one tensor `(S, k, D)`, as they are, and standardised batch by batch,
    since the ensemble's input statistics move; image stacks as single images, in an
    `ImageBank`, expanded batch by batch. Every answer carries one bootstrap count per member, drawn
    once when it arrives: Poisson(1), the limit of n draws with replacement from n, which leaves it out of a member's
    data with probability exactly 1/e. What is left out is that member's held-out data, now and in every later fit.
    (Christiano et al. 2017, s. 2.2.3 draw anew from all comparisons; with warm-started members that would leak held-out
    comparisons into the fit.)

    Args:
        ensemble: the ensemble whose features are kept.
        length: k, steps per segment.
        bootstrap: draw the counts; otherwise every member is fitted on everything and nothing is held out.
        capacity: number of comparisons to make room for at first.
    """

    def __init__(self, ensemble: RewardEnsemble, length: int, *, bootstrap: bool = True, capacity: int = 256) -> None:
        self.ensemble, self.length, self.bootstrap = ensemble, length, bootstrap
        self._index: dict[str, int] = {}
        self.pairs = np.zeros((0, 2), np.int64)
        self.preferences = np.zeros(0, np.float32)
        self.ranked = np.zeros((0, MOST_RANKED), np.int64)  # segments of rankings; what fills up is never looked at
        self.choices: list[tuple[Tensor, Tensor]] = []  # that each ranking is made of
        self.rated = np.zeros(0, np.int64)
        self.grades = np.zeros(0, np.int64)
        self.scale_of = np.zeros(0, np.int64)  # of each rating, by its number in `scales`
        self.scales: list[tuple[str, int]] = []  # annotator and number of grades: each uses a scale their own way
        # one row for each answer of whatever kind, in the order in which they came
        self.counts = np.zeros((0, ensemble.num_members), np.float32)
        self.kinds = np.zeros(0, np.int64)
        self.places = np.zeros(0, np.int64)  # among the answers of the kind
        self.annotator_of = np.zeros(0, np.int64)  # by its number in `annotators`
        self.annotators: list[str] = []
        self._capacity = max(1, capacity) * 2
        self._vector: Tensor | None = None
        self.images = ImageBank(ensemble.device)

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, pairs: Sequence[Sequence[Segment]], preferences: Sequence[float], rng: np.random.Generator) -> None:
        """Take in answered comparisons.

        Args:
            pairs: the segments of each.
            preferences: probability that the first is better, in [0, 1].
            rng: source of the bootstrap counts.
        """
        if not pairs:
            return
        counts = self.draw_counts(len(pairs), rng)
        self.add_encoded([self.encode(pair) for pair in pairs], np.asarray(preferences, np.float32), counts)

    def draw_counts(self, num: int, rng: np.random.Generator) -> Array:
        """Draw bootstrap counts `(num, M)` for answers that have come."""
        shape = (num, self.ensemble.num_members)
        return rng.poisson(1.0, shape) if self.bootstrap else np.ones(shape)

    def encode(self, segments: Sequence[Segment]) -> tuple[int, ...]:
        """Keep the features of segments; return their numbers, for `add_encoded` and `add_answers`."""
        return tuple(self._segment_index(segment) for segment in segments)

    def add_encoded(
        self, pairs: Sequence[Sequence[int]], preferences: Array, counts: Array, annotators: Sequence[str] | None = None
    ) -> None:
        """Take in comparisons of segments kept by `encode`, with bootstrap counts `(N, M)` drawn before."""
        first = len(self.preferences)
        self.pairs = np.concatenate([self.pairs, np.asarray(pairs, np.int64).reshape(-1, 2)])
        self.preferences = np.concatenate([self.preferences, preferences.astype(np.float32)])
        places = np.arange(first, len(self.preferences))
        self._add_rows([COMPARISON] * len(places), places, counts, annotators or [""] * len(places))

    def add_answers(
        self, items: Sequence[Sequence[int]], answers: Sequence[Answer], scales: Sequence[int | None], counts: Array
    ) -> None:
        """Take in answers of any kinds, in the order given.

        Args:
            items: segments of each query, numbered by `encode`.
            answers: comparisons, rankings and ratings, none of them "can't tell".
            scales: number of grades of each query for a rating, else None.
            counts: bootstrap counts `(N, M)`, of `draw_counts`.
        """
        compared = [answer.preference for answer in answers if isinstance(answer, Comparison)]
        if len(compared) == len(answers):
            self.add_encoded(items, np.array(compared, np.float32), counts, [a.annotator for a in answers])
            return
        for number, (shown, answer, scale) in enumerate(zip(items, answers, scales, strict=True)):
            row, annotator = counts[number : number + 1], [answer.annotator]
            if isinstance(answer, Comparison):
                self.add_encoded([shown], np.array([answer.preference], np.float32), row, annotator)
            elif isinstance(answer, Ranking) and answer.ranks is not None:
                filled = [*shown, *[0] * (MOST_RANKED - len(shown))]
                self.ranked = np.concatenate([self.ranked, np.array([filled])])
                self.choices.append(choices(answer.ranks))
                self._add_rows([RANKING], [len(self.ranked) - 1], row, annotator)
            elif isinstance(answer, Rating) and answer.rating is not None and scale is not None:
                key = (answer.annotator, scale)
                if key not in self.scales:
                    self.scales.append(key)
                self.rated = np.append(self.rated, shown[0])
                self.grades = np.append(self.grades, answer.rating)
                self.scale_of = np.append(self.scale_of, self.scales.index(key))
                self._add_rows([RATING], [len(self.rated) - 1], row, annotator)
            else:
                raise UserError(f"Only an answered comparison, ranking or rating can be fitted to; got {answer}.")

    def remove(self, row: int) -> None:
        """Leave out the answer numbered `row`, which was taken back; those after it move up."""
        for name in ("counts", "kinds", "places", "annotator_of"):
            setattr(self, name, np.delete(getattr(self, name), row, axis=0))

    def _add_rows(
        self, kinds: Sequence[int], places: Sequence[int] | Array, counts: Array, names: Sequence[str]
    ) -> None:
        self.annotators += [name for name in dict.fromkeys(names) if name not in self.annotators]
        numbers = {name: number for number, name in enumerate(self.annotators)}
        self.counts = np.concatenate([self.counts, counts.astype(np.float32)])
        self.kinds = np.concatenate([self.kinds, np.asarray(kinds, np.int64)])
        self.places = np.concatenate([self.places, np.asarray(places, np.int64)])
        self.annotator_of = np.concatenate([self.annotator_of, np.array([numbers[name] for name in names], np.int64)])

    @property
    def tie_share(self) -> float:
        """Share of ties among the comparisons; 0 without any."""
        standing = self.preferences[self.places[self.kinds == COMPARISON]]
        return float(np.mean(standing == 0.5)) if len(standing) else 0.0

    def pair_embeddings(self) -> Array | None:
        """Return the features of all pairs `(N, 2 k D)`, as `prefrl.queries.pair_embeddings`; None for images."""
        if self._vector is None or len(self.images):
            return None
        vector = self.ensemble.standardise(self._vector[torch.from_numpy(self.pairs)])
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
        return Features(self._image_batch(segments) if len(self.images) else None, vector)

    def sample_features(self, num: int, rng: np.random.Generator) -> Iterator[Features]:
        """Yield the features of up to `num` different segments that were asked about, a few segments at a time."""
        chosen = torch.from_numpy(rng.permutation(len(self._index))[:num]).to(self.ensemble.device)
        yield from map(self.features, chosen.split(SEGMENTS_AT_ONCE))

    def _image_batch(self, segments: Tensor) -> Tensor:
        observations = self.images.batch(segments)
        now = observations[:, :-1]
        if self.ensemble.inputs == "sas":
            now = torch.cat([now, observations[:, 1:]], dim=2)
        return now.flatten(0, 1)
