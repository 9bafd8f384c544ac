"""App timers: the spools that `harness_probe` leaves, one set a rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_collectors.app_timers.spool import (
    CLOCK_KINDS,
    GRAPH_SOURCE,
    SOURCE,
    read_meta,
    read_records,
    survey_spans,
)
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext


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
        if given:
            raise ValueError(f"app_timers has no option {sorted(given)[0]!r}")
        return {}

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Tell the ranks where to spool."""
        return CapturePlan(env={"HARNESS_SPOOL_DIR": str(request.run_dir / "spans")})

    def recognise(self, path: Path, head: bytes) -> bool:
        """A meta file with the recorder's start line; the span file beside it is found from it."""
        return path.name.endswith(".meta.jsonl") and b'"t":"start"' in head[:4096]

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of every rank, in the order of ranks. Times stay on CLOCK_MONOTONIC."""
        from harness_collectors.app_timers import closing, meta_rows, record_rows

        ordered = sorted(files)
        for path in ordered:
            # Clocks of all ranks first: another host's clock is mapped through rank 0's trips.
            yield from meta_rows.clock_batches(read_meta(path, only=CLOCK_KINDS))
        for path in ordered:
            meta = read_meta(path)
            spans = survey_spans(path.with_name(path.name.replace(".meta.jsonl", ".spans")))
            yield from meta_rows.meta_batches(meta)
            counts = record_rows.Counts()
            if spans.readable:
                for records in read_records(spans):
                    yield from record_rows.record_batches(meta, records, counts)
            yield from closing.closing_batches(meta, spans, counts, path)


COLLECTOR = AppTimers()
