"""Ingest of a run of many ranks through Parquet: `python benchmarks/scale.py`.

Simulates runs of 128 to 1,024 ranks (TP=8, 500 steps, half of the spans all-reduces), writes
each in shares of 128 ranks as its nodes would (`harness ingest --parquet DIR --share K/N`, a
process each), builds the database over them, asks it one question, and prints time and memory
per million spans as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ingest import Shape, write_rank

RANKS_A_SHARE = 128
QUESTION = "SELECT count(*), sum(comm_wait_ns) FROM step_breakdown"

HEADS = (
    "ranks",
    "spans",
    "shares",
    "share CPU s/M",
    "share peak MiB",
    "build CPU s/M",
    "build s/M",
    "build peak MiB",
    "question s",
    "Parquet MiB/M",
    "database MiB/M",
)
"""s/M and MiB/M: a million spans."""


def timed(*request: str) -> dict[str, float]:
    """Do one thing in a process of its own; seconds and peak MiB."""
    command = [sys.executable, __file__, "--do", *request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def do(what: str, *names: str) -> None:
    """What a process of its own does; prints its cost."""
    from harness.ingest import Share, ingest_stored, store_share
    from harness_analysis.query import query_runs

    paths = [Path(name) for name in names[:2]]
    begin = time.perf_counter()
    rows = None
    if what == "share":
        store_share([paths[0]], paths[1], Share.parse(names[2]))
    elif what == "build":
        ingest_stored(paths[0], paths[1])
    else:
        rows = query_runs([paths[0]], QUESTION).results[0].rows[0][0]
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(json.dumps({"s": seconds, "cpu": cpu, "peak": peak, "rows": rows}))


def simulate(folder: Path, shape: Shape, steps: int) -> int:
    """Write the run's spools; returns the number of spans."""
    (folder / "spans").mkdir(parents=True)
    (folder / "run.json").write_text('{"name": "scale", "device": "cpu"}')
    for rank in range(shape.ranks):
        write_rank(folder / "spans", rank, steps, shape)
    return shape.ranks * steps * (shape.spans_a_step + 1)


def measure(root: Path, shape: Shape, steps: int) -> str:
    """One row of the table."""
    run, parquet, database = root / "run", root / "parquet", root / "run.duckdb"
    spans = simulate(run, shape, steps)
    shares = max(1, shape.ranks // RANKS_A_SHARE)
    wrote = [
        timed("share", str(run), str(parquet), f"{number + 1}/{shares}") for number in range(shares)
    ]
    shutil.rmtree(run)
    built = timed("build", str(parquet), str(database))
    asked = timed("ask", str(database))
    assert asked["rows"] == shape.ranks * steps
    million = spans / 1e6
    stored = sum(path.stat().st_size for path in parquet.rglob("*.parquet")) / 2**20
    size = database.stat().st_size / 2**20
    share_cpu, share_peak = sum(each["cpu"] for each in wrote), max(each["peak"] for each in wrote)
    cells = (
        f"{shape.ranks:,}",
        f"{spans:,}",
        f"{shares}",
        f"{share_cpu / million:.2f}",
        f"{share_peak:,.0f}",
        f"{built['cpu'] / million:.2f}",
        f"{built['s'] / million:.2f}",
        f"{built['peak']:,.0f}",
        f"{asked['s']:.2f}",
        f"{stored / million:.1f}",
        f"{size / million:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", default="128,256,512,1024")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--spans", type=int, default=16, help="Spans a step and rank.")
    parser.add_argument("--folder", type=Path, help="Where to write; default: TMPDIR.")
    parser.add_argument("--do", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        do(*given.do)
        return
    print("| " + " | ".join(HEADS) + " |")
    print("|---:" * len(HEADS) + "|")
    for text in given.ranks.split(","):
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            shape = Shape(int(text), min(8, int(text)), given.spans)
            print(measure(Path(name), shape, given.steps), flush=True)


if __name__ == "__main__":
    main()
