"""The catalogue of a folder of runs: found, and brought up to date, by whoever asks."""

from __future__ import annotations

import contextlib
from pathlib import Path

from harness.progress import Narrator
from harness.runs.folders import CATALOGUE, list_runs
from harness_analysis.catalogue import Entry, refresh_catalogue

WORTH_SAYING = 20
"""Of so many new runs, reading takes long enough to be narrated."""


def open_catalogue(root: Path, narrator: Narrator | None = None) -> Path:
    """The catalogue of the runs under `root`, up to date; returns its path."""
    entries = []
    for run, data in list_runs(root):
        database = run.database if run.database.is_file() else None
        folder = run.path.absolute()
        entries.append(Entry(run.run_id, folder, data, database, _stamp(run.run_json, database)))

    def tell(read: int, total: int) -> None:
        if narrator is not None and total > WORTH_SAYING:
            narrator.status(f"catalogue: {read} of {total} new runs")

    with contextlib.suppress(OSError):  # then it is made elsewhere
        root.mkdir(parents=True, exist_ok=True)
    return refresh_catalogue(root / CATALOGUE, entries, tell)


def _stamp(*paths: Path | None) -> str:
    """By what a change of the files is noticed: sizes and times of modification."""
    stats = [path.stat() for path in paths if path is not None]
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
