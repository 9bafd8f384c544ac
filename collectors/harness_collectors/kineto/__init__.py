"""torch.profiler (Kineto) Chrome traces: anyone's, whole or torn, plain or gzip.

Formats: libkineto/src/output_json.cpp, from the spelling of torch 1.8 (absolute microseconds,
`Kernel`, no base time) to that of torch 2.13 (microseconds after baseTimeNanoseconds).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.text_evidence import batch
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    Part,
)

if TYPE_CHECKING:
    from harness_collectors.kineto.stream import Health
    from harness_collectors.kineto.trace import Numbering, TraceFile

NAME: Final = "kineto"
_EARLIEST_WALL_NS: Final = 10**18
"""September 2001: smaller times are no Unix times, so a base is missing."""

_RANK_IN_NAME: Final = (
    re.compile(r"(?:^|[^a-z])rank[-_ ]?\[?(\d{1,7})(?!\d)", re.IGNORECASE),
    re.compile(r"(?:^|[^a-z])worker[-_]?(\d{1,7})(?!\d)", re.IGNORECASE),
)
_PLACE_IN_NAME: Final = (
    re.compile(r"dp\d+_pp(?P<pp>\d{1,5})_tp(?P<tp>\d{1,5})_"),
    re.compile(r"-TP-(?P<tp>\d{1,5})(?:-DP-\d+)?(?:-PP-(?P<pp>\d{1,5}))?[-.]"),
)
"""File names of vLLM and of SGLang: pipeline stage and tensor-parallel rank."""
_FACTS: Final = (
    "schemaVersion", "cuda_driver_version", "cuda_runtime_version", "cupti_version",
    "hip_runtime_version", "roctracer_version", "record_shapes", "with_stack", "profile_memory",
)  # fmt: skip
"""Header keys that are kept: the rest may hold anything from the environment."""


@dataclass(frozen=True)
class Origin:
    """Where a file comes from and which clock it is on. None: not known."""

    name: str
    rank: int | None
    host: str | None
    offset_ns: int
    wall_clock: bool

    @property
    def clock_domain(self) -> str:
        """Files of one host are on one wall clock; without a host each has its own."""
        return f"wall:{self.host or self.name}"


class Kineto:
    """Ingest of Kineto traces. Capture is the rank hook of the collector `torch_profiler`."""

    name = NAME
    title = "torch.profiler (Kineto) traces"
    sources = ("torch_profiler",)

    def check(self, device: str) -> Availability:
        """It captures nothing itself."""
        return Availability(False, "reads traces only", "collect torch_profiler to record them")

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """It has no options."""
        if given:
            raise ValueError(f"{NAME} has no option {sorted(given)[0]!r}")
        return {}

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Nothing to do to the run."""
        return CapturePlan()

    def recognise(self, path: Path, head: bytes) -> bool:
        """A JSON object with `traceEvents` or Kineto's own header, or a list of trace events."""
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if start == b"{":
            return b'"traceEvents"' in head or (
                b'"schemaVersion"' in head and b'"deviceProperties"' in head
            )
        return start == b"[" and b'"ph"' in head[:4096] and b'"ts"' in head[:4096]

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of every file: those of unknown rank first, then by rank and name."""
        for part in self.divide(files):
            yield from self.ingest_part(part, context)

    def divide(self, files: Sequence[Path]) -> list[Part]:
        """Files of one rank belong together, or their span ids and ordinals would collide; so do
        those of unknown rank."""
        groups = by_rank(files)
        unknown = groups.pop(None, [])
        first = [Part(tuple(unknown))] if unknown else []
        return [*first, *(Part(tuple(group)) for group in groups.values())]

    def ingest_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """Rows of some files that share their numbering."""
        numberings: dict[int | None, Numbering] = {}
        owners: dict[int, tuple[int, str]] = {}
        for path in part.files:
            yield from _ingest_file(path, context, numberings, owners)


def by_rank(files: Sequence[Path]) -> dict[int | None, list[Path]]:
    """Files by the rank that their heads tell, in the order of names."""
    groups: dict[int | None, list[Path]] = {}
    for path in sorted(files):
        groups.setdefault(head_rank(path), []).append(path)
    return groups


def head_rank(path: Path) -> int | None:
    """The rank as far as the file's head and name tell it."""
    return _rank(_head_metadata(path), path)


def _head_metadata(path: Path) -> dict[str, Any]:
    from harness_collectors.kineto.stream import Health, read_blocks, salvage

    try:
        with closing(read_blocks(path, Health())) as blocks:
            return salvage(next(blocks, b""))
    except OSError:
        return {}


def _ingest_file(
    path: Path,
    context: IngestContext,
    numberings: dict[int | None, Numbering],
    owners: dict[int, tuple[int, str]],
) -> Iterator[Batch]:
    from harness_collectors.kineto import collectives, rows
    from harness_collectors.kineto.stream import Health
    from harness_collectors.kineto.trace import Numbering

    health = Health()
    name = _relative(path, context.root)
    try:
        size = path.stat().st_size
        columns, metadata = _read(path, health, context.progress)
    except OSError as error:
        yield _failed(name, f"cannot be read: {error.strerror or error}")
        return
    origin = _origin(path, name, metadata, columns)
    if stranger := _of_another_process(origin, columns.pids, owners):
        yield _failed(name, stranger)
        return
    numbering = numberings.setdefault(origin.rank, Numbering())
    trace = _resolve(columns, metadata, origin, bool(health.cut), numbering)
    if trace.bounds is not None:
        if not numbering.anchored and origin.wall_clock:
            yield _anchor_row(origin, trace)
        numbering.anchored = True
        if not context.run:  # in a run of ours the recorder says more about its ranks
            yield _rank_row(path, origin, trace)
    yield from rows.device_batches(trace)
    yield from collectives.collective_batches(trace)
    told = _collection_row(origin, trace, metadata, health, size)
    trace.drop_device()  # the host's rows are most of a trace, and need none of it
    yield from rows.host_batches(trace)
    steps = rows.step_rows(trace)
    if steps:
        yield batch("steps", steps)
    yield told


def _read(
    path: Path, health: Health, progress: Callable[[int], None]
) -> tuple[Any, dict[str, Any]]:
    from harness_collectors.classify import classifier
    from harness_collectors.kineto.columns import TraceColumns
    from harness_collectors.kineto.events import decode_events, mend_event
    from harness_collectors.kineto.stream import Splitter, read_blocks

    columns = TraceColumns(classifier())
    with closing(read_blocks(path, health, progress)) as blocks:
        splitter = Splitter(blocks, health, decode_events, mend_event)
        for piece in splitter:
            columns.add(piece)
    return columns, splitter.metadata


def _resolve(
    columns: Any,
    metadata: Mapping[str, Any],
    origin: Origin,
    cut: bool,
    numbering: Numbering,
) -> TraceFile:
    from harness_collectors.kineto.comm import Groups
    from harness_collectors.kineto.trace import TraceFile
    from harness_collectors.kineto.units import find_units
    from harness_collectors.step_marks import step_marks

    return TraceFile(
        columns=columns,
        found=find_units(columns.host, list(columns.host_names), step_marks()),
        groups=Groups(metadata.get("distributedInfo")),
        rank=origin.rank,
        offset_ns=origin.offset_ns,
        cut=cut,
        numbering=numbering,
    )


# -- where a file comes from -----------------------------------------------------------------


def _origin(path: Path, name: str, metadata: Mapping[str, Any], columns: Any) -> Origin:
    base = metadata.get("baseTimeNanoseconds")
    offset = base if type(base) is int and 0 <= base < 2**62 else 0
    earliest = columns.first_ns + offset
    host = metadata.get("host_name")
    return Origin(
        name=name,
        rank=_rank(metadata, path),
        host=_folder_host(path) or (host if isinstance(host, str) else None),
        offset_ns=offset,
        wall_clock=earliest >= _EARLIEST_WALL_NS,
    )


def _of_another_process(
    origin: Origin, pids: Iterable[int], owners: dict[int, tuple[int, str]]
) -> str | None:
    """Why a file cannot be of the rank that files before it (`owners`) are of; None: it can.

    A profiler may write several files a rank, but all from one process.
    """
    known = list(pids)
    if origin.rank is None or len(known) != 1:
        return None
    pid, first = owners.setdefault(origin.rank, (known[0], origin.name))
    if pid == known[0]:
        return None
    return (
        f"{origin.name}: rank {origin.rank} is process {known[0]} here and {pid} in {first}: "
        "a trace of another job or attempt, not used; ingest it by itself"
    )


def _rank(metadata: Mapping[str, Any], path: Path) -> int | None:
    """Of `distributedInfo`, else of the file's name, else None."""
    info = metadata.get("distributedInfo")
    rank = info.get("rank") if isinstance(info, dict) else None
    if type(rank) is int and 0 <= rank < 2**31:
        return rank
    return next((n for each in _RANK_IN_NAME if (n := _in_name(each, path)) is not None), None)


def _in_name(pattern: re.Pattern[str], path: Path) -> int | None:
    found = pattern.search(path.name)
    return int(found[1]) if found else None


def _place(path: Path) -> dict[str, int | None]:
    for pattern in _PLACE_IN_NAME:
        found = pattern.search(path.name)
        if found is not None:
            stage = found["pp"]
            return {"tp_rank": int(found["tp"]), "stage": None if stage is None else int(stage)}
    return {"tp_rank": None, "stage": None}


def _folder_host(path: Path) -> str | None:
    """The host of a file in a run folder's `artifacts/<collector>/<host>/`."""
    parts = path.parts
    return parts[-2] if len(parts) > 3 and parts[-4] == "artifacts" else None


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


# -- rows about the file ---------------------------------------------------------------------


def _rank_row(path: Path, origin: Origin, trace: TraceFile) -> Batch:
    pids = trace.columns.pids
    device = trace.main_device
    last = trace.bounds
    row = {
        "rank": origin.rank,
        "host": origin.host,
        "pid": next(iter(pids)) if len(pids) == 1 else None,
        "clock_domain": origin.clock_domain,
        **_place(path),
        "device": None if device is None else f"cuda:{device}",
        "complete": not trace.cut,
        "last_record_ns": None if last is None else last[1],
    }
    return batch("ranks", [row])


def _anchor_row(origin: Origin, trace: TraceFile) -> Batch:
    """Kineto's times are on the wall clock of the host: raw and wall agree."""
    moment = trace.bounds[0] if trace.bounds else None
    row = {
        "source": "torch_profiler",
        "rank": origin.rank,
        "host": origin.host,
        "clock_domain": origin.clock_domain,
        "raw_ns": moment,
        "wall_ns": moment,
    }
    return batch("clock_anchors", [row])


def _collection_row(
    origin: Origin, trace: TraceFile, metadata: Mapping[str, Any], health: Health, size: int
) -> Batch:
    columns = trace.columns
    unreadable = health.unreadable + columns.dropped_times
    problems = []
    if health.cut:
        problems.append(f"{health.cut}; what stands before it is used")
    if unreadable:
        problems.append(f"{unreadable} events could not be read")
    if columns.events and not origin.wall_clock:
        problems.append("no base time: its times fit no other file's")
    if len(columns.pids) > 1:
        problems.append(f"events of {len(columns.pids)} processes in one file, taken for one rank")
    state = "degraded" if problems else "ok"
    if not columns.events:
        state, problems = "failed", problems or ["it holds no events"]
    row = {
        "collector": NAME,
        "host": origin.host,
        "rank": origin.rank,
        "state": state,
        "reason": "; ".join(problems) or None,
        "bytes": size,
        "records": columns.events,
        "unreadable": unreadable,
        "detail": json.dumps(_detail(origin, trace, metadata), sort_keys=True),
    }
    return batch("collection", [row])


def _detail(origin: Origin, trace: TraceFile, metadata: Mapping[str, Any]) -> dict[str, Any]:
    from harness_collectors.classify import UNKNOWN_KERNEL

    columns = trace.columns
    info = metadata.get("distributedInfo")
    nccl = info.get("nccl_version") if isinstance(info, dict) else None
    facts = {key: metadata[key] for key in _FACTS if isinstance(metadata.get(key), (int, float))}
    return {
        "file": origin.name,
        "complete": not trace.cut,
        "complete_events": columns.events - columns.cats[""],
        "activities": {cat: n for cat, n in sorted(columns.cats.most_common(33)) if cat},
        "units": len(trace.units),
        "device_rows": len(columns.device),
        "device_rows_launched": int((trace.launch >= 0).sum()),
        "device_rows_in_units": trace.device_rows_in_units,
        "unclassified_share": trace.kernel_share(UNKNOWN_KERNEL),
        "nccl_version": nccl if isinstance(nccl, str) else None,
        **facts,
    }


def _failed(name: str, reason: str) -> Batch:
    row = {
        "collector": NAME,
        "state": "failed",
        "reason": reason,
        "detail": json.dumps({"file": name}),
    }
    return batch("collection", [row])


COLLECTOR = Kineto()
