"""Tensors of fixed shapes between two ranks of a pipeline, received in the order sent."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.distributed as dist


class Wire:
    """One direction to or from one peer.

    On a CPU receives are posted ahead, so that a blocking send never waits for a peer that is
    busy with another micro-batch. On a GPU a posted receive is a kernel that spins until the
    message comes: there it is issued when it is needed, and sends do not hold up the stream.
    Either way the receiver's `take` spans exactly what it waited for.
    """

    def __init__(self, peer: int, group: Any, on_gpu: bool) -> None:
        self._peer = peer
        self._group = group
        self._on_gpu = on_gpu
        self._posted: deque[tuple[torch.Tensor, Any]] = deque()
        self._sent: tuple[torch.Tensor, Any] | None = None

    def send(self, tensor: torch.Tensor) -> None:
        """Hand a tensor over; on a GPU it must stay unchanged until the peer has answered."""
        if not self._on_gpu:
            dist.send(tensor, self._peer, group=self._group)
            return
        self.finish()
        self._sent = (tensor, dist.isend(tensor, self._peer, group=self._group))

    def finish(self) -> None:
        """Have the stream wait for the latest send; idempotent."""
        if self._sent is not None:
            self._sent[1].wait()
            self._sent = None

    def expect(self, buffer: torch.Tensor) -> None:
        """Announce a receive into `buffer`."""
        work = None if self._on_gpu else dist.irecv(buffer, self._peer, group=self._group)
        self._posted.append((buffer, work))

    def take(self) -> torch.Tensor:
        """Wait for the receive announced longest ago and return its buffer."""
        buffer, work = self._posted.popleft()
        if work is None:
            dist.recv(buffer, self._peer, group=self._group)
        else:
            work.wait()
        return buffer
