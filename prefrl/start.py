"""Where the `prefrl` command begins: the viewer is started without what only training needs (torch, the simulators)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata

from prefrl.cpus import refuse_several_processes
from prefrl.errors import INTERRUPTED, USER_ERROR, UserError, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] != ["text"]:
            refuse_several_processes(" ".join(["prefrl", *given[:1]]))
        if given == ["--version"]:
            print(f"prefrl {metadata.version('prefrl')}")  # noqa: T201
            return 0
        if given[:1] == ["label"]:
            from prefrl.human_ui.command import main as label

            return label(given[1:])
        if given[:1] == ["show"]:
            from prefrl.human_ui.show import main as show

            return show(given[1:])
        if given[:1] == ["assign"]:
            from prefrl.human_ui.assigning import main as assign

            return assign(given[1:])
        if given[:1] == ["gallery"]:
            from prefrl.human_ui.page.gallery_command import main as gallery

            return gallery(given[1:])
        if given[:1] in (["serve"], ["invite"], ["forget"], ["pin"]):
            from prefrl.human_ui.page import command

            verbs = {
                "serve": command.serve, "invite": command.invite, "forget": command.forget, "pin": command.pin
            }  # fmt: skip
            return verbs[given[0]](given[1:])
        from prefrl.cli import main as every_other_verb

        return every_other_verb(given)
    except UserError as error:
        tell(f"prefrl: {error}")
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
