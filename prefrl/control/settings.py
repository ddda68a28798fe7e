"""What a training run is made of; every field has a default and is kept as JSON in the run folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any, Literal

from prefrl.agents import AGENTS
from prefrl.annotators import TEACHERS, panel_names
from prefrl.control.defaults import agent_defaults
from prefrl.control.evaluation import MAX_MINUTES
from prefrl.envs import TASKS, Task, episode_length, task
from prefrl.errors import UserError, near_names, require
from prefrl.feedback import FEWEST_RANKED, KINDS, SMALLEST_SCALE
from prefrl.queries import METHODS, MIXED, SCHEDULES, LabelSchedule, QueryMaker, Screen, check_members
from prefrl.rewards import FitSettings, RewardEnsemble, RewardSettings, check_dynamics, look_difference
from prefrl.runs.codec import merged
from prefrl.runs.streams import check_seed
from prefrl.seams import Named, place_of

require("tyro", "train")
from tyro import conf  # noqa: E402

EVALUATION_EPISODES = 20
MOST_DROPPED = 0.95  # of the candidates: 20 are drawn for one then
FIRST_ANSWERS = 20  # of people, after which they see the agent change
ABOUT_ANSWERS = (
    "labels", "teacher", "reward_function", "panel", "record", "without", "annotator", "instruction", "wait",
    "teacher_share", "shared_share", "from_run", "from_offline", "demonstrations", "demonstration_pairs",
    "clone_demonstrations", "shows_true_reward", "queries", "reward", "fit", "reference_segments",
)  # fmt: skip
"""Settings without a meaning where an agent is trained on the environment's own reward alone."""


@dataclass(frozen=True, kw_only=True)
class QuerySettings:
    """Which segments are asked about, and when."""

    method: Named = "disagreement"
    """uniform, disagreement, entropy, k-center, k-center+disagreement, k-center+entropy, or module:Name for your own
    (the first session is always uniform)."""
    feedback: Named = "comparison"
    """What is asked for: comparison (of two), strength (how much better), ranking, rating, mixed (comparison, ranking
    and rating in turn), or module:Name for a kind of your own."""
    num_ranked: int = 4
    """Segments of a ranking, 3 to 9."""
    scale: int = 5
    """Grades of a rating, 2 to 9."""
    candidates: int = 10
    """Candidate pairs per query (Christiano et al. 2017, s. 2.2.4)."""
    recent: float = 0.1
    """The last steps, as a share of the whole run, that count as recent."""
    recent_share: float | None = None
    """Share of the segments drawn from the recent steps; the others come from everything kept. Default: by environment,
    0 but where the task is to find a goal (Acrobot, MountainCar), 0.5."""
    end_share: float = 0.5
    """Share of the segments drawn from those that show an end (of the episode, or of an attempt in the fixed-horizon
    form), where there are any."""
    drop_alike: float = 0.0
    """Share of the candidate pairs that is not asked about since their two segments look most alike. As many more are
    drawn."""
    drop_even: float = 0.0
    """Share of the other candidates that is not asked about since the two are worth most nearly the same by the reward
    so far, and so likely to tie; none before the first fit. As many more are drawn."""
    schedule: Named = "hyperbolic"
    """hyperbolic, constant, linear, or module:Name for your own."""
    initial_share: float = 0.25
    """Share of the labels asked before training (Christiano et al. 2017, app. A)."""
    decay: float = 0.2
    """Share of the run after which the hyperbolic schedule asks half as fast as at first (Christiano et al. 2017, app.
    A: after 2e6 steps, or on Atari 5e6)."""
    num_sessions: int = 20
    """Sessions of queries after the first."""
    last_session_at: float = 0.95
    """Share of the training after which no more is asked."""

    def for_task(self, known: Task) -> QuerySettings:
        """Return the settings with what the task decides filled in."""
        return self if self.recent_share is not None else replace(self, recent_share=known.recent_share)

    @property
    def maker(self) -> QueryMaker:
        """What makes queries of pairs."""
        return QueryMaker(feedback=self.feedback, num_ranked=self.num_ranked, scale=self.scale)

    def screen(self, reward: RewardEnsemble) -> Screen | None:
        """Return what drops candidates before a method chooses; None where nothing is to be dropped.

        Args:
            reward: by whose inputs two segments look different.
        """
        if not (self.drop_alike or self.drop_even):
            return None
        return Screen(alike=self.drop_alike, even=self.drop_even, differ=partial(look_difference, reward))

    def __post_init__(self) -> None:
        if self.feedback != MIXED:
            if isinstance(self.feedback, str) and ":" not in self.feedback and self.feedback not in KINDS:
                raise UserError(
                    f"queries.feedback must be {', '.join(KINDS)}, {MIXED}, or module:Name for a kind of your own. "
                    f"Received {self.feedback!r}.{near_names(self.feedback, [*KINDS, MIXED])}"
                )
            object.__setattr__(self, "feedback", KINDS.name(self.feedback))
        object.__setattr__(self, "method", METHODS.name(self.method))
        object.__setattr__(self, "schedule", SCHEDULES.name(self.schedule))
        if not 0 < self.decay < math.inf:
            raise UserError(f"queries.decay must be positive and finite. Received {self.decay}")
        for name in ("recent", "recent_share", "end_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UserError(f"queries.{name} must be in [0, 1]. Received {share}")
        for name in ("drop_alike", "drop_even"):
            if not 0 <= getattr(self, name) <= MOST_DROPPED:
                raise UserError(f"queries.{name} must be in [0, {MOST_DROPPED}]. Received {getattr(self, name)}")
        for name, least in (("num_ranked", FEWEST_RANKED), ("scale", SMALLEST_SCALE)):
            if not least <= getattr(self, name) <= 9:
                raise UserError(f"queries.{name} must be from {least} to 9. Received {getattr(self, name)}")
        if self.candidates < 1:
            raise UserError(f"queries.candidates must be at least 1. Received {self.candidates}")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A training run as it is asked for; `resolve` fills in what is None with what suits the environment."""

    env_id: conf.Positional[Annotated[Named, conf.arg(metavar="ENV")]]
    """Gymnasium's name of the environment, e.g. HalfCheetah-v5, or module:Name for your own."""
    labels: int = 300
    """How many answers to ask for; "can't tell" is not counted."""
    steps: int | None = None
    """Environment steps of the whole run, all copies together; default: what suits the agent and the environment."""
    teacher: Named = "oracle"
    """Simulated annotator: oracle, noisy, myopic, mistake, skip, equal, coin, inverted, or module:Name for your own."""
    reward_function: str | None = None
    """`file.py:function` of a segment: the teacher judges by it instead of the environment's reward."""
    panel: tuple[str, ...] = ()
    """Simulated annotators beside each other, in place of one teacher: of each the name of a teacher, or
    `file.py:function` of a segment; each question goes to one of them. Who is named twice is two."""
    record: str | None = None
    """URL of a PostgreSQL database for the record of answers, e.g. postgresql://user@host/database; default: a file in
    the run folder."""
    without: tuple[str, ...] = ()
    """Annotators whose answers are not learned from."""
    annotator: Literal["teacher", "human", "both"] = "teacher"
    """Who answers: the teacher, people in the viewer, or both."""
    instruction: str = ""
    """What people are told to look for: a text, or a file that holds it."""
    wait: int | None = None
    """Answers to wait for before the agent trains beside people, a teacher's and an earlier run's among them; default:
    20, or the initial share of the labels where that is less."""
    teacher_share: float = 0.5
    """Share of the answers that the teacher gives where both answer."""
    shared_share: float | None = None
    """Share of the questions to people that two of them are asked, so that prefrl quality can tell how far they agree;
    default: a tenth, once two people or more have come."""
    from_run: Annotated[str | None, conf.arg(name="from", metavar="RUN")] = None
    """An earlier run of the same environment, whose answers are learned from too."""
    from_offline: Annotated[str | None, conf.arg(name="from-offline", metavar="RUN")] = None
    """A run of prefrl offline: its policy, reward and answers are what the training starts from."""
    demonstrations: Annotated[str | None, conf.arg(metavar="DATA")] = None
    """Episodes of who can do it: a folder of .npz episodes (prefrl demo record), a Minari data set, or a run. The agent
    begins as a clone of them, and comparisons that prefer them to what it does before are learned from until it is
    better."""
    demonstration_pairs: int | None = None
    """Comparisons of a demonstration with the untaught agent, which nobody is asked and which are no labels; default: a
    tenth of the labels."""
    clone_demonstrations: bool | None = None
    """Begin as a policy cloned from the demonstrations; default: where that can be, which is with a ppo agent and
    without images, and nothing else brings a policy."""
    agent: Named = "ppo"
    """ppo, sac or td3, one of stable-baselines3's (sb3-ppo, sb3-sac, sb3-td3, a2c or dqn), or module:Name for
    your own."""
    num_envs: int | None = None
    """Copies of the environment that run side by side; default: what suits the agent and the environment."""
    env_options: conf.Suppress[dict[str, Any]] = field(default_factory=dict)
    """Options of the environment's constructor."""
    wrapper: Named | None = None
    """What wraps the environment: module:Name of a wrapper, or of a function that takes an environment and returns one,
    e.g. gymnasium.wrappers:FlattenObservation."""
    hyperparameters: conf.Suppress[dict[str, Any]] = field(default_factory=dict)
    """Of the agent, over those known to suit the environment."""
    seed: int = 0
    """Seed of every random draw."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU for images where there is one."""
    fixed_horizon: int | None = None
    """Steps per episode of the fixed-horizon form, in which terminations are hidden; 0: the plain form."""
    terminal_reward: float | None = None
    """True reward of each step in which an end is held, in the fixed-horizon form."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut short, in training and in evaluation; for environments without an end."""
    shows_true_reward: Annotated[bool, conf.arg(name="true-reward")] = True
    """Show the environment's own reward in progress, tables, curves, films and reports."""
    eval_episodes: int = EVALUATION_EPISODES
    """Episodes by which each policy is evaluated when training is over."""
    eval_minutes: float = MAX_MINUTES
    """Longest that the evaluation of one policy may take; what has not ended by then is stopped, which is said."""
    segment_length: int | None = None
    """Steps in a segment; default: what suits the environment, at most an episode."""
    warmup_steps: int | None = None
    """Steps at the start in which the agent acts without learning; the first queries are about them."""
    warmup: Literal["policy", "uniform", "entropy"] | None = None
    """How it acts then: as its untrained policy does (Christiano et al. 2017, app. A), uniformly at random, or
    learning to see what it has not seen (entropy; Lee et al. 2021, PEBBLE). Default: what suits the agent and the
    environment."""
    queries: QuerySettings = field(default_factory=QuerySettings)
    """Which segments are asked about, and when."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The ensemble of networks that learns the reward."""
    fit: FitSettings = field(default_factory=FitSettings)
    """How the ensemble is fitted to the answers."""
    reference_segments: int = 100
    """Segments drawn afresh at each fit as the reference batch for normalisation."""
    history_mb: int = 256
    """Most memory that past episodes may take, in megabytes; the oldest go first."""
    num_checkpoints: int = 10
    """Checkpoints over the whole run, fewer where episodes are so long that none would end: the environments are reset
    at each."""

    def __post_init__(self) -> None:
        for field_name, seam in (("agent", AGENTS), ("teacher", TEACHERS), ("env_id", TASKS)):
            object.__setattr__(self, field_name, seam.name(getattr(self, field_name)))
        if self.wrapper is not None and not isinstance(self.wrapper, str):
            object.__setattr__(self, "wrapper", place_of(self.wrapper, "wrapper"))
        if self.labels < 1:
            raise UserError(
                f"labels must be at least 1. Received {self.labels}. "
                "To train on the environment's own reward as well, use --baseline; on that alone, --baseline-only."
            )
        for name in (
            "steps",
            "num_envs",
            "segment_length",
            "warmup_steps",
            "reference_segments",
            "history_mb",
            "num_checkpoints",
            "max_episode_steps",
            "eval_episodes",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1. Received {value}")
        if not 0 < self.eval_minutes < math.inf:
            raise UserError(f"eval_minutes must be positive and finite. Received {self.eval_minutes}")
        check_seed(self.seed)
        if self.terminal_reward is not None and not math.isfinite(self.terminal_reward):
            raise UserError(f"terminal_reward must be a finite number. Received {self.terminal_reward}")
        if self.annotator not in ("teacher", "human", "both"):
            raise UserError(f"annotator must be teacher, human or both. Received {self.annotator!r}")
        if self.wait is not None and not 0 <= self.wait <= self.labels:
            raise UserError(f"wait must be between 0 and the labels, {self.labels}. Received {self.wait}")
        if not 0 < self.teacher_share < 1:
            raise UserError(f"teacher_share must lie between 0 and 1. Received {self.teacher_share}")
        if self.shared_share is not None and not 0 <= self.shared_share <= 1:
            raise UserError(f"shared_share must lie in [0, 1]. Received {self.shared_share}")
        if self.shared_share and not self.asks_people:
            raise UserError("--shared-share is of the questions to people, so it needs --annotator human or both.")
        alone = not self.asks_people and self.from_run is None and not self.panel
        if alone and self.teacher in self.without:
            raise UserError(f"--without {self.teacher} leaves nobody to learn from: the teacher is the only annotator.")
        self._check_panel()
        self._check_demonstrations()
        check_dynamics(self.reward, self.fit)
        if self.fixed_horizon is not None and self.fixed_horizon < 0:
            raise UserError(f"fixed_horizon must be a number of steps, or 0 for none. Received {self.fixed_horizon}")

    def _check_demonstrations(self) -> None:
        if self.demonstrations is None:
            for name in ("demonstration_pairs", "clone_demonstrations"):
                if getattr(self, name) is not None:
                    option = name.replace("_", "-")
                    raise UserError(f"--{option} is about demonstrations, and none are given: --demonstrations DATA.")
            return
        if self.demonstration_pairs is not None and self.demonstration_pairs < 0:
            raise UserError(f"demonstration_pairs must be 0 or more. Received {self.demonstration_pairs}")
        if self.demonstration_pairs == 0 and self.clone_demonstrations is False:
            raise UserError(
                "Neither cloned nor compared, the demonstrations have no effect: leave out "
                "--clone-demonstrations False, or give --demonstration-pairs."
            )
        if self.reward.groups > 1 and self.demonstration_pairs != 0:
            raise UserError(
                "Comparisons with demonstrations are of no group of annotators: give --demonstration-pairs 0, or leave "
                "out --reward.groups."
            )

    def _check_panel(self) -> None:
        """Check who answers beside each other, and that there are as many as groups."""
        names, groups = panel_names(self.panel), self.reward.groups
        if len(self.panel) == 1:
            raise UserError(f"A panel needs two annotators or more. Received {self.panel[0]} alone; use --teacher.")
        if self.panel and self.asks_people:
            raise UserError("A panel answers in place of the teacher, not beside people: leave --annotator out.")
        if self.panel and self.reward_function is not None:
            raise UserError(
                "Each annotator of a panel judges in its own way: name the function in --panel instead of "
                "--reward-function."
            )
        left = [name for name in names if name not in self.without]
        if self.panel and not left:
            raise UserError(f"--without {' '.join(self.without)} leaves nobody of the panel to learn from.")
        if groups == 1:
            return
        if self.queries.feedback == "rating":
            raise UserError(
                "Groups of annotators are told apart by which item they call better; ratings do not say that."
            )
        alone = not self.asks_people and self.from_run is None and not self.panel
        if (alone and ":" not in self.teacher) or (self.panel and self.from_run is None and len(left) < groups):
            who = f"{', '.join(left)} of the panel" if self.panel else f"the teacher {self.teacher}"
            raise UserError(
                f"{groups} groups of annotators need as many annotators or more, and only {who} would answer. Name "
                "several with --panel, ask people with --annotator human, or leave --reward.groups out."
            )
        if self.panel and self.from_run is None and self.reward.serve not in (*left, "shares", "worst"):
            raise UserError(
                f"--reward.serve must be shares, worst or the name of somebody who answers: {', '.join(left)}. "
                f"Received {self.reward.serve!r}"
            )

    def refuse_answers(self) -> None:
        """Refuse settings about answers: of a run on the environment's own reward alone, where nobody is asked.

        Raises:
            UserError: one was changed.
        """
        plain = TrainSettings(env_id=self.env_id)
        changed = [name for name in ABOUT_ANSWERS if getattr(self, name) != getattr(plain, name)]
        if self.warmup == "entropy":
            changed.append("warmup")
        if changed:
            raise UserError(
                "With --baseline-only an agent is trained on the environment's own reward and nobody is asked, so "
                f"these settings have no meaning: {', '.join(changed)}. Leave them out."
            )

    @property
    def asks_people(self) -> bool:
        """Whether people are asked."""
        return self.annotator != "teacher"

    @property
    def by_own_measure(self) -> bool:
        """Whether the run is judged by what was asked for, since the environment's reward is not that."""
        return self.asks_people or self.reward_function is not None or bool(self.panel)

    def resolve(self) -> RunSettings:
        """Fill in what was not asked for and check the whole against the environment.

        Raises:
            UserError: unknown environment, segments longer than an episode, a warm-up longer than the run, ...
        """
        known = task(self.env_id)
        defaults = agent_defaults(self.agent, known.env_id)
        limit = episode_length(self.env_id)
        horizon = known.fixed_horizon if self.fixed_horizon is None else self.fixed_horizon
        horizon = horizon or None
        terminal = self.terminal_reward
        if horizon is None and terminal:
            raise UserError("--terminal-reward has a meaning in the fixed-horizon form only: give --fixed-horizon too.")
        if horizon is not None and terminal is None:
            terminal = known.terminal_reward
        if horizon is not None and self.max_episode_steps is not None:
            raise UserError(
                f"Episodes of the fixed-horizon form have {horizon} steps, so max_episode_steps has no meaning. Give "
                f"--fixed-horizon {self.max_episode_steps} instead, or --fixed-horizon 0 for the plain form."
            )
        longest = _longest_episode(horizon, self.max_episode_steps, limit)
        length = self.segment_length
        if length is None:
            length = min(known.segment_length, longest) if longest else known.segment_length
        if longest is not None and length > longest:
            raise UserError(
                f"Segments of {length} steps are longer than an episode of {self.env_id} ({longest} steps). "
                f"Use --segment-length {longest}{' or less' * (longest > 1)}."
            )
        steps = self.steps or defaults.steps
        num_envs = self.num_envs or defaults.num_envs
        warmup = self.warmup_steps or min(max(defaults.warmup_steps, 2 * length * num_envs), steps // 4)
        if warmup < length * num_envs:
            raise UserError(
                f"{warmup} warm-up steps in {num_envs} environments are fewer than one segment of {length} steps in "
                f"each. Use more --steps or --warmup-steps (at least {length * num_envs}), shorter segments or fewer "
                "--num-envs."
            )
        if warmup >= steps:
            raise UserError(f"{warmup} warm-up steps leave nothing of {steps} steps to train in. Use more --steps.")
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        found: dict[str, Any] = {
            "steps": steps,
            "num_envs": num_envs,
            "warmup_steps": warmup,
            "warmup": self.warmup or defaults.warmup,
            "segment_length": length,
            "fixed_horizon": horizon or 0,
            "terminal_reward": terminal,
            "hyperparameters": merged(defaults.hyperparameters, self.hyperparameters),
            "queries": self.queries.for_task(known),
            "reward": replace(self.reward, num_members=self.reward.num_members or known.num_members),
        }
        check_members(METHODS.find(self.queries.method), found["reward"].num_members)
        resolved = RunSettings(**asked | {"wait": 0} | found)
        METHODS.find(self.queries.method)  # what is a user's own is loaded before anything is written
        self.queries.maker.check()
        wait = min(resolved.label_schedule().labels_due(0), FIRST_ANSWERS) if self.wait is None else self.wait
        return replace(resolved, wait=wait)


@dataclass(frozen=True, kw_only=True)
class RunSettings(TrainSettings):
    """A training run as it is made: `TrainSettings` with everything filled in.

    `field()` takes away the default that `TrainSettings` gives.
    """

    steps: int = field()
    num_envs: int = field()
    fixed_horizon: int = field()
    segment_length: int = field()
    warmup_steps: int = field()
    warmup: Literal["policy", "uniform", "entropy"] = "uniform"  # as it was in runs made before there was a choice
    wait: int = 0  # as it was in runs made before people could be waited for

    @property
    def longest_episode(self) -> int | None:
        """Steps after which every episode is over; None where there is no limit."""
        return _longest_episode(self.fixed_horizon, self.max_episode_steps, episode_length(self.env_id))

    def label_schedule(self) -> LabelSchedule:
        """Return when how many labels are asked for."""
        return LabelSchedule(
            total_labels=self.labels,
            total_steps=self.steps,
            initial_share=self.queries.initial_share,
            kind=self.queries.schedule,
            num_sessions=self.queries.num_sessions,
            last_session_at=self.queries.last_session_at,
            decay_steps=max(1, int(self.queries.decay * self.steps)),
        )


def _longest_episode(horizon: int | None, asked: int | None, limit: int | None) -> int | None:
    """Return the steps of the fixed-horizon form, else the fewer of those asked for and the environment's own."""
    return horizon or min(filter(None, (asked, limit)), default=None)
