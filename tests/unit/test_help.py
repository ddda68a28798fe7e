"""What --help says of every verb: words for a reader, and no remarks for the tools that check the code."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("diffusers")

from prefrl import cli
from prefrl.image import commands as image
from prefrl.text.jobs import commands as text


def verbs() -> list[tuple[str, ...]]:
    """Return every verb as words of the command line."""
    of_text = [verb.__name__ for verb in (*text.TRAINING, *text.DATA, *text.MODELS)]
    found = [(verb,) for verb in cli.VERBS if verb not in ("text", "image", "demo")]
    found += [("text", name.replace("_", "-")) for name in of_text]
    found += [("image", verb.__name__.replace("_", "-")) for verb in image.VERBS]
    return [*found, ("demo", "record")]


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_help_holds_no_remarks_for_tools(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*verb, "--help"])
    said = capsys.readouterr().out
    assert not end.value.code
    assert said.startswith("usage: prefrl")
    assert not re.findall(r"type: ignore|noqa|fmt: skip|pragma:|TODO", said)
