"""torch.profiler (Kineto) Chrome traces: anyone's, whole or torn, plain or gzip.

Formats: libkineto/src/output_json.cpp, from the spelling of torch 1.8 (absolute microseconds,
`Kernel`, no base time) to that of torch 2.13 (microseconds after baseTimeNanoseconds).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.kineto.jobs import of_other_jobs
from harness_collectors.kineto.origin import (
    Origin,
    Owners,
    info_of,
    origin_of,
    place_of,
    rank_of,
    relative,
    without_claim,
)
from harness_collectors.names.rank_names import rank_in_name, spelled_rank
from harness_collectors.options import no_options
from harness_collectors.reading.text_evidence import batch
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    Part,
)

if TYPE_CHECKING:
    from harness_collectors.kineto.columns import TraceColumns
    from harness_collectors.kineto.merged import Division, Key
    from harness_collectors.kineto.stream import Health
    from harness_collectors.kineto.trace import Numbering, TraceFile

NAME: Final = "kineto"
LATE: Final = 1 << 40
"""First span id of a rank that only the end of a packed file tells, and others may tell too."""
ALONE: Final = "no file names its rank"
BESIDE: Final = "other files name theirs"
"""Words for a part of files of unknown rank."""
ONLY: Final = "there is no other file"
"""Word for a part that is all."""
DOUBTED: Final = "its name tells its rank"
"""Word for a part of files that claim the rank of others."""
FOREIGN: Final = "of another job than "
"""Word for a part that is not used, with a file of the job that is."""


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
        return no_options(NAME, given)

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
        groups, doubted = by_rank(files)
        foreign = {} if doubted else of_other_jobs(groups)
        groups = {rank: [p for p in paths if p not in foreign] for rank, paths in groups.items()}
        unknown = sorted(groups.pop(None, []), key=_natural)
        first = [Part(tuple(unknown), BESIDE if groups else ALONE)] if unknown else []
        if len(files) == 1 and not first:
            return [Part(tuple(files), ONLY)]
        return [
            *first,
            *(
                Part(tuple(group), "" if doubted.isdisjoint(group) else DOUBTED)
                for group in groups.values()
                if group
            ),
            *(Part((path,), f"{FOREIGN}{other}") for path, other in sorted(foreign.items())),
        ]

    def ingest_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """Rows of some files that share their numbering."""
        if part.step.startswith(FOREIGN):
            other = relative(Path(part.step.removeprefix(FOREIGN)), context.root)
            yield from _refused(part.files, other, context)
            return
        numberings: dict[int | None, Numbering] = {}
        beside = part.step == BESIDE
        alone = part.step == ALONE and not context.run
        owners = Owners(alone, len(part.files), beside, doubted=part.step == DOUBTED)
        owners.divides = not context.run and part.step in (ALONE, ONLY)
        for path in part.files:
            yield from _ingest_file(path, context, numberings, owners)


def _refused(files: Sequence[Path], other: str, context: IngestContext) -> Iterator[Batch]:
    from harness_collectors.kineto import state

    for path in files:
        name = relative(path, context.root)
        why = (
            f"{name}: a trace of another job or attempt than {other}, whose files show as many "
            "ranks or more: not used; ingest it by itself, with the others of its job"
        )
        yield state.failed(name, why)


def by_rank(files: Sequence[Path]) -> tuple[dict[int | None, list[Path]], set[Path]]:
    """Files by the rank that their heads and names tell, in the order of names; and those whose
    heads are not believed.

    Where a rank's files lie in several folders, those of the folder with the most ranks come
    first: of several jobs the first that shows a rank is taken, and it should be one for all.
    """
    ranks = {path: head_rank(path) for path in sorted(files)}
    doubted = _doubted(ranks)
    ranks |= {path: rank_in_name(path) for path in doubted}
    groups: dict[int | None, list[Path]] = {}
    shown: dict[Path, set[int]] = {}
    for path, rank in ranks.items():
        groups.setdefault(rank, []).append(path)
        if rank is not None:
            shown.setdefault(path.parent, set()).add(rank)
    ordered = {
        rank: paths if rank is None else sorted(paths, key=lambda at: -len(shown[at.parent]))
        for rank, paths in groups.items()
    }
    return ordered, doubted


def _doubted(ranks: Mapping[Path, int | None]) -> set[Path]:
    """Files whose heads claim one rank and whose names spell different ones.

    So are replicas of an engine, each rank 0 of its own world, and traces to which a script has
    added a rank 0, that a tool may read them.
    """
    claims: dict[int, set[Path]] = {}
    for path, rank in ranks.items():
        if rank is not None and spelled_rank(path) is not None:
            claims.setdefault(rank, set()).add(path)
    clashing = (
        paths for paths in claims.values() if len({spelled_rank(path) for path in paths}) > 1
    )
    return set().union(*clashing)


def head_rank(path: Path) -> int | None:
    """The rank as far as the file's head and name tell it."""
    return rank_of(_head_metadata(path), path)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts `trace_2` before `trace_10`."""
    parts = re.split(r"(\d{1,18})", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _head_metadata(path: Path) -> dict[str, Any]:
    from harness_collectors.kineto.stream import Health, read_blocks, salvage, tail

    try:
        with closing(read_blocks(path, Health())) as blocks:
            found = salvage(next(blocks, b""))
        # On-demand traces end with what others begin with.
        return found if "distributedInfo" in found else {**salvage(tail(path)), **found}
    except OSError:
        return {}


def _ingest_file(
    path: Path,
    context: IngestContext,
    numberings: dict[int | None, Numbering],
    owners: Owners,
) -> Iterator[Batch]:
    from harness_collectors.kineto import state
    from harness_collectors.kineto.merged import division
    from harness_collectors.kineto.stream import Health

    health = Health()
    name = relative(path, context.root)
    try:
        size = path.stat().st_size
        columns, metadata = _read(path, health, context.progress)
    except OSError as error:
        yield state.failed(name, f"cannot be read: {error.strerror or error}")
        return
    source = Read(path, size, health, metadata, context, numberings, owners)
    divided = division(columns) if owners.divides else None
    if divided is None:
        metadata = without_claim(metadata) if owners.doubted else metadata
        yield from _told(replace(source, metadata=metadata), name, columns)
        return
    del columns
    source = replace(source, metadata={**metadata, "distributedInfo": {}})
    source.owners.alone = True
    for key, mine in _read_divided(path, divided).items():
        yield from _told(source, f"{name} ({key})", mine, divided=True)
        # The file's bytes and what of it could not be read are counted once.
        source = replace(source, size=None, health=replace(health, unreadable=0))


@dataclass(frozen=True)
class Read:
    """A file that was read, and what its rows are numbered and told by."""

    path: Path
    size: int | None
    health: Health
    metadata: dict[str, Any]
    context: IngestContext
    numberings: dict[int | None, Numbering]
    owners: Owners


def _told(source: Read, name: str, columns: TraceColumns, divided: bool = False) -> Iterator[Batch]:
    """Rows of one process's trace."""
    from harness_collectors.kineto import collectives, recording, rows, state
    from harness_collectors.kineto.trace import Numbering
    from harness_collectors.traces.keys import step_rows

    path, owners, run = source.path, source.owners, bool(source.context.run)
    origin = owners.settle(origin_of(path, name, source.metadata, columns, divided), columns)
    if stranger := owners.stranger(origin, columns):
        yield state.failed(name, stranger)
        return
    first = LATE if origin.rank is not None and owners.beside else 1
    numbering = source.numberings.setdefault(origin.rank, Numbering(first))
    trace = _resolve(columns, source.metadata, origin, bool(source.health.cut), numbering)
    if trace.bounds is not None:
        if not numbering.anchored and origin.wall_clock:
            yield _anchor_row(origin, trace)
        numbering.anchored = True
        if not run:  # in a run of ours the recorder says more about its ranks
            yield _rank_row(path, origin, trace)
        if owners.files > 1 and not run:
            yield from recording.window_batches(trace)
    yield from rows.device_batches(trace)
    yield from recording.hidden_batches(trace)
    yield from collectives.collective_batches(trace)
    told = state.collection_row(
        origin, trace, source.metadata, source.health, source.size, owners.doubted
    )
    trace.drop_device()  # the host's rows are most of a trace, and need none of it
    yield from rows.host_batches(trace)
    steps = step_rows(trace.rank, trace.units)
    if steps:
        yield batch("steps", steps)
    yield told


def _read_divided(path: Path, divided: Division) -> dict[Key, TraceColumns]:
    """The traces of a file's processes, in their order."""
    from harness_collectors.kineto.columns import TraceColumns
    from harness_collectors.kineto.events import decode_events, mend_event
    from harness_collectors.kineto.stream import Health, Splitter, read_blocks
    from harness_collectors.names.classify import classifier

    found = {key: TraceColumns(classifier()) for key in divided.keys}
    with closing(read_blocks(path, Health())) as blocks:
        for piece in Splitter(blocks, Health(), decode_events, mend_event):
            for key, mine in divided.pieces(piece):
                found[key].add(mine)
    return found


def _read(
    path: Path, health: Health, progress: Callable[[int], None]
) -> tuple[Any, dict[str, Any]]:
    from harness_collectors.kineto import flows
    from harness_collectors.kineto.columns import TraceColumns
    from harness_collectors.kineto.events import decode_events, mend_event
    from harness_collectors.kineto.stream import Health, Splitter, read_blocks
    from harness_collectors.names.classify import classifier

    columns = TraceColumns(classifier())
    with closing(read_blocks(path, health, progress)) as blocks:
        splitter = Splitter(blocks, health, decode_events, mend_event)
        for piece in splitter:
            columns.add(piece)
    if flows.are_needed(columns):
        arrows = flows.Flows()
        with closing(read_blocks(path, Health())) as blocks:
            for part in Splitter(blocks, Health(), flows.decode_flows, flows.decode_flow):
                arrows.add(part)
        arrows.bind(columns)
    return columns, splitter.metadata


def _resolve(
    columns: Any,
    metadata: Mapping[str, Any],
    origin: Origin,
    cut: bool,
    numbering: Numbering,
) -> TraceFile:
    import numpy as np

    from harness_collectors.kineto.comm import Groups
    from harness_collectors.kineto.kinds import ANNOTATION
    from harness_collectors.kineto.trace import TraceFile
    from harness_collectors.names.step_marks import step_marks
    from harness_collectors.traces.units import find_units

    host, names = columns.host, list(columns.host_names)
    annotations = np.flatnonzero(host["kind"] == ANNOTATION)
    return TraceFile(
        columns=columns,
        found=find_units(host, annotations, names, step_marks(), numbering.units),
        groups=Groups(info_of(metadata), columns.labels),
        rank=origin.rank,
        offset_ns=origin.offset_ns,
        cut=cut,
        numbering=numbering,
    )


# -- rows about the file ---------------------------------------------------------------------


def _rank_row(path: Path, origin: Origin, trace: TraceFile) -> Batch:
    pids = trace.columns.owners
    device = trace.main_device
    last = trace.bounds
    row = {
        "rank": origin.rank,
        "host": origin.host,
        "pid": pids[0] if len(pids) == 1 else None,
        "clock_domain": origin.clock_domain,
        **place_of(path),
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


COLLECTOR = Kineto()
