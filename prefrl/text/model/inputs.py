"""The arguments of a forward pass of any language model of `transformers`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor


def position_ids(mask: Tensor) -> Tensor:
    """Return `(B, S)` positions that count only what the mask holds."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def model_inputs(model: Any, ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """Return the arguments of a forward pass, with positions where the model takes them."""
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
    if accepts(model, "position_ids"):
        inputs["position_ids"] = position_ids(mask)
    return inputs


def inner_model(model: Any) -> Any:
    """Return the model that peft wraps, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def accepts(model: Any, argument: str) -> bool:
    """Tell whether a model's forward pass names an argument; what peft wraps is asked instead of the wrapper."""
    return argument in inspect.signature(inner_model(model).forward).parameters
