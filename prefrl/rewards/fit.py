"""Fitting a reward ensemble to comparisons, rankings and ratings.

Christiano et al. 2017, s. 2.2.3: cross-entropy under Bradley-Terry, part of the comparisons held out of each member
(here a fifth, another one for each; the paper's bootstrap is an option), and an l2 coefficient adapted so that held-out
loss / training loss stays in [1.1, 1.5]. Rankings and ratings enter the same loss with their own likelihoods
(`prefrl.rewards.explaining`), and each annotator's reliability can be estimated along (`prefrl.rewards.reliability`),
as can what group they belong to (`prefrl.rewards.groups`).

All members see the same minibatches, weighted by the counts of `ComparisonData`, so one pass through the batched
network serves every member.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.rewards.data import ComparisonData, share_held_out
from prefrl.rewards.dynamics import EnsembleDynamics
from prefrl.rewards.dynamics_learner import DynamicsLearner
from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.rewards.explaining import CutPoints, Examples
from prefrl.rewards.groups import Groups
from prefrl.rewards.networks import EnsembleMLP
from prefrl.rewards.reliability import Reliability
from prefrl.rewards.settings import RewardSettings
from prefrl.segments import Transitions
from prefrl.shares import Share, wilson
from prefrl.threads import torch_threads

LEAST_TOGETHER = 2  # transitions: of one alone, standardised over itself, nothing is left


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a reward ensemble is fitted."""

    learning_rate: float = 1e-3
    """Step size of Adam."""
    batch_size: int = 32
    """Answers per gradient step."""
    num_steps: int = 60
    """Gradient steps of a fit, warm-started from the one before."""
    first_steps: int = 120
    """Gradient steps of the first fit."""
    held_out: float | None = None
    """Share of the answers that each member is not fitted to and is judged by, drawn once, in [0, 0.5]; 0: it learns
    from all of them, and nothing is judged. Members miss other answers each, as long as there are any. Default: 0.2, so
    that five members judge each answer once, and three of them three answers of five."""
    bootstrap: bool = False
    """Fit each member on its own draw of the answers with replacement instead, which holds out 1/e of them; with three
    members that is how Christiano et al. 2017 (s. 2.2.3) do it."""
    error_rate: float = 0.0
    """Share of uniformly random answers in the likelihood (Christiano et al. 2017, s. 2.2.3 use 0.1)."""
    crop: float = 0.0
    """Largest share of a segment's steps that a gradient step leaves out, at either end: in each, all segments are as
    long and begin anywhere (temporal cropping of SURF, Park et al. 2022, s. 4.2)."""
    estimate_reliability: bool = False
    """Estimate that share for each annotator along with the reward, in place of `error_rate`."""
    l2: float = 1e-4
    """Starting l2 coefficient, decoupled from the gradient (AdamW)."""
    adapt_l2: bool = True
    """Adapt the coefficient per member to keep held-out loss / training loss in [1.1, 1.5]; needs answers that
    are held out."""
    max_l2: float = 1.0
    """The adapted coefficient never leaves [1e-6, max_l2]."""
    patience: int = 20
    """Stop after this many epochs (of at least 5 steps) without a better held-out loss, and go back to the best; 0:
    never. Needs answers that are held out."""
    dynamics_steps: int = 100
    """Gradient steps on transitions before every fit, of the reward network dynamics."""
    dynamics_batch: int = 128
    """Transitions of each of them, at least 2."""

    def __post_init__(self) -> None:
        for name in (
            "learning_rate", "batch_size", "num_steps", "first_steps", "max_l2", "dynamics_steps", "dynamics_batch",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} must be positive and finite. Received {getattr(self, name)}")
        if self.dynamics_batch < LEAST_TOGETHER:
            raise UserError(
                f"dynamics_batch must be at least {LEAST_TOGETHER}: encodings are standardised over these transitions. "
                f"Received {self.dynamics_batch}"
            )
        for name in ("l2", "patience"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} must not be negative. Received {getattr(self, name)}")
        if self.adapt_l2 and self.l2 > self.max_l2:
            raise UserError(f"l2 must not exceed max_l2 where it is adapted. Received {self.l2} and {self.max_l2}")
        share_held_out(self.held_out, bootstrap=self.bootstrap)  # refuses what cannot be
        for name in ("error_rate", "crop"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be in [0, 1). Received {getattr(self, name)}")

    @property
    def holds_out(self) -> bool:
        """Whether there are answers that a member is not fitted to."""
        return self.bootstrap or self.held_out != 0


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What a fit came to; one entry per member."""

    num_comparisons: int
    num_steps: int
    """Gradient steps made."""
    train_loss: list[float | None]
    """Cross-entropy in nats on the member's own comparisons, weighted by how often it learns from each; None where
    all of the few there are were held out of it."""
    held_out_loss: list[float | None]
    """The same on the comparisons that were held out of it; None where there are none."""
    train_accuracy: list[float | None]
    """Share of answered (not tied) comparisons whose better segment has the larger sum."""
    held_out_accuracy: list[float | None]
    l2: list[float]
    """l2 coefficient after the fit."""
    num_judged: int = 0
    """Answers that can be right or wrong (not ties) and that were held out of at least one member."""
    num_agreed: float = 0.0
    """Of these, how many are as the majority of the members that did not learn from them says; where they are split,
    and of rankings, a part counts. It is the out-of-bag estimate of Breiman (1996)."""
    reliability: dict[str, float] | None = None
    """Estimated share of each annotator's answers that are not random; None where it is not estimated."""
    groups: dict[str, list[float]] | None = None
    """How far each annotator belongs to each group; None where there is but one."""
    dynamics_loss: float | None = None
    """Minus the mean cosine between predicted and actual encodings of next states, in the last pass over transitions;
    None where the network learns no dynamics."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-ready dictionary."""
        return asdict(self)

    @property
    def held_out_agreement(self) -> Share | None:
        """How far the reward agrees with answers that it did not learn from; None where nothing is held out."""
        return wilson(self.num_agreed, self.num_judged)


class Fitter:
    """Fits an ensemble again and again as comparisons come; the optimiser's state lives as long as it does.

    Args:
        ensemble: the ensemble to fit.
        settings: how.
    """

    LOW_RATIO, HIGH_RATIO = 1.1, 1.5  # Christiano et al. 2017, s. 2.2.3
    LEAST_STEPS_PER_CHECK = 5

    def __init__(self, ensemble: RewardEnsemble, settings: FitSettings | None = None) -> None:
        self.ensemble = ensemble
        self.settings = settings or FitSettings()
        network, self.dynamics = ensemble.network, None
        if isinstance(network, EnsembleDynamics):
            steps, size = self.settings.dynamics_steps, self.settings.dynamics_batch
            self.dynamics = DynamicsLearner(ensemble, num_steps=steps, batch_size=size)
        parameters = network.parameters() if self.dynamics is None else self.dynamics.network.reward_parameters()
        self._parameters = [p for p in parameters if p.requires_grad]
        fused = all(p.is_floating_point() for p in self._parameters)
        self.optimizer = torch.optim.Adam(self._parameters, lr=self.settings.learning_rate, fused=fused)
        self.l2 = torch.full((ensemble.num_members,), self.settings.l2, device=ensemble.device)
        self.cut_points = CutPoints(ensemble.num_members, ensemble.device)
        self.reliability = Reliability() if self.settings.estimate_reliability else None
        self.groups = Groups(ensemble.num_groups) if ensemble.num_groups > 1 else None
        self.num_fits = 0

    def fit(
        self,
        data: ComparisonData,
        generator: torch.Generator,
        on_step: Callable[[int], None] | None = None,
        transitions: Transitions | None = None,
    ) -> FitReport:
        """Fit the ensemble to all comparisons in `data`, starting from where it is.

        On a CPU, perceptrons are fitted by one thread: two are a tenth faster on cores that nothing else uses, and
        where something does they wait for each other ten times as long.

        Args:
            data: at least one answer.
            generator: source of the minibatches and the dropout.
            on_step: called with the number of steps made so far.
            transitions: steps that a network which knows the dynamics learns from first, asked about or not; of no use
                to others.

        Raises:
            UserError: no comparison yet, or no transitions where they are needed.
        """
        if len(data) == 0:
            raise UserError("There is no comparison to fit a reward to.")
        if self.dynamics is not None and (transitions is None or len(transitions[1]) == 0):
            raise UserError("The reward network 'dynamics' learns from transitions before it is fitted: give some.")
        alone = isinstance(self.ensemble.network, EnsembleMLP)
        with torch_threads(1 if alone else torch.get_num_threads()):
            if self.dynamics is None:
                return self._fit(data, generator, on_step)
            assert transitions is not None
            loss = self.dynamics.learn(transitions, generator)
            return replace(self._fit(data, generator, on_step), dynamics_loss=round(loss, 6))

    def _fit(
        self, data: ComparisonData, generator: torch.Generator, on_step: Callable[[int], None] | None
    ) -> FitReport:
        settings = self.settings
        device = self.ensemble.device
        self.cut_points.follow(data, self.ensemble)
        examples = Examples(self.ensemble, data, self.cut_points)
        belongs = None
        if self.groups is not None:
            self.groups.begin(data, int(torch.randint(2**31, (1,), generator=generator)))
            belongs = self.groups.weights(examples)
        # no more than a few cut points: their optimiser may begin anew with every fit
        points = self.cut_points.parameters()
        cuts = torch.optim.Adam(points, lr=CutPoints.LEARNING_RATE) if points else None
        num_steps = settings.num_steps if self.num_fits else settings.first_steps
        epoch = -(-len(data) // settings.batch_size)
        watch = settings.estimate_reliability or (settings.holds_out and (settings.adapt_l2 or settings.patience > 0))
        seen = _RunningLosses(self.ensemble.num_members, device)
        best_loss, best_state, since_best = float("inf"), None, 0
        order, cursor, made = torch.empty(0, dtype=torch.int64), 0, 0
        self.ensemble.network.train()
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
            # dropout draws from the global stream
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            while made < num_steps:
                if cursor >= len(order):
                    order, cursor = torch.randperm(len(data), generator=generator), 0
                chosen = order[cursor : cursor + settings.batch_size].to(device)
                cursor += settings.batch_size
                windows = _windows(data.length, settings.crop, generator, device) if settings.crop else None
                losses, counts, weights = self._step(examples, chosen, cuts, belongs, windows)
                made += 1
                if on_step is not None:
                    on_step(made)
                if not watch:
                    continue
                seen.add(losses, counts, weights)
                if seen.num_steps >= max(epoch, self.LEAST_STEPS_PER_CHECK):
                    train, held_out = seen.take()
                    if self.reliability is not None:
                        self.reliability.update(examples)
                    if not settings.holds_out:
                        continue
                    if settings.adapt_l2:
                        self._adapt_l2(train, held_out)
                    overall = float(torch.nanmean(held_out))
                    if settings.patience and not np.isnan(overall):
                        if overall < best_loss:
                            best_loss, since_best = overall, 0
                            best_state = copy.deepcopy(self.ensemble.network.state_dict())
                        else:
                            since_best += 1
                        if since_best >= settings.patience:
                            break
        if best_state is not None and since_best >= settings.patience:
            self.ensemble.network.load_state_dict(best_state)
        self.ensemble.network.eval()
        self.num_fits += 1
        if self.reliability is not None:
            self.reliability.update(examples)
        if self.groups is not None:
            self.groups.update(examples, self._error_rates(examples))
            belongs = self.groups.weights(examples)
        return self._report(len(data), made, *self._losses(examples, belongs))

    def _error_rates(self, examples: Examples) -> float | Tensor:
        if self.reliability is None:
            return self.settings.error_rate
        return self.reliability.error_rates(examples.data.annotators).to(self.ensemble.device)

    def _step(
        self,
        examples: Examples,
        chosen: Tensor,
        cuts: torch.optim.Optimizer | None,
        belongs: Tensor | None,
        windows: Callable[[int], Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Make one gradient step; return every member's loss on every answer of the minibatch, and counts `(M, B)`.

        And how far these answers are of each member's group, where there are groups.
        """
        batch = examples.batch(chosen, self._error_rates(examples), windows)
        losses, counts = -batch.log_likelihood, examples.counts[:, batch.order]
        weights = None if belongs is None else belongs[:, batch.order]
        used = counts if weights is None else counts * weights
        loss = (losses * used).sum(1).div(used.sum(1).clamp(min=1.0)).sum()  # members do not share parameters
        optimizers = [self.optimizer] if cuts is None else [self.optimizer, cuts]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            shrink = 1 - self.settings.learning_rate * self.l2
            for parameter in self._parameters:
                if parameter.ndim > 0 and len(parameter) == self.ensemble.num_members:
                    parameter.mul_(shrink.view(-1, *[1] * (parameter.ndim - 1)))
        return losses.detach(), counts, weights

    def _adapt_l2(self, train: Tensor, held_out: Tensor) -> None:
        ratio = held_out / train.clamp(min=1e-8)
        factor = torch.ones_like(self.l2)
        factor[ratio > self.HIGH_RATIO] = 1.5
        factor[ratio < self.LOW_RATIO] = 1 / 1.5
        self.l2 = (self.l2 * factor).clamp(1e-6, self.settings.max_l2)

    @torch.no_grad()
    def _losses(
        self, examples: Examples, belongs: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[float, int]]:
        """Return training and held-out loss, training and held-out accuracy, `(M,)` each, NaN where there is none.

        And how many of the answers held out of at least one member agree with those members, and how many there are.
        """
        training = self.ensemble.network.training
        self.ensemble.network.eval()
        counts = examples.counts
        losses, right = torch.empty_like(counts), torch.empty_like(counts)  # filled in part by part: a list of small
        decided = torch.empty_like(counts[0])  # results would scatter memory
        for batch in examples.everything(self._error_rates(examples)):
            losses[:, batch.order] = -batch.log_likelihood
            right[:, batch.order] = batch.right
            decided[batch.order] = batch.decided
        self.ensemble.network.train(training)
        held_out = (counts == 0).float()
        judging = held_out
        if belongs is not None:  # members of other groups do not judge
            counts, held_out = counts * belongs, held_out * belongs
            judging = (held_out > 0).float() * (belongs >= belongs.max(0).values)

        def mean(values: Tensor, weights: Tensor) -> Tensor:
            return (values * weights).sum(1) / weights.sum(1)

        return (
            mean(losses, counts),
            mean(losses, held_out),
            mean(right, (counts > 0) * decided),
            mean(right, held_out * decided),
            _agreed(right, judging, decided),
        )

    def _report(
        self,
        num_comparisons: int,
        num_steps: int,
        train: Tensor,
        held_out: Tensor,
        right: Tensor,
        held_right: Tensor,
        agreed: tuple[float, int],
    ) -> FitReport:
        def numbers(values: Tensor) -> list[Any]:
            return [None if np.isnan(v) else round(v, 6) for v in values.tolist()]

        return FitReport(
            num_comparisons=num_comparisons,
            num_steps=num_steps,
            train_loss=numbers(train),
            held_out_loss=numbers(held_out),
            train_accuracy=numbers(right),
            held_out_accuracy=numbers(held_right),
            l2=[float(x) for x in self.l2.tolist()],
            num_agreed=agreed[0],
            num_judged=agreed[1],
            reliability=None if self.reliability is None else self.reliability.rounded(),
            groups=None if self.groups is None else self.groups.rounded(),
        )

    def state(self) -> dict[str, Any]:
        """Return the optimiser's state and the l2 coefficients: tensors and plain values; `restore` is the inverse.

        The optimiser's tensors are those in use: write or copy them before the next fit.
        """
        state = {"optimizer": self.optimizer.state_dict(), "l2": self.l2.clone(), "num_fits": self.num_fits}
        state["cut_points"] = self.cut_points.state()
        state["reliability"] = None if self.reliability is None else dict(self.reliability.shares)
        if self.groups is not None:
            state["groups"] = self.groups.state()
        if self.dynamics is not None:
            state["dynamics"] = self.dynamics.state()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.l2 = state["l2"].to(self.ensemble.device)
        self.num_fits = state["num_fits"]
        self.cut_points.restore(state.get("cut_points", {"names": [], "values": []}))
        if self.reliability is not None:
            self.reliability.shares = dict(state.get("reliability") or {})
        if self.groups is not None:
            self.groups.restore(state.get("groups") or {})
        if self.dynamics is not None:
            self.dynamics.restore(state["dynamics"])


def check_dynamics(reward: RewardSettings, fit: FitSettings) -> None:
    """Check that what is said of learning the dynamics is of a network that does.

    Raises:
        UserError: it is not.
    """
    plain = FitSettings()
    for name in ("dynamics_steps", "dynamics_batch"):
        if reward.network != "dynamics" and getattr(fit, name) != getattr(plain, name):
            option = name.replace("_", "-")
            raise UserError(
                f"--fit.{option} is of a network that learns the dynamics: give --reward.network dynamics too, or "
                f"leave it out. Received {getattr(fit, name)} with the network {reward.network!r}"
            )


def _windows(length: int, crop: float, generator: torch.Generator, device: torch.device) -> Callable[[int], Tensor]:
    """Return what draws windows of one length, drawn here, in segments: which steps lie in them `(n, length)`."""
    kept = length - int(torch.randint(int(crop * length) + 1, (1,), generator=generator))

    def draw(num: int) -> Tensor:
        begins = torch.randint(length - kept + 1, (num, 1), generator=generator)
        steps = torch.arange(length)
        return ((steps >= begins) & (steps < begins + kept)).float().to(device)

    return draw


def _agreed(right: Tensor, held_out: Tensor, decided: Tensor) -> tuple[float, int]:
    """Return how many answers agree with the members that did not learn from them, and how many were held out.

    Args:
        right: `(M, N)` in [0, 1]: whether each member has each answer right.
        held_out: `(M, N)`: 1 where a member did not learn from it.
        decided: `(N,)`: 1 where an answer can be right or wrong.
    """
    judges = held_out.sum(0)
    kept = (judges > 0) & (decided > 0)
    votes = ((right * held_out).sum(0)[kept] / judges[kept]).double()
    whole = ((right == 0) | (right == 1)).all(0)[kept]  # not a ranking with a part in order
    votes[whole] = (votes[whole] - 0.5).sign().add(1).div(2)
    return float(votes.sum()), int(kept.sum())


class _RunningLosses:
    """Losses met on the way, so that watching held-out losses costs no pass of its own.

    A member's minibatch holds comparisons that were held out of it; their losses come with the same forward pass.
    """

    def __init__(self, num_members: int, device: torch.device) -> None:
        self._sums = torch.zeros(4, num_members, device=device)
        self.num_steps = 0

    def add(self, losses: Tensor, counts: Tensor, weights: Tensor | None = None) -> None:
        """Add the losses `(M, B)` of a minibatch with counts and weights `(M, B)`."""
        left_out = (counts == 0).float()
        if weights is not None:
            counts, left_out = counts * weights, left_out * weights
        rows = [losses * counts, counts, losses * left_out, left_out]
        self._sums += torch.stack([row.sum(1) for row in rows])
        self.num_steps += 1

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the mean training and held-out losses `(M,)`, NaN where there were none, and start again."""
        train, train_weight, held_out, held_out_weight = self._sums
        means = train / train_weight, held_out / held_out_weight
        self._sums, self.num_steps = torch.zeros_like(self._sums), 0
        return means
