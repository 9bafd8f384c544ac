"""NCCL evidence as table rows."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from harness_collectors.nccl_log.evidence.state import Comm, Evidence, LogFile, Process, agreed
from harness_collectors.nccl_log.tables.resolve import Resolution
from harness_collectors.nccl_log.tables.versions import Version, Versions
from harness_collectors.reading.text_evidence import batch, batch_of
from harness_schemas.spi import Batch

SOURCE: Final = "nccl_log"
_SORTED: Final = msgspec.json.Encoder(order="sorted")
_ANCHOR_WIDTH_NS: Final = 1_000
"""Resolution of the stamps that our own capture asks for."""


def all_tables(evidence: Evidence, resolution: Resolution) -> tuple[list[Batch], list[Batch]]:
    """Every table but that of calls, in the order in which the evidence was read.

    Before the calls, and behind them: the state of the collection.
    """
    versions = Versions()
    tables = (
        _rows("clock_anchors", anchor_rows(evidence)),  # first: the times of others rest on them
        _columns("nccl_comms", COMM_COLUMNS, comm_rows(evidence, versions)),
        _rows("nccl_tuning", tuning_rows(evidence)),
        _columns("spans", SPAN_COLUMNS, span_rows(evidence)),
        _rows("nccl_events", event_rows(evidence)),
    )
    files = _rows("collection", collection_rows(evidence, resolution, versions))
    return [found for found in tables if found], [files] if files else []


def _rows(table: str, rows: Sequence[Mapping[str, Any]]) -> Batch | None:
    return batch(table, rows) if rows else None


def _columns(table: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Batch | None:
    """Of many rows: tuples take a fourth of the time of dictionaries."""
    return batch_of(table, dict(zip(names, zip(*rows, strict=True), strict=True))) if rows else None


def _json(values: Mapping[str, Any]) -> str | None:
    return _object(values) if values else None


@lru_cache(maxsize=1024)  # the communicators of a job have few
def _transports(edges: tuple[tuple[str, int], ...]) -> str | None:
    return _json(dict(edges))


def _object(values: Mapping[str, Any]) -> str:
    """`json.dumps(values, sort_keys=True)`, of mostly plain text four times as fast."""
    text = msgspec.json.format(_SORTED.encode(values), indent=0)
    if not text.isascii() or b"\x7f" in text:  # which `json` escapes
        return json.dumps(values, sort_keys=True)
    return text.decode("ascii")


# -- communicators ---------------------------------------------------------------------------


COMM_COLUMNS: Final = (
    "rank",
    "host",
    "pid",
    "comm",
    "comm_id",
    "comm_rank",
    "nranks",
    "cuda_dev",
    "bus_id",
    "nccl_version",
    "coll_channels",
    "p2p_channels",
    "nvls_channels",
    "transports",
    "parent",
    "init_ns",
    "state",
    "attrs",
)
CommRow = tuple[Any, ...]
"""The values of COMM_COLUMNS."""


def comm_rows(evidence: Evidence, versions: Versions) -> list[CommRow]:
    """A row a communicator; for a process without one a row with what is known of it."""
    rows = []
    for process in evidence.processes.values():
        version = versions.of(process)
        kept = [comm for comm in process.all_comms if _is_kept(comm)]
        rows += [_comm_row(comm, version) for comm in kept]
        strays = _stray_row(process, version, bool(kept))
        if strays is not None:
            rows.append(strays)
    return rows


def _is_kept(comm: Comm) -> bool:
    """Whether it is real: in a process with init lines, an address without one may be garbled."""
    return (
        comm.seen_init
        or comm.pointer is None
        or not any(other.seen_init for other in comm.process.all_comms)
    )


def _comm_row(comm: Comm, version: Version) -> CommRow:
    library, number, cuda = version
    get = comm.known.get
    nodes = get("nNodes")
    attrs = {
        "library": library,
        "cuda": cuda,
        "function": comm.function,
        "network": agreed(comm.process.networks),
        "nvml_dev": get("nvmlDev"),
        "nnodes": int(nodes) if nodes and nodes.isdigit() else None,
        "split_count": get("splitCount") or get("childCount"),
        "color": get("color"),
        "key": get("key"),
        "group": comm.group,
        "rings": sorted(comm.rings),
        "trees": sorted(comm.trees),
        "init_parts_ns": comm.init_parts,
        **comm.facts,
    }
    device = get("cudaDev")
    return (
        comm.global_rank,
        comm.process.host,
        comm.process.pid,
        comm.pointer,
        get("commId"),
        comm.rank,
        comm.nranks,
        int(device) if device and device.isdigit() else None,
        get("busId"),
        number,
        get("coll_channels"),
        get("p2p_channels"),
        get("nvls_channels"),
        _transports(tuple(comm.owned.items())),
        get("parent"),
        comm.init_ns,
        comm.state,
        _json({name: value for name, value in attrs.items() if value or value not in _EMPTY}),
    )


_EMPTY: Final[tuple[Any, ...]] = (None, [], {})
_CHANNELS: Final = ("coll_channels", "p2p_channels", "nvls_channels")


def _stray_row(process: Process, version: Version, has_comms: bool) -> CommRow | None:
    """What a process printed that belongs to no communicator that is known."""
    library, number, cuda = version
    found = {
        tuple(map(t.channels.get, _CHANNELS))
        for t in process.threads.values()
        if t.channels is not None
    }
    trees = [] if has_comms else sorted(process.stray_trees)
    printed = process.stray_edges or found or trees
    if not printed and (has_comms or number is None):
        return None
    channels = next(iter(found)) if len(found) == 1 else (None, None, None)
    attrs = {
        "library": library,
        "cuda": cuda,
        "network": agreed(process.networks),
        "trees": trees,
    }
    named = {
        "rank": process.rank,
        "host": process.host,
        "pid": process.pid,
        "nccl_version": number,
        **dict(zip(_CHANNELS, channels, strict=True)),
        "transports": _json(process.stray_edges),
        "attrs": _json({name: value for name, value in attrs.items() if value}),
    }
    return tuple(map(named.get, COMM_COLUMNS))


# -- choices, initialisations, events -----------------------------------------------------------


def tuning_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """A row a choice and communicator, with how often it was printed."""
    choices = list(evidence.choices)
    processes = list(evidence.processes.values())
    rows: list[dict[str, Any]] = []
    for (owner, number, index), count in evidence.choice_counts.items():
        comm = evidence.comms[number] if number >= 0 else None
        choice = choices[index]
        rows.append(
            {
                "rank": comm.global_rank if comm else processes[owner].rank,
                "comm": comm.pointer if comm else None,
                "op": choice.op,
                "bytes": choice.bytes,
                "algo": choice.algo,
                "proto": choice.proto,
                "channels": choice.channels,
                "model_us": choice.model_us,
                "count": count,
            }
        )
    return rows


SPAN_COLUMNS: Final = (
    "rank",
    "phase",
    "span_id",
    "source",
    "timeline",
    "name",
    "category",
    "start_ns",
    "end_ns",
    "raw_start_ns",
    "complete",
    "attrs",
)


def span_rows(evidence: Evidence) -> list[tuple[Any, ...]]:
    """Initialisations as spans; their ends are known only where lines carry a time."""
    rows: list[tuple[Any, ...]] = []
    for comm in evidence.comms:
        if comm.init_ns is None or not _is_kept(comm):
            continue
        end = comm.init_end_ns
        start = end - comm.init_ns if end is not None else None
        attrs = {
            "duration_ns": comm.init_ns,
            "comm": comm.pointer,
            "group": comm.group,
            "comm_rank": comm.rank,
            "nranks": comm.nranks,
            "parts_ns": comm.init_parts,
        }
        name, number = comm.function or "NCCL init", len(rows) + 1
        what = ("startup", number, SOURCE, "host", name, "phase")
        rows.append((comm.global_rank, *what, start, end, start, True, _object(attrs)))
    return rows


def event_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Warnings and watchdog lines, in the order of lines."""
    return [
        {
            "rank": event.rank if event.process is None else event.process.rank,
            "host": event.process.host if event.process else None,
            "pid": event.process.pid if event.process else None,
            "ts_ns": event.ts_ns,
            "severity": event.severity,
            "kind": event.kind,
            "text": event.text,
            "attrs": _json(event.attrs),
            "source": SOURCE,
        }
        for event in evidence.events
    ]


def anchor_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Stamps are Unix time already: the clock's anchor maps it to itself."""
    return [
        {
            "source": SOURCE,
            "rank": process.rank,
            "host": process.host,
            "raw_ns": process.first_ns,
            "wall_ns": process.first_ns,
            "width_ns": _ANCHOR_WIDTH_NS,
        }
        for process in evidence.processes.values()
        if process.first_ns is not None and process.rank is not None
    ]


# -- how the collection fared -------------------------------------------------------------------


def collection_rows(
    evidence: Evidence, resolution: Resolution, versions: Versions
) -> list[dict[str, Any]]:
    """A row a file: its state, and in `detail` what was counted in it."""
    kinds: dict[int, list[int]] = defaultdict(list)
    for number, kind in enumerate(evidence.kinds):
        kinds[id(kind.file)].append(number)
    rows = []
    for file in evidence.files:
        calls: Counter[str] = Counter()
        garbled = 0
        for number in kinds[id(file)]:
            if number in resolution.rejected:
                garbled += resolution.calls[number]
            else:
                calls[evidence.kinds[number].op_name] += resolution.calls[number]
        detail = _detail(file, calls, resolution, versions)
        rows.append(_collection_row(file, calls, garbled, detail))
    return rows


def _collection_row(
    file: LogFile, calls: Counter[str], garbled: int, detail: Mapping[str, Any]
) -> dict[str, Any]:
    unreadable = file.unreadable + file.intake.overlong + garbled
    records = file.records + calls.total()
    state, reason = _state(file, records, unreadable)
    hosts = {process.host for process in file.processes} - {None}
    ranks = {process.rank for process in file.processes if process.pid is not None}
    return {
        "collector": SOURCE,
        "host": next(iter(hosts)) if len(hosts) == 1 else None,
        "rank": next(iter(ranks)) if len(ranks) == 1 else None,
        "state": state,
        "reason": reason,
        "bytes": file.intake.stored_bytes,
        "records": records,
        "dropped": file.dropped,
        "unreadable": unreadable,
        "detail": _object(detail),
    }


def _state(file: LogFile, records: int, unreadable: int) -> tuple[str, str | None]:
    if not file.lines:
        return "failed", f"{file.name}: {file.intake.ended or 'it is empty'}"
    problems = []
    # Lines of PyTorch alone, as in any rank's stderr, are no log of NCCL that lacks something.
    if not records and (file.processes or file.bare_versions):
        problems.append(
            "no whole line about communicators, transports or calls "
            "(set NCCL_DEBUG=INFO and NCCL_DEBUG_SUBSYS=INIT,GRAPH,COLL,TUNING)"
        )
    if unreadable:
        problems.append(f"{unreadable} of its lines torn or interleaved")
    if file.dropped:
        problems.append(f"{file.dropped} records beyond the limits")
    if file.intake.ended:
        problems.append(file.intake.ended)
    if not problems:
        return "ok", None
    return "degraded", f"{file.name}: " + ", ".join(problems)


def _detail(
    file: LogFile, calls: Counter[str], resolution: Resolution, versions: Versions
) -> dict[str, Any]:
    """Versions and counts of a file. NULL is unknown, as everywhere."""
    comms = [comm for process in file.processes for comm in process.all_comms if _is_kept(comm)]
    said = {versions.of(process) for process in file.processes} | set(file.bare_versions)
    known = {version for version in said if version[1] is not None}
    edges: dict[str, int] = {}
    for owned in [p.stray_edges for p in file.processes] + [comm.owned for comm in comms]:
        for via, count in owned.items():
            edges[via] = edges.get(via, 0) + count
    return {
        "file": file.name,
        "lines": file.lines,
        "library": _only(version[0] for version in known),
        "nccl_version": _only(version[1] for version in known),
        "cuda": _only(version[2] for version in known),
        "nranks": max((comm.nranks or 0 for comm in comms), default=0) or None,
        "init_complete": file.init_complete,
        "calls": dict(calls),
        "tuning": file.choices,
        "warnings": file.warnings,
        "transports": edges,
        "networks": sorted({name for process in file.processes for name in process.networks}),
        "plugins": sorted(file.plugins),
        "gdr": {name: sorted(found) for name, found in file.gdr.items()},
        "settings": file.settings,
        "ranks_from": resolution.rank_source.get(file.folder),
        "unterminated": file.intake.unterminated,
    }


def _only(values: Iterable[str | None]) -> str | None:
    found = set(values)
    return next(iter(found)) if len(found) == 1 else None
