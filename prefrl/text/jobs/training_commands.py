"""Verbs of `prefrl text` that train: a job each, going on with one, and the whole chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from prefrl.errors import UserError
from prefrl.runs import tracking
from prefrl.text.jobs import direct, jobs, policies, supervised
from prefrl.text.jobs.bestofn import BestOfNJob
from prefrl.text.jobs.demo import Demo, DemoSettings
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.model_commands import report
from prefrl.text.jobs.rejection import RejectionJob
from prefrl.text.learn.runtime import on_main_process

Folder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
Whole = tyro.conf.arg(name="")
Track = Annotated[
    tuple[str, ...], tyro.conf.arg(help="Trackers that take its figures too: wandb, mlflow, trackio, aim.")
]


def pretrain(
    job: Annotated[supervised.PretrainJob, Whole], *, out: Path, track: Track = (), quiet: bool = False
) -> None:
    """Train a small language model and its tokenizer from nothing."""
    _train(job, out, track, quiet)


def sft(job: Annotated[supervised.SFTJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Fine-tune a language model on examples; the loss is on responses only."""
    _train(job, out, track, quiet)


def reward(
    job: Annotated[supervised.RewardJob, Whole], *, out: Path, members: int = 1, track: Track = (), quiet: bool = False
) -> None:
    """Fit a reward model to comparisons and rankings, or several that differ in seed and bootstrap.

    Args:
        job: the run.
        out: run folder; with several members their folders out-0, out-1, ...
        members: how many.
        track: trackers that take its figures too: wandb, mlflow, trackio, aim.
        quiet: no progress.
    """
    if members < 1:
        raise UserError(f"members must be at least 1. Received {members}")
    if members == 1:
        _train(job, out, track, quiet)
        return
    for number in range(members):
        training = replace(job.training, seed=job.place.seed * 100 + number, bootstrap=True)
        _train(replace(job, training=training), out.with_name(f"{out.name}-{number}"), track, quiet)


def ppo(job: Annotated[policies.PPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy on a reward by PPO with a KL penalty; PPO-ptx with --pretraining."""
    _train(job, out, track, quiet)


def rloo(job: Annotated[policies.RLOOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy on a reward without a value model: each sample against the others of its prompt (RLOO)."""
    _train(job, out, track, quiet)


def grpo(job: Annotated[policies.GRPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy by group-relative policy optimisation; Dr. GRPO and DAPO's parts by options of --training."""
    _train(job, out, track, quiet)


def reinforce(
    job: Annotated[policies.ReinforceJob, Whole], *, out: Path, track: Track = (), quiet: bool = False
) -> None:
    """Train a policy by REINFORCE, its baseline the mean of the batch or a moving one."""
    _train(job, out, track, quiet)


def rl(job: Annotated[policies.EstimatorJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy on a reward by an estimator of your own (--estimator module:NAME)."""
    _train(job, out, track, quiet)


def online_dpo(
    job: Annotated[policies.OnlineDPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False
) -> None:
    """Train a policy by DPO on its own samples, compared by a reward, a judge or people (--annotator human)."""
    _train_online(job, out, track, quiet)


def online_ipo(
    job: Annotated[policies.OnlineIPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False
) -> None:
    """Train a policy by IPO on its own samples, compared by a reward, a judge or people (--annotator human)."""
    _train_online(job, out, track, quiet)


def dpo(job: Annotated[direct.DPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy by direct preference optimisation, on pairs or (--training.rankings) whole rankings."""
    _train(job, out, track, quiet)


def ipo(job: Annotated[direct.IPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy by identity preference optimisation."""
    _train(job, out, track, quiet)


def simpo(job: Annotated[direct.SimPOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy by simple preference optimisation: mean log-probabilities with a margin, no reference."""
    _train(job, out, track, quiet)


def kto(job: Annotated[direct.KTOJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Train a policy from likes and dislikes (Kahneman-Tversky optimisation)."""
    _train(job, out, track, quiet)


def rejection(job: Annotated[RejectionJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Fine-tune a policy on the best of N of its own responses to each prompt (rejection sampling, RAFT)."""
    _train(job, out, track, quiet)


def bestofn(job: Annotated[BestOfNJob, Whole], *, out: Path, track: Track = (), quiet: bool = False) -> None:
    """Draw N responses to each prompt and keep the one that a reward likes best."""
    _train(job, out, track, quiet)


def resume(run: Folder, *, quiet: bool = False, trust: bool = False, accept_changed: bool = False) -> None:
    """Go on with a run that was stopped or killed.

    Args:
        run: its folder.
        quiet: no progress.
        trust: it was made by another user or on another machine: use what its config.json names.
        accept_changed: go on with settings, data or models that were changed since.
    """
    _tell(jobs.resume(run, quiet=quiet, trust=trust, accept_changed=accept_changed), quiet)


def demo(settings: Annotated[DemoSettings, Whole], *, out: Path = Path("runs/text-demo"), quiet: bool = False) -> None:
    """Make the whole chain from nothing, with every method, and draw the curve; it goes on where it stopped."""
    out.mkdir(parents=True, exist_ok=True)
    Demo(settings, out, quiet=quiet).run()
    report((out,))


def _train_online(job: policies.OnlineDPOJob, out: Path, track: Track, quiet: bool) -> None:
    if job.annotator == "human" and not quiet and on_main_process():
        Console(stderr=True).print(
            f"Questions will wait in {out}. Answer them with: prefrl label {out}, or in the browser: "
            f"prefrl serve {out}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    _train(job, out, track, quiet)


def _train(job: Any, out: Path, track: Track, quiet: bool) -> None:
    _tell(jobs.start(job, out, trackers=track, quiet=quiet), quiet)


def _tell(folder: TextFolder, quiet: bool) -> None:
    if on_main_process():
        tracking.finish(folder)
    if not quiet and on_main_process():
        figures = {key: value for key, value in folder.read_summary().items() if isinstance(value, int | float)}
        rows = folder.read_evaluations()
        if rows:
            figures |= {key: rows[-1][key] for key in ("gold", "proxy", "kl_nats", "length") if key in rows[-1]}
        print(f"{folder.path}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
