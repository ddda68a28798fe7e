"""An online run that starts from an offline one: from its answers, its reward and its policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefrl.agents import Agent
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError, first_line
from prefrl.rewards import RewardEnsemble, RewardSettings
from prefrl.runs.codec import from_json
from prefrl.runs.folder import format_of


class OfflineStart(ControlFolder):
    """The folder of an offline run, as far as it is that of a control run."""

    FORMAT, COMMAND, COUNTER = "prefrl.offline", "prefrl offline", "num_updates"


def open_earlier(path: Path) -> ControlFolder:
    """Open a control run or an offline one, whose answers are learned from."""
    return (OfflineStart if format_of(path) == OfflineStart.FORMAT else ControlFolder).open(path)


def with_start(settings: TrainSettings) -> TrainSettings:
    """Return settings with what the offline run that they start from decides: networks, segments, answers.

    Raises:
        UserError: there is no such run, it is not finished, or it does not go with these settings.
    """
    if settings.from_offline is None:
        return settings
    path = Path(settings.from_offline)
    folder = OfflineStart.open(path)
    folder.load_policy("last")
    agent = None if settings.agent == "ppo" else settings.agent
    for asked, name in ((settings.from_run, "--from"), (agent, "--agent")):
        if asked is not None:
            raise UserError(
                f"--from-offline brings the policy of a ppo agent and answers, so it does not go with {name} {asked}."
            )
    there: dict[str, Any] = folder.config["settings"]
    reward = settings.reward
    bonus, decay = reward.bonus, reward.bonus_decay  # for exploring, which no offline run does
    if folder.reward_path.is_file() and reward == RewardSettings(bonus=bonus, bonus_decay=decay):
        reward = replace(from_json(RewardSettings, there["reward"]), bonus=bonus, bonus_decay=decay)
    return replace(
        settings,
        hyperparameters={**settings.hyperparameters, **there["hyperparameters"]},
        segment_length=settings.segment_length or there["segment_length"],
        reward=reward,
        from_run=str(path) if folder.record_path.is_file() else None,
    )


def start_policy(path: Path, agent: Agent) -> None:
    """Let an agent act as the policy of an offline run does.

    Raises:
        UserError: the policy is of other observations or actions.
    """
    try:
        agent.load_policy_state(OfflineStart.open(path).load_policy("last"))
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"The policy of the run in {path} does not fit this environment: {first_line(error).rstrip(':')}. Give "
            "--from-offline a run on data of this environment."
        ) from error


def start_reward(path: Path, reward: RewardEnsemble) -> bool:
    """Let a reward begin as that of an offline run is; return False where that run fitted none.

    Raises:
        UserError: it is another network.
    """
    kept = OfflineStart.open(path).reward_path
    if not kept.is_file():
        return False
    try:
        reward.load_state_dict(RewardEnsemble.load(kept).state_dict())
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"The reward of the run in {path} is not the network that --reward describes: "
            f"{first_line(error).rstrip(':')}. Leave out --reward."
        ) from error
    return True
