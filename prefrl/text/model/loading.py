"""Weights from a folder or the hub, all of them: what is missing or left over is refused; adapters are merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from prefrl.errors import UserError, require
from prefrl.files import read_json
from prefrl.text.model.tokens import first_line, unreachable, without_hub

transformers = require("transformers", "text")

WRAPPERS = ("_orig_mod.", "module.", "base_model.model.", "_forward_module.")
"""Prefixes under which compiled or distributed models save their weights."""
HARMLESS = ("inv_freq", "attn.bias", "masked_bias", "position_ids")
"""Ends of the names of buffers that old files have and models compute themselves."""
NAMED = 3
"""Weights of each kind that a message names."""


def load_weights(kind: Any, source: str, what: str) -> Any:
    """Load a model and see that its weights are those of the file, all of them and no others.

    Args:
        kind: a class of `transformers` with `from_pretrained`, e.g. `AutoModelForCausalLM`.
        source: folder or id of the hub; a folder of adapters, or `ADAPTERS@BASE`, gives its base with them merged.
        what: it is to be, for messages, e.g. "language model".

    Returns:
        The model, float32, in evaluation mode.

    Raises:
        UserError: it cannot be had, or weights are missing, unknown or of another shape.
    """
    if is_adapter(source):
        return _merged_adapters(kind, source, what)
    with torch.random.fork_rng(devices=[]):  # what is missing would be drawn from the global stream
        try:
            model, found = kind.from_pretrained(
                source,
                dtype=torch.float32,
                local_files_only=without_hub(source),
                trust_remote_code=False,  # not even asked
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # transformers raises many kinds
            raise UserError(unreachable(what, source, error)) from error
    refuse_other_weights(
        source,
        f"{what} {type(model).__name__}",
        missing=sorted(found["missing_keys"]),
        unexpected=sorted(key for key in found["unexpected_keys"] if not key.endswith(HARMLESS)),
        mismatched=sorted(str(entry[0]) for entry in found["mismatched_keys"]),
    )
    return model.eval()


def refuse_other_weights(
    place: str | Path, what: str, *, missing: Sequence[str], unexpected: Sequence[str], mismatched: Sequence[str] = ()
) -> None:
    """Raise if the weights of a file are not those of a model.

    Raises:
        UserError: they are not; some are named.
    """
    faults = [
        ("lacks", missing),
        ("has, but the model does not know,", unexpected),
        ("has in another shape", mismatched),
    ]
    said = [f"{verb} {_some(names)}" for verb, names in faults if names]
    if not said:
        return
    wrapper = next(
        (prefix for prefix in WRAPPERS if unexpected and all(k.startswith(prefix) for k in unexpected)), None
    )
    advice = "Save the model with all of its weights and the configuration that belongs to them."
    if wrapper is not None:
        advice = f"Its weights were saved under {wrapper!r}: save the model inside of its wrapper instead."
    raise UserError(
        f"{place} is not a complete {what}: it {'; it '.join(said)}. Missing weights would be random, "
        f"superfluous ones ignored. {advice}"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{len(names)} weights ({shown}, ...)" if len(names) > NAMED else shown


def is_adapter(model: str | Path) -> bool:
    """Tell whether a name is that of a folder of adapters, as `peft` saves them, or of such a folder with its base."""
    return (Path(_apart(str(model))[0]) / "adapter_config.json").is_file()


def base_of(adapters: str) -> str:
    """Return the folder or id of the model that adapters belong to: what stands behind an @, or what they name.

    Raises:
        UserError: nothing names it, its folder is not there, or what the adapters say of themselves is damaged.
    """
    place, given = _apart(adapters)
    named = given or _base_named_in(Path(place) / "adapter_config.json")
    beside = Path(place) / named
    if named and not Path(named).exists() and beside.exists():
        return str(beside)
    is_path = named.startswith((".", "/", "~")) or named.count("/") > 1
    if not named or (is_path and not Path(named).exists()):
        belongs = f"belong to {named}, which is not there" if named else "do not say which model they belong to"
        raise UserError(f"The adapters in {place} {belongs}. Name its folder or hub id behind an @: {place}@BASE")
    return named


def _base_named_in(path: Path) -> str:
    """Return the base that a configuration of adapters names, or an empty text."""
    about = read_json(path)
    named = about.get("base_model_name_or_path") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(named, str | None):
        raise UserError(f"{path} is damaged: its base_model_name_or_path should be a text. Restore it from a copy.")
    return named or ""


def _apart(source: str) -> tuple[str, str]:
    """Take `ADAPTERS@BASE` apart, where that is meant."""
    if "@" in source and not Path(source).exists():
        place, _, base = source.rpartition("@")
        return place, base
    return source, ""


def _check_adapters(config: Any, model: Any) -> None:
    """Check what adapters say of themselves before memory is taken for them.

    Raises:
        ValueError: their rank is larger than the model is wide, or they name code of other libraries.
    """
    if getattr(config, "megatron_config", None):
        raise ValueError("they name code of another library (megatron_config)")
    ranks = [getattr(config, "r", 1), *(getattr(config, "rank_pattern", None) or {}).values()]
    most = max((size for weights in model.parameters() for size in weights.shape), default=1)
    if not all(type(rank) is int and 0 < rank <= most for rank in ranks):
        raise ValueError(
            f"their ranks should be from 1 to {most}, the largest size in the model, not {str(ranks)[:60]}"
        )
    if getattr(config, "layer_replication", None):
        raise ValueError("they repeat layers of the model (layer_replication)")


def _merged_adapters(kind: Any, source: str, what: str) -> Any:
    peft = require("peft", "text")
    place, base = _apart(source)[0], base_of(source)
    model = load_weights(kind, base, what)
    try:
        config = peft.PeftConfig.from_pretrained(place)
        _check_adapters(config, model)
        config.inference_mode = True
        with torch.random.fork_rng(devices=[]):
            adapted = peft.PeftModel(model, config)
        given = peft.utils.save_and_load.load_peft_weights(place, device="cpu")
        held = peft.get_peft_model_state_dict(adapted)
    except Exception as error:  # peft raises many kinds
        raise UserError(f"The adapters in {place} do not fit the model {base}: {first_line(error)}") from error
    if not hasattr(adapted, "merge_and_unload"):
        raise UserError(
            f"The adapters in {place} are of the kind {config.peft_type}, which cannot be merged into a model. "
            "Give adapters of LoRA."
        )
    shared = given.keys() & held.keys()
    refuse_other_weights(
        place,
        f"set of adapters of {type(model).__name__}",
        missing=sorted(held.keys() - shared),
        unexpected=sorted(given.keys() - shared),
        mismatched=sorted(key for key in shared if given[key].shape != held[key].shape),
    )
    peft.set_peft_model_state_dict(adapted, given)
    return adapted.merge_and_unload().eval()
