"""Tensors of fixed shapes between two ranks of a pipeline, received in the order sent."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.distributed as dist


class Wire:
    """One direction to or from one peer.

    Receives are posted ahead, so that a blocking send never waits for a peer that is busy with
    another micro-batch, and so that the receiver's `take` spans exactly what it waited for.
    """

    def __init__(self, peer: int, group: Any) -> None:
        self._peer = peer
        self._group = group
        self._posted: deque[tuple[torch.Tensor, Any]] = deque()

    def send(self, tensor: torch.Tensor) -> None:
        """Hand a tensor over."""
        dist.send(tensor, self._peer, group=self._group)

    def expect(self, buffer: torch.Tensor) -> None:
        """Post a receive into `buffer`."""
        self._posted.append((buffer, dist.irecv(buffer, self._peer, group=self._group)))

    def take(self) -> torch.Tensor:
        """Wait for the receive posted longest ago and return its buffer."""
        buffer, work = self._posted.popleft()
        work.wait()
        return buffer
