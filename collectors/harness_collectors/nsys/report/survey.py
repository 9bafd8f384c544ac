"""What a report says about itself: processes, devices, clock, versions; and who is which rank.

Environments, command lines and output of processes are in a report too. They are not read: facts
are taken by an allow-list of names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa

from harness_collectors.nsys.export.layouts import NULL
from harness_collectors.nsys.export.names import SEVERITIES, Enumeration
from harness_collectors.nsys.export.sources import Source
from harness_collectors.nsys.export.tables import Export, load
from harness_collectors.nsys.report import nccl
from harness_collectors.nsys.report.work import (
    CALLS,
    DEVICE_TABLES,
    LATEST_NS,
    RANGES,
    distinct,
    process_of,
)
from harness_schemas.redact import redact

_SYSTEM_FACTS: Final = {
    "Hostname": "hostname",
    "NvDriverVersion": "driver",
    "CudaDriverVersion": "cuda_driver",
    "CpuDescription": "cpu",
    "OsDescription": "os",
}
_EXPORT_FACTS: Final = {
    "EXPORT_PRODUCT_VERSION": "nsys",
    "EXPORT_SCHEMA_VERSION": "schema",
    "EXPORT_PARAM_TIME_SHIFT": "time_shift",
    "EXPORT_PARAM_TIME_NORMALIZE": "time_normalize",
}
_CAPTURE_FACTS: Final = {
    "CAPTURE_EVENT_TYPE": "traced",
    "CUDA_GRAPH_TRACE_OPTIONS:MODE": "graph_mode",
}
_LONGEST_FACT: Final = 200
BY_ORDER: Final = "the order of processes"
_MOST_MESSAGES: Final = 3


@dataclass(frozen=True)
class Gpu:
    """A device of a process, as far as the report knows it."""

    uuid: str | None
    pci: str | None
    name: str | None


@dataclass
class Survey:
    """Facts of one report. `processes`: those whose work the report shows, by process id."""

    processes: list[int]
    devices: dict[int, list[int]]
    members: list[nccl.Member]
    facts: dict[str, str]
    epoch_ns: int | None
    """Unix time of the report's zero; None: not known."""
    gpus: dict[tuple[int, int], Gpu] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    window: tuple[int, int] | None = None
    """First and last moment of device work, on the report's clock; None: none, or not sought."""
    mpi_ranks: dict[int, int] = field(default_factory=dict)
    """Ranks in MPI's world by process, where nsys traced MPI."""

    @property
    def host(self) -> str | None:
        """The host on which it was recorded."""
        return self.facts.get("hostname")


def survey(
    export: Export,
    devices: dict[int, list[int]] | None = None,
    members: list[nccl.Member] | None = None,
) -> Survey:
    """Read what a report says about itself; but for what is known since its rows were read."""
    window = None
    if devices is None:
        devices, window = _devices_of_processes(export)
    processes = sorted(devices) or _host_processes(export)
    facts = {
        **_facts(export, "TARGET_INFO_SYSTEM_ENV", _SYSTEM_FACTS),
        **_facts(export, "META_DATA_CAPTURE", _CAPTURE_FACTS),
        **_facts(export, "META_DATA_EXPORT", _EXPORT_FACTS),
        **_facts(export, "EXPORT_META_DATA", _EXPORT_FACTS),
    }
    return Survey(
        processes,
        devices,
        nccl.read_members(export) if members is None else members,
        facts,
        _epoch(export, facts),
        _gpus(export),
        _errors(export),
        window,
        _mpi_ranks(export),
    )


def _mpi_ranks(export: Export) -> dict[int, int]:
    """Of a process whose threads say different things, nothing."""
    found, _ = load(export, "MPI_RANKS", ("globalTid", "rank"))
    told: dict[int, set[int]] = {}
    for process, rank in zip(
        process_of(found["globalTid"]).tolist(), found["rank"].tolist(), strict=True
    ):
        if process >= 0 and 0 <= rank < 1 << 31:
            told.setdefault(process, set()).add(rank)
    return {process: ranks.pop() for process, ranks in told.items() if len(ranks) == 1}


def _devices_of_processes(
    export: Export,
) -> tuple[dict[int, list[int]], tuple[int, int] | None]:
    """Devices by the process that used them, and from when to when any worked."""
    pairs: dict[int, set[int]] = {}
    moments: list[int] = []
    for table in DEVICE_TABLES:
        for chunk in export.chunks(table, ("globalPid", "deviceId", "start", "end")):
            for moment in (chunk.ints["start"], chunk.ints["end"]):
                known = moment[(moment < LATEST_NS) & (moment > -LATEST_NS)]
                moments += [int(known.min()), int(known.max())] if known.size else []
            process, device = process_of(chunk.ints["globalPid"]), chunk.ints["deviceId"]
            sound = (process >= 0) & (device >= 0) & (device < 1 << 16)
            for key in distinct((process << 16 | device)[sound]):
                pairs.setdefault(key >> 16, set()).add(key & 0xFFFF)
    devices = {process: sorted(found) for process, found in pairs.items()}
    return devices, (min(moments), max(moments)) if moments else None


def _host_processes(export: Export) -> list[int]:
    """Without device work: processes with ranges, else with CUDA calls."""
    for table in (RANGES, CALLS):
        ids, _ = load(export, table, ("globalTid",))
        found = [process for process in distinct(process_of(ids["globalTid"])) if process >= 0]
        if found:
            return found
    return []


def _facts(export: Export, table: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Values of allowed names; several of one name are joined."""
    found: dict[str, list[str]] = {}
    for chunk in export.chunks(table, (), ("name", "value")):
        names = chunk.texts["name"].to_pylist()
        for row, name in enumerate(names):
            key = wanted.get((name or b"").decode("utf-8", "replace"))
            value = chunk.texts["value"][row].as_py() if key else None
            if key and value:
                text = redact(value[:_LONGEST_FACT].decode("utf-8", "replace"))
                found.setdefault(key, []).append(text)
    return {key: "+".join(dict.fromkeys(values)) for key, values in found.items()}


def _epoch(export: Export, facts: Mapping[str, str]) -> int | None:
    """Unix time of the report's zero: that of the session's start, unless the export has moved
    its times there already."""
    if facts.get("time_normalize") == "true":
        return 0
    found, _ = load(export, "TARGET_INFO_SESSION_START_TIME", ("utcEpochNs",))
    known = [value for value in found["utcEpochNs"].tolist() if 0 < value < LATEST_NS]
    return known[0] if known else None


def _gpus(export: Export) -> dict[tuple[int, int], Gpu]:
    """GPUs by (pid, CUDA device); pid -1 for reports that number devices for all processes."""
    ids, names = load(
        export, "TARGET_INFO_GPU", ("id", "cuDevice"), ("name", "busLocation", "uuid")
    )
    texts = {key: _plain(values) for key, values in names.items()}
    gpus = [
        Gpu(*(texts[key][row] for key in ("uuid", "busLocation", "name")))
        for row in range(len(ids["id"]))
    ]
    by_id = dict(zip(ids["id"].tolist(), gpus, strict=True))
    cuda, _ = load(export, "TARGET_INFO_CUDA_DEVICE", ("gpuId", "cudaId", "pid"))
    rows = zip(*(cuda[name].tolist() for name in ("gpuId", "cudaId", "pid")), strict=True)
    found = {(pid, device): by_id[gpu] for gpu, device, pid in rows if gpu in by_id}
    shared = zip(ids["cuDevice"].tolist(), gpus, strict=True)
    return found or {(-1, device): gpu for device, gpu in shared if device != NULL}


def _plain(values: pa.Array) -> list[str | None]:
    return [
        redact(value[:_LONGEST_FACT].decode("utf-8", "replace")) if value else None
        for value in values.to_pylist()
    ]


def _errors(export: Export) -> list[str]:
    """The first messages that nsys itself calls errors."""
    severities = Enumeration(export, SEVERITIES)
    found: list[str] = []
    for chunk in export.chunks("DIAGNOSTIC_EVENT", ("severity",), ("text",)):
        for severity, text in zip(
            chunk.ints["severity"].tolist(), _plain(chunk.texts["text"]), strict=True
        ):
            label = (severities.label(severity) or "").lower()
            if text and "error" in label and text not in found:
                found.append(" ".join(text.split()))
    return found[:_MOST_MESSAGES]


# -- ranks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seat:
    """One rank's place in a report: its process, and the device where it is one of several."""

    process: int
    device: int | None
    rank: int | None
    owns_host: bool = True
    """The rows of the host are told once, with the first device of a process."""


@dataclass(frozen=True)
class Seats:
    """The ranks of one report, and how they were found."""

    seats: tuple[Seat, ...]
    known_by: str


def assign_ranks(reports: Sequence[tuple[Source, Survey]]) -> list[Seats]:
    """Who is which rank.

    The name of a file that holds one process; else the rank in NCCL's largest communicator; else
    in MPI's world; else, of several processes, their order (by report, then by process id); else
    the device. A process that several reports show is one rank in all of them.
    """
    world = _world(reports)
    by_mpi = {} if world else _mpi_world(reports)
    world |= by_mpi
    same = _Processes(reports)
    for number, (source, found) in enumerate(reports):
        if (rank := _named(source, found)) is not None:
            same.seat(number, found.processes[0], rank)
    for (number, process), rank in world.items():
        same.seat(number, process, rank)
    several = sum(len(found.processes) for _, found in reports) > 1
    result = []
    for number, (source, found) in enumerate(reports):
        if _named(source, found) is not None:
            how = "the file's name"
        elif found.processes and all((number, p) in world for p in found.processes):
            how = "MPI's ranks" if by_mpi else "NCCL's communicators"
        elif several:
            how = BY_ORDER
        else:
            result.append(Seats(tuple(_by_device(found)), "the device"))
            continue
        seats = [Seat(p, None, same.rank(number, p)) for p in found.processes]
        result.append(Seats(tuple(seats), how))
    return result


class _Processes:
    """Ranks of processes over reports.

    `nsys profile --capture-range-end=repeat` writes a report a window, all of one process.
    Reports of one host and process id are that, if they were recorded one after the other:
    processes in containers may have the same id at once.
    """

    def __init__(self, reports: Sequence[tuple[Source, Survey]]) -> None:
        self._reports = [found for _, found in reports]
        self._first: dict[tuple[int, int], tuple[int, int]] = {}
        self._ranks: dict[tuple[int, int], int] = {}

    def seat(self, number: int, process: int, rank: int) -> None:
        """A process of a report is known to be a rank."""
        self._ranks.setdefault(self._key(number, process), rank)

    def rank(self, number: int, process: int) -> int:
        """The rank of a process; the next free one where it is not known."""
        key = self._key(number, process)
        if key not in self._ranks:
            taken = set(self._ranks.values())
            self._ranks[key] = next(n for n in range(len(taken) + 1) if n not in taken)
        return self._ranks[key]

    def _key(self, number: int, process: int) -> tuple[int, int]:
        """A process by the first report that shows it."""
        place = (number, process)
        if place not in self._first:
            mine = self._reports[number]
            earlier = (
                (other, process)
                for other, found in enumerate(self._reports)
                if other != number and process in found.processes and _apart(found, mine)
            )
            self._first[place] = min([place, *earlier])
        return self._first[place]


def _apart(one: Survey, two: Survey) -> bool:
    """Whether two reports are of one host, and of different stretches of time."""
    if one.host is None or one.host != two.host or one.window is None or two.window is None:
        return False
    if one.epoch_ns is None or two.epoch_ns is None:
        return False
    first, second = sorted(
        (found.window[0] + (found.epoch_ns or 0), found.window[1] + (found.epoch_ns or 0))
        for found in (one, two)
        if found.window
    )
    return first[1] < second[0]


def _named(source: Source, found: Survey) -> int | None:
    return source.rank if len(found.processes) == 1 else None


def _world(reports: Sequence[tuple[Source, Survey]]) -> dict[tuple[int, int], int]:
    """Global ranks by (report, process), from NCCL's communicators over all reports."""
    keys: dict[tuple[int, int], int] = {}
    members = []
    for number, (_, found) in enumerate(reports):
        for member in found.members:
            key = keys.setdefault((number, member.process), len(keys))
            members.append(replace(member, process=key))
    ranks = nccl.world_ranks(members)
    return {place: ranks[key] for place, key in keys.items() if key in ranks}


def _mpi_world(reports: Sequence[tuple[Source, Survey]]) -> dict[tuple[int, int], int]:
    """Ranks in MPI's world by (report, process); nothing where two processes have the same: then
    they are of several jobs."""
    ranks = {
        (number, process): rank
        for number, (_, found) in enumerate(reports)
        for process, rank in found.mpi_ranks.items()
        if process in found.processes
    }
    hosts = {place: reports[place[0]][1].host for place in ranks}
    owners = {(hosts[place], place[1], rank) for place, rank in ranks.items()}
    return ranks if len(owners) == len(set(ranks.values())) else {}


def _by_device(found: Survey) -> list[Seat]:
    """One process: a rank for each device that it drives."""
    seats: list[Seat] = []
    for process in found.processes:
        devices = found.devices.get(process, [])
        if not devices:
            seats.append(Seat(process, None, 0))
        for device in devices:
            split = device if len(devices) > 1 else None
            seats.append(Seat(process, split, device, owns_host=device == devices[0]))
    return seats


def all_members(
    reports: Sequence[tuple[Source, Survey]], seats: Sequence[Seats]
) -> list[tuple[nccl.Member, int | None]]:
    """Members of communicators with their global ranks, over all reports."""
    found = []
    for (_, report), placed in zip(reports, seats, strict=True):
        ranks = {seat.process: seat.rank for seat in placed.seats if seat.device is None}
        epoch = report.epoch_ns or 0
        found += [(m.at + epoch, m, ranks.get(m.process)) for m in report.members]
    found.sort(key=lambda each: (each[0], each[1].rank))
    return [(member, rank) for _, member, rank in found]
