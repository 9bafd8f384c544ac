"""The page and the exports of a large run: `python benchmarks/report.py`.

64 ranks x 1,000 steps x 161 spans (the generator of benchmarks/ingest.py), ingested once; then in
fresh processes the HTML page and the exports, and the page opened in headless Chromium (needs
chromium and chromedriver). Prints a Markdown table. `--database` measures one that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ingest

TESTS = Path(__file__).parents[1] / "tests"
WORK = {
    "HTML page": "report.html",
    "Chrome JSON, gzip": "trace.json.gz",
    "Chrome JSON": "trace.json",
    "OTLP": "spans.jsonl",
    "Parquet": "tables",
}


def make_database(folder: Path, ranks: int, steps: int) -> Path:
    """A synthetic run, ingested."""
    from harness.ingest import ingest_run
    from harness_schemas.rundir import RunDir

    shape = ingest.Shape(ranks=ranks, tp=min(8, ranks))
    (folder / "spans").mkdir(parents=True)
    (folder / "run.json").write_text('{"name": "bench", "device": "cpu"}')
    for rank in range(ranks):
        ingest.write_rank(folder / "spans", rank, steps, shape)
    return ingest_run(RunDir(folder))


def measure(what: str, database: Path, target: Path) -> dict[str, float]:
    """Seconds, peak memory and size of one kind of output, in this process."""
    from harness_analysis.export import write_chrome, write_otlp, write_tables
    from harness_analysis.report import write_report
    from harness_analysis.store import open_database

    begin = time.perf_counter()
    with open_database(database) as con:
        if what == "HTML page":
            write_report(con, target)
        elif what == "OTLP":
            write_otlp(con, target)
        elif what == "Parquet":
            write_tables(con, target, "parquet")
        else:
            write_chrome(con, target)
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    files = target.iterdir() if target.is_dir() else [target]
    return {
        "s": seconds,
        "cpu": cpu,
        "peak_mib": peak,
        "mb": sum(f.stat().st_size for f in files) / 1e6,
    }


def open_page(page: Path) -> None:
    """Print how long the page takes in a browser: until it answers with all that one sees drawn,
    and until one has scrolled past every chart."""
    sys.path.insert(0, str(TESTS))
    from browser import CHROMIUM, DRIVER, open_browser

    if not (CHROMIUM and DRIVER):
        print("\nChromium is absent: the page was not opened.")
        return
    print("\n| viewport | interactive s | scrolled through s | heap MB |\n|---|---:|---:|---:|")
    with open_browser() as browser:
        for width, mobile in ((1200, False), (390, True)):
            browser.look_as(width, 900, mobile=mobile)
            browser.open(page, everything=False)
            ready = browser.evaluate("performance.getEntriesByName('ready')[0].startTime")
            begin = time.perf_counter()
            browser.draw_everything()
            through = time.perf_counter() - begin
            heap = browser.evaluate("performance.memory.usedJSHeapSize") / 1e6
            row = f"{width} px | {ready / 1e3:.2f} | {through:.2f} | {heap:.0f}"
            print(f"| {row} |", flush=True)


def run_all(database: Path, folder: Path) -> None:
    """Measure everything and print the tables."""
    print("| what | s | CPU s | peak MiB | MB |\n|---|---:|---:|---:|---:|", flush=True)
    for what, name in WORK.items():
        command = [sys.executable, __file__, "--measure", what, "--database", str(database)]
        environment = {**os.environ, "HARNESS_BENCH_TARGET": str(folder / name)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        got = json.loads(done.stdout)
        row = (
            f"{what} | {got['s']:.1f} | {got['cpu']:.1f} | {got['peak_mib']:.0f} | {got['mb']:.1f}"
        )
        print(f"| {row} |", flush=True)
        if what == "Chrome JSON":
            (folder / name).unlink()
    open_page(folder / "report.html")


def main() -> None:
    """Make the run where none is given, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--database", type=Path)
    parser.add_argument("--measure")
    given = parser.parse_args()
    if given.measure:
        target = Path(os.environ["HARNESS_BENCH_TARGET"])
        print(json.dumps(measure(given.measure, given.database, target)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = given.database or make_database(folder / "run", given.ranks, given.steps)
        run_all(database, folder)


if __name__ == "__main__":
    main()
