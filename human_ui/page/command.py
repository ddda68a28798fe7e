"""`prefrl serve`, `prefrl invite` and `prefrl forget`: what their arguments mean. Neither torch nor simulators."""

from __future__ import annotations

import argparse
import getpass
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefrl.errors import UserError, require
from prefrl.human_ui.command import find_instruction, find_record, login_name
from prefrl.human_ui.examples import pin_example
from prefrl.human_ui.show import find_query
from prefrl.store import PreferenceStore
from prefrl.store.participants import PLATFORM

PORT = 8765
SERVE = """\
Let people say which clips or responses are better in any browser, on desktop, tablet or phone: they install nothing.

The page is reached from this machine alone, by links that cannot be guessed; the owner's is printed here, those of
others are made by: prefrl invite RUN --name NAME. From elsewhere it is reached through a tunnel, whose command is
printed too.
"""
INVITE = """\
Make a link by which somebody may answer in the browser, under a name of their own (the page is opened by prefrl serve).

The link is shown once; the record keeps no more than what recognises it.
"""
PIN = """\
Pin something that a question shows as a good or bad example: everybody sees it beside what to look for, on the page and
in the window.
"""
FORGET = """\
Remove everything that a person said, and their name, from a run's record. A training that goes on drops their answers
with its next fit; a stopped one when it is resumed. Their questions are asked of others.
"""


def serve(arguments: Sequence[str]) -> int:
    """Serve the page until it is stopped; return the exit status.

    Raises:
        UserError: no such run, a port that is taken, a record that cannot be used.
    """
    parser = _parser("serve", SERVE)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or a record: a file, postgresql://...")
    parser.add_argument("--port", type=int, default=None, help=f"default: {PORT}, or another that is free")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine alone"
    )
    parser.add_argument("--prefix", default="", help="path that the page lies under, if a proxy does not strip it")
    parser.add_argument("--framed-by", default="", metavar="SITE", help="site that may show the page within its own")
    parser.add_argument("--instruction", default=None, help="what to look for: a text, or a file that holds it")
    for name, default, told in (
        ("must-see", 0.25, "share of the clips' length that must have been shown before an answer counts"),
        ("repeat-share", 0.1, "share of questions that are earlier ones with their sides swapped"),
        ("gold-share", 0.0, "share of questions whose answer is known (--known-by)"),
        ("pass-mark", 0.6, "share of the practice questions that must be right"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{told} (default: {default})")
    parser.add_argument("--known-by", default=None, metavar="NAME", help="annotator whose answers are right")
    parser.add_argument(
        "--leave-after",
        type=float,
        default=None,
        metavar="MINUTES",
        help="end after so many minutes in which nothing happens",
    )
    parser.add_argument("--consent", default=None, metavar="FILE", help="text that everybody must agree to first")
    parser.add_argument(
        "--limit", type=int, default=None, metavar="N", help="answers after which a person is done (default: none)"
    )
    parser.add_argument(
        "--break-after",
        type=float,
        default=20.0,
        metavar="MINUTES",
        help="suggest a rest after so long (default: 20; 0: never)",
    )
    parser.add_argument(
        "--completion-code",
        default=None,
        metavar="CODE",
        help="shown to whoever is done, for the platform they came from",
    )
    parser.add_argument("--practice", type=int, default=0, metavar="N", help="practice questions at the beginning")
    parser.add_argument("--trust", action="store_true", help="the run was made elsewhere: use what it names")
    given = parser.parse_args(arguments)
    for package in ("starlette", "uvicorn", "jinja2", "itsdangerous"):
        require(package, "serve")

    from prefrl.human_ui.page.app import Page, make_app
    from prefrl.human_ui.page.gate import Campaign
    from prefrl.human_ui.page.host import Host

    campaign = Campaign(
        must_see=given.must_see,
        repeat_share=given.repeat_share,
        known_by=given.known_by,
        practice=given.practice,
        pass_mark=given.pass_mark,
        gold_share=given.gold_share,
        consent=_consent(given.consent),
        limit=given.limit,
        break_after=given.break_after,
        completion_code=given.completion_code,
    )
    listener = listen(given.host, given.port)
    port = listener.getsockname()[1]
    pages: dict[str, Any] = {}
    stores = []
    try:
        for one in given.runs:
            where, run, config = find_record(one, trust=given.trust)
            store = PreferenceStore(where, patience_seconds=5.0, create=False)
            stores.append(store)
            _check_known(store, campaign)
            instruction = find_instruction(given.instruction, store.facts(), config)
            host = Host(
                store,
                run=run,
                environment=str(config.get("env_id", "")),
                instruction=instruction,
                folder=Path(one) if Path(one).is_dir() else None,
                campaign=campaign,
            )
            place = "/".join(part for part in (given.prefix.strip("/"), run if len(given.runs) > 1 else "") if part)
            if place in pages:
                raise UserError(f"Two of the runs are called {run!r}. Serve them one by one, on ports of their own.")
            pages[place] = Page(host, given.framed_by)
            _introduce(store, one, run, f"http://{_shown(given.host)}:{port}/{place}{'/' if place else ''}")
        tell_the_way(given.host, port)
        server = make_server(make_app(pages))
        if given.leave_after is not None:
            hosts = [page.host for page in pages.values()]
            watch = threading.Thread(
                target=_leave_when_still, args=(server, hosts, 60 * given.leave_after), daemon=True
            )
            watch.start()
        server.run(sockets=[listener])
    finally:
        listener.close()
        for store in stores:
            store.close()
    return 0


def invite(arguments: Sequence[str]) -> int:
    """Make, list or revoke links; return the exit status.

    Raises:
        UserError: no such run, or nobody of that name.
    """
    parser = _parser("invite", INVITE)
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a record: a file, postgresql://...")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--name", help="make a link for this person")
    what.add_argument("--study", metavar="NAME", help="make one link for all participants of a study on Prolific")
    what.add_argument("--revoke", metavar="NAME", help="make the links of this person worthless")
    what.add_argument("--list", action="store_true", help="show who has links")
    parser.add_argument("--owner", action="store_true", help="with --name: the link also shows how everybody answers")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="with --name: answers to give")
    parser.add_argument(
        "--at", default=None, metavar="URL", help="where people reach the page; default: where it is served"
    )
    given = parser.parse_args(arguments)
    if given.limit is not None and (given.name is None or given.limit < 1):
        raise UserError(f"--limit is a number of answers, at least 1, and goes with --name. Received {given.limit}")
    where, _, _ = find_record(given.run)
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        if given.list:
            links = store.links.all()
            if not links:
                _say("Nobody has a link to this record yet.")
            for link in links:
                state = "valid" if link.revoked_at is None else "revoked"
                made = time.strftime("%Y-%m-%d %H:%M", time.localtime(link.made_at))
                _say(f"{link.annotator}  {link.role}  made {made}  {state}")
        elif given.revoke is not None:
            num = store.links.revoke(given.revoke)
            if not num:
                raise UserError(f"{given.revoke!r} has no valid link. Look with: prefrl invite {given.run} --list")
            _say(f"{num} {'link' if num == 1 else 'links'} of {given.revoke!r} revoked; answers stay.")
        else:
            if store.annotators().get(given.name) in ("teacher", "model"):
                raise UserError(f"{given.name!r} is a teacher or a model in this record. Give the person another name.")
            if given.at is not None and not given.at.startswith(("http://", "https://")):
                raise UserError(f"--at is an address like https://host/path. Received {given.at[:200]!r}")
            at = (given.at or store.facts().get("served_at") or f"http://127.0.0.1:{PORT}/").rstrip("/")
            if given.study is not None:
                token = store.links.make(given.study, "study")
                platform = "&".join(f"{name}={{{{%{name}%}}}}" for name in PLATFORM)
                _say(f"{at}/?{platform}#{token}")
                told = "Give this to the platform as it is; each participant answers under a name of their own."
                print(f"{told} It is not shown again.", file=sys.stderr)  # noqa: T201
                return 0
            token = store.links.make(given.name, "owner" if given.owner else "annotator")
            if given.limit is not None:
                store.participants.limit(given.name.strip(), given.limit)
            _say(f"{at}/#{token}")
            print(f"Send this to {given.name} alone; it is not shown again.", file=sys.stderr)  # noqa: T201
    return 0


def pin(arguments: Sequence[str]) -> int:
    """Pin an example, or take one down; return the exit status.

    Raises:
        UserError: no such run, question or item.
    """
    parser = _parser("pin", PIN)
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a record: a file, postgresql://...")
    parser.add_argument("query", metavar="QUERY", help="name of a question, as prefrl quality prints it")
    parser.add_argument("item", metavar="NUMBER", type=int, help="of what it shows, from 1 in the order of prefrl show")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--good", action="store_true", help="it shows what is wanted")
    what.add_argument("--bad", action="store_true", help="it shows what is not wanted")
    what.add_argument("--remove", action="store_true", help="take it down")
    parser.add_argument("--note", default="", help="a few words on it")
    given = parser.parse_args(arguments)
    where, _, _ = find_record(given.run)
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        query_id = find_query(store, given.query)
        examples = pin_example(store, query_id, given.item - 1, None if given.remove else given.good, given.note)
    _say(f"{len(examples)} {'example is' if len(examples) == 1 else 'examples are'} shown beside the instruction.")
    return 0


def forget(arguments: Sequence[str]) -> int:
    """Remove a person's answers; return the exit status.

    Raises:
        UserError: no such run, or nobody of that name.
    """
    parser = _parser("forget", FORGET)
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a record: a file, postgresql://...")
    parser.add_argument("--annotator", required=True, metavar="NAME", help="who withdraws")
    given = parser.parse_args(arguments)
    where, run, _ = find_record(given.run)
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        forgotten = store.forget(given.annotator)
    folder = Path(given.run)
    stale = [folder / name for name in ("quality.json", "quality.png") if folder.is_dir() and (folder / name).is_file()]
    for path in stale:
        path.unlink()
    _say(f"{forgotten} of {given.annotator!r} removed from {run}.")
    if stale:
        _say(f"Removed too, since they name them: {', '.join(map(str, stale))}")
    _say(
        "What was exported or copied elsewhere before holds them still, and so does a reward until it is fitted again."
    )
    return 0


def _parser(verb: str, told: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"prefrl {verb}", description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _consent(path: str | None) -> str:
    if path is None:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--consent is a file of text, which {path} is not: {error}") from None
    if not text:
        raise UserError(f"--consent is a text that people agree to; {path} is empty.")
    return text


def _check_known(store: PreferenceStore, campaign: Any) -> None:
    if campaign.known_by is not None and store.num_answers(campaign.known_by) == 0:
        raise UserError(
            f"{campaign.known_by!r} has given no answers in this record, so none are known. Answer some questions "
            f"under that name first; names there: {', '.join(store.annotators()) or 'none'}"
        )


def _introduce(store: PreferenceStore, run: str, name: str, url: str) -> None:
    """Print where a run's page is and the owner's link, which is made anew."""
    owner = login_name()
    if store.annotators().get(owner) in ("teacher", "model"):
        owner = f"{owner} (owner)"
    token = store.links.make(owner, "owner")
    store.set_facts({"served_at": url})
    _say(f"{name} is served at {url}")
    _say(f"  Your own link, as {owner!r}: {url}#{token}")
    _say(f"  For others: prefrl invite {run} --name NAME")


def tell_the_way(host: str, port: int) -> None:
    """Print how a page is reached from elsewhere, and how it ends."""
    if host in ("127.0.0.1", "localhost", "::1"):
        tunnel = f"ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{platform.node()}"
        _say(f"  From another machine, first: {tunnel}")
    else:
        _say(
            f"  Everybody who reaches {host} can open the page, and links travel unencrypted: put HTTPS in front of it."
        )
    _say("  Ctrl-C ends it; nothing that was answered is lost.")


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens, at the port asked for or the usual one; if that is taken, at one that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (PORT, 0) if port is None else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)  # who comes before the server has begun waits
            return listener
        except (OSError, OverflowError) as error:
            listener.close()
            if port is not None or number == 0:
                told = f"{host}, port {number}: {getattr(error, 'strerror', None) or error}"
                raise UserError(f"The page cannot be served at {told}. Name another --port, or none.") from None
    raise AssertionError


def _shown(host: str) -> str:
    """Return what to put into a link."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  (the user's choice, which is looked at here)
        return platform.node()
    return f"[{host}]" if ":" in host else host


def _leave_when_still(server: Any, hosts: Sequence[Any], seconds: float) -> None:
    """End a server when no training runs and nobody has asked for anything for so long."""
    while any(host.is_asked_within(seconds) for host in hosts):
        time.sleep(min(5.0, seconds))
    server.should_exit = True


def make_server(app: Any) -> Any:
    """Return a server of uvicorn's for an application."""
    uvicorn = require("uvicorn", "serve")
    config = uvicorn.Config(
        app,
        access_log=False,  # no addresses, and nothing of links
        log_level="error",
        server_header=False,
        limit_concurrency=300,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        lifespan="off",
    )
    return uvicorn.Server(config)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
