"""The state of one micro-batch on one rank, in tensors that keep their place in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from harness_runners.engines.positions import Positions
from harness_runners.engines.sampling import Sampler

if TYPE_CHECKING:
    from harness_runners.engines.kv_cache import StageCache


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> tuple[list[list[int]], list[int]]:
    """Rows of equal length and the padding before each."""
    longest = max(len(row) for row in rows)
    pads = [longest - len(row) for row in rows]
    return [[fill] * pad + list(row) for row, pad in zip(rows, pads, strict=True)], pads


def divide(count: int, parts: int) -> list[range]:
    """Rows 0 ... count - 1 in at most `parts` runs whose lengths differ by one at most."""
    parts = min(parts, count)
    ends = [count * (part + 1) // parts for part in range(parts)]
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


class DecodeGraph(Protocol):
    """The captured decode step of a micro-batch.

    `token_in`, `source`: where it takes the last token (first stage of several) or the activation
    (later stages) from; None where it takes neither from outside.
    """

    token_in: torch.Tensor | None
    source: torch.Tensor | None

    def replay(self, instrumented: bool) -> torch.Tensor:
        """Run the step; the result is overwritten by the next replay."""

    def close(self) -> None:
        """Free what the graph holds."""


class MicroBatch:
    """Rows of a batch that go through the stages together.

    `num_slots`: slots of the KV cache that attention looks at; the mask hides unwritten ones.
    `graph`: the captured decode step, where there is one.
    """

    def __init__(
        self, index: int, rows: range, sampler: Sampler, cache: StageCache, num_slots: int
    ) -> None:
        device = sampler.tokens.device
        self.index = index
        self.rows = rows
        self.sampler = sampler
        self.cache = cache
        self.num_slots = num_slots
        self.graph: DecodeGraph | None = None
        self.prompt = torch.zeros((len(rows), 1), dtype=torch.long, device=device)
        self.pad = torch.zeros(len(rows), dtype=torch.long, device=device)
        self._next_slot = torch.ones(1, dtype=torch.long, device=device)
        self.begin(self.prompt, self.pad)

    def begin(self, tokens: torch.Tensor, pad: torch.Tensor) -> None:
        """Start with new prompts: left-padded tokens [b, q] and the padding before each row."""
        self.prompt = tokens
        self.pad.copy_(pad)
        self._prompt_slots = torch.arange(tokens.shape[1], device=tokens.device)
        self._next_slot.fill_(tokens.shape[1])
        self.sampler.reset()
        self.done = False
        self.logits: list[torch.Tensor] = []

    def positions(self, step: int) -> Positions:
        """Where this step's tokens stand; a decode step advances the slot on the device."""
        if step == 0:
            return Positions(self._prompt_slots, self.pad, self.num_slots)
        slots = self._next_slot.clone()
        self._next_slot += 1
        return Positions(slots, self.pad, self.num_slots)

    def source_shape(self, step: int, hidden: int) -> tuple[int, int, int]:
        """Shape of the activation that a later stage takes."""
        return (len(self.rows), self.prompt.shape[1] if step == 0 else 1, hidden)
