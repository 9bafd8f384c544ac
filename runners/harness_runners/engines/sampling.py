"""Greedy sampling and the end of sequences, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Sampler:
    """Tokens of one micro-batch. On the last stage it samples, on the first it is told.

    A row that has ended emits `fill` (an end-of-sequence id) until all rows of the micro-batch
    have ended. Shapes: `tokens` [b, new_tokens] int64, filled up with `fill`. Every tensor keeps
    its place in memory and the step is counted on the device, so that a captured step can be
    replayed.
    """

    def __init__(
        self, rows: int, new_tokens: int, eos: Sequence[int], fill: int, device: torch.device
    ) -> None:
        self.new_tokens = new_tokens
        self.tokens = torch.full((rows, new_tokens), fill, dtype=torch.long, device=device)
        self._eos = torch.tensor(list(eos), dtype=torch.long, device=device)
        self._fill = fill
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self._last = torch.full((rows,), fill, dtype=torch.long, device=device)

    def reset(self) -> None:
        """Forget everything, in place."""
        self.tokens.fill_(self._fill)
        self._step.zero_()
        self._ended.zero_()
        self._last.fill_(self._fill)

    def sample(self, logits: torch.Tensor) -> torch.Tensor:
        """The next token of every row [b], from logits [b, vocabulary]."""
        token = torch.where(self._ended, self._fill, logits.argmax(dim=-1))
        self.tokens.index_copy_(1, self._step, token[:, None])
        self._step += 1
        self.told(token)
        return token

    def told(self, token: torch.Tensor) -> None:
        """Take note of tokens [b] that were sampled elsewhere."""
        self._last.copy_(token)
        self._ended |= (token[:, None] == self._eos[None, :]).any(dim=-1)

    def last_token(self) -> torch.Tensor:
        """The latest tokens as the next step's input [b, 1]."""
        return self._last[:, None]

    def all_ended(self) -> torch.Tensor:
        """Whether every row has ended, as one int64 on the device."""
        return self._ended.all().long().reshape(1)
