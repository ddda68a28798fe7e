"""`prefrl gallery`: all answers of a run with their clips, in the browser, with neither torch nor a simulator."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from prefrl.errors import require
from prefrl.human_ui.command import find_instruction, find_record, login_name
from prefrl.human_ui.gallery import KINDS_OF_INTEREST, ORDERS, Wanted
from prefrl.human_ui.page.command import listen, make_server, tell_the_way
from prefrl.store import PreferenceStore

DESCRIPTION = """\
Look at all answers of a run with their clips: by person, by how little the learned reward expected them, by how far
people disagree. Answers given under your name can be given again: the old one is taken back, the new one is a row of
its own. prefrl serve RUN has the same page, under the key G.
"""


def main(arguments: Sequence[str]) -> int:
    """Serve the gallery until it is stopped; return the exit status.

    Raises:
        UserError: no such run, a port that is taken, a record that cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="prefrl gallery", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a record: a file, postgresql://...")
    parser.add_argument("--name", default=None, help="your name in the record; default: the name you are logged in by")
    parser.add_argument("--annotator", default="", metavar="NAME", help="answers of this person; default: of everybody")
    parser.add_argument("--only", default="all", choices=sorted(KINDS_OF_INTEREST), help="default: all")
    parser.add_argument("--order", default="newest", choices=ORDERS, help="default: newest")
    parser.add_argument(
        "--find", default="", metavar="ID", help="a question, or the row of an answer, as prefrl quality prints them"
    )
    parser.add_argument("--port", type=int, default=None, help="default: one that is free")
    parser.add_argument("--trust", action="store_true", help="the run was made elsewhere: use what it names")
    given = parser.parse_args(arguments)
    for package in ("starlette", "uvicorn", "jinja2", "itsdangerous"):
        require(package, "serve")

    from prefrl.human_ui.page.app import Page, make_app
    from prefrl.human_ui.page.host import Host

    wanted = Wanted(annotator=given.annotator or None, only=given.only, order=given.order, find=given.find)
    where, run, config = find_record(given.run, trust=given.trust)
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        name = given.name or login_name()
        if store.annotators().get(name) in ("teacher", "model"):
            name = f"{name} (owner)"
        folder = Path(given.run) if Path(given.run).is_dir() else None
        instruction = find_instruction(None, store.facts(), config)
        environment = str(config.get("env_id", ""))
        host = Host(store, run=run, environment=environment, instruction=instruction, folder=folder)
        listener = listen("127.0.0.1", given.port)
        try:
            port = listener.getsockname()[1]
            chosen = {key: value for key, value in vars(wanted).items() if value}
            token = store.links.make(name, "owner")
            print(f"The answers of {run}, as {name!r}: http://127.0.0.1:{port}/gallery?{urlencode(chosen)}#{token}")  # noqa: T201
            tell_the_way("127.0.0.1", port)
            make_server(make_app({"": Page(host)})).run(sockets=[listener])
        finally:
            listener.close()
    return 0
