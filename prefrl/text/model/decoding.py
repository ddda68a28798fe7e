"""What comes next: logits token by token, from keys and values kept in a cache of full size from the start.

Layers that keep something else (the states of recurrent and convolutional ones) keep it as `transformers` has it.
Whether a model goes on rightly from a cache whose rows were repeated and dropped is tried once; where it does not,
every step reads the whole text anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefrl.errors import require
from prefrl.gpu import Record, ReplayedStep, record_cuda_graph
from prefrl.runs.sharding import is_sharded
from prefrl.text.model import lean_llama
from prefrl.text.model.inputs import accepts, position_ids
from prefrl.text.model.traits import once, reads_padding, said, same, some_ids

cache_utils = require("transformers.cache_utils", "text")


def make_decoder(model: Any, capacity: int) -> CacheDecoder | RecomputingDecoder | lean_llama.Decoder:
    """Return the fastest decoder there is for a causal language model with room for `capacity` tokens."""
    if lean_llama.backbone_of(model) is not None:
        return lean_llama.Decoder(model, capacity)
    if not once(model, "cache", lambda: _goes_on_from_cache(model)):
        return RecomputingDecoder(model)
    if next(model.parameters()).device.type == "cuda" and can_be_recorded(model):
        return RecordedDecoder(model, capacity, record_cuda_graph)
    return CacheDecoder(model, capacity)


class PreallocatedLayer(cache_utils.DynamicLayer):  # type: ignore[misc, name-defined]
    """The keys and values of one layer in arrays of their final size, filled from the left.

    Args:
        capacity: tokens it has room for.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.used = capacity, 0
        self._store: tuple[Tensor, Tensor] | None = None
        self.column: Tensor | None = None
        """`(1,)` int64, where given: the states of one new token go there, and all places are returned."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new keys and values `(B, H, S, D)` behind those there; return all."""
        if self._store is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._store = tuple(
                s.new_empty(*s.shape[:2], self.capacity, s.shape[3]) for s in (key_states, value_states)
            )  # type: ignore[assignment]
            self.is_initialized = True
        assert self._store is not None
        if self.column is not None:
            for store, states in zip(self._store, (key_states, value_states), strict=True):
                store.index_copy_(2, self.column, states)
            return self._store
        until = self.used + key_states.shape[-2]
        for store, states in zip(self._store, (key_states, value_states), strict=True):
            store[:, :, self.used : until] = states
        self.used = until
        self._look()
        return self.keys, self.values

    def clear_rest(self) -> None:
        """Fill the places not used yet with zeros: hidden ones count nothing, but must be numbers."""
        assert self._store is not None
        for store in self._store:
            store[:, :, self.used :] = 0

    def get_seq_length(self) -> int:
        """Return the tokens held."""
        return self.used

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `(B',)`, of which one may be named several times."""
        assert self._store is not None
        taken = []
        for store in self._store:
            kept = store[beam_idx, :, : self.used]
            fresh = kept.new_empty(kept.shape[0], kept.shape[1], self.capacity, kept.shape[3])
            fresh[:, :, : self.used] = kept
            taken.append(fresh)
        self._store = (taken[0], taken[1])
        self._look()

    def _look(self) -> None:
        assert self._store is not None
        self.keys, self.values = (store[:, :, : self.used] for store in self._store)


def make_cache(model: Any, capacity: int) -> Any:
    """Return a cache for a model, preallocated wherever a layer keeps all its past; other kinds grow as they do."""
    cache = cache_utils.DynamicCache(config=model.config)
    cache.layers = [
        PreallocatedLayer(capacity) if type(layer) is cache_utils.DynamicLayer else layer for layer in cache.layers
    ]
    if not cache.layers:  # a model that names no kinds of layers
        cache.layer_class_to_replicate = None
        cache.layers = [PreallocatedLayer(capacity) for _ in range(model.config.num_hidden_layers)]
    return cache


CACHES = ("past_key_values", "cache_params")
"""Names under which models take their cache."""


class CacheDecoder:
    """Gives the logits of what comes next, token by token, of any causal language model.

    Args:
        model: it.
        capacity: tokens that there is room for.
    """

    keeps_rows = False

    def __init__(self, model: Any, capacity: int) -> None:
        self._model, self._cache = model, make_cache(model, capacity)
        self._name = next((name for name in CACHES if accepts(model, name)), CACHES[0])
        self._positions = accepts(model, "position_ids")
        self._options: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Take in new tokens `(B, S)` at `positions`; return the logits after the last, `(B, V)`.

        `mask` `(B, T)` int64 tells which of all tokens so far count.
        """
        if self._positions:
            self._options["position_ids"] = positions
        self._options[self._name] = self._cache
        if self._name == "cache_params" and ids.shape[1] == 1 < mask.shape[1]:  # states alone: they know their past
            mask = mask[:, -1:]
        out = self._model(input_ids=ids, attention_mask=mask, use_cache=True, **self._options)
        logits: Tensor = out.logits[:, -1]
        self._rows = torch.arange(len(ids), device=ids.device)
        return logits

    def repeat(self, samples: int) -> None:
        """Give each row to `samples` samples."""
        self.select(self._rows.repeat_interleave(samples))

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self._cache.reorder_cache(rows)


class RecomputingDecoder:
    """Gives the logits of what comes next by reading all of the text anew: slow, and right for any model.

    Args:
        model: a causal language model.
    """

    keeps_rows = False

    def __init__(self, model: Any) -> None:
        self._model, self._ids = model, torch.zeros(0, 0, dtype=torch.long)

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """As those of `CacheDecoder`."""
        self._ids = torch.cat([self._ids, ids], 1) if len(self._ids) else ids
        return said(self._model, self._ids, mask)[:, -1]

    def repeat(self, samples: int) -> None:
        """Give each row to `samples` samples."""
        self._ids = self._ids.repeat_interleave(samples, 0)

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self._ids = self._ids[rows]


def _goes_on_from_cache(model: Any) -> bool:
    """Try whether steps from a cache, of whose rows some were repeated and some dropped, say what a whole pass says."""
    ids = some_ids(model, 3, 7)
    mask = torch.ones_like(ids)
    if reads_padding(model):
        mask[1, :2] = 0
    places = position_ids(mask)
    rows = torch.tensor([2, 0, 1, 1], device=ids.device)
    try:
        decoder = CacheDecoder(model, ids.shape[1])
        decoder.logits(ids[:, :5], mask[:, :5], places[:, :5])
        decoder.select(rows)
        steps = [decoder.logits(ids[rows, t : t + 1], mask[rows, : t + 1], places[rows, t : t + 1]) for t in (5, 6)]
    except Exception:  # whatever a cache that is not like others raises
        return False
    return same(torch.stack(steps, 1), said(model, ids[rows], mask[rows])[:, -2:])


def can_be_recorded(model: Any) -> bool:
    """Tell whether a step can be made from arrays that stay where they are: every layer keeps all its past."""
    if is_sharded(model):
        return False
    layers = make_cache(model, 1).layers
    plain = all(type(layer) is PreallocatedLayer for layer in layers) and accepts(model, "past_key_values")
    return plain and accepts(model, "position_ids") and model.config._attn_implementation == "sdpa"


class RecordedDecoder(CacheDecoder):
    """A `CacheDecoder` whose steps of one token are recorded once and replayed: a GPU waits for each small kernel.

    Every step looks at the whole cache, of which a mask hides what is not there yet, so that all steps are alike. Rows
    stay, also those that have ended.

    Args:
        model: one that `can_be_recorded`.
        capacity: tokens that there is room for.
        record: makes the replay, e.g. `record_cuda_graph`.
    """

    keeps_rows = True

    def __init__(self, model: Any, capacity: int, record: Record) -> None:
        super().__init__(model, capacity)
        self._visible: Tensor | None = None
        self._capacity = capacity
        self._replayed = ReplayedStep(record, "A step of sampling could not be recorded")

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """As those of `CacheDecoder`; of single steps they hold until the next."""
        width = mask.shape[1]
        if ids.shape[1] > 1 or width == 1:
            return super().logits(ids, mask, positions)
        if self._visible is None:
            self._visible = torch.zeros(len(ids), 1, 1, self._capacity, dtype=torch.bool, device=ids.device)
            for layer in self._cache.layers:
                layer.clear_rest()
        self._visible[:, 0, 0, :width] = mask.bool()
        self._replayed(self._make_step, _Step(ids, positions, self._visible, ids.new_tensor([width - 1])))
        return self._out

    def _make_step(self, step: _Step) -> None:
        for layer in self._cache.layers:
            layer.column = step.column
        options = self._options | {"position_ids": step.positions, "past_key_values": self._cache, "use_cache": True}
        self._out = self._model(input_ids=step.ids, attention_mask=step.visible, **options).logits[:, -1]


class _Step(NamedTuple):
    """What changes from one step to the next, for B rows and room for C tokens."""

    ids: Tensor
    """`(B, 1)`"""
    positions: Tensor
    """`(B, 1)`"""
    visible: Tensor
    """`(B, 1, 1, C)` bool"""
    column: Tensor
    """`(1,)`: where the new token goes."""
