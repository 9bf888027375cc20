"""A key-value cache for ragged batches: slot = logical position, in each row by itself.

A row writes its new tokens at its own positions and sees the slots up to them. So a rollback is a smaller position at
the next pass, and rows of any length share a batch without padding. Nothing is erased until a row gets another prompt:
what lies beyond the position of a row is masked, then overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed_sdpa"
PREFIX_BYTES = 2**30
"""About how much the shared prefixes that are kept of one model may take."""


class RowCache(Cache):
    """Keys and values of `batch` rows of `max_len` slots, for every layer of a decoder.

    Call `place` before each forward pass: it sets where the pass writes and returns the pass's mask.
    """

    def __init__(self, config: PretrainedConfig, batch: int, max_len: int, device: torch.device, dtype: torch.dtype):
        text = config.get_text_config(decoder=True)
        self.batch, self.max_len = batch, max_len
        self.sliding = [bool(layer) for layer in DynamicCache(config=text).is_sliding]
        self.window = int(getattr(text, "sliding_window", None) or max_len)
        self.eager, self.dtype = text._attn_implementation == "eager", dtype
        self.base = torch.arange(batch, device=device)[:, None] * max_len
        self.ruler = torch.arange(max_len, device=device)
        self.slots = torch.empty(0, dtype=torch.long)
        self.rows, self.view = slice(None), 0
        super().__init__(layers=[_RowLayer(self) for _ in range(text.num_hidden_layers)])

    def place(self, positions: Tensor, slot: Tensor, row: int | None = None) -> Tensor | dict[str, Tensor]:
        """Set the positions of the next pass.

        Args:
            positions: int64 [b, T], of all rows (b = batch) or of one (b = 1).
            slot: [view], the slots that the pass looks at, from 0 past every position.
            row: the row, if it is one.

        Returns:
            The mask [b, 1, T, view], one per kind of layer if the model mixes them: boolean, or additive for eager
            attention, which would add True as 1.
        """
        self.rows = slice(None) if row is None else slice(row, row + 1)
        self.view = slot.shape[0]
        self.slots = (self.base[self.rows] + positions).flatten()
        query = positions[:, None, :, None]
        full = slot <= query
        if not any(self.sliding):
            return self._form(full)
        sliding = full & (slot > query - self.window)
        if all(self.sliding):
            return self._form(sliding)
        return {"full_attention": self._form(full), "sliding_attention": self._form(sliding)}

    def clear(self, row: int) -> None:
        """Erase a row. A masked slot weighs nothing, except that 0 × NaN is NaN."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[row].zero_()
                layer.values[row].zero_()

    def copy(self, row: int, source: RowCache) -> None:
        """Fill the first slots of a row with all slots of `source`, a cache of one row of the same model."""
        for mine, given in zip(self.layers, source.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(given.keys.transpose(1, 2), given.values.transpose(1, 2))
            mine.keys[row, : source.max_len] = given.keys[0]
            mine.values[row, : source.max_len] = given.values[0]

    @property
    def nbytes(self) -> int:
        """Bytes of its keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def _form(self, mask: Tensor) -> Tensor:
        if not self.eager:
            return mask
        return torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(self.dtype).min
        )


class _RowLayer(CacheLayerMixin):
    """One layer's buffers, [batch, max_len, heads, head size]: a row's filled prefix is a view."""

    is_sliding = False

    def __init__(self, cache: RowCache):
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            torch.zeros(self.cache.batch, self.cache.max_len, x.shape[1], x.shape[3], dtype=x.dtype, device=x.device)
            for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write [b, heads, T, size] at the placed slots; → the visible prefix of keys and values, without a copy."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def _write(self, buffer: Tensor, states: Tensor) -> Tensor:
        flat = states.transpose(1, 2).flatten(0, 1)
        buffer.flatten(0, 1).index_copy_(0, self.cache.slots.to(flat.device), flat)
        return buffer[self.cache.rows, : self.cache.view].transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.view, 0

    def get_seq_length(self) -> int:
        return 0  # unused: positions and masks are always explicit

    def get_max_length(self) -> int:
        return self.cache.max_len


@dataclass(frozen=True)
class Prefix:
    """Ids with which several prompts begin, prefilled into a cache of one row in `ns` nanoseconds."""

    ids: tuple[int, ...]
    cache: RowCache
    ns: int


class Prefixes:
    """The prefixes of one model, while its weights stay as they are.

    Beyond `PREFIX_BYTES` those go that were used longest ago, but never the last one used.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple[int, ...], Prefix] = {}

    def get(self, ids: tuple[int, ...]) -> Prefix | None:
        """The prefix of these ids if it is kept, from now on the last one used."""
        if (found := self.kept.pop(ids, None)) is not None:
            self.kept[ids] = found
        return found

    def add(self, prefix: Prefix) -> None:
        """Keep a prefix."""
        self.kept[prefix.ids] = prefix
        sizes = {ids: each.cache.nbytes for ids, each in self.kept.items()}
        for ids in list(sizes)[:-1]:
            if sum(sizes.values()) > PREFIX_BYTES:
                del self.kept[ids], sizes[ids]


def packed_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention with the group folded into the query axis, instead of copying all keys once per head.

    query [B, H, T, D], key and value [B, H/g, L, D], mask [B, 1, T, L] → [B, T, H, D]. Without a mask (a pass without a
    cache) Transformers' own function is used. Raises `ValueError` for options that it would ignore.
    """
    for unsupported in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(unsupported) is not None:
            raise ValueError(f"{PACKED} cannot apply {unsupported}: use eager attention")
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, dropout, scaling, is_causal, **kwargs)
    batch, heads, length, size = query.shape
    group = heads // key.shape[1]
    if group > 1:
        query = query.reshape(batch, key.shape[1], group * length, size)
        attention_mask = attention_mask.repeat(1, 1, group, 1)
    out = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(batch, heads, length, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED, packed_sdpa)
AttentionMaskInterface.register(PACKED, sdpa_mask)
