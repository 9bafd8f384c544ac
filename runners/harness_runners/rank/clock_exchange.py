"""Clocks of several hosts compared through the run's own network.

Rank 0 and the lowest rank of every other host exchange round trips; what they say about the
hosts' clocks is worked out at ingest (four times a trip, as in NTP, RFC 5905 section 8).
On one host nothing is exchanged: its processes share a clock.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import harness_probe as probe
from harness_probe.recorder import boot_id

ROUND_TRIPS = 20
"""A trip takes some 50 us; the quickest ones count, so that one delayed packet harms nothing."""
TAG = 7
"""Of the messages, so that none is taken for an activation where both use the world's group."""

_now = time.monotonic_ns


class ClockExchange:
    """Compares the hosts' clocks whenever all ranks call `exchange`.

    Made by all ranks together: who shares a host is gathered once, by the identity of its boot.
    """

    def __init__(self, rank: int, device: Any) -> None:
        self._rank = rank
        self.leads = host_leads(gather_hosts(device))
        self._group: Any = None
        if len(self.leads) > 1 and device.type != "cpu":
            self._group = self._host_group()

    def _host_group(self) -> Any:
        """NCCL moves device memory only, so the leads have a group of their own."""
        import torch.distributed as dist

        group = dist.new_group(self.leads, backend="gloo", group_desc="clocks")
        if self._rank in self.leads:
            probe.group(self.leads, "clocks", id(group))
        return group

    def exchange(self) -> None:
        """Round trips with every other host in turn; returns at once on all other ranks."""
        if len(self.leads) < 2 or self._rank not in self.leads:
            return
        with probe.span("clock.exchange", category="overhead"), probe.quiet():
            for peer in self.leads[1:]:
                if self._rank == self.leads[0]:
                    self._ask(peer)
                elif self._rank == peer:
                    self._answer(self.leads[0])

    def _ask(self, peer: int) -> None:
        import torch
        import torch.distributed as dist

        question, reply = torch.zeros(1, dtype=torch.long), torch.zeros(2, dtype=torch.long)
        trips = []
        for _ in range(ROUND_TRIPS):
            sent = _now()
            dist.send(question, peer, group=self._group, tag=TAG)
            dist.recv(reply, peer, group=self._group, tag=TAG)
            trips.append((sent, *reply.tolist(), _now()))
        for trip in trips:
            probe.clock_sample(peer, *trip)

    def _answer(self, asker: int) -> None:
        import torch
        import torch.distributed as dist

        question, reply = torch.zeros(1, dtype=torch.long), torch.zeros(2, dtype=torch.long)
        times = reply.numpy()
        for _ in range(ROUND_TRIPS):
            dist.recv(question, asker, group=self._group, tag=TAG)
            times[0] = _now()
            times[1] = _now()
            dist.send(reply, asker, group=self._group, tag=TAG)


def gather_hosts(device: Any) -> list[int]:
    """A number for the host of every rank, equal where ranks share a clock."""
    import torch
    import torch.distributed as dist

    digest = hashlib.sha256(boot_id().encode()).digest()
    own = torch.tensor([int.from_bytes(digest[:7], "big")], dtype=torch.long, device=device)
    hosts = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(hosts, own)
    return [int(host.item()) for host in hosts]


def host_leads(hosts: Sequence[int]) -> list[int]:
    """The lowest rank of every host, in order; the first is rank 0."""
    leads: dict[int, int] = {}
    for rank, host in enumerate(hosts):
        leads.setdefault(host, rank)
    return list(leads.values())
