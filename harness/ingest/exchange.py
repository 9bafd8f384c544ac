"""What goes between the processes of an ingest: lines of JSON that ask and answer, and batches as
Arrow streams, one after the other in a file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from harness.ingest.parts import Task
from harness_schemas.spi import Batch, IngestContext, Part


@dataclass(frozen=True)
class Stored:
    """Where a batch lies in the file: its table, and the bytes of its Arrow stream."""

    table: str
    offset: int
    length: int


def write_batches(path: Path, batches: Iterable[Batch]) -> list[Stored]:
    """Write batches as they come; memory is that of one batch."""
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    stored = []
    with path.open("wb") as stream:
        for batch in batches:
            offset = stream.tell()
            with pa.ipc.new_stream(stream, batch.data.schema, options=options) as writer:
                writer.write_table(batch.data)
            stored.append(Stored(batch.table, offset, stream.tell() - offset))
    return stored


def read_batches(path: Path, stored: Iterable[Stored]) -> Iterator[Batch]:
    """The batches in their order, one in memory at a time; the file is removed in the end."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            for each in stored:
                file.seek(each.offset)
                with pa.ipc.open_stream(file.read_buffer(each.length)) as reader:
                    yield Batch(each.table, reader.read_all())
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def encode_context(context: IngestContext) -> str:
    """What ingest knows of the run, as a line."""
    return json.dumps({"root": str(context.root), "run": dict(context.run)}, default=str) + "\n"


def decode_context(line: str) -> IngestContext:
    """Reads what `encode_context` wrote."""
    said = json.loads(line)
    return IngestContext(Path(said.get("root", ".")), said.get("run", {}))


def encode_task(task: Task, into: Path) -> str:
    """A line that asks for a part, its rows to be written to `into`."""
    asked = {
        "collector": task.collector,
        "files": [str(path) for path in task.part.files],
        "step": task.part.step,
        "is_piece": task.is_piece,
        "into": str(into),
    }
    return json.dumps(asked) + "\n"


def decode_task(line: str) -> tuple[Task, Path]:
    """Reads what `encode_task` wrote."""
    asked = json.loads(line)
    part = Part(tuple(Path(name) for name in asked["files"]), asked["step"])
    return Task(asked["collector"], part, 0, asked["is_piece"]), Path(asked["into"])


def encode_answer(stored: Iterable[Stored]) -> str:
    """The line that answers: what the file holds."""
    return json.dumps([astuple(each) for each in stored]) + "\n"


def decode_answer(line: str) -> list[Stored]:
    """Reads what `encode_answer` wrote."""
    return [Stored(*each) for each in json.loads(line)]
