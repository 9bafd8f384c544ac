"""The grammar of NCCL's and RCCL's debug lines, versions 2.4 to 2.30, and of PyTorch's watchdog.

Taken from the print statements of the tagged sources and from real logs. A pattern accepts only
what is whole: a number counts where something after it shows that it was not cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

MIDDLE_MARK: Final = b" \0"
"""What stands for opCount and the buffers of a call once they are taken out."""

_MARK: Final = re.compile(rb"NCCL (INFO|WARN) ")
_PREFIX: Final = re.compile(
    rb"(?:(?P<host>[\w.-]{1,128}):(?P<pid>\d{1,10}):(?P<tid>\d{1,10}) )?"
    rb"(?:\[(?P<dev>\d{1,4})\] )?(?:\d{16} )?(?:[!-~]{1,128}:\d{1,6} )?(?:\([!-~]{1,128}\) )?$"
)
"""`host:pid:tid [cudaDev] [us] [file:line [(function)]] `; cudaDev is no rank; RCCL had times."""
_PLAIN: Final = re.compile(
    rb"([!-9;-~]{1,128}):(\d{1,10}):(\d{1,10}) \[(\d{1,4})\] NCCL (INFO) ([ -~]*)$"
)
"""The usual line: nothing before its prefix, and nothing behind it but its own text."""
_COLOUR: Final = re.compile(rb"\x1b\[[0-9;]{0,16}m")
_END: Final = re.compile(
    rb"COMPLETE|START|0x[0-9a-f]+|IPC|CUMEM|MNNVL|read|pointer|direct|GDRDMA|Shared|peer|\d+"
)
"""The last word of a line of NCCL."""
_PREFIX_BYTES: Final = 512
_KEPT: Final = 4096
"""Parsed pieces that are remembered."""
MAX_TEXT_BYTES: Final = 4096
"""NCCL cuts a line at 1024 bytes; what stands behind is another's."""

CUT_PREFIX: Final = re.compile(
    rb"([!-9;-~]+):(\d{1,10}):(\d{1,10})(?: \[\d*\]?(?: N?C?C?L?)?)?\s*$"
)
"""A line that ends inside its prefix."""

CALL: Final = re.compile(
    rb"(?P<op>\w{1,30}):"
    + MIDDLE_MARK
    + rb" count (?P<count>\d{1,18}) datatype (?P<datatype>\d{1,2})"
    rb" op (?P<redop>\d{1,10}) root (?P<root>\d{1,7}) comm (?P<comm>0x[0-9a-f]{1,16})"
    rb" \[nranks=(?P<nranks>\d{1,7})\] stream (?:0x[0-9a-f]{1,16}|\(nil\))"
    rb"(?: task \d+ globalrank (?P<globalrank>\d{1,7})\b)?"
)
"""A collective call (subsystem COLL), opCount and buffers taken out (see nccl_block). opCount is
no sequence: it stays 0 without network."""

_CHANNEL: Final = re.compile(rb"(?:Channel|Ring) (\d{1,4})")
_ENDS: Final = re.compile(
    rb"(?:/(\d+))? : (\d{1,7})(?:\[\w+\])? -> (\d{1,7})(?:\[\w+\])?(?: \[(send|receive)\])?"
)
"""Of a transport line, between the channel's number and ` via `: connector, ranks, side."""
_VIA: Final = re.compile(rb"(?P<via>.+?)(?: comm (?P<comm>0x[0-9a-f]{1,16}) nRanks \d+)?\s*$")
COLLNET_EDGE: Final = re.compile(
    rb"Coll(?:Net)? (?P<channel>\d{1,4})(?:/(?P<conn>\d+))? : (?P<src>\d{1,7}) "
    rb"\[(?P<side>send|receive)\] via (?P<via>COLLNET/.+?)\s*$"
)
_NET: Final = re.compile(
    rb"(NET|COLLNET)/([A-Za-z][\w .+-]*?)/\d+(?:\(\d+\))?((?:/GDRDMA)?(?:\(PCI\))?(?:/Shared)?)$"
)
_LOCAL: Final = re.compile(
    rb"(P2P/(?:direct pointer|IPC|CUMEM|MNNVL|common device)(?:/read)?(?:/CE)?"
    rb"|SHM/(?:direct|CE)(?:/(?:direct|CE))?|direct shared memory)$"
)
_INDIRECT: Final = re.compile(rb"P2P/indirect/\d+\[\w+\](/read)?$")

RING: Final = re.compile(rb"Channel \d+/(\d+) : +(\d+(?: +\d+)*)\s*$")
"""A ring map; easily taken for a transport line."""

TUNING: Final = re.compile(
    rb"(?:(?P<op>\w+): )?(?P<bytes>\d{1,18}) Bytes -> Algo (?P<algo>\w+) proto (?P<proto>\w+)"
    rb"(?: time (?P<time>\d{1,12}(?:\.\d{1,9})?))?"
    rb"(?: channel\{Lo\.\.Hi\}=\{(?P<low>\d{1,4})\.\.(?P<high>\d{1,4})\})?\s*$"
)
SYMMETRIC_TUNING: Final = re.compile(
    rb"(?P<op>\w+) \[Symmetric\]: (?P<bytes>\d{1,18}) Bytes -> Kernel (?P<kernel>\w+)"
    rb" nchannels (?P<channels>\d{1,4}) nthreads \d+"
)
COPY_TUNING: Final = re.compile(
    rb"(?P<op>\w+) \[(?P<kind>Copy Engine|Hierarchical CE)\]: (?P<bytes>\d{1,18}) Bytes -> "
    rb"(?:cudaMemcpy|RMA proxy)"
)

BANNER: Final = re.compile(
    rb"(?:^|[\s>:]|\x1b\[[0-9;]{0,16}m)NCCL version (\d\.\d{1,2}\.\d{1,2})"
    rb"\+cuda(?:(\d{1,2}\.\d{1,2})|[A-Z_]{1,20}\.[A-Z_]{1,20})(?:\x1b\[[0-9;]{0,16}m)?\s*$"
)
"""Also in 2.4 to 2.21, where rank 0's process prints it bare. An exception's text is no banner.

Builds of others print the names of CUDA's numbers (`+cudaCUDA_MAJOR.CUDA_MINOR`): not known.
"""
RCCL_BANNER: Final = re.compile(
    rb"(?:^|[\s>:]|\x1b\[[0-9;]{0,16}m)RCCL version ?:? (\d\.\d{1,2}\.\d{1,2})(?:[-+ ]|\s*$)"
)
SET_BY_USER: Final = re.compile(rb"(NCCL_[A-Z0-9_]{1,60}) set (?:by environment )?to (\S{1,80})")

ALGORITHMS: Final = ("TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE", "PAT")
PROTOCOLS: Final = ("LL", "LL128", "SIMPLE")

OPS: Final = {
    "AllReduce": "all_reduce",
    "AllReduceWithBias": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "Broadcast": "broadcast",
    "Bcast": "broadcast",
    "Reduce": "reduce",
    "AlltoAll": "all_to_all",
    "AllToAll": "all_to_all",
    "AllToAllv": "all_to_all",
    "Gather": "gather",
    "Scatter": "scatter",
    "Send": "send",
    "Recv": "recv",
    "SendRecv": "send_recv",
}
SCALED_OPS: Final = frozenset({"all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"})
"""Their count is one rank's share; the message of nccl-tests is that of all ranks."""

DATATYPES: Final = (
    ("int8", 1),
    ("uint8", 1),
    ("int32", 4),
    ("uint32", 4),
    ("int64", 8),
    ("uint64", 8),
    ("float16", 2),
    ("float32", 4),
    ("float64", 8),
    ("bfloat16", 2),
    ("float8_e4m3fn", 1),
    ("float8_e5m2", 1),
)
"""ncclDataType_t: torch's name and bytes an element."""


class Record(NamedTuple):
    """One line of NCCL: who printed it, and its text. Unknown parts of the prefix are None."""

    host: str | None
    pid: int | None
    tid: int | None
    device: int | None
    level: bytes
    text: bytes
    start: int
    """Where its prefix begins in the line."""


def records(line: bytes) -> Iterator[Record]:
    """The records in a line: one, or several where line ends were lost."""
    plain = _PLAIN.match(line)
    if plain is not None and len(plain[6]) <= MAX_TEXT_BYTES and not _MARK.search(plain[6]):
        host, pid, tid, device, level, text = plain.groups()
        yield Record(host.decode("ascii"), int(pid), int(tid), int(device), level, text, 0)
        return
    if b"\x1b" in line:
        line = _COLOUR.sub(b"", line)
    marks = list(_MARK.finditer(line))
    prefixes: list[tuple[int, re.Match[bytes] | None, bytes | None]] = []
    behind = 0
    for mark in marks:
        window = max(behind, mark.start() - _PREFIX_BYTES)
        prefix = _PREFIX.search(line[window : mark.start()])
        start = window + prefix.start() if prefix else mark.start()
        host = whole = prefix["host"] if prefix else None
        if whole and prefixes:
            host = _apart(whole, prefixes[-1][2])
            start += len(whole) - len(host)
        prefixes.append((start, prefix, host))
        behind = mark.end()
    for index, mark in enumerate(marks):
        start, prefix, host = prefixes[index]
        end = prefixes[index + 1][0] if index + 1 < len(marks) else len(line)
        pid, tid, device = prefix.group("pid", "tid", "dev") if prefix else [None] * 3
        yield Record(
            host.decode("ascii") if host else None,
            int(pid) if pid else None,
            int(tid) if tid else None,
            int(device) if device else None,
            mark[1],
            line[mark.end() : min(end, mark.end() + MAX_TEXT_BYTES)].rstrip(b"\r"),
            start,
        )


def _apart(word: bytes, before: bytes | None) -> bytes:
    """The host in a word to which the end of another record is glued: that of the one before."""
    if before and word.endswith(before) and _END.fullmatch(word.removesuffix(before)):
        return before
    return word.removeprefix(b"COMPLETE") or word


@lru_cache(maxsize=_KEPT)
def version_said(text: bytes) -> tuple[str, str, str | None] | None:
    """(library, version, CUDA version) of a banner, with a prefix or bare; None: it is none."""
    if match := BANNER.search(text):
        return "NCCL", match[1].decode("ascii"), match[2].decode("ascii") if match[2] else None
    match = RCCL_BANNER.search(text)
    return ("RCCL", match[1].decode("ascii"), None) if match else None


@lru_cache(maxsize=_KEPT)
def transport(via: bytes) -> str | None:
    """A transport's name without device and proxy numbers; None: unknown or cut."""
    if match := _NET.match(via):
        return b"/".join(match.group(1, 2)).decode("ascii") + match[3].decode("ascii")
    if _LOCAL.match(via):
        return via.decode("ascii")
    if match := _INDIRECT.match(via):
        return "P2P/indirect" + (match[1] or b"").decode("ascii")
    return None


Ends = tuple[str, int, int | None]
"""Connector, source and destination (ranks in the communicator)."""

Via = tuple[str, str | None, bool]
"""Transport, communicator's address, whether the line's end shows that it is not cut."""


Edge = tuple[Ends, tuple[str, str]]
"""Its ends; the side that printed it (send or receive) and the transport."""


class Hop(NamedTuple):
    """What transport lines say that differ in their channel only."""

    edge: Edge
    comm: str | None
    """Its address, where the line names it."""
    ends_known: bool
    """The line's end shows that it is not cut."""
    own_rank: int
    """The rank that printed it."""


def parse_edge(text: bytes) -> tuple[int, Hop] | None:
    """(channel, the rest) of a transport line of any version; None: none that is known, or cut."""
    if match := COLLNET_EDGE.match(text):
        via, source = parse_via(match["via"]), int(match["src"])
        ends = ((match["conn"] or b"0").decode("ascii"), source, None)
        side = match["side"].decode("ascii")
        hop = Hop((ends, (side, via[0])), *via[1:], source) if via else None
    elif match := _CHANNEL.match(text):
        hop = parse_hop(text[match.end() :])
    return (int(match[1]), hop) if match and hop else None


def parse_hop(text: bytes) -> Hop | None:
    """A transport line behind its channel's number; None: none that is known, or cut."""
    before, _, behind = text.partition(b" via ")
    found, via = _ENDS.fullmatch(before), parse_via(behind)
    if found is None or via is None:
        return None
    conn, source, target, side = found.groups(b"")
    return hop_of(conn, source, target, side, via)


def hop_of(conn: bytes, source: bytes, target: bytes, side: bytes, via: Via) -> Hop:
    """The transport that has these parts; without a connector and a side: 0, and the sender's."""
    ends = (conn.decode("ascii") if conn else "0", int(source), int(target))
    transport, comm, ends_known = via
    if side == b"receive":
        return Hop((ends, ("receive", transport)), comm, ends_known, ends[2])
    return Hop((ends, ("send", transport)), comm, ends_known, ends[1])


@lru_cache(maxsize=_KEPT)
def parse_via(text: bytes) -> Via | None:
    """What stands behind ` via `; None: a transport that is not known, or cut."""
    match = _VIA.match(text)
    via = transport(match[1]) if match else None
    if match is None or via is None:
        return None
    comm = match[2].decode("ascii") if match[2] else None
    return via, comm, match[1].endswith(b"/Shared")


def parse_ring(text: bytes) -> str | None:
    """The ranks of a ring map, in order and apart by one space; None: it is none."""
    match = RING.match(text)
    return b" ".join(match[2].split()).decode("ascii") if match else None


@dataclass(frozen=True)
class Choice:
    """An algorithm and protocol that NCCL chose. `model_us` is its estimate (old versions)."""

    op: str | None
    bytes: int
    algo: str
    proto: str | None
    channels: int | None
    model_us: float | None


def parse_choice(text: bytes) -> Choice | None:
    """Read a TUNING decision in any of its spellings; None: it is none, or cut."""
    if match := TUNING.match(text):
        return _plain_choice(match)
    if match := SYMMETRIC_TUNING.match(text):
        algo, proto, channels = match["kernel"].decode("ascii"), "SYMMETRIC", int(match["channels"])
    elif match := COPY_TUNING.match(text):
        algo, proto, channels = match["kind"].decode("ascii").upper().replace(" ", "_"), None, None
    else:
        return None
    op = _op(match["op"])
    return Choice(op, int(match["bytes"]), algo, proto, channels, None) if op else None


def _plain_choice(match: re.Match[bytes]) -> Choice | None:
    algo = _name(match["algo"], ALGORITHMS)
    proto = _name(match["proto"], PROTOCOLS)
    op = _op(match["op"]) if match["op"] else None
    numbered = match["algo"].isdigit()
    whole = match["time"] if numbered else match["high"]
    if algo is None or proto is None or whole is None or (match["op"] and op is None):
        return None
    channels = None
    if match["high"]:
        channels = int(match["high"]) - int(match["low"]) + 1
        if channels < 1:
            return None
    model = float(match["time"]) if match["time"] else None
    return Choice(op, int(match["bytes"]), algo, proto, channels, model)


def _name(text: bytes, names: tuple[str, ...]) -> str | None:
    if text.isdigit():
        return names[int(text)] if int(text) < len(names) else None
    name = text.decode("ascii", "replace").upper()
    return name if name in names else None


def _op(text: bytes) -> str | None:
    return OPS.get(text.decode("ascii", "replace"))
