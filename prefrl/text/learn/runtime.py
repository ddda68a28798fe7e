"""Where training runs: the device, the precision, and how several processes share the work.

Under `accelerate launch` every process holds the whole model and takes its part of each batch. Losses are sums over a
part divided by a count of the whole batch, so gradients and figures are sums over processes: those of one process, up
to rounding, however the batch falls apart. That needs no wrapper around the model: trainers may call any part of it.

A model that does not fit one device is shared among the processes instead (`prefrl.runs.sharding`): then all of them
must send equally many parts of a batch through it, for which trainers ask `idle_parts`.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from prefrl.errors import UserError, require
from prefrl.runs import sharding
from prefrl.runs.device import choose_device
from prefrl.text.model.traits import once, reads_padding

_Item = TypeVar("_Item")


ACCELERATES_FSDP = "ACCELERATE_USE_FSDP"
"""By which `accelerate launch --use_fsdp` tells what it starts that weights are to be shared."""


class Runtime:
    """The device of this process and its share of the work.

    Args:
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        bf16: compute in bfloat16 where that is safe (weights stay in float32); None: on a GPU that has it.
        shares: whether the processes share the weights of what is trained, with gradients and optimiser; None: where
            `accelerate launch --use_fsdp` started them.

    Raises:
        UserError: `cuda` without a GPU, an unknown name, or weights to share and nobody to share them with.
    """

    def __init__(self, device: str = "auto", bf16: bool | None = None, shares: bool | None = None) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device must be auto, cpu or cuda. Received {device!r}")
        on_gpu = choose_device(device, prefer_gpu=True) == "cuda"
        accelerate = require("accelerate", "text")
        if bf16 is None:
            bf16 = on_gpu and torch.cuda.is_bf16_supported()
        asked = os.environ.pop(ACCELERATES_FSDP, None)  # its own has no place here, nor works on a CPU
        try:
            self._accelerator = accelerate.Accelerator(cpu=not on_gpu, mixed_precision="bf16" if bf16 else "no")
        finally:
            if asked is not None:
                os.environ[ACCELERATES_FSDP] = asked
        if self.num_processes > 1:  # a process that ends with its group's threads running is now and then aborted
            atexit.register(self._accelerator.end_training)
        self.shares = (asked or "").lower() == "true" if shares is None else shares
        """Whether the weights of what is trained are shared among the processes."""
        if self.shares and self.num_processes == 1:
            raise UserError(
                "The weights are to be shared among processes (--shard, or accelerate launch --use_fsdp), and there is "
                "one. Start several: accelerate launch --num_processes N -m prefrl text ... --shard True"
            )

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

    def shard(self, *models: Any) -> None:
        """Share the weights of models among the processes, where that is asked for; in place.

        Raises:
            UserError: a model that is given the prompts of each length apart: processes would read unequally often.
        """
        for model in models if self.shares else ():
            language_model = getattr(model, "backbone", model)
            if not reads_padding(language_model):
                raise UserError(
                    f"A {type(language_model).__name__} cannot be shared among processes (--shard): what fills up its "
                    "rows changes what it says, so prompts of each length are read apart. Leave --shard out."
                )
            once(language_model, "padding", lambda: True)  # known from now on: no process tries it while others do not
            sharding.shard(model, self.device, tuple(name for name in ("values",) if hasattr(model, name)))

    def whole(self, model: Any) -> AbstractContextManager[None]:
        """Return the context in which every process holds a shared model whole; all enter and leave it together."""
        return sharding.whole(model) if self.shares else nullcontext()

    def idle_parts(self, num_parts: int) -> int:
        """Return how many parts this process must send through a shared model for nothing, as others have more.

        It is asked before the first part, since the processes answer it together.
        """
        if not self.shares:
            return 0
        counts = torch.zeros(self.num_processes, device=self.device)
        counts[self.index] = num_parts
        return int(self.total(counts).max()) - num_parts

    def any(self, *facts: bool) -> list[bool]:
        """Return of each fact whether it holds in some process."""
        if self.num_processes == 1:
            return list(facts)
        return [bool(number) for number in self.total(torch.tensor(facts, device=self.device, dtype=torch.float32))]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in one message; one that had no part in them gives nothing."""
        if self.num_processes == 1 or self.shares:  # shared ones are summed as they come
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
