"""Verbs of `prefrl text` for other programs: a reward served over HTTP, a run exported."""

from __future__ import annotations

import os
import secrets
import socket
import warnings
from pathlib import Path
from typing import Annotated

import tyro

from prefrl.errors import UserError, require
from prefrl.files import text_or_file
from prefrl.servers import OWN_HOSTS
from prefrl.text.data.judge import DEFAULT_CONSTITUTION, make_judge
from prefrl.text.jobs.exporting import Program, export_run
from prefrl.text.jobs.serving import JudgeScorer, Scorer, make_app, make_scorer
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.server_reward import KEY_VARIABLE

Rewards = tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="REWARD")]]


def serve(
    rewards: Rewards = (), *, judge: str | None = None, constitution: Path | None = None, pessimism: float = 1.0,
    templated: bool = False, host: str = "127.0.0.1", port: int = 5000, batch: int = 64, device: str = "auto",
) -> None:  # fmt: skip
    """Serve a reward over HTTP, as OpenRLHF's --reward.remote_url and prefrl's own trainers ask for one.

    Args:
        rewards: folder of a reward model (several are an ensemble), or of a sequence classifier of transformers with
            one label, or FILE.py:FUNCTION of (prompts, responses).
        judge: in place of a reward: rule, a language model, or URL#MODEL; a response is worth how likely it is better
            than the one that comes as its label.
        constitution: file with what the judge is to go by.
        pessimism: of an ensemble: standard deviations that are taken off.
        templated: a chat template made the prompts.
        host: address to listen on; default: this machine alone.
        port: to listen on; 0: any that is free.
        batch: responses that are scored at once.
        device: auto, cpu or cuda.
    """
    for package in ("starlette", "uvicorn"):
        require(package, "serve")
    if batch < 1:
        raise UserError(f"--batch must be at least 1. Received {batch}")
    if not 0 <= port < 65536:
        raise UserError(f"--port must be from 0 to 65535. Received {port}")
    if judge is not None and rewards:
        raise UserError("Name rewards or a judge, not both.")
    if pessimism < 0:
        raise UserError(f"--pessimism must be at least 0. Received {pessimism}")
    scorer: Scorer
    if judge is None:
        scorer = make_scorer(rewards, Runtime(device), pessimism)
    else:
        law = DEFAULT_CONSTITUTION if constitution is None else text_or_file(str(constitution))
        scorer = JudgeScorer(make_judge(judge, law, device=device))
    token = os.environ.get(KEY_VARIABLE) or secrets.token_urlsafe(24)
    if host not in OWN_HOSTS:
        warnings.warn(f"Others can reach {host}, and what is sent there is not encrypted.", stacklevel=2)
    _listen(make_app(scorer, token, batch=batch, templated=templated), host, port, token)


def export_to(
    program: tyro.conf.Positional[Program], run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]], *,
    to: Path, trust: bool = False,
) -> None:  # fmt: skip
    """Write a folder from which trl or OpenRLHF makes the training of a run: model, data, settings, and what to call.

    Args:
        program: trl (a script) or openrlhf (a command).
        run: folder of a run of prefrl text, finished or not.
        to: the folder to write.
        trust: the run was made by another user or on another machine: use what its config.json names.
    """
    for remark in export_run(run, program, to, trust=trust):
        warnings.warn(f"Not carried over to {program}: {remark}", stacklevel=2)
    print(f"Wrote {to}: see {to / 'README.md'}")


def _listen(app: object, host: str, port: int, token: str) -> None:
    """Answer until Ctrl-C."""
    uvicorn = require("uvicorn", "serve")
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,  # addresses may hold the token
        server_header=False,
        lifespan="off",
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    listening = _bound(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}/get_reward"
    print(f"Serving at {address} until Ctrl-C. For trainers of prefrl: export {KEY_VARIABLE}={token}", flush=True)
    print(f"For OpenRLHF: --reward.remote_url '{address}?token={token}'", flush=True)
    server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another --port.") from error
