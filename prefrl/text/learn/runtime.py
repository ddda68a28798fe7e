"""Where training runs: the device, the precision, and how several processes share the work.

Under `accelerate launch` every process holds the whole model and takes its part of each batch. Losses are sums over a
part divided by a count of the whole batch, so gradients and figures are sums over processes: those of one process, up
to rounding, however the batch falls apart. That needs no wrapper around the model: trainers may call any part of it.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor

from prefrl.errors import UserError, require
from prefrl.runs.device import choose_device

_Item = TypeVar("_Item")


class Runtime:
    """The device of this process and its share of the work.

    Args:
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        bf16: compute in bfloat16 where that is safe (weights stay in float32); None: on a GPU that has it.

    Raises:
        UserError: `cuda` without a GPU, or an unknown name.
    """

    def __init__(self, device: str = "auto", bf16: bool | None = None) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device must be auto, cpu or cuda. Received {device!r}")
        on_gpu = choose_device(device, prefer_gpu=True) == "cuda"
        accelerate = require("accelerate", "text")
        if bf16 is None:
            bf16 = on_gpu and torch.cuda.is_bf16_supported()
        self._accelerator = accelerate.Accelerator(cpu=not on_gpu, mixed_precision="bf16" if bf16 else "no")
        if self.num_processes > 1:  # a process that ends with its group's threads running is now and then aborted
            atexit.register(self._accelerator.end_training)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        device: torch.device = self._accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return bool(self._accelerator.is_main_process)

    @property
    def index(self) -> int:
        """Number of this process, from 0."""
        return int(self._accelerator.process_index)

    @property
    def num_processes(self) -> int:
        """How many there are."""
        return int(self._accelerator.num_processes)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """Return this process's part of a batch: every n-th item."""
        return list(items[self.index :: self.num_processes])

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in one message; one that had no part in them gives nothing."""
        if self.num_processes == 1:
            return
        held = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in held:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in held if parameter.grad is not None]
        flat = self._accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def total(self, values: Tensor) -> Tensor:
        """Return the sums of values `(...)` over all processes."""
        if self.num_processes == 1:
            return values
        summed: Tensor = self._accelerator.reduce(values.detach().clone(), reduction="sum")
        return summed

    def means(self, parts: Mapping[str, tuple[Tensor | float, Tensor | float]]) -> dict[str, float]:
        """Return means over the whole batch.

        Args:
            parts: by name the sum over this process's part of the batch, `()`, and how many it is of.
        """
        both = [torch.as_tensor(number, dtype=torch.float32).detach() for part in parts.values() for number in part]
        sums = self.total(torch.stack([number.to(self.device) for number in both]).view(-1, 2))
        return dict(zip(parts, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))

    def on_main(self, work: Callable[[], object]) -> None:
        """Have the main process do something while the others wait.

        Raises:
            UserError: the work raised it; every process raises the same.
        """
        said: list[str | None] = [None]
        if self.is_main:
            try:
                work()
            except UserError as error:
                said = [str(error)]
        if self.num_processes > 1:
            require("accelerate.utils", "text").broadcast_object_list(said)
        if said[0] is not None:
            raise UserError(said[0])

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()


def on_main_process() -> bool:
    """Tell whether this process writes files and talks; for code behind a job, whose runtime is gone."""
    return bool(require("accelerate", "text").PartialState().is_main_process)
