"""RewardEnsemble: M reward models evaluated, normalised, saved and loaded together.

Christiano et al. 2017, s. 2.2.3: the members are fitted on different draws of the same comparisons, each is normalised
on its own, and the reward is their mean. How it is fitted is in `prefrl.rewards.fit`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prefrl.errors import UserError, first_line
from prefrl.rewards.few import FewTransitions
from prefrl.rewards.networks import LEAKY_SLOPE, EnsembleCNN, EnsembleMLP, Features
from prefrl.rewards.registry import NETWORKS, NetworkInputs, members_of
from prefrl.rewards.saved import read_reward, write_reward
from prefrl.rewards.settings import READ_NEXT, RewardSettings
from prefrl.rewards.transformer import EnsembleTransformer, windows
from prefrl.segments import Segment, stack_transitions
from prefrl.spaces import (
    Array,
    Batch,
    SpaceEncoder,
    channels_first,
    check_action_space,
    check_observation_space,
    is_image,
    space_from_json,
    space_to_json,
    take,
)

STATISTICS = ("input_mean", "input_std", "least_input_std", "reward_mean", "reward_std")
NUM_MEMBERS = 5  # where the settings name none
MOST_WEIGHTS = 1 << 28  # of all members: 1 GiB
NEVER_VARIES = 1e-6  # standard deviation, as a share of the largest beside it
LEAST_SCALE = 0.03  # of the first standard deviation of an input
FEW = 256  # transitions that NumPy evaluates sooner than torch does
CHUNK = 4_096  # transitions evaluated at once: bounds memory, and small parts stay in the cache
IMAGE_CHUNK = 1_024
CHUNK_BYTES = 1 << 26  # of their inputs: fewer where they are large


class RewardEnsemble:
    """M reward models r_m over transitions; calling it gives the mean of the normalised members.

    Of G groups of annotators there are M = G x N models, those of a group beside each other; the reward is then the
    mean of the groups' rewards, weighted by `group_weights` `(G,)`.

    Args:
        observation_space: space of the observations: Box, Discrete, MultiDiscrete or a Dict of these.
        action_space: space of the actions: Box, Discrete or MultiDiscrete.
        settings: sizes and normalisation.
        seed: seed of the starting weights.
        device: where it is evaluated.
        factory: makes one member's network (see `EnsembleOf`), instead of the one that the settings name.

    Raises:
        UserError: unsupported spaces.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        settings: RewardSettings | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        factory: Callable[[], nn.Module] | None = None,
    ) -> None:
        check_observation_space(observation_space)
        check_action_space(action_space)
        self.observation_space, self.action_space = observation_space, action_space
        settings = settings or RewardSettings()
        self.num_groups, of_each = settings.groups, settings.num_members or NUM_MEMBERS
        self.num_members = self.num_groups * of_each
        self.settings = settings = replace(settings, num_members=of_each)
        self.device = torch.device(device)
        self.images = is_image(observation_space)
        self.inputs = settings.inputs if settings.inputs != "auto" else ("s" if self.images else "sa")
        self.reads_next = self.inputs in READ_NEXT
        self._observations = SpaceEncoder(observation_space)
        self._actions = SpaceEncoder(action_space)
        self._custom = factory is not None
        self.num_inputs = (
            (0 if self.images else self._observations.size * (2 if self.reads_next else 1))
            + (self._actions.size if "a" in self.inputs else 0)
        )  # fmt: skip
        seen = [] if self.images else self._observations.sizes
        widths = [self.num_inputs or int(np.prod(observation_space.shape or ())), *settings.hidden]
        if settings.network == "dynamics":
            widths.insert(1, sum(settings.encoders))
        if (weights := self.num_members * sum(a * b for a, b in pairwise(widths))) > MOST_WEIGHTS:
            raise UserError(
                f"{self.num_members} networks of {widths[0]:,} inputs and {settings.hidden} units would have "
                f"{weights:,} weights; {MOST_WEIGHTS:,} at most are made."
            )
        self._input_sizes = [*seen, *([self._actions.size] if "a" in self.inputs else [])]
        self._input_sizes += seen if self.reads_next else []
        generator = torch.Generator().manual_seed(seed)
        self.network: nn.Module
        if factory is not None:
            self.network = members_of(factory, self.num_members, seed)
        else:
            shape = self._image_shape() if self.images else None
            inputs = NetworkInputs(
                num_inputs=self.num_inputs,
                image_shape=shape,
                hidden=settings.hidden,
                num_action_inputs=self._actions.size if self.inputs == "sa" else 0,
                encoders=settings.encoders,
            )
            self.network = NETWORKS.find(settings.network)(inputs, self.num_members, generator)
        self.network.to(self.device).eval()
        self.input_mean = torch.zeros(self.num_inputs, device=self.device)
        self.input_std = torch.ones(self.num_inputs, device=self.device)
        self.least_input_std = torch.zeros(self.num_inputs, device=self.device)
        self.reward_mean = torch.zeros(self.num_members, 1, device=self.device)
        self.reward_std = torch.ones(self.num_members, 1, device=self.device)
        self._statistics: tuple[str, ...] = STATISTICS
        if self.num_groups > 1:
            self.group_weights = torch.full((self.num_groups,), 1 / self.num_groups, device=self.device)
            self._statistics = (*STATISTICS, "group_weights")
        self._few: FewTransitions | None = None  # made when it is asked for

    @property
    def num_state_inputs(self) -> int:
        """How many of the vector inputs, the first of them, tell the observation before a step; 0 for images."""
        return 0 if self.images else self._observations.size

    def _image_shape(self) -> tuple[int, int, int]:
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        a, b, c = space.shape
        channels, height, width = (a, b, c) if channels_first(space) else (c, a, b)
        return (channels * (2 if self.reads_next else 1), height, width)

    def _to_images(self, values: Array) -> Tensor:
        assert isinstance(self.observation_space, gymnasium.spaces.Box)
        images = torch.from_numpy(np.require(values, requirements=["C", "W"])).to(self.device)
        return images if channels_first(self.observation_space) else images.permute(0, 3, 1, 2)

    def encode(self, observations: Batch, actions: Array, next_observations: Batch) -> Features:
        """Encode B transitions as they are: images, and vectors that are not yet standardised."""
        images: Tensor | None = None
        if self.images:
            images = self._to_images(observations)  # type: ignore[arg-type]
            if self.reads_next:
                images = torch.cat([images, self._to_images(next_observations)], dim=1)  # type: ignore[arg-type]
        joined = self._encode_vector(observations, actions, next_observations)
        if joined is None:
            return Features(images, None)
        return Features(images, torch.from_numpy(np.require(joined, requirements="W")).to(self.device))

    def _encode_vector(
        self, observations: Batch, actions: Array, next_observations: Batch
    ) -> NDArray[np.float32] | None:
        parts = [] if self.images else [self._observations.encode(observations)]
        if "a" in self.inputs:
            parts.append(self._actions.encode(actions))
        if self.reads_next and not self.images:
            parts.append(self._observations.encode(next_observations))
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)

    def features(self, observations: Batch, actions: Array, next_observations: Batch) -> Features:
        """Encode B transitions for the network: images as they are, vectors standardised and clipped."""
        encoded = self.encode(observations, actions, next_observations)
        vector = encoded.vector
        return Features(encoded.images, None if vector is None else self.standardise(vector))

    def standardise(self, vector: Tensor) -> Tensor:
        """Shift and scale vector features `(..., D)` by the input statistics, and clip."""
        limit = self.settings.clip_inputs
        return ((vector - self.input_mean) / self.input_std).clamp_(-limit, limit)

    def set_input_statistics(self, observations: Batch, actions: Array, next_observations: Batch) -> None:
        """Take the mean and standard deviation of vector inputs from these transitions.

        Call it before the first fit and not after: the fitted weights belong to these statistics, and only
        `follow_inputs` moves both. Inputs that never vary keep the scale 1, and so do those that vary by less than a
        millionth of what varies most in the same observation or action, or of 1 where that is more: rounding errors.
        Such are counted in a warning.
        """
        if self.num_inputs == 0:
            return
        self.input_mean, std = self._moments(observations, actions, next_observations)
        most = torch.cat(
            [part.max().clamp(max=1.0).expand(len(part)) for part in std.split(self._input_sizes) if len(part)]
        )
        still = std < NEVER_VARIES * most
        faint = int((still & (std > 0)).sum())
        if faint:
            warnings.warn(
                f"{faint} of {self.num_inputs} inputs of the reward vary by less than a millionth of those beside them "
                "and count for nothing in it. If they matter, give them in larger units.",
                stacklevel=2,
            )
        self.input_std = torch.where(still | (std == 0), torch.ones_like(std), std)
        self.least_input_std = LEAST_SCALE * self.input_std

    def follow_inputs(self, observations: Batch, actions: Array, next_observations: Batch) -> None:
        """Move the input statistics to these transitions, and the first layer with them: no reward changes.

        An agent that gets better keeps some inputs in an ever smaller range, and what it is to learn next lies there.
        Scaled up again they count in the next fit as much as inputs that still range as widely as at first
        (`docs/decisions/0014-inputs-follow-the-agent.md`). A network of one's own keeps its first statistics.

        Rewards change only where inputs are clipped. No scale falls below 3 % of the first one.
        """
        if self.num_inputs == 0 or not isinstance(self.network, EnsembleMLP | EnsembleCNN):
            return
        mean, std = self._moments(observations, actions, next_observations)
        std = torch.maximum(std, self.least_input_std)
        self.network.change_inputs((mean - self.input_mean) / self.input_std, std / self.input_std)
        self.input_mean, self.input_std = mean, std

    def _moments(self, observations: Batch, actions: Array, next_observations: Batch) -> tuple[Tensor, Tensor]:
        vector = self.encode(observations, actions, next_observations).vector
        assert vector is not None
        std, mean = torch.std_mean(vector.double(), dim=0, correction=0)
        return mean.float(), std.float()

    def member_rewards(self, features: Features) -> Tensor:
        """Return each member's normalised rewards `(M, B)`."""
        return self._normalised(self.network(features))

    def _normalised(self, raw: Tensor) -> Tensor:
        return (raw - self.reward_mean) / self.reward_std * self.settings.target_std

    @torch.no_grad()
    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        """Return the learned reward of B transitions `(B,)` float32: the mean over normalised members.

        Where the settings are pessimistic, so many of their standard deviations (biased) less. Of several groups the
        mean of theirs, weighted by `group_weights`.

        The reward of images is evaluated without dropout and with the batch statistics of the fit.
        """
        return self._served(self._group_rewards(observations, actions, next_observations))

    def _served(self, groups: Tensor) -> NDArray[np.float32]:
        """Return what the agent is given `(B,)` of the rewards of each group `(G, B)`."""
        served = self.group_weights @ groups if self.num_groups > 1 else groups[0]
        return served.cpu().numpy()

    @torch.no_grad()
    def with_bonus(
        self, observations: Batch, actions: Array, next_observations: Batch, bonus: float
    ) -> NDArray[np.float32]:
        """Return what `__call__` returns and `bonus` standard deviations (biased) over the normalised members more."""
        raw = self._raw_rewards(observations, actions, next_observations)
        return self._served(self._of_groups(raw, bonus))

    @torch.no_grad()
    def group_rewards(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        """Return the learned reward of each group of annotators `(G, B)` float32."""
        return self._group_rewards(observations, actions, next_observations).cpu().numpy()

    def _group_rewards(self, observations: Batch, actions: Array, next_observations: Batch) -> Tensor:
        return self._of_groups(self._raw_rewards(observations, actions, next_observations))

    def _of_groups(self, raw: Tensor, bonus: float = 0.0) -> Tensor:
        """Return the reward of each group `(G, B)` of its members' raw ones `(M, B)`, `bonus` deviations more."""
        members = self._normalised(raw).unflatten(0, (self.num_groups, -1))
        rewards = members.mean(1)
        if less := self.settings.pessimism - bonus:
            rewards -= less * members.std(1, correction=0)
        return rewards

    def of_few(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        """Return what `__call__` returns, up to rounding, by NumPy where it is a mean of perceptrons on the CPU.

        For a few transitions at a time that is several times as fast, and it needs none of torch's threads, which a
        process that was forked from one that used them does not have.
        """
        statistics = (self.input_mean, self.input_std, self.reward_mean, self.reward_std)
        few = self._few
        if few is None or not few.is_of(statistics):
            few = self._few = self._made_for_few(statistics)
        if few is None or len(actions) > FEW:
            return self(observations, actions, next_observations)
        vector = self._encode_vector(observations, actions, next_observations)
        assert vector is not None
        return few(vector)

    def _made_for_few(self, statistics: tuple[Tensor, ...]) -> FewTransitions | None:
        """Return the reward for NumPy, if it is a mean of perceptrons on the CPU."""
        is_mean = self.settings.pessimism == 0 and self.num_groups == 1
        if not is_mean or not isinstance(self.network, EnsembleMLP) or self.device.type != "cpu":
            return None
        return FewTransitions(
            list(self.network.weights),
            list(self.network.biases),
            statistics,
            target_std=self.settings.target_std,
            limit=self.settings.clip_inputs,
            slope=LEAKY_SLOPE,
        )

    @torch.no_grad()
    def normalise(self, observations: Batch, actions: Array, next_observations: Batch) -> None:
        """Normalise every member on these reference transitions (Christiano et al. 2017, s. 2.2.3).

        Only this call moves the normaliser: evaluating other transitions, such as candidates for queries, never does.
        A member that is constant on the reference keeps the scale 1.
        """
        self._normalise_on(self._raw_rewards(observations, actions, next_observations))

    @torch.no_grad()
    def normalise_on_asked(self, parts: Iterable[Features], length: int) -> None:
        """Normalise every member on segments that were asked about, and scale it up no further than they allow.

        For answers that are mostly ties: the rewards of what the agent usually does then hardly differ, and scaled to
        a standard deviation of 1 they would be noise as loud as a reward. A member by which the returns of these
        segments differ by less than 1, the unit of the logits, is scaled down by as much
        (`docs/decisions/0015-ties-are-not-noise.md`).

        Args:
            parts: the features of whole segments, of `features`.
            length: steps per segment.
        """
        raw = torch.cat([self.network(features) for features in parts], dim=1)
        self._normalise_on(raw)
        spread = raw.reshape(self.num_members, -1, length).sum(-1).std(1, keepdim=True, correction=0)
        self.reward_std = self.reward_std / spread.clamp(1e-6, 1.0)

    def _normalise_on(self, raw: Tensor) -> None:
        std = raw.std(1, keepdim=True, correction=0)
        self.reward_std = torch.where(std < 1e-8, torch.ones_like(std), std)
        self.reward_mean = raw.mean(1, keepdim=True) if self.settings.centre else torch.zeros_like(std)

    @torch.no_grad()
    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float32]:
        """Return each member's raw summed reward of N segments of equal length `(M, N)`: the terms of the logits.

        Raises:
            UserError: segments of different lengths.
        """
        lengths = {len(segment) for segment in segments}
        if len(lengths) > 1:
            raise UserError(
                f"Expected segments of equal length; got some of {min(lengths)} and of {max(lengths)} steps."
            )
        length = len(segments[0])
        at_once = self._num_at_once(length) // length  # so many are joined at a time: all may take gigabytes
        returns = torch.empty(self.num_members, len(segments), device=self.device)
        for begin in range(0, len(segments), at_once):
            part = slice(begin, begin + at_once)
            raw = self._raw_rewards(*stack_transitions(segments[part]), length=length)
            returns[:, part] = raw.unflatten(1, (-1, length)).sum(-1)
        return returns.cpu().numpy()

    @torch.no_grad()
    def segment_embeddings(self, segments: list[Segment]) -> NDArray[np.float32]:
        """Return the standardised inputs of all steps of N segments, flattened: `(N, F)` float32."""
        rows = []
        for segment in segments:
            features = self.features(*segment.transitions())
            parts = [] if features.vector is None else [features.vector.flatten()]
            if features.images is not None:
                parts.append(features.images[:, :, ::4, ::4].flatten() / 255.0)  # a quarter of the size is near enough
            rows.append(torch.cat(parts))
        return torch.stack(rows).cpu().numpy()

    @torch.no_grad()
    def of_episodes(
        self, observations: Batch, actions: Array, next_observations: Batch, lengths: Array, context: int
    ) -> NDArray[np.float32]:
        """Return the learned reward of all steps of whole episodes `(B,)` float32.

        That of `__call__`, except of networks with a memory (`transformer`): these read every step after those before
        it, half of `context` at least where its episode has so many.

        Args:
            observations: `(B, ...)`: of one episode after the other, as actions and next observations.
            actions: `(B, ...)`.
            next_observations: `(B, ...)`.
            lengths: `(E,)`: steps of each episode.
            context: steps of a segment, as the network was fitted to.
        """
        if not isinstance(self.network, EnsembleTransformer):
            return self(observations, actions, next_observations)
        vector = self._encode_vector(observations, actions, next_observations)
        assert vector is not None
        inputs = self.standardise(torch.from_numpy(vector).to(self.device))
        raw = torch.empty(self.num_members, len(actions), device=self.device)
        for (length, new), begins in windows(lengths, context).items():
            for part in torch.tensor(begins, device=self.device).split(max(1, CHUNK // length)):
                rows = part[:, None] + torch.arange(length, device=self.device)
                read = self.network.in_context(Features(None, inputs[rows.flatten()], length)).unflatten(1, rows.shape)
                raw[:, rows[:, new:]] = read[..., new:]
        return self._served(self._of_groups(raw))

    def _raw_rewards(self, observations: Batch, actions: Array, next_observations: Batch, *, length: int = 1) -> Tensor:
        """Return each member's raw rewards of B transitions `(M, B)`, evaluated part by part.

        Those of segments of `length` steps are what each step adds to the logit.
        """
        raw = torch.empty(self.num_members, len(actions), device=self.device)
        size = self._num_at_once(length)
        for begin in range(0, len(actions), size):
            part = slice(begin, begin + size)
            features = self.features(take(observations, part), actions[part], take(next_observations, part))
            raw[:, part] = self.network(features._replace(length=length))
        return raw

    def _num_at_once(self, length: int) -> int:
        """Return how many transitions are evaluated at once: those of whole segments of `length` steps."""
        size = IMAGE_CHUNK if self.images else min(CHUNK, CHUNK_BYTES // (4 * max(1, self.num_inputs)))
        return max(1, size // length) * length

    def save(self, path: str | Path) -> None:
        """Write the reward to one `.safetensors` file; the file appears whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        description = {
            "settings": asdict(self.settings),
            "custom_network": self._custom,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_reward(path, description, tensors)

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", factory: Callable[[], nn.Module] | None = None
    ) -> RewardEnsemble:
        """Read a reward that `save` wrote.

        Args:
            path: the `.safetensors` file, or a run folder that holds `reward.safetensors`.
            device: where to evaluate it.
            factory: the factory it was made with, if its network is your own.

        Raises:
            UserError: no such file, not a saved reward, or the factory makes another network than the one saved.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "reward.safetensors"
        if not path.is_file():
            raise UserError(
                f"There is no saved reward at {path}. Give the path of a reward.safetensors or a run folder."
            )
        try:
            return cls._read(path, device, factory)
        except UserError:
            raise
        except Exception as error:  # what is damaged or made by hand may make anything raise anything
            reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
            raise UserError(f"{path} is not a saved reward, or is damaged: {reason.rstrip('.')}.") from error

    @classmethod
    def _read(cls, path: Path, device: str | torch.device, factory: Callable[[], nn.Module] | None) -> RewardEnsemble:
        description, tensors = read_reward(path)
        if description["custom_network"] and factory is None:
            raise UserError(f"{path} holds a network of your own: pass the factory that makes it.")
        settings = dict(description["settings"])
        NETWORKS.check_read(settings.get("network", "auto"))
        settings |= {name: tuple(settings[name]) for name in ("hidden", "encoders") if name in settings}
        ensemble = cls(
            space_from_json(description["observation_space"]),
            space_from_json(description["action_space"]),
            RewardSettings(**settings),
            device=device,
            factory=factory,
        )
        try:
            ensemble.load_state_dict(tensors)
        except (RuntimeError, KeyError) as error:
            mend = " Pass the factory that it was made with." if description["custom_network"] else ""
            if ":" in ensemble.settings.network:
                mend = f" {ensemble.settings.network} makes another network now than when it was saved."
            raise UserError(f"The weights in {path} do not fit the network that it describes: {error}{mend}") from None
        return ensemble

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors: network, input statistics and normalisers."""
        own = {name: getattr(self, name) for name in self._statistics}
        return {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()} | own

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the tensors that `state_dict` gave."""
        network = {name.removeprefix("network."): t for name, t in state.items() if name.startswith("network.")}
        self.network.load_state_dict(network)
        for name in self._statistics:
            setattr(self, name, state[name].to(self.device))
