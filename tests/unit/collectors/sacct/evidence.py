"""Files of Slurm's accounting, and the rows they become."""

from __future__ import annotations

from pathlib import Path

from support import ROOT, SAMPLES

from harness_collectors.sacct import COLLECTOR
from harness_schemas.spi import IngestContext

FIXTURES = ROOT / "tests" / "fixtures" / "sacct"
LOGS = SAMPLES / "logs" if SAMPLES else Path()
KIB = 1024


def ingest(*paths):
    """Rows of slurm_steps, and the one row of the collection."""
    batches = list(COLLECTOR.ingest(list(paths), IngestContext(paths[0].parent)))
    rows = [row for b in batches if b.table == "slurm_steps" for row in b.data.to_pylist()]
    [state] = [row for b in batches if b.table == "collection" for row in b.data.to_pylist()]
    return rows, state


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def by_step(rows):
    return {row["step_id"]: row for row in rows}
