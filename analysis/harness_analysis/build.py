"""Evidence in, database out: the order in which a run's file is made.

    rows, their times aligned  ->  match and split communication  ->  name causes  ->
    divide windows  ->  views  ->  findings

Repeatable: the same rows give the same file content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness_analysis.breakdown import breakdown_tables
from harness_analysis.findings import find
from harness_analysis.store import Writer
from harness_analysis.views import create_views
from harness_schemas.spi import Batch

EXACT_SOURCES = ("torch_profiler", "nsys", "graph_events", "nccl_inspector")
"""Evidence whose device intervals are those of the kernels themselves."""


def build_database(
    path: Path, run_id: str, run_row: dict[str, Any], batches: Iterable[Batch]
) -> None:
    """Write the database of one run; `path` appears whole or not at all.

    `run_row`: columns of the table `runs`. Raises HarnessError where `path` cannot be written.
    """
    with Writer(path, run_id) as writer:
        writer.add_rows("runs", [{"run_id": run_id, **run_row}])
        for batch in batches:
            writer.add(batch.table, batch.data)
        writer.axis.refresh()
        writer.add_rows("clock_offsets", writer.axis.rows())
        exact = ", ".join(f"('{source}')" for source in EXACT_SOURCES)
        writer.con.execute(
            f"CREATE TEMP TABLE evidence_exact AS SELECT * FROM (VALUES {exact}) AS s(source)"
        )
        writer.script("ranks")
        writer.script("tokens")
        writer.script("identify")
        writer.script("match")
        writer.script("stragglers")
        for table in breakdown_tables(writer.con):
            writer.add("unit_breakdown", table)
        create_views(writer.con)
        writer.add_rows("findings", find(writer.con))
        writer.finish()


def safe_run_id(text: str) -> str:
    """A run id from a file or folder name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "run"
