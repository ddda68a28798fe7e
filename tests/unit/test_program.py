"""Environments that change something for the whole program: it is put back, and said; a run goes on as it was."""

from __future__ import annotations

import builtins
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.envs import make_env
from prefrl.errors import UserError, tell
from prefrl.program import program_state
from prefrl.seams import load_module

NAME = "ChangesTheProgram-v0"
PLACES = ("constructor", "reset", "step", "render")


class Changes(gymnasium.Env[Any, Any]):
    """Does something in one of its methods."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, where: str, what: Callable[[], object], render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.what = {where: what}
        self.do("constructor")

    def do(self, place: str) -> None:
        self.what.get(place, lambda: None)()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.do("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.do("step")
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self) -> Any:
        self.do("render")
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the program of the tests as it was, also where one fails."""
    gymnasium.register(NAME, Changes)
    state = sys.stdout, sys.stderr, builtins.print, warnings.warn, warnings.showwarning
    limit, filters, folder = sys.getrecursionlimit(), warnings.filters[:], os.getcwd()
    places, numpy_errors = sys.path[:], np.geterr()
    yield
    os.chdir(folder)
    sys.stdout, sys.stderr, builtins.print, warnings.warn, warnings.showwarning = state
    sys.setrecursionlimit(limit)
    warnings.filters[:] = filters  # type: ignore[index]
    sys.path[:] = places
    np.seterr(**numpy_errors)
    del gymnasium.registry[NAME]


def use(where: str, what: Callable[[], object]) -> None:
    """Make an environment that does this there, and call each of its methods."""
    env = make_env(NAME, options={"where": where, "what": what}, render_mode="rgb_array")
    env.reset(seed=1)
    env.step(0)
    env.render()
    env.close()


TOLD: dict[str, Callable[[], object]] = {
    r"sys\.path": lambda: sys.path.clear(),
    r"removed places .*sys\.path": lambda: setattr(sys, "path", None),
    r"numpy\.seterr": lambda: np.seterr(all="raise"),
    r"sys\.stdout": lambda: setattr(sys, "stdout", io.StringIO()),
    r"sys\.stderr": lambda: setattr(sys, "stderr", io.StringIO()),
    r"builtins\.print": lambda: setattr(builtins, "print", lambda *_: None),
    r"sys\.setrecursionlimit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() - 1),
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("said", TOLD)
def test_where_words_go_and_how_deep_calls_nest_is_put_back_and_said(said: str, where: str) -> None:
    before = program_state()
    with pytest.warns(UserWarning, match=f"{said}.* for the whole program. That was undone"):
        use(where, TOLD[said])
    assert program_state() == before


SILENT: dict[str, Callable[[], object]] = {
    "another working directory": lambda: os.chdir("/"),
    "all are hidden": lambda: warnings.filterwarnings("ignore"),
    "all are errors": lambda: warnings.simplefilter("error"),
    "warn does nothing": lambda: setattr(warnings, "warn", lambda *_, **__: None),
    "shown nowhere": lambda: setattr(warnings, "showwarning", lambda *_, **__: None),
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("what", SILENT)
def test_which_warnings_are_shown_and_where_files_lie_is_put_back(what: str, where: str) -> None:
    """Else what a run has to say would be lost, or end it, and its files would go elsewhere."""
    before = program_state()
    use(where, SILENT[what])
    assert program_state() == before


def test_a_module_that_hides_all_warnings_when_it_is_imported_hides_none_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "hides.py").write_text("import warnings\nwarnings.filterwarnings('ignore')\n")
    before = program_state()
    load_module(str(tmp_path / "hides.py"), "environment")
    assert program_state() == before


def test_a_limit_of_calls_that_was_raised_stays() -> None:
    """Who computes recursively needs it."""
    limit = sys.getrecursionlimit()
    use("constructor", lambda: sys.setrecursionlimit(limit + 10))
    assert sys.getrecursionlimit() == limit + 10


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_closing_the_output_is_refused_in_a_sentence(name: str, where: str) -> None:
    setattr(sys, name, io.StringIO())
    with pytest.raises(UserError, match=rf"closed sys\.{name}, in which a run says what came of it\. Let it open"):
        use(where, lambda: getattr(sys, name).close())


def test_what_cannot_be_said_in_the_standard_error_is_said_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    sys.stderr = io.StringIO()
    sys.stderr.close()
    tell("closed")
    assert capsys.readouterr().out == "closed\n"
    sys.stdout = sys.stderr
    tell("nowhere")  # raises nothing


def test_an_environment_that_redirects_within_a_block_is_left_alone() -> None:
    import contextlib

    def quietly() -> None:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use("step", quietly)
