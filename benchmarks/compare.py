"""Comparing two runs of 64 ranks x 1,000 steps: `python benchmarks/compare.py`.

Makes two synthetic runs (the spools of benchmarks/ingest.py, 10 million spans in all), ingests
them, and measures `harness compare` as a user starts it, in processes of their own: seconds and
peak memory of the text, and of the text with the HTML page, as a Markdown table. `--keep FOLDER`
keeps the databases and takes them up again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ingest

from harness.ingest import ingest_run
from harness_schemas.rundir import RunDir

HARNESS = [sys.executable, "-m", "harness", "compare"]


@contextlib.contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """A folder that is kept, or one that is not."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="harness-compare-") as name:
        yield Path(name)


def make_run(folder: Path, steps: int, shape: ingest.Shape) -> Path:
    """The database of a synthetic run."""
    run = RunDir(folder)
    if run.database.is_file():
        return run.database
    run.spans.mkdir(parents=True, exist_ok=True)
    run.run_json.write_text(json.dumps({"name": folder.name, "device": "cpu"}))
    for rank in range(shape.ranks):
        ingest.write_rank(run.spans, rank, steps, shape)
    database = ingest_run(run)
    shutil.rmtree(run.spans)
    return database


def made_elsewhere(folder: Path, steps: int, shape: ingest.Shape) -> str:
    """The same, made by another process: the peak memory that Linux tells of a process includes
    that of the one which started it."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return str(pool.submit(make_run, folder, steps, shape).result())


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MiB of a command that must succeed."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--spans", type=int, default=10_000_000, help="of both runs together")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    each = 2 * (options.spans // (2 * options.ranks * options.steps) // 2)
    with work_folder(options.keep) as folder:
        runs = [
            made_elsewhere(folder / name, options.steps, ingest.Shape(options.ranks, 2, each, seed))
            for seed, name in enumerate(("before", "after"))
        ]
        page = folder / "compare.html"
        print("| ranks | steps | spans in all | answer | s | CPU s | peak MiB |")
        print("|---:|---:|---:|---|---:|---:|---:|")
        spans = 2 * options.ranks * options.steps * (each + 1)
        for what, more in (("text", []), ("text and page", ["--html", str(page)])):
            seconds, cpu, peak = measured([*HARNESS, *runs, *more])
            row = f"| {options.ranks} | {options.steps:,} | {spans:,} | {what} "
            print(f"{row}| {seconds:.2f} | {cpu:.2f} | {peak:,.0f} |", flush=True)
        print(f"\n(page: {page.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    main()
