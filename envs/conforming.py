"""The seam at which environments of others come in: from here on they are what Gymnasium and their spaces say."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from prefrl.errors import ANYTHING, UserError
from prefrl.program import own_program, program_state, put_back
from prefrl.spaces import exchangeable, native
from prefrl.values import MEND, read_end, read_info, read_reward, read_value


class Conforming(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Reads what an environment returns: observations of its space, the reward a float, the ends bools, info a mapping.

    Observations are copies, and so are the actions that it is given: environments may use their arrays again, and write
    into what they get. Numbers in another machine's byte order, or of more than eight bytes, are translated both ways:
    neither PyTorch nor files of arrays know them. A reward that is None, for one that nobody knows, is NaN.

    Args:
        env: anybody's environment. Its spaces are those that it has when it is made.

    Raises:
        UserError: it set torch's default dtype to another than float32; later, from `reset` and `step`: it returned
            what cannot be read so, has other spaces than before, switched something off in torch for the whole program,
            or broke off with an error.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._given = {name: getattr(env, name) for name in ("observation_space", "action_space")}
        self._space, actions = native(env.observation_space), native(env.action_space)
        self.observation_space, self.action_space = self._space, actions
        self._dtype = None if actions is env.action_space else env.action_space.dtype
        _check_torch()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode."""
        modes = torch_modes()
        try:
            with own_stops(), own_program():
                outcome: Any = self.env.reset(seed=seed, options=options)
        except (UserError, MemoryError):
            raise
        except ANYTHING as error:
            raise _failure("reset", error) from error
        check_modes(modes)
        if not isinstance(outcome, tuple) or len(outcome) != 2:
            raise UserError(f"The environment's reset returned {_kind(outcome)}; {_OLD.format('(observation, info)')}")
        self._check_spaces()
        _check_torch()
        observation, info = outcome
        return read_value(self._space, observation), read_info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        before = program_state()
        try:
            outcome: Any = self.env.step(self._action(action))
        except (UserError, MemoryError):
            raise
        except ANYTHING as error:
            raise _failure("step", error) from error
        finally:
            put_back(before)
        if not isinstance(outcome, tuple) or len(outcome) != 5:
            form = "(observation, reward, terminated, truncated, info)"
            raise UserError(f"The environment's step returned {_kind(outcome)}; {_OLD.format(form)}")
        observation, reward, terminated, truncated, info = outcome
        return (
            read_value(self._space, observation),
            read_reward(reward),
            read_end(terminated, "terminated"),
            read_end(truncated, "truncated"),
            read_info(info),
        )

    def _action(self, action: Any) -> Any:
        """Return an action as the environment has it, and a copy."""
        if self._dtype is not None:
            return np.asarray(action).astype(self._dtype)
        return action.copy() if type(action) is np.ndarray else action

    def _check_spaces(self) -> None:
        """Refuse spaces that reset has changed: networks and records were made for those before."""
        for what, before in self._given.items():
            now = getattr(self.env, what)
            if now is not before and not exchangeable(what, before, now):
                raise UserError(
                    f"The environment's {what} was {before} when it was made, and is {now} after reset. Let its "
                    "constructor set it once and for all."
                )

    def render(self) -> Any:
        """Return what it draws."""
        with own_program():
            return self.env.render()

    def close(self) -> None:
        """Close the environment; where that fails nothing is lost but what it says."""
        try:
            with own_program():
                self.env.close()
        except ANYTHING as error:
            warnings.warn(f"Closing the environment failed with {_said(error)}.", stacklevel=2)


@contextlib.contextmanager
def own_stops() -> Iterator[None]:
    """Put the handlers of Ctrl-C and of a request to terminate back after code of others that may replace them.

    What a run has learned is saved by these handlers; the change is said.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            now = signal.getsignal(number)
            # After a first Ctrl-C the next one is to stop at once: that is a change of our own.
            if now is not handler and now is not signal.default_int_handler and handler is not None:
                signal.signal(number, handler)
                warnings.warn(
                    f"The environment put a handler of its own in place for {number.name} in reset. It was taken out "
                    "again: stopping must save what was learned.",
                    stacklevel=1,  # a place in this package, whose warnings are shown: the caller is contextlib
                )


_OLD = "expected {}. Use an environment written for gym before version 0.26 through shimmy."


def _check_torch() -> None:
    torch = sys.modules.get("torch")  # who has not imported it has not changed it
    if torch is not None and torch.get_default_dtype() != torch.float32:
        raise UserError(
            f"torch's default dtype is {torch.get_default_dtype()}; expected torch.float32, in which networks here "
            "compute. The environment sets it (torch.set_default_dtype), or your program: name the dtype where tensors "
            "are made instead."
        )


_MODES = {
    "gradients are on": "torch.set_grad_enabled",
    "inference mode is on": "torch.inference_mode",
    "the default device": "torch.set_default_device",
}


def torch_modes() -> tuple[bool, bool, str]:
    """Return what holds in torch for all code of this thread: gradients, inference mode, the default device."""
    torch = sys.modules.get("torch")
    if torch is None:
        return True, False, "cpu"
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), str(torch.get_default_device())


def check_modes(before: tuple[bool, bool, str]) -> None:
    """Refuse an environment that has changed what `torch_modes` gave before it was called."""
    for (what, function), was, now in zip(_MODES.items(), before, torch_modes(), strict=True):
        if was != now:
            raise UserError(
                f"The environment changed torch for the whole program ({function}): {what} was {was} before it was "
                f"called and is {now} now, and nothing could be learned so. Let it do so only where it computes, in a "
                "with block (with torch.no_grad():, with torch.device(...):)."
            )


def _kind(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _failure(method: str, error: BaseException) -> UserError:
    """Return what to say of an error in the environment's own code."""
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        return UserError(
            f"The environment's {method} cannot be called as Gymnasium does: {error}. Give it the parameters seed=None "
            "and options=None, or use an environment written for gym before version 0.26 through shimmy."
        )
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    return UserError(f"The environment broke off in {method} ({where}) with {_said(error)}. {MEND}")


def _said(error: BaseException) -> str:
    """Return what kind of error it is, and the first line of its message."""
    return traceback.format_exception_only(error)[0].splitlines()[0]
