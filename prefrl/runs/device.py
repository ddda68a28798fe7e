"""Which device to train on."""

from __future__ import annotations

import warnings

import torch

from prefrl.errors import UserError, first_line


def choose_device(wanted: str, *, prefer_gpu: bool) -> str:
    """Return the device to train on.

    Args:
        wanted: "auto", or a device by name: cpu, cuda, cuda:1, ...
        prefer_gpu: what "auto" means where there is a GPU.

    Raises:
        UserError: there is no such device.
    """
    if wanted == "auto":
        return "cuda" if prefer_gpu and torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The device {wanted!r} cannot be used here: {first_line(error)} Take cpu or auto instead."
        ) from None
    return wanted


def device_to_go_on_with(wanted: str, *, prefer_gpu: bool) -> str:
    """Return the device that a run goes on with: as `choose_device`, or the CPU with a warning where its GPU is gone.

    Raises:
        UserError: there is no such device, and it is not a GPU.
    """
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        warnings.warn(f"The run was on {wanted}, and there is no GPU here: it goes on on the CPU.", stacklevel=2)
        return "cpu"
    return choose_device(wanted, prefer_gpu=prefer_gpu)
