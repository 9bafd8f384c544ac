"""How long `harness explain` takes on large runs: `python benchmarks/explain.py`.

Breakdowns of random windows are written straight into a database, with its views.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import duckdb

from harness_analysis.build.database import build_database
from harness_analysis.explain import explain
from harness_analysis.store import open_database

STEPS = 1_000
ROWS = """
INSERT INTO unit_breakdown BY NAME
SELECT 'large' AS run_id, rank, 0 AS batch, 0 AS microbatch, 0 AS repeat, 'decode' AS phase, step,
  false AS warmup, 'device' AS timeline, 'nsys' AS evidence, step * 2000000 AS start_ns,
  compute + wait + 200000 AS window_ns, compute AS compute_ns, wait AS comm_wait_ns,
  100000 AS comm_transfer_ns, 100000 AS idle_ns, true AS complete
FROM (SELECT rank, step, 500000 + (hash(rank, step) % 100000)::BIGINT AS compute,
    (hash(step, rank, 1) % 300000)::BIGINT AS wait
  FROM range({ranks}) r(rank), range(1, {steps} + 1) s(step))
"""


def measure(ranks: int, folder: Path) -> float:
    """Seconds to explain the ten slowest of `STEPS` steps of so many ranks."""
    path = folder / f"{ranks}.duckdb"
    build_database(path, "large", {"name": "large"}, [])
    with duckdb.connect(str(path)) as con:
        con.execute(ROWS.format(ranks=ranks, steps=STEPS))
    with open_database(path) as con:
        began = time.perf_counter()
        found = explain(con, 10)
        assert len(found.units) == 10
        return time.perf_counter() - began


def main() -> None:
    """Print a table."""
    print("| ranks | steps | units | seconds |\n|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for ranks in (8, 64, 512):
            seconds = measure(ranks, Path(folder))
            print(f"| {ranks} | {STEPS:,} | {ranks * STEPS:,} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
