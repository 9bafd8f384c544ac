"""What a line of NCCL changes in what is known: one function a kind of line.

Each returns whether it could read the line; None: the line says nothing that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness_collectors.nccl_log.evidence.state import (
    Comm,
    Evidence,
    LogFile,
    Process,
    Thread,
    identity_by,
)
from harness_collectors.nccl_log.grammar import life, lines
from harness_collectors.nccl_log.grammar.lines import Record

_ENDED: Final = ("destroyed", "aborted")
_MAX_KEPT: Final = 16
"""Distinct rings, trees, plugins, ... that are kept of each."""

_SAFE_SETTINGS: Final = frozenset(
    {
        "NCCL_ALGO",
        "NCCL_BUFFSIZE",
        "NCCL_COLLNET_ENABLE",
        "NCCL_COMM_BLOCKING",
        "NCCL_CROSS_NIC",
        "NCCL_CUMEM_ENABLE",
        "NCCL_DEBUG",
        "NCCL_DEBUG_SUBSYS",
        "NCCL_DMABUF_ENABLE",
        "NCCL_IB_DISABLE",
        "NCCL_IB_GID_INDEX",
        "NCCL_IB_HCA",
        "NCCL_IB_QPS_PER_CONNECTION",
        "NCCL_IB_SL",
        "NCCL_IB_TC",
        "NCCL_IB_TIMEOUT",
        "NCCL_LAUNCH_MODE",
        "NCCL_MAX_NCHANNELS",
        "NCCL_MIN_NCHANNELS",
        "NCCL_MNNVL_ENABLE",
        "NCCL_NET",
        "NCCL_NET_GDR_LEVEL",
        "NCCL_NET_GDR_READ",
        "NCCL_NSOCKS_PERTHREAD",
        "NCCL_NTHREADS",
        "NCCL_NVLS_ENABLE",
        "NCCL_P2P_DISABLE",
        "NCCL_P2P_LEVEL",
        "NCCL_PROTO",
        "NCCL_PXN_DISABLE",
        "NCCL_RUNTIME_CONNECT",
        "NCCL_SHM_DISABLE",
        "NCCL_SOCKET_IFNAME",
        "NCCL_SOCKET_NTHREADS",
    }
)
"""Settings whose values are kept; of others only the name: a value may be a secret."""


@dataclass(slots=True)
class Line:
    """A record and where it belongs. One serves for all lines of a thread, changed in between."""

    record: Record
    process: Process
    thread: Thread
    file: LogFile
    cut: bool
    """It has no line end."""
    called: Callable[[Thread, int], Comm | None]
    """The communicator of a thread's latest call before a row, if later than its latest init."""
    text: bytes = b""
    now: int | None = None
    """Its own time, Unix nanoseconds."""
    before: int = 0
    """The row that the next call has."""
    times: int = 1
    """How many lines say the same."""

    def current(self) -> Comm | None:
        """The communicator that unnamed lines of the thread are about."""
        return self.called(self.thread, self.before) or self.thread.comm


Handler = Callable[[Evidence, Line], bool | None]


def init(evidence: Evidence, line: Line) -> bool | None:
    """Init START and COMPLETE, Destroy and Abort COMPLETE, and `comm ... nRanks ... nNodes`."""
    found = life.parse_init(line.text)
    if found is None:
        return False if b"comm 0x" in line.text and b"anks " in line.text else None
    said, event = found
    comm = _comm_of(evidence, line, said, event)
    if comm is None:
        return False
    comm.seen_init = True
    for heard in said.heard:
        comm.hear(heard)
    if (parent := said.facts.get("parent")) is not None:
        comm.parent = line.process.comms.get(parent, comm.parent)
    comm.function = comm.function or said.function
    if event == "complete":
        line.file.init_complete += 1
        _complete(evidence, line.thread, comm, said.rank)
    if event is not None:
        comm.state = event
    if event not in _ENDED:
        line.thread.comm = comm
        line.thread.since_row = len(evidence.calls)
    return event is not None or b" nNodes " in line.text


def _comm_of(evidence: Evidence, line: Line, said: life.InitLine, event: str | None) -> Comm | None:
    """The communicator at that address, or a new one where the address was used again."""
    comm = line.process.comms.get(said.pointer)
    if comm is None or _used_again(comm, said, event):
        return evidence.new_comm(line.process, said.pointer)
    return comm


def _used_again(comm: Comm, said: life.InitLine, event: str | None) -> bool:
    if event not in ("started", "complete") or not comm.seen_init:
        return False
    if event == "complete" and comm.state == "started":
        return False
    new, old = identity_by(said.facts.get), identity_by(comm.known.get)
    if None in (new, old):
        return comm.state in _ENDED
    return new != old


def _complete(evidence: Evidence, thread: Thread, comm: Comm, rank: int) -> None:
    """Give a communicator whose start was not printed (up to 2.18) what its thread printed."""
    if comm.state is not None:
        return
    for ends, kind, channels in list(thread.edges):
        side, via, _ = kind
        if (ends[2] if side == "receive" else ends[1]) == rank:
            evidence.add_edge(comm, (ends, (side, via)), channels)
            thread.edges.take(ends, kind, channels)
    if thread.channels is not None:
        comm.hear(thread.channels)
        thread.channels = None


def channel(evidence: Evidence, line: Line) -> bool | None:
    """Transports (`Channel 00/0 : 0[0] -> 1[1] via ...`) and ring maps (`Channel 00/24 : 0 1`)."""
    if b" via " not in line.text:
        ring = lines.parse_ring(line.text)
        return None if ring is None or line.cut else add_ring(line, ring, 1)
    found = lines.parse_edge(line.text)
    if found is None or (line.cut and not found[1].ends_known):
        return False
    number, hop = found
    comm = line.current()
    add_hop(
        evidence, line, hop, 1 << number, 1, comm, comm.get("rank") if comm is not None else None
    )
    return True


def add_hop(
    evidence: Evidence,
    line: Line,
    hop: lines.Hop,
    channels: int,
    times: int,
    comm: Comm | None,
    comm_rank: int | None,
) -> None:
    """Note `times` transport lines that are like `hop`, of these channels (as bits).

    `comm` is what unnamed lines of the thread are about, `comm_rank` its rank there.
    """
    edge, pointer, _, own = hop
    ranks = line.process.edge_ranks
    ranks[own] = ranks.get(own, 0) + times
    if pointer:
        comm = line.process.comms.get(pointer)
        comm_rank = comm.get("rank") if comm is not None else None
    if comm is not None and (comm_rank is None or comm_rank == own):
        evidence.add_edge(comm, edge, channels)
    else:
        ends, kind = edge
        line.thread.keep_edges(ends, (*kind, line.record.device), channels)


def add_ring(line: Line, ring: str, times: int) -> bool | None:
    """Note a ring map that was printed so often."""
    line.process.ring_sizes[ring.count(" ") + 1] += times
    comm = line.thread.comm
    if comm is None:
        return None
    if len(ring) <= 1000 and len(comm.rings) < _MAX_KEPT:  # longer ones NCCL itself cuts
        comm.rings.add(ring)
    return True


def trees(evidence: Evidence, line: Line) -> bool | None:
    """`Trees [0] children->me->parent [1] ...`."""
    if not line.text.startswith(b"Trees [") or line.cut:
        return None
    comm, found = line.thread.comm, life.parse_trees(line.text)
    kept = line.process.stray_trees if comm is None else comm.trees
    for tree in found:
        if len(kept) < _MAX_KEPT:
            kept.add(tree)
    return True if found or comm is not None else None


def counts(evidence: Evidence, line: Line) -> bool | None:
    """`24 coll channels, ...`: about the communicator that the thread is initialising."""
    if b" coll channels, " not in line.text:
        return None
    found = life.parse_counts(line.text)
    if found is None:
        return False
    comm = line.thread.comm
    if comm is not None and comm.state == "started":
        comm.hear(found)
    else:
        line.thread.channels = found
    return True


def rccl_counts(evidence: Evidence, line: Line) -> bool | None:
    """RCCL's spelling, which names the communicator."""
    match = life.RCCL_CHANNELS.match(line.text) if line.text[4:5] == b":" else None
    if match is None:
        return init(evidence, line)
    comm = line.process.comms.get(match["comm"].decode("ascii"))
    if comm is not None:
        named = {"nranks": "nranks", "coll": "coll_channels", "p2p": "p2p_channels"}
        named["nvls"] = "nvls_channels"
        comm.hear({name: int(match[group]) for group, name in named.items()})
    return True


def timings(evidence: Evidence, line: Line) -> bool | None:
    """`Init timings`: they name rank and size, not the communicator."""
    if not line.text.startswith(b"Init timings"):
        return None
    said = life.parse_timings(line.text)
    comm = _timed_comm(evidence, line, said) if said is not None else None
    if said is None or comm is None:
        return False
    comm.hear({"rank": said.rank, "nranks": said.nranks})
    comm.function = comm.function or said.function
    comm.init_ns, comm.init_end_ns, comm.init_parts = said.total, line.now, said.parts
    return True


def _timed_comm(evidence: Evidence, line: Line, said: life.Timings) -> Comm | None:
    comm = line.thread.comm
    if comm is not None and _fits(comm, said):
        return comm
    fitting = [comm for comm in line.process.all_comms if _fits(comm, said)]
    return fitting[0] if len(fitting) == 1 else evidence.new_comm(line.process, None)


def _fits(comm: Comm, said: life.Timings) -> bool:
    if comm.state not in (None, "complete") or comm.init_ns not in (None, said.total):
        return False
    return bool(comm.get("rank") == said.rank and comm.said_nranks() == said.nranks)


def banner(evidence: Evidence, line: Line) -> bool | None:
    """`NCCL version ...`, `RCCL version ...`, and settings that NCCL repeats."""
    found = lines.version_said(line.text) if b"version" in line.text else None
    if found is None:
        return _setting(line)
    if line.cut:
        return False
    versions = line.process.versions if line.record.host else line.file.bare_versions
    versions[found] += 1
    return True


def _setting(line: Line) -> bool | None:
    match = lines.SET_BY_USER.match(line.text)
    if match is None or line.cut:
        return None
    name = match[1].decode("ascii")
    if len(line.file.settings) < 64:
        value = match[2].decode("ascii", "replace").rstrip(".;")
        line.file.settings[name] = value if name in _SAFE_SETTINGS else "(set)"
    return True


def network(evidence: Evidence, line: Line) -> bool | None:
    """`Using network IB`."""
    prefix = b"Using network "
    if not line.text.startswith(prefix) or line.cut:
        return None
    name = line.text[len(prefix) :].strip().decode("ascii", "replace")
    if 0 < len(name) <= 40:
        line.process.networks[name] += line.times
    return True


def gdr(evidence: Evidence, line: Line) -> bool | None:
    """`NET/IB : GPU Direct RDMA Enabled for HCA 0 'mlx5_0'`."""
    switch, what = life.parse_gdr(line.text)
    if not switch or line.cut:
        return plugin(evidence, line) if b"lugin" in line.text else None
    names = line.file.gdr.setdefault(switch, set())
    if len(names) < _MAX_KEPT:
        names.add(what)
    return True


def plugin(evidence: Evidence, line: Line) -> bool | None:
    """`NET/Plugin: Loaded net plugin ...`, `TUNER/Plugin: Using ...`: those that are in use."""
    in_use = b"Loaded" in line.text or b"Using " in line.text
    if not in_use or b"Could not" in line.text or b"/Plugin" not in line.text:
        return None
    if not line.cut and len(line.file.plugins) < _MAX_KEPT:
        line.file.plugins.add(line.text.strip()[:120].decode("ascii", "replace"))
    return True


def connected(evidence: Evidence, line: Line) -> bool | None:
    """`Connected all rings, use ring PXN 0 GDR 1`."""
    comm = line.current()
    switches = life.parse_connected(line.text)
    if comm is None or switches is None or line.cut:
        return None
    comm.facts.update(switches)
    return True


def nvls(evidence: Evidence, line: Line) -> bool | None:
    """`NVLS multicast support is (not) available on dev 0`."""
    if b"multicast support is" not in line.text or line.thread.comm is None or line.cut:
        return None
    line.thread.comm.facts["nvls_multicast"] = b"is not available" not in line.text
    return True


HANDLERS: Final[dict[bytes, Handler]] = {
    b"comm": rccl_counts,
    b"nccl": init,
    b"[Ran": init,
    b"Init": timings,
    b"Chan": channel,
    b"Ring": channel,
    b"Coll": channel,
    b"Tree": trees,
    b"NCCL": banner,
    b"RCCL": banner,
    b"Usin": network,
    b"NET/": gdr,
    b"GPU ": gdr,
    b"TUNE": plugin,
    b"PROF": plugin,
    b"Conn": connected,
    b"NVLS": nvls,
}
"""By the first four bytes of the text (`words.KINDS`). A text that starts with a digit goes to
`counts`."""
