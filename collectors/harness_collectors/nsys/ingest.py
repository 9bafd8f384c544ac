"""All reports of one ingest: exported where need be, surveyed, their ranks told apart, read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness_collectors.nsys.export.sources import NAME, Source, exported, find_sources, open_source
from harness_collectors.nsys.export.tables import ExportError
from harness_collectors.nsys.reading import Setting, batches, read_content
from harness_collectors.nsys.report import nccl
from harness_collectors.nsys.report.survey import Survey, all_members, assign_ranks, survey
from harness_collectors.reading.text_evidence import batch
from harness_schemas.spi import Batch, IngestContext


def ingest(files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
    """Rows of every report. What nothing can be read of is a failed row of `collection`."""
    with ExitStack() as stack:
        sources = []
        for source in find_sources(files, context.root):
            if source.form == "missing":
                said = source.files[0].read_text(errors="replace").partition(" on ")[0]
                yield _told(source, "skipped", f"{said} on this node")
                continue
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-")))
            try:
                sources.append(exported(source, folder))
            except ExportError as error:
                yield _told(source, "failed", str(error))
        several = len(sources) > 1
        reports: list[tuple[Source, Survey]] = []
        for source in sources if several else []:
            try:
                with open_source(source) as export:
                    reports.append((source, survey(export)))
            except ExportError as error:
                yield _told(source, "failed", str(error))
        if several:
            yield from _several(reports, context)
        elif sources:
            yield from _single(sources[0], context)


def _several(reports: list[tuple[Source, Survey]], context: IngestContext) -> Iterator[Batch]:
    """Who is which rank is known when all reports are surveyed; then each is read."""
    seats = assign_ranks(reports)
    comms = nccl.communicators(all_members(reports, seats))
    setting = Setting(comms, {}, bool(context.run), several=True)
    for (source, found), placed in zip(reports, seats, strict=True):
        with open_source(source) as export:
            yield from batches(source, export, read_content(export), found, placed, setting)


def _single(source: Source, context: IngestContext) -> Iterator[Batch]:
    """One report is read once."""
    try:
        with open_source(source) as export:
            content = read_content(export)
            members = content.members(nccl.Schemas(export))
            reports = [(source, survey(export, content.devices(), members))]
            (placed,) = assign_ranks(reports)
            comms = nccl.communicators(all_members(reports, [placed]))
            setting = Setting(comms, {}, bool(context.run))
            yield from batches(source, export, content, reports[0][1], placed, setting)
    except ExportError as error:
        yield _told(source, "failed", str(error))


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
