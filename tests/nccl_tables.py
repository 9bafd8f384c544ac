"""NCCL evidence as lists of rows by table."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from harness_collectors.nccl_log import COLLECTOR
from harness_schemas.spi import IngestContext


def ingest(files, root=None, run=None, collector=COLLECTOR):
    """Rows by table, as dicts without the columns that a batch left out."""
    paths = [Path(file) for file in files]
    context = IngestContext(root or paths[0].parent, run or {})
    tables = defaultdict(list)
    for batch in collector.ingest(paths, context):
        tables[batch.table] += batch.data.to_pylist()
    return tables


def ingest_text(folder, text, name="nccl.log", **more):
    """The same of one log whose text is given."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ingest([path], **more)


def counted(rows, *columns):
    """How many rows hold which values."""
    return Counter(tuple(row.get(column) for column in columns) for row in rows)
