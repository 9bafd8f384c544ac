"""What only the whole evidence tells: global ranks, groups, whose an edge is, whom to believe.

NCCL numbers ranks within a communicator. Global ranks are those of the world communicator: the
largest that was not split from another, if there is one of that size only; a process's other
communicators have the same global rank, on the same device. Records of our own ranks override.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from harness_collectors.nccl_log.evidence.edges import Edges
from harness_collectors.nccl_log.evidence.state import Comm, Evidence, Process, identity_by
from harness_collectors.nccl_log.grammar.lines import Ends
from harness_collectors.nccl_log.tables.doubt import (
    doubt_contradictions,
    doubt_torn,
    doubt_versions,
)

Groups = dict[tuple[object, ...], list[Comm]]
WORLD: Final = ("world",)


@dataclass
class Resolution:
    """Besides what it writes into the communicators: which calls are believed, and why ranks."""

    rejected: set[int] = field(default_factory=set)
    """Kinds of calls that cannot be: glued from pieces of two lines."""
    calls: list[int] = field(default_factory=list)
    """Calls of each kind."""
    rank_source: dict[str, str] = field(default_factory=dict)
    """By folder: what global ranks rest on."""


def resolve(
    evidence: Evidence,
    recorded: Mapping[tuple[str, int], int],
    world_size: int | None = None,
) -> Resolution:
    """Fill in what needs all evidence. `recorded`: global ranks by (host, pid), our own record."""
    result = Resolution(calls=_count_calls(evidence))
    _weigh_call_sizes(evidence, result.calls)
    for folder in sorted({process.folder for process in evidence.processes.values()}):
        processes = [p for p in evidence.processes.values() if p.folder == folder]
        comms = [comm for process in processes for comm in process.all_comms]
        doubt_torn(processes)
        for comm in comms:
            comm.settle()
        groups = _groups(comms)
        doubt_contradictions(groups.values())
        world = _world(comms, world_size)
        groups = _with_world(groups, world)
        doubt_versions(processes, groups.values())
        result.rank_source[folder] = _assign_ranks(processes, world, recorded)
        _name_groups(groups)
        _assign_edges(evidence, processes, groups)
    result.rejected = _rejected(evidence)
    return result


def _count_calls(evidence: Evidence) -> list[int]:
    import numpy as np

    totals = np.zeros(len(evidence.kinds), dtype=np.int64)
    for kinds, *_ in evidence.calls.chunks():
        totals += np.bincount(kinds, minlength=len(totals))
    return [int(total) for total in totals]


def _weigh_call_sizes(evidence: Evidence, calls: list[int]) -> None:
    """Each call votes for its communicator's size."""
    for kind, count in zip(evidence.kinds, calls, strict=True):
        votes = kind.comm.votes.setdefault("call_nranks", Counter())
        votes[kind.nranks] += count


def _groups(comms: Iterable[Comm]) -> Groups:
    """Communicators of different processes that are one, by what identifies it."""
    groups: Groups = defaultdict(list)
    for comm in comms:
        key = _group_key(comm)
        groups[key if key is not None else ("alone", comm.order)].append(comm)
    return groups


def _with_world(groups: Groups, world: list[Comm]) -> Groups:
    """The same with the world's communicators as one group of that name."""
    in_world = set(map(id, world))
    if not in_world:
        return groups
    others = {
        key: left
        for key, comms in groups.items()
        if (left := [comm for comm in comms if id(comm) not in in_world])
    }
    return {WORLD: world, **others}


def _group_key(comm: Comm, depth: int = 0) -> tuple[object, ...] | None:
    identity = identity_by(comm.known.get)
    if identity is None or identity[0] == "id":
        return identity
    if comm.parent is None or depth > 16:
        return None
    parent = _group_key(comm.parent, depth + 1)
    return None if parent is None else ("split", parent, *identity[2:], comm.nranks)


def _world(comms: list[Comm], world_size: int | None) -> list[Comm]:
    """The communicators of the world group; empty: not certain which that is."""
    named = [comm for comm in comms if comm.pointer is not None and comm.seen_init]
    roots = [
        comm
        for comm in (named or comms)
        if "parent" not in comm.names and comm.nranks is not None and comm.rank is not None
    ]
    size = max((comm.nranks or 0 for comm in roots), default=0)
    if not size or (world_size is not None and size != world_size):
        return []
    by_id: dict[str | None, list[Comm]] = defaultdict(list)
    for comm in roots:
        if comm.nranks == size:
            by_id[comm.get("commId")].append(comm)
    unnamed = by_id.pop(None, [])  # old versions print no identity
    first, *others = by_id.values() or [unnamed]
    # Several over the same processes agree on who is who; sub-groups side by side do not.
    if any(_seats(comms) != _seats(first) for comms in others):
        return []
    return first if len({comm.rank for comm in first}) == len(first) else []


def _seats(comms: list[Comm]) -> set[tuple[int | None, int, str | None]]:
    return {(comm.rank, comm.process.order, comm.get("cudaDev")) for comm in comms}


def _assign_ranks(
    processes: list[Process], world: list[Comm], recorded: Mapping[tuple[str, int], int]
) -> str:
    for comm in world:
        comm.global_rank = comm.rank
    known = False
    by_process: dict[int, list[Comm]] = defaultdict(list)
    for comm in world:
        by_process[comm.process.order].append(comm)
    for process in processes:
        own = by_process[process.order]
        if process.host is not None and process.pid is not None:
            process.rank = recorded.get((process.host, process.pid))
        if process.rank is not None:
            known = True
        elif len(own) == 1 and not _is_several(process, own[0]):
            process.rank = own[0].global_rank
        for comm in process.all_comms:
            if process.rank is not None:
                comm.global_rank = process.rank
            elif comm not in own:
                comm.global_rank = _rank_by_device(comm, own)
    if known:
        return "the ranks' own record"
    if not world:
        return "unknown: no single largest communicator"
    return f"the communicator of {world[0].nranks} ranks, taken for the world"


def _is_several(process: Process, one: Comm) -> bool:
    """Whether what was taken for one process, its lines naming none, holds several ranks."""
    others = (comm for comm in process.all_comms if comm.nranks == one.nranks)
    return process.pid is None and any(comm.rank not in (None, one.rank) for comm in others)


def _rank_by_device(comm: Comm, own: list[Comm]) -> int | None:
    """The rank of the process's world communicator on the same device."""
    device = comm.get("cudaDev")
    same = [other for other in own if device is not None and other.get("cudaDev") == device]
    return same[0].global_rank if len(same) == 1 else None


def _name_groups(groups: Groups) -> None:
    """`[0,1]#0` where all members are known, else NCCL's own name for the group."""
    by_members: dict[tuple[int, ...], list[list[Comm]]] = defaultdict(list)
    for key, comms in groups.items():
        members = _members(comms, key == WORLD)
        if members is not None:
            by_members[members].append(comms)
        for comm in comms:
            comm.members = members
            comm.group = _label(key)
    for members, same in by_members.items():
        # The order in which the group's lowest rank made them.
        same.sort(key=lambda comms: min((c.global_rank or 0, c.order) for c in comms)[1])
        named = f"[{','.join(map(str, members))}]"
        for ordinal, comms in enumerate(same):
            group = f"{named}#{ordinal}"  # one text for all: of a thousand ranks it is long
            for comm in comms:
                comm.group = group


def _members(comms: list[Comm], is_world: bool) -> tuple[int, ...] | None:
    nranks = comms[0].nranks
    if is_world and nranks is not None:
        return tuple(range(nranks))
    ranks = {comm.rank: comm.global_rank for comm in comms}
    if nranks is None or nranks > len(comms):
        return None
    ordered = tuple(found for rank in range(nranks) if (found := ranks.get(rank)) is not None)
    return ordered if len(set(ordered)) == nranks else None


def _label(key: tuple[object, ...]) -> str | None:
    if key[0] == "id":
        return f"nccl:{key[1]}"
    if key[0] == "split" and isinstance(key[1], tuple):
        return f"{_label(key[1])}/{key[2]}.{key[3]}"
    return None


def _assign_edges(evidence: Evidence, processes: list[Process], groups: Groups) -> None:
    strays: list[tuple[Ends, str, int, str, Process]] = []
    known: dict[tuple[Ends, str], int] = defaultdict(int)
    for process in processes:
        for thread in process.threads.values():
            for ends, (side, via, device), channels in thread.edges:
                comm = _edge_owner(process, ends, side, device)
                if comm is not None:
                    evidence.add_edge(comm, (ends, (side, via)), channels)
                elif new := channels & ~known[ends, side]:
                    known[ends, side] |= new
                    strays.append((ends, side, new, via, process))
    for ends, side, channels, via, process in strays:
        if new := channels if side == "send" else channels & ~known[ends, "send"]:
            process.stray_edges[via] += new.bit_count()
    for comms in groups.values():
        _share_edges(comms)


def _share_edges(comms: list[Comm]) -> None:
    """Count each edge once: with its sender, or with the receiver where only that is known."""
    shared: Edges[str] = Edges()
    received = []
    for comm in comms:
        owned: dict[str, int] = {}
        comm.owned, comm.group_edges = owned, shared
        for ends, (side, via), channels in _agreed_edges(comm):
            if side != "send":
                received.append((owned, ends, via, channels))
            elif new := shared.add(ends, via, channels, overrules=False):
                owned[via] = owned.get(via, 0) + new
    for owned, ends, via, channels in received:
        if new := shared.add(ends, via, channels, overrules=False):
            owned[via] = owned.get(via, 0) + new


def _agreed_edges(comm: Comm) -> Iterable[tuple[Ends, tuple[str, str], int]]:
    """Ends, side and transport, channels; where lines differ in a channel's transport the sender's
    last word counts, of a receiver the first."""
    if len({ends for ends, _ in comm.edges}) == len(comm.edges):
        return [(*edge, channels) for edge, channels in comm.edges.items()]
    edges: Edges[tuple[str, str]] = Edges()
    for (ends, kind), channels in comm.edges.items():
        edges.add(ends, kind, channels, overrules=kind[0] == "send")
    return edges


def _edge_owner(process: Process, ends: Ends, side: str, device: int | None) -> Comm | None:
    """The one communicator of the process that has this rank (on this device)."""
    rank = ends[2] if side == "receive" and ends[2] is not None else ends[1]
    fitting = [comm for comm in process.all_comms if comm.pointer and comm.rank == rank]
    if len(fitting) > 1:
        fitting = [comm for comm in fitting if comm.get("cudaDev") == str(device)]
    return fitting[0] if len(fitting) == 1 else None


def _rejected(evidence: Evidence) -> set[int]:
    """Kinds of calls in which a process uses another's communicator, or one of another size."""
    known = {(comm.process.folder, comm.pointer) for comm in evidence.comms if comm.seen_init}
    rejected = set()
    for number, kind in enumerate(evidence.kinds):
        comm = kind.comm
        foreign = not comm.seen_init and (comm.process.folder, comm.pointer) in known
        other_size = comm.nranks is not None and kind.nranks != comm.nranks
        other_rank = None not in (kind.globalrank, comm.rank) and kind.globalrank != comm.rank
        if foreign or other_size or other_rank:
            rejected.add(number)
    return rejected
