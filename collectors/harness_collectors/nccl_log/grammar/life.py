"""The lines of a communicator's life: its beginning and end, its channels, trees and times.

Of NCCL and RCCL, any version; from the print statements of the tagged sources and real logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

_KEPT: Final = 4096
"""Parsed lines that are remembered: a process repeats itself for every communicator."""

INIT: Final = re.compile(
    rb"(?:\[Rank \d{1,7}\] )?(?:(?P<function>nccl\w{1,60}) )?comm (?P<comm>0x[0-9a-f]{1,16})"
    rb" rank (?P<rank>\d{1,7}) n[rR]anks (?P<nranks>\d{1,7}) (?P<rest>(?:cudaDev|nNodes|-) .*)"
)
"""Any line of a communicator's life; `rest` holds pairs of names and values, then the event. What
stands before and behind the numbers shows that they are not pieces of two lines."""

_PAIR: Final = re.compile(r"(\w+) (-?[0-9a-fx]+)(?=[ -]|$)", re.ASCII)
_EVENT: Final = re.compile(
    rb"- ?(?:Init (START|COMPLETE)|(Destroy|Abort) COMPLETE)\s*$|^- (COMPLETE)\s*$"
)
_LAST_PAIR_WHOLE: Final = re.compile(rb"MNNVL \d\s*$")
_EVENTS: Final = {
    b"START": "started",
    b"COMPLETE": "complete",
    b"Destroy": "destroyed",
    b"Abort": "aborted",
}

CHANNELS: Final = re.compile(
    rb"(?P<coll>\d{1,4}) coll channels, (?:\d+ collnet channels, )?"
    rb"(?:(?P<nvls>\d{1,4}) nvls channels, )?(?P<p2p>\d{1,4}) p2p channels, "
    rb"\d+ p2p channels per peer"
)
"""The number of collnet channels is not read: from 2.21.5 on it repeats that of channels."""

RCCL_CHANNELS: Final = re.compile(
    rb"comm:(?P<comm>0x[0-9a-f]{1,16}), nRanks:(?P<nranks>\d{1,7}), nNodes:\d+, coll channels:"
    rb"(?P<coll>\d{1,4}) collnet channels:\d+, nvls channels:(?P<nvls>\d{1,4}), "
    rb"p2p channels:(?P<p2p>\d{1,4}), "
)

TIMINGS: Final = re.compile(
    rb"Init timings(?: - (?P<function>\w+))?: rank (?P<rank>\d{1,7}) nranks (?P<nranks>\d{1,7})"
    rb" total (?P<total>\d{1,7}\.\d{2,6}) \((?P<parts>[^)]*)\)"
)
_PART: Final = re.compile(rb"(\w+) (-?\d{1,7}\.\d{2,6})(?:, |$)")


class InitLine(NamedTuple):
    """What a line of a communicator's life says, but for the event."""

    pointer: str
    rank: int
    function: str | None
    facts: Mapping[str, Any]
    heard: tuple[Mapping[str, Any], ...]
    """The same, and its rank and the number of ranks, as `Comm.hear` wants it."""


_USUAL_EVENTS: Final = ((b" - Init START", "started"), (b" - Init COMPLETE", "complete"))
_IDLE_FACTS: Final = ("localRank", "localRanks", "MNNVL")
"""What lines of a communicator's life say that nobody asks for."""

Said = tuple[InitLine, str | None]
"""Such a line and its event; None: it has none, or is cut."""


def parse_init(text: bytes) -> Said | None:
    """Read an init, destroy or abort line of any version; None: it is none, or two glued."""
    for end, event in _USUAL_EVENTS:
        if text.endswith(end) and (said := _life(text[: -len(end)], True)) is not None:
            return said[0], event
    return _life(text, False)


@lru_cache(maxsize=_KEPT)
def _life(text: bytes, is_whole: bool) -> Said | None:
    """Read such a line, or, `is_whole`, one whose event was taken off."""
    match = INIT.match(text)
    if match is None:
        return None
    function, pointer, rank, nranks, rest = match.groups()
    event = None
    if not is_whole:
        event = _event(rest)
        is_whole = event is not None or _LAST_PAIR_WHOLE.search(rest) is not None
    pairs = _PAIR.findall(rest.decode("latin-1"))
    who = {"rank": int(rank), "nranks": int(nranks)}
    facts: dict[str, Any] = {**who}
    facts.update(pairs)
    heard: tuple[Mapping[str, Any], ...] = (facts,)
    if len(facts) < len(who) + len(pairs):
        facts = dict(pairs)
        if len(facts) < len(pairs):
            return None  # one line's beginning and another's end
        heard = (who, facts)
    if pairs and not is_whole:
        del facts[pairs[-1][0]]  # its value may be cut
    for idle in _IDLE_FACTS:
        facts.pop(idle, None)
    name = function.decode("ascii") if function else None
    return InitLine(pointer.decode("ascii"), who["rank"], name, facts, heard), event


def _event(rest: bytes) -> str | None:
    """What such a line ends with; None: nothing, or it is cut."""
    match = _EVENT.search(rest) if b"COMPLETE" in rest or b"START" in rest else None
    return _EVENTS[next(filter(None, match.groups()))] if match else None


@lru_cache(maxsize=_KEPT)
def parse_seconds(text: bytes) -> int:
    """Decimal seconds in nanoseconds, exactly."""
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    value = int(whole) * 1_000_000_000 + int(fraction.ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


class Timings(NamedTuple):
    """What a line of `Init timings` says, in nanoseconds."""

    rank: int
    nranks: int
    total: int
    function: str | None
    parts: dict[str, int]


def parse_timings(text: bytes) -> Timings | None:
    """Read `Init timings: ... (kernels 0.18, bootstrap 1.60, ...)`; None: it is cut."""
    match = TIMINGS.match(text)
    if match is None:
        return None
    return Timings(
        int(match["rank"]),
        int(match["nranks"]),
        parse_seconds(match["total"]),
        (match["function"] or b"").decode("ascii") or None,
        _parts(match["parts"]),
    )


@lru_cache(maxsize=_KEPT)
def _parts(text: bytes) -> dict[str, int]:
    """The parts of a time; nobody changes what is given back."""
    return {name.decode("ascii"): parse_seconds(value) for name, value in _PART.findall(text)}


@lru_cache(maxsize=_KEPT)
def parse_counts(text: bytes) -> dict[str, int] | None:
    """Channels of `24 coll channels, ...`, by their names in `nccl_comms`; None: it is cut."""
    match = CHANNELS.match(text)
    if match is None:
        return None
    counts = {"coll_channels": int(match["coll"]), "p2p_channels": int(match["p2p"])}
    return counts | {"nvls_channels": int(match["nvls"])} if match["nvls"] else counts


@lru_cache(maxsize=_KEPT)
def parse_connected(text: bytes) -> dict[str, int] | None:
    """The switches in `Connected all rings, use ring PXN 0 GDR 1`; None: it has none."""
    words = text.split()
    if b"PXN" not in words:
        return None
    switches = {}
    for name in (b"PXN", b"GDR"):
        value = words[words.index(name) + 1 :][:1] if name in words else []
        if value and value[0].isdigit():
            switches[name.decode("ascii").lower()] = int(value[0][:4])
    return switches


@lru_cache(maxsize=_KEPT)
def parse_trees(text: bytes) -> tuple[str, ...]:
    """The distinct trees of `Trees [0] children->me->parent [1] ...`, in order."""
    found = dict.fromkeys(text.split()[2::2])
    return tuple(tree.decode("ascii", "replace") for tree in found if tree.count(b"->") == 2)


@lru_cache(maxsize=_KEPT)
def parse_gdr(text: bytes) -> tuple[str, str]:
    """(`enabled` or `disabled`, of what) in `GPU Direct RDMA Enabled for HCA 0`; else empty."""
    word, _, what = text.partition(b"GPU Direct RDMA ")[2].partition(b" for ")
    switch = word.decode("ascii").lower() if word in (b"Enabled", b"Disabled") else ""
    return switch, what.partition(b" (")[0].strip()[:80].decode("ascii", "replace")
