"""Settings that the command line gives by another option, or by the verb itself."""

from __future__ import annotations

from typing import Annotated, TypeVar

from tyro import conf

_Value = TypeVar("_Value")
NoOption = Annotated[_Value, conf.Suppress, conf.Fixed]
"""A setting that is no option of its own."""
INSTEAD = {
    "--training.seed": "It is called --seed, as in every command; it is of data and training.",
    "--training.sampling.max-tokens": "It is called --max-tokens, as in every command.",
    "--training.estimator": "The verb says it: prefrl text rloo, grpo or reinforce; one of your own is "
    "prefrl text rl --estimator module:NAME.",
    "--training.method": "The verb says the method: prefrl text dpo, ipo, simpo or kto. Leave it out.",
    "--training.loss": "The verb says it: prefrl text online-dpo or online-ipo. Leave it out.",
}
"""What such options were, and what to do instead."""
