"""Keys and values of one micro-batch on one stage, in buffers whose shapes never change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class StageCache:
    """What transformers' attention layers call a cache: `update` stores and returns everything.

    Buffers are [rows, kv_heads, slots, head_dim] a layer; unwritten slots are masked out by
    `Positions`. Where to write is a device tensor, so a captured step needs no host value.
    """

    def __init__(
        self,
        layers: Sequence[int],
        rows: int,
        kv_heads: int,
        slots: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (rows, kv_heads, slots, head_dim)
        self._keys = {i: torch.zeros(shape, dtype=dtype, device=device) for i in layers}
        self._values = {i: torch.zeros(shape, dtype=dtype, device=device) for i in layers}
        self._rows = rows
        self._used = slots
        self._slots = torch.zeros(1, dtype=torch.long, device=device)

    def resize(self, rows: int, slots: int) -> None:
        """Use the first `rows` rows and `slots` slots from now on."""
        self._rows, self._used = rows, slots

    def write_at(self, slots: torch.Tensor) -> None:
        """The next `update` of every layer writes its tokens to these slots [q]."""
        self._slots = slots

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [b, kv_heads, q, head_dim] and return all slots of the layer."""
        keys = self._keys[layer][: self._rows, :, : self._used]
        values = self._values[layer][: self._rows, :, : self._used]
        keys.index_copy_(2, self._slots, key)
        values.index_copy_(2, self._slots, value)
        return keys, values
