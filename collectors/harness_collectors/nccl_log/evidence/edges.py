"""Edges of communicators: channels between two ranks, kept as bits of one number.

A rank prints a line a channel, up to 64 that differ in nothing else. Kept apart, two million
edges of a large job would take half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from harness_collectors.nccl_log.grammar.lines import Ends

Kind = TypeVar("Kind")


class Edges(Generic[Kind]):
    """What kind of edge (side, transport, ...) each channel between two ends is."""

    __slots__ = ("_kinds", "size")

    def __init__(self) -> None:
        self._kinds: dict[Ends, dict[Kind, int]] = {}
        self.size = 0
        """Channels of all ends."""

    def __iter__(self) -> Iterator[tuple[Ends, Kind, int]]:
        """(ends, kind, its channels as bits)."""
        for ends, kinds in self._kinds.items():
            for kind, channels in kinds.items():
                if channels:
                    yield ends, kind, channels

    def known(self, ends: Ends) -> int:
        """The channels between two ends that have a kind, as bits."""
        known = 0
        if ends in self._kinds:
            for channels in self._kinds[ends].values():
                known |= channels
        return known

    def add(self, ends: Ends, kind: Kind, channels: int, overrules: bool) -> int:
        """Note channels (bits), `overrules`: whatever was known; returns how many are new."""
        kinds = self._kinds.get(ends)
        if kinds is None:  # as nearly always
            if channels:
                self._kinds[ends] = {kind: channels}
                self.size += channels.bit_count()
            return channels.bit_count()
        known = 0
        for others in kinds.values():
            known |= others
        new = channels & ~known
        if new != channels:
            if overrules:
                for other in kinds:
                    kinds[other] &= ~channels
            else:
                channels = new
        kinds[kind] = kinds.get(kind, 0) | channels
        size = new.bit_count()
        self.size += size
        return size

    def take(self, ends: Ends, kind: Kind, channels: int) -> None:
        """These channels, which are of that kind, are no more."""
        self._kinds[ends][kind] &= ~channels
        self.size -= channels.bit_count()


def lowest(channels: int, count: int) -> int:
    """The lowest `count` of the channels."""
    while channels.bit_count() > count:
        channels &= ~(1 << (channels.bit_length() - 1))
    return channels
