"""Names on the command line to runs: a run, a database, a glob, or a folder of runs (a sweep)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.runs.names import find_databases
from harness_analysis.compare import RunData, load_run
from harness_schemas.rundir import RunDir

Say = Callable[[str], None]


def named_databases(name: str) -> list[Path]:
    """Databases that a name stands for, each once.

    Raises:
        UsageError: none, or the run has no database yet.
    """
    found = databases_in(Path(name)) or find_databases([name])
    # A folder may hold a run twice, by its name and by the link `latest`.
    return list({path.resolve(): path for path in found}.values())


def databases_in(folder: Path) -> list[Path]:
    """Databases of a folder that holds runs, or databases, and is no run itself."""
    run = RunDir(folder)
    if not folder.is_dir() or run.run_json.is_file() or run.database.is_file():
        return []
    return sorted(folder.glob("*/run.duckdb")) or sorted(folder.glob("*.duckdb"))


def load_named(names: Sequence[str], say: Say) -> list[tuple[str, list[RunData]]]:
    """Runs by name. Of several, those that failed are left out, which `say` is told.

    Raises:
        UsageError: a name that stands for nothing.
        EvidenceError: a file that is no run's database.
    """
    found = []
    for name in names:
        runs = [load_run(path) for path in named_databases(name)]
        if len(runs) > 1:
            for run in (run for run in runs if run.row.get("status") == "failed"):
                say(f"{run.name} failed ({run.row.get('verdict')}) and is left out")
            runs = [run for run in runs if run.row.get("status") != "failed"]
        found.append((name, runs))
    return found
