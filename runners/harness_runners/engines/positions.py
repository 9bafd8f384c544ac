"""Positions and masks of left-padded rows, computed on the device from two small tensors."""

from __future__ import annotations

import torch


class Positions:
    """Where the tokens of one unit stand.

    A row's slot s of the cache holds its position s - pad: rows are padded on the left, so all
    rows write to the same slots. Shapes: `slots` [q], `pad` [b], `ids` [b, q].
    """

    def __init__(self, slots: torch.Tensor, pad: torch.Tensor, num_slots: int) -> None:
        self.slots = slots
        self.ids = (slots[None, :] - pad[:, None]).clamp(min=0)
        self._pad = pad
        self._num_slots = num_slots
        self._masks: dict[int | None, torch.Tensor] = {}

    def mask(self, window: int | None) -> torch.Tensor:
        """Boolean [b, 1, q, num_slots], True where a query may look; cached for all layers."""
        found = self._masks.get(window)
        if found is None:
            found = self._masks[window] = self._make_mask(window)
        return found

    def _make_mask(self, window: int | None) -> torch.Tensor:
        keys = torch.arange(self._num_slots, device=self.slots.device)
        queries = self.slots[:, None]
        seen = keys <= queries
        if window is not None:
            seen &= keys > queries - window
        allowed = seen[None] & (keys >= self._pad[:, None])[:, None]
        # A padding query sees itself: a row without any key would be NaN, and NaN spreads.
        return (allowed | (keys == queries)[None])[:, None]
