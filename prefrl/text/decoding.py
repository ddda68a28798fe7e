"""What comes next: logits token by token, from keys and values kept in a cache of full size from the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prefrl.errors import require
from prefrl.gpu import Record, record_cuda_graph
from prefrl.text import lean_llama
from prefrl.text.sequences import accepts

cache_utils = require("transformers.cache_utils", "text")


def make_decoder(model: Any, capacity: int) -> CacheDecoder | lean_llama.Decoder:
    """Return the fastest decoder there is for a causal language model with room for `capacity` tokens."""
    if lean_llama.backbone_of(model) is not None:
        return lean_llama.Decoder(model, capacity)
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
        self._column: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new keys and values `(B, H, S, D)` behind those there; return all."""
        if self._store is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._store = tuple(
                s.new_empty(*s.shape[:2], self.capacity, s.shape[3]) for s in (key_states, value_states)
            )  # type: ignore[assignment]
            self.is_initialized = True
        assert self._store is not None
        if self._column is not None:
            for store, states in zip(self._store, (key_states, value_states), strict=True):
                store.index_copy_(2, self._column, states)
            return self._store
        until = self.used + key_states.shape[-2]
        for store, states in zip(self._store, (key_states, value_states), strict=True):
            store[:, :, self.used : until] = states
        self.used = until
        self._look()
        return self.keys, self.values

    def write_at(self, column: Tensor | None) -> None:
        """From now on write the states of one token at `column` `(1,)` int64 and return all places; None: as before."""
        assert self._store is not None
        self._column = column
        for store in self._store:
            store[:, :, self.used :] = 0  # what is hidden counts nothing, but must be numbers

    def get_seq_length(self) -> int:
        """Return the tokens held."""
        return self.used

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Give each row to `repeats` samples."""
        self._take(lambda store: store[:, :, : self.used].repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._take(lambda store: store[indices, :, : self.used])

    def _take(self, rows: Any) -> None:
        assert self._store is not None
        taken = []
        for store in self._store:
            kept = rows(store)
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


class CacheDecoder:
    """Gives the logits of what comes next, token by token, of any causal language model.

    Args:
        model: it.
        capacity: tokens that there is room for.
    """

    keeps_rows = False

    def __init__(self, model: Any, capacity: int) -> None:
        self._model, self._cache = model, make_cache(model, capacity)
        self._positions = accepts(model, "position_ids")
        self._options: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Take in new tokens `(B, S)` at `positions`; return the logits after the last, `(B, V)`.

        `mask` `(B, T)` int64 tells which of all tokens so far count.
        """
        if self._positions:
            self._options["position_ids"] = positions
        out = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=self._cache, use_cache=True, **self._options
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def repeat(self, samples: int) -> None:
        """Give each row to `samples` samples."""
        self._cache.batch_repeat_interleave(samples)

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self._cache.batch_select_indices(rows)


def can_be_recorded(model: Any) -> bool:
    """Tell whether a step can be made from arrays that stay where they are: every layer keeps all its past."""
    layers = make_cache(model, 1).layers
    plain = all(type(layer) is PreallocatedLayer for layer in layers)
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
        self._capacity, self._record, self._failed = capacity, record, False
        self._replay: Callable[[], None] | None = None

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """As those of `CacheDecoder`; of single steps they hold until the next."""
        width = mask.shape[1]
        single = ids.shape[1] == 1 < width
        if single and self._replay is None and not self._failed:
            self._prepare(ids, mask, positions)
        if self._replay is None or not single:
            return super().logits(ids, mask, positions)
        self._ids.copy_(ids)
        self._at.copy_(positions)
        self._visible[:, 0, 0, :width] = mask.bool()
        self._column.fill_(width - 1)
        self._replay()
        return self._out

    def _prepare(self, ids: Tensor, mask: Tensor, positions: Tensor) -> None:
        self._ids, self._at, self._column = ids.clone(), positions.clone(), ids.new_tensor([mask.shape[1] - 1])
        self._visible = torch.zeros(len(ids), 1, 1, self._capacity, dtype=torch.bool, device=ids.device)
        self._visible[:, 0, 0, : mask.shape[1]] = mask.bool()
        for layer in self._cache.layers:
            layer.write_at(self._column)
        try:
            self._replay = self._record(self._make_step)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"A step of sampling could not be recorded and runs slower: {reason}", stacklevel=4)
            self._failed = True
            for layer in self._cache.layers:
                layer.write_at(None)

    def _make_step(self) -> None:
        options = self._options | {"position_ids": self._at, "past_key_values": self._cache, "use_cache": True}
        self._out = self._model(input_ids=self._ids, attention_mask=self._visible, **options).logits[:, -1]
