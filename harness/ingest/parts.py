"""Evidence divided into parts that are read one by one or at once, always with the same rows."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.ingest.evidence import Evidence
from harness.registry import load_collector
from harness_schemas.spi import Batch, Divisible, IngestContext, Joined, Part

NAMED_FILES = 3


@dataclass(frozen=True)
class Task:
    """A part, the collector that reads it, and the bytes of its files (a measure of the work)."""

    collector: str
    part: Part
    size: int
    is_piece: bool = False
    """Its rows are for `Joined.join` alone."""


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


def in_pieces(tasks: Iterable[Task]) -> list[Task]:
    """The same, of more parts where a collector joins what several processes make ready."""
    pieces = []
    for task in tasks:
        parts: Sequence[Part] = ()
        with contextlib.suppress(Exception):  # whole, its reader says what is wrong
            collector = load_collector(task.collector)
            parts = collector.divide(task.part.files) if isinstance(collector, Joined) else ()
        if len(parts) > 1:
            pieces += [Task(task.collector, part, _size(part), is_piece=True) for part in parts]
        else:
            pieces.append(task)
    return pieces


def joined(read: Iterable[tuple[Task, Iterator[Batch]]], context: IngestContext) -> Iterator[Batch]:
    """Rows of tasks in their order, of what was read of `in_pieces`."""
    for (name, is_piece), group in itertools.groupby(
        read, key=lambda pair: (pair[0].collector, pair[0].is_piece)
    ):
        if not is_piece:
            for _, batches in group:
                yield from batches
            continue
        parts = ((task.part, batches) for task, batches in group)
        try:
            collector = load_collector(name)
            assert isinstance(collector, Joined)
            yield from collector.join(parts, context)
        except Exception as error:  # noqa: BLE001 - recorded; the other evidence is still good
            whole = Task(name, Part(()), 0)
            yield failed_row(whole, context, _failure(error))


def read_task(task: Task, context: IngestContext) -> Iterator[Batch]:
    """The rows of a part; a reader that fails leaves a failed row of `collection` in the end."""
    try:
        collector = load_collector(task.collector)
        if task.is_piece and isinstance(collector, Joined):
            yield from collector.read_part(task.part, context)
        elif isinstance(collector, Divisible):
            yield from collector.ingest_part(task.part, context)
        else:
            yield from collector.ingest(task.part.files, context)
    except Exception as error:  # noqa: BLE001 - recorded; the other evidence is still good
        yield failed_row(task, context, _failure(error))


def _failure(error: Exception) -> str:
    return f"its reader failed: {type(error).__name__}: {error}"


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
