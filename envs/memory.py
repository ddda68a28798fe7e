"""Whether as many environments as were asked for fit into memory."""

from __future__ import annotations

from pathlib import Path

from prefrl.errors import UserError, require

_SMALL = 100_000_000  # bytes that any machine has
_CGROUP = Path("/sys/fs/cgroup")  # where a container says how much it may use


def check_memory(num_envs: int, bytes_per_env: int, what: str, extra: str) -> None:
    """Refuse environments that would not fit.

    Args:
        num_envs: E.
        bytes_per_env: what one of them takes, in bytes.
        what: their name, for the message.
        extra: the extra that brings psutil.

    Raises:
        UserError: `num_envs` is less than one, or they would take more than the memory that is free.
    """
    if num_envs < 1:
        raise UserError(f"num_envs must be at least 1. Received {num_envs}")
    needed = num_envs * bytes_per_env
    if needed < _SMALL:
        return
    free = free_memory(extra)
    if needed > free:
        raise UserError(
            f"{num_envs} environments of {what} take about {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free. "
            f"Use num_envs={free // bytes_per_env} or less."
        )


def check_rollout(num_bytes: int) -> None:
    """Refuse a rollout whose observations, `num_bytes` in all, would not fit.

    Raises:
        UserError: it is larger than the memory that is free.
    """
    if num_bytes < _SMALL:
        return
    free = free_memory("train")
    if num_bytes > free:
        raise UserError(
            f"The observations of a rollout take about {num_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free. "
            "Use fewer --num-envs, a smaller --hyper n_steps, or fewer --warmup-steps."
        )


def free_memory(extra: str) -> int:
    """Return how many bytes this process may still take: what the machine, or its container, has free."""
    free = int(require("psutil", extra).virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return min(free, max(0, limit - used))
