"""Folders of runs: where they are, what is in them, and what else lies there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness_schemas.rundir import RunDir
from harness_slurm.job.marks import JobRecord

DEFAULT_ROOT = "runs"
CATALOGUE = "catalogue.duckdb"
"""What is remembered of all runs of a folder; as a run's name: `catalogue`."""
SWEEP_JSON = "sweep.json"
"""What makes a folder of runs a sweep."""
SPLIT_JSON = "split.json"
"""What makes a folder of runs the parts of one specification (harness/split.py)."""


def runs_root() -> Path:
    """Where runs are looked for: HARNESS_OUTPUT, else ./runs."""
    return Path(os.environ.get("HARNESS_OUTPUT", DEFAULT_ROOT))


def list_runs(root: Path, deep: bool = True) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """Run folders under `root` (two levels where `deep`: sweeps hold runs), oldest first."""
    below = root.glob("*/*/run.json") if deep else ()
    for path in sorted([*root.glob("*/run.json"), *below]):
        if _through_link(path, root):
            continue
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError):
            data = {}
        data = data if isinstance(data, dict) else {}
        if data.get("job_id") is None and (record := JobRecord.read(RunDir(path.parent))):
            data["job_id"] = record.job_id
        yield RunDir(path.parent), data


def _through_link(path: Path, root: Path) -> bool:
    """`latest` names a run a second time; links above `root` are the user's own affair."""
    below = (folder for folder in path.parents if folder != root and folder.is_relative_to(root))
    return any(folder.is_symlink() for folder in below)
