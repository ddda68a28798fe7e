"""What an offline run is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from prefrl.control.evaluation import MAX_MINUTES
from prefrl.control.settings import EVALUATION_EPISODES, QuerySettings, RunSettings
from prefrl.envs import task
from prefrl.errors import UserError, require
from prefrl.offline.data import OfflineData
from prefrl.offline.policy import policy_hyperparameters
from prefrl.queries import METHODS, check_members
from prefrl.rewards import FitSettings, RewardSettings, check_dynamics
from prefrl.runs.streams import check_seed
from prefrl.seams import Named

require("tyro", "train")
from tyro import conf  # noqa: E402

Method = Literal["iql", "ipl", "cpl", "cloning"]
RewardSource = Literal["answers", "true", "zero", "random"]
Ends = Literal["worst", "best", "plain"]
WITHOUT_REWARD = ("ipl", "cpl", "cloning")
"""Methods that read no reward."""
CONTROLS: dict[str, tuple[Method, RewardSource]] = {
    "true": ("iql", "true"),
    "zero": ("iql", "zero"),
    "random": ("iql", "random"),
    "cloning": ("cloning", "answers"),
}
"""What stands beside a run: the same data, without answers."""


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """How a policy is learned from the data; the names of IQL, IPL and CPL."""

    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of the policy and of the values (published: 256, 256)."""
    batch_size: int = 256
    """Steps of each update."""
    learning_rate: float = 1e-3
    """Of Adam, for updates as few as fit a CPU (published: 3e-4 for a million)."""
    discount: float = 0.99
    """Of rewards to come."""
    expectile: float = 0.7
    """Of the values among the actions in the data: 0.5 is what they are worth on average, towards 1 the best of them
    (Kostrikov et al. 2022)."""
    temperature: float = 3.0
    """Steps are cloned with the weight exp(temperature x advantage); 0 clones all alike."""
    target_rate: float = 0.005
    """Share by which the target values follow at each update."""
    pairs: int = 16
    """Comparisons of each update of IPL and CPL."""
    regularisation: float = 0.5
    """Weight of the squared implied rewards of IPL (Hejna & Sadigh 2023, lambda)."""
    contrast: float = 0.1
    """Of CPL: what the log-probability of an action counts in an advantage (Hejna et al. 2024, alpha)."""
    bias: float = 0.5
    """Of CPL: below 1, preferred segments are made likely, not only likelier than the others (lambda)."""
    cloning_share: float = 0.5
    """Share of the updates in which CPL clones all data before it contrasts."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"learner.{name} must be at least 1. Received {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"learner.hidden must be numbers of units, at least one. Received {self.hidden}")
        for name in ("learning_rate", "contrast"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"learner.{name} must be positive and finite. Received {getattr(self, name)}")
        for name in ("temperature", "regularisation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"learner.{name} must be finite and not negative. Received {getattr(self, name)}")
        if not 0 <= self.discount < 1:
            raise UserError(f"learner.discount must be in [0, 1). Received {self.discount}")
        if not 0 < self.expectile < 1:
            raise UserError(f"learner.expectile must lie between 0 and 1. Received {self.expectile}")
        for name in ("target_rate", "bias"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"learner.{name} must be in (0, 1]. Received {getattr(self, name)}")
        if not 0 <= self.cloning_share <= 1:
            raise UserError(f"learner.cloning_share must be in [0, 1]. Received {self.cloning_share}")


def _few_sessions() -> QuerySettings:
    return QuerySettings(num_sessions=3)


def _to_the_end() -> FitSettings:
    return FitSettings(first_steps=600, num_steps=600)


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """An offline run as it is asked for; `resolve` fills in what the data and their environment say."""

    dataset: conf.Positional[Annotated[str, conf.arg(metavar="DATASET")]]
    """A Minari data set (its id or folder), a run of prefrl train, or an episode .npz or a folder of them."""
    env: str | None = None
    """Environment that the data are of; default: what they say. none: there is none, and no return is measured."""
    method: Method = "iql"
    """iql on the learned reward; ipl or cpl without a reward model; cloning of all data."""
    reward_from: RewardSource = "answers"
    """What iql learns from: answers, or as a control the true reward, zero, or random numbers."""
    labels: int = 500
    """How many answers to ask for; "can't tell" is not counted."""
    steps: int = 20_000
    """Updates of the policy."""
    teacher: Named = "oracle"
    """Simulated annotator: oracle, noisy, myopic, mistake, skip, equal, coin, inverted, or module:Name for your own."""
    reward_function: str | None = None
    """`file.py:function` of a segment: the teacher judges by it instead of the environment's reward."""
    annotator: Literal["teacher", "human"] = "teacher"
    """Who answers: the teacher, or people, by prefrl label or prefrl serve."""
    instruction: str = ""
    """What people are told to look for: a text, or a file that holds it."""
    without: tuple[str, ...] = ()
    """Annotators whose answers are not learned from."""
    ends: Ends | None = None
    """What follows where an episode terminates: worst (as bad as the worst steps), best, or plain (nothing: the rewards
    mean what they say); default: what suits the environment."""
    seed: int = 0
    """Seed of every random draw."""
    segment_length: int | None = None
    """Steps in a segment; default: what suits the environment, at most the longest episode."""
    queries: QuerySettings = field(default_factory=_few_sessions)
    """Which segments are asked about; in the first session uniformly, in num_sessions more by the method."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The ensemble of networks that learns the reward."""
    fit: FitSettings = field(default_factory=_to_the_end)
    """How the ensemble is fitted to the answers."""
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    """How the policy is learned."""
    eval_episodes: int = EVALUATION_EPISODES
    """Episodes by which each policy is evaluated in the environment when training is over."""
    eval_minutes: float = MAX_MINUTES
    """Longest that the evaluation of one policy may take."""
    num_checkpoints: int = 10
    """Checkpoints over the whole training; at each the policy plays a few episodes."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_dynamics(self.reward, self.fit)
        if self.reward_from != "answers" and self.method != "iql":
            raise UserError(f"--reward-from {self.reward_from} is for --method iql; {self.method} reads no reward.")
        if self.reward.groups > 1:
            raise UserError(
                "Groups of annotators are told by what an agent in training gives them: --reward.groups is of prefrl "
                "train. To learn from some of those who answered: --without NAME."
            )
        if self.reward.bonus:
            raise UserError("A bonus is for agents that explore: --reward.bonus is of prefrl train.")
        if self.method in ("ipl", "cpl") and self.queries.feedback in ("rating", "mixed", "strength"):
            raise UserError(
                f"{self.method} learns from which segment is better: --queries.feedback comparison or ranking. "
                f"Received {self.queries.feedback!r}"
            )
        if self.method in ("ipl", "cpl") and self.queries.drop_even:
            raise UserError(
                f"{self.method} fits no reward by which pairs could be even: leave out --queries.drop-even."
            )
        if self.method in ("ipl", "cpl") and self.queries.method not in ("uniform", QuerySettings().method):
            raise UserError(
                f"{self.method} fits no reward by which to choose questions: they are drawn uniformly. Leave out "
                f"--queries.method {self.queries.method}."
            )
        if self.method != "iql" or self.reward_from != "answers":
            why = f"--method {self.method}" if self.method in WITHOUT_REWARD else f"--reward-from {self.reward_from}"
            for name, given, usual in (("reward", self.reward, RewardSettings()), ("fit", self.fit, _to_the_end())):
                changed = [one.name for one in fields(given) if getattr(given, one.name) != getattr(usual, one.name)]
                if changed:
                    raise UserError(
                        f"{why} fits no reward model to answers, so --{name}.{changed[0].replace('_', '-')} does "
                        "nothing. Leave it out."
                    )

    @property
    def asks(self) -> bool:
        """Whether anything is asked."""
        return self.method != "cloning" and self.reward_from == "answers"

    def beside(self, control: str) -> OfflineSettings:
        """Return the settings of one of `CONTROLS`, which learns from the same data."""
        method, source = CONTROLS[control]
        ends: Ends | None = "plain" if source == "true" else self.ends  # the true reward says what ends are worth
        return replace(self, method=method, reward_from=source, ends=ends, reward=RewardSettings(), fit=_to_the_end())

    def resolve(self, data: OfflineData) -> OfflineRunSettings:
        """Fill in what was not asked for and check the whole against the data.

        Raises:
            UserError: segments longer than every episode, disagreement of an ensemble of one, ...
        """
        known, world = task(data.world.env_id), data.world
        longest = int(data.lengths.max())
        length = self.segment_length or min(known.segment_length, longest)
        if length > longest:
            raise UserError(
                f"Segments of {length} steps are longer than every episode of {self.dataset} ({longest} at most). "
                f"Use --segment-length {longest}{' or less' * (longest > 1)}."
            )
        members = self.reward.num_members or known.num_members
        queries = self.queries
        if self.method in ("ipl", "cpl"):
            queries = replace(queries, method="uniform", num_sessions=0)
        check_members(METHODS.find(queries.method), members)
        queries.maker.check()
        asked: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "dataset", "method", "reward_from", "labels", "steps", "teacher", "reward_function", "annotator",
                "instruction", "without", "seed", "fit", "learner", "eval_episodes", "eval_minutes",
                "num_checkpoints",
            )
        }  # fmt: skip
        return OfflineRunSettings(
            **asked,
            queries=queries,
            env_id=world.env_id,
            env_options=world.options,
            wrapper=world.wrapper,
            max_episode_steps=world.max_episode_steps,
            fixed_horizon=world.fixed_horizon,
            terminal_reward=world.terminal_reward if world.fixed_horizon else None,
            fingerprint=data.fingerprint,
            ends=self.ends or _usual_ends(self.reward_from, known.terminal_reward),
            segment_length=length,
            reward=replace(self.reward, num_members=members),
            agent="ppo",
            hyperparameters=policy_hyperparameters(self.learner.hidden),
            device="cpu",
            num_envs=1,
            warmup_steps=1,
            wait=0,
        )


def _usual_ends(source: RewardSource, terminal_reward: float) -> Ends:
    if source == "true":
        return "plain"
    return "best" if terminal_reward > 0 else "worst"


@dataclass(frozen=True, kw_only=True)
class OfflineRunSettings(RunSettings):
    """An offline run as it is made: that of a PPO agent whose policy it trains, and what is its own."""

    dataset: str = field()
    fingerprint: str = field()
    """Of the data, so that a run never goes on with others."""
    method: Method = "iql"
    reward_from: RewardSource = "answers"
    ends: Ends = "worst"
    learner: LearnerSettings = field(default_factory=LearnerSettings)

    @property
    def asks(self) -> bool:
        """Whether anything is asked."""
        return self.method != "cloning" and self.reward_from == "answers"

    @property
    def learns_reward(self) -> bool:
        """Whether a reward is fitted to the answers."""
        return self.method == "iql" and self.reward_from == "answers"
