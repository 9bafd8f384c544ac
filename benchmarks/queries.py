"""What a view costs a span, from 1 to 50 million spans: `python benchmarks/queries.py`.

Ingests a run of 64 ranks (TP=8, 100 steps of 161 spans: a million), then lets the database grow by
copies of its ranks, and asks every view for all of its rows and columns, and the whole answer
(`harness report`) as text and as a page. Prints CPU seconds per million spans as a Markdown table,
the best of two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from ingest import Shape, write_rank

from harness.ingest import ingest_run
from harness_analysis.store import open_database
from harness_analysis.views import load_views
from harness_schemas.rundir import RunDir

SHAPE = Shape(ranks=64, tp=8)
STEPS = 100
REPEATS = 2
SPANS = SHAPE.ranks * STEPS * (SHAPE.spans_a_step + 1)
COPIED = (
    *("ranks", "spans", "collectives", "collective_instances"),
    *("unit_breakdown", "straggler_causes"),
)
HARNESS = (sys.executable, "-m", "harness", "report")


def first_run(folder: Path) -> Path:
    """The database of the run that the others are made of."""
    run = RunDir(folder)
    run.spans.mkdir(parents=True)
    spec = {"parallel": {"tp": SHAPE.tp, "pp": SHAPE.ranks // SHAPE.tp}}
    run.run_json.write_text(json.dumps({"name": "queries", "device": "cpu", "spec": spec}))
    for rank in range(SHAPE.ranks):
        write_rank(run.spans, rank, STEPS, SHAPE)
    return ingest_run(run)


def grow(database: Path, present: int, wanted: int) -> None:
    """Copies of the first ranks, until there are `wanted` times as many."""
    with duckdb.connect(str(database)) as con:
        for copy in range(present, wanted):
            con.execute("BEGIN")
            for table in COPIED:
                con.execute(f"INSERT INTO {table} {_copied(con, table, copy)}")
            con.execute("COMMIT")


def _copied(con: duckdb.DuckDBPyConnection, table: str, copy: int) -> str:
    columns = [row[0] for row in con.execute(f"DESCRIBE {table}").fetchall()]
    changes = {
        "rank": f"rank + {copy * SHAPE.ranks}",
        "last_arriver": f"last_arriver + {copy * SHAPE.ranks}",
        "comm_group": f"comm_group || '+{copy}'",
    }
    changed = ", ".join(f"{changes[name]} AS {name}" for name in columns if name in changes)
    first = f"rank < {SHAPE.ranks}" if "rank" in columns else "comm_group NOT LIKE '%+%'"
    return f"SELECT * REPLACE ({changed}) FROM {table} WHERE {first}"


def ask(database: Path) -> None:
    """Ask every view for all that is in it; prints CPU seconds by view, the best of some tries."""
    found = {}
    with open_database(database) as con:
        for view in load_views():
            question = f"SELECT count(*), bit_xor(hash(v)) FROM {view.name} v"
            found[view.name] = min(cpu_of(con, question) for _ in range(REPEATS))
    print(json.dumps(found))


def cpu_of(con: duckdb.DuckDBPyConnection, question: str) -> float:
    """CPU seconds of one question."""
    begin = time.process_time()
    con.execute(question).fetchall()
    return time.process_time() - begin


def timed(*command: str) -> tuple[float, str]:
    """CPU seconds of a process that must succeed, and what it printed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, said


def measure(database: Path) -> dict[str, float]:
    """CPU seconds of every question."""
    found: dict[str, float] = json.loads(timed(sys.executable, __file__, "--ask", str(database))[1])
    page = str(database.with_suffix(".html"))
    for name, more in (("harness report", ()), ("harness report --html", ("--html", "-o", page))):
        found[name] = min(timed(*HARNESS, str(database), *more)[0] for _ in range(REPEATS))
    return found


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", default="1,3,10,30,50", help="Sizes, in millions of spans.")
    parser.add_argument("--folder", type=Path, help="Where to write; default: TMPDIR.")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        ask(given.ask)
        return
    sizes = [int(text) for text in given.copies.split(",")]
    table: dict[int, dict[str, float]] = {}
    if given.folder:
        Path(given.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        database = first_run(Path(name) / "run")
        present = 1
        for size in sizes:
            grow(database, present, size)
            present = size
            table[size] = measure(database)
            print(size, json.dumps(table[size]), file=sys.stderr, flush=True)
    heads = ["CPU seconds a million spans", *(f"{size * SPANS / 1e6:.0f} M" for size in sizes)]
    print("| " + " | ".join(heads) + " |")
    print("|---" + "|---:" * len(sizes) + "|")
    for question in table[sizes[0]]:
        cells = [f"{table[size][question] / (size * SPANS / 1e6):.3f}" for size in sizes]
        print(f"| {question} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
