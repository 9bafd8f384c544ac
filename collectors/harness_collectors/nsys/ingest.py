"""All reports of one ingest: exported where need be, surveyed, their ranks told apart, read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness_collectors.nsys import nccl
from harness_collectors.nsys.export import ExportError
from harness_collectors.nsys.reading import Setting, batches
from harness_collectors.nsys.sources import NAME, Source, exported, find_sources, open_source
from harness_collectors.nsys.survey import Survey, all_members, assign_ranks, survey
from harness_collectors.text_evidence import batch
from harness_schemas.spi import Batch, IngestContext


def ingest(files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
    """Rows of every report. What nothing can be read of is a failed row of `collection`."""
    with ExitStack() as stack:
        reports: list[tuple[Source, Survey]] = []
        for source in find_sources(files, context.root):
            if source.form == "missing":
                yield _told(source, "skipped", "nsys is not found on this node")
                continue
            try:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-")))
                ready = exported(source, folder)
                with open_source(ready) as export:
                    reports.append((ready, survey(export)))
            except ExportError as error:
                yield _told(source, "failed", str(error))
        seats = assign_ranks(reports)
        comms = nccl.communicators(all_members(reports, seats))
        setting = Setting(comms, {}, bool(context.run))
        for (source, found), placed in zip(reports, seats, strict=True):
            with open_source(source) as export:
                yield from batches(source, export, found, placed, setting)


def _told(source: Source, state: str, reason: str) -> Batch:
    row = {
        "collector": NAME,
        "host": source.host,
        "rank": source.rank,
        "state": state,
        "reason": reason,
        "bytes": source.size,
        "detail": json.dumps({"file": source.name}),
    }
    return batch("collection", [row])
