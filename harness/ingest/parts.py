"""Evidence divided into parts that are read one by one or at once, always with the same rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.ingest.evidence import Evidence
from harness.registry import load_collector
from harness_schemas.spi import Batch, Divisible, IngestContext, Part

NAMED_FILES = 3


@dataclass(frozen=True)
class Task:
    """A part, the collector that reads it, and the bytes of its files (a measure of the work)."""

    collector: str
    part: Part
    size: int


def plan_tasks(evidence: Evidence) -> list[Task]:
    """Every part of the evidence, in the order in which its rows enter the database."""
    tasks = []
    for name, (collector, files) in evidence.items():
        parts = [Part(tuple(files))]
        if isinstance(collector, Divisible):
            with contextlib.suppress(Exception):  # undivided, its reader says what is wrong
                parts = list(collector.divide(files))
        tasks += [Task(name, part, _size(part)) for part in parts]
    return tasks


def read_task(task: Task, context: IngestContext) -> Iterator[Batch]:
    """The rows of a part; a reader that fails leaves a failed row of `collection` in the end."""
    try:
        collector = load_collector(task.collector)
        if isinstance(collector, Divisible):
            yield from collector.ingest_part(task.part, context)
        else:
            yield from collector.ingest(task.part.files, context)
    except Exception as error:  # noqa: BLE001 - recorded; the other evidence is still good
        yield failed_row(task, context, f"its reader failed: {type(error).__name__}: {error}")


def failed_row(task: Task, context: IngestContext, reason: str) -> Batch:
    """A row of `collection` that says why a part's rows are missing."""
    import pyarrow as pa

    files = [relative_to(path, context.root) for path in task.part.files[:NAMED_FILES]]
    detail = {"files": files, "more": len(task.part.files) - len(files)}
    row = {
        "collector": [task.collector],
        "state": ["failed"],
        "reason": [reason[:500]],
        "detail": [json.dumps(detail)],
    }
    return Batch("collection", pa.table(row))


def relative_to(path: Path, root: Path) -> str:
    """Its place in the folder; its name where it lies elsewhere."""
    path = path.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _size(part: Part) -> int:
    if part.size is not None:
        return part.size
    total = 0
    for path in part.files:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
