"""`harness report` of a split specification: what each run's evidence says of the same work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cli.output import emit, emit_rows

COLUMNS = (
    *("run", "verdict", "phase", "evidence", "perturbed", "units", "step_ms"),
    *("compute", "transfer", "wait", "unsplit", "memcpy", "idle", "unresolved"),
)
_QUERY = """
SELECT phase, evidence, coalesce(any_value(perturbed_by), '-') AS perturbed, count(*) AS units,
  round(avg(window_ns) / 1e6, 3) AS step_ms,
  round(sum(compute_ns) / sum(window_ns), 4) AS compute,
  round(sum(comm_transfer_ns) / sum(window_ns), 4) AS transfer,
  round(sum(comm_wait_ns) / sum(window_ns), 4) AS wait,
  round(sum(comm_unsplit_ns) / sum(window_ns), 4) AS unsplit,
  round(sum(memcpy_ns) / sum(window_ns), 4) AS memcpy,
  round(sum(idle_ns) / sum(window_ns), 4) AS idle,
  round(sum(unresolved_ns) / sum(window_ns), 4) AS unresolved
FROM step_breakdown_all
WHERE NOT coalesce(warmup, false) AND window_ns > 0
GROUP BY phase, evidence, perturbed_by IS NOT NULL
ORDER BY phase, evidence, perturbed
"""


def report_split(folder: Path, style: str) -> None:
    """One table: a row a run, phase and evidence, shares of the units' windows."""
    from harness.split import split_runs

    rows: list[Sequence[Any]] = []
    for label, run in split_runs(folder):
        data = run.read()
        rows += [(label, data.get("verdict"), *row) for row in _rows(run.database)] or [
            (label, data.get("verdict"), *([None] * (len(COLUMNS) - 2)))
        ]
    if style == "table":
        emit(f"{folder.name}: the same configuration, a run for each kind of evidence\n")
    emit_rows(COLUMNS, rows, style)
    if style == "table":
        emit("\nShares of the units' windows, warm-up left out. Perturbed rows are slower than the")
        emit("work itself: compare shares of kernels there, and lengths in the other rows.")


def _rows(database: Path) -> list[tuple[Any, ...]]:
    from harness_analysis.store import open_database

    if not database.is_file():
        return []
    with open_database(database) as con:
        return con.execute(_QUERY).fetchall()
