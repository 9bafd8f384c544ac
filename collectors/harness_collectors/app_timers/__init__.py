"""App timers: the spools that `harness_probe` leaves, one set a rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_collectors.app_timers.spool import (
    CLOCK_KINDS,
    GRAPH_SOURCE,
    SOURCE,
    read_meta,
)
from harness_collectors.app_timers.streams import find_records, read_records
from harness_collectors.options import no_options
from harness_schemas import spool
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    Part,
)

CLOCKS = "clocks"
"""Step of the part that holds what all ranks say about their clocks."""
USUAL_INFLATION = 8
"""What a rank's compressed files are taken to hold: a measure of the work, not a limit."""


class AppTimers:
    """The recorder's own spans: always on, in every rank that imports `harness.probe`."""

    name = "app_timers"
    title = "spans of the recorder in the ranks"
    sources = (SOURCE, GRAPH_SOURCE)

    def check(self, device: str) -> Availability:
        """Always available: it needs nothing but the standard library."""
        return Availability(True)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """It has no options."""
        return no_options("app_timers", given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Tell the ranks where to spool."""
        return CapturePlan(env={"HARNESS_SPOOL_DIR": str(request.run_dir / "spans")})

    def recognise(self, path: Path, head: bytes) -> bool:
        """A meta file with the recorder's start line; the span file beside it is found from it."""
        return path.name.endswith(spool.META) and b'"t":"start"' in head[:4096]

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of every rank, in the order of ranks. Times stay on CLOCK_MONOTONIC."""
        for part in self.divide(files):
            yield from self.ingest_part(part, context)

    def divide(self, files: Sequence[Path]) -> list[Part]:
        """Clocks of all ranks first (another host's clock is mapped through rank 0's trips),
        then a part a rank."""
        ordered = sorted(files)
        ranks = [Part((path,), size=_spool_bytes(path)) for path in ordered]
        return [Part(tuple(ordered), CLOCKS, size=0), *ranks]

    def ingest_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """Clocks of all ranks, or everything else of one."""
        from harness_collectors.app_timers import closing, meta_rows, record_rows

        if part.step == CLOCKS:
            for path in part.files:
                yield from meta_rows.clock_batches(read_meta(path, only=CLOCK_KINDS))
            return
        for path in part.files:
            meta = read_meta(path)
            spans = find_records(path)
            yield from meta_rows.meta_batches(meta)
            counts = record_rows.Counts()
            for records in read_records(spans):
                yield from record_rows.record_batches(meta, records, counts)
            yield from closing.closing_batches(meta, spans, counts, path)


def _spool_bytes(meta: Path) -> int:
    total = 0
    for path in (meta, find_records(meta).path, spool.beside(meta, spool.UNITS)):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            total += size * USUAL_INFLATION if path.suffix == ".gz" else size
    return total


COLLECTOR = AppTimers()
