"""Where did every microsecond of every decode step go, on every rank?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harness.notebook import Run

__version__ = "0.1.0"


def open_run(*runs: str | Path) -> Run:
    """Open a run, or several as one, to ask it in SQL; without a name the latest.

    `harness.open_run("latest").sql("FROM stragglers").pandas()`. A run is named by its folder,
    its database, its id, Slurm job id, a wildcard, or `latest`.

    Raises:
        UsageError: no such run, or it has no database yet.
        EvidenceError: a file is no database.
    """
    from harness.notebook import open_runs

    return open_runs(runs or ("latest",))
