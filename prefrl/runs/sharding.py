"""Weights, gradients and optimiser shared out among processes: fully sharded data parallel, by torch's `fully_shard`.

Each process holds a part of every weight, with its gradient and its figures of Adam. A layer is put together while it
computes and given up after it, which all processes must do at the same time and equally often. Gradients are summed,
not averaged as FSDP does by default: losses here are sums over a part of the batch over a count of the whole batch.
While the model is `whole` nothing has to be done together: then one process can draw, evaluate or save. What leaves the
processes is always whole: a checkpoint or a model is the one that a single process would write.

Source: Zhao et al. 2023, PyTorch FSDP; Rajbhandari et al. 2020, ZeRO.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_plain: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Of each sharded model its like of one process, without memory for weights."""


def is_sharded(model: Any) -> bool:
    """Tell whether the processes share the weights of a model."""
    return model in _plain if isinstance(model, nn.Module) else False


def shard(model: Any, device: torch.device, methods: tuple[str, ...] = ()) -> None:
    """Share the weights of a model among all processes, in place.

    Args:
        model: any module; layers that `transformers` says not to split (`_no_split_modules`) are put together one after
            the other, the rest with the whole.
        device: of this process.
        methods: that compute, beside `forward`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if is_sharded(model):
        return
    # Read before: parameters of the copy take no memory, and its buffers, some of which are never saved, are real ones.
    hollow: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    plain = copy.deepcopy(model, hollow)
    kinds = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in list(model.modules()):
        if type(module).__name__ in kinds and module is not model:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # By default the outermost part stays together after a pass, and an optimiser made then would hold what is given up.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    for method in methods:
        register_fsdp_forward_method(model, method)
    _plain[model] = plain


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Have every process hold all weights of a model; all enter and leave together, and within each does as it likes.

    The weights may be read, not trained.
    """
    if not is_sharded(model):
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in parts:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in parts:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def plain_copy(model: Any) -> Any:
    """Return a sharded model as one process has it, on the CPU, while it is `whole`; any other as it is."""
    if not is_sharded(model):
        return model
    found = copy.deepcopy(_plain[model])
    weights = {name: p.detach().cpu() for name, p in model.named_parameters(remove_duplicate=False)}
    buffers = dict(model.named_buffers())
    for module_name, module in found.named_modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                value = nn.Parameter(weights[_joined(module_name, name)], requires_grad=parameter.requires_grad)
                module._parameters[name] = value
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = buffers[_joined(module_name, name)].detach().cpu()
    if hasattr(found, "tie_weights"):
        found.tie_weights()
    return found


def _joined(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def gathered(value: Any) -> Any:
    """Return a state with every shared tensor in it whole, on the CPU; all processes call it together.

    Only the first process keeps them: of the others they are empty.
    """
    if not _plain:
        return value
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        everything = value.full_tensor().detach()
        return everything.cpu() if torch.distributed.get_rank() == 0 else everything.new_empty(0)
    if isinstance(value, dict):
        return {key: gathered(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(item) for item in value)
    return value


def full(value: Any) -> Tensor:
    """Return a tensor whole, on every process; all call it together where it is shared."""
    if not _plain:
        return value
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return value
    everything: Tensor = value.full_tensor()
    return everything


def load_whole(model: Any, state: dict[str, Tensor]) -> None:
    """Have a model take over weights as one process has them, each process its part of them."""
    if not is_sharded(model):
        model.load_state_dict(state)
        return
    own = model.state_dict()
    if own.keys() != state.keys():
        raise ValueError(f"The state has other weights: {sorted(own.keys() ^ state.keys())[:3]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(part_of(state[name], tensor))


def part_of(value: Tensor, like: Any) -> Any:
    """Return a whole tensor as another one is shared; as it is, where that one is not shared or of another shape."""
    if not _plain:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    given = value.to(like.device)
    return distribute_tensor(given, like.device_mesh, like.placements, src_data_rank=None)
