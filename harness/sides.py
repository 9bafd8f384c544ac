"""Names on the command line to runs: a run, a database, a glob, or a folder of runs (a sweep)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.runs import find_databases, list_runs
from harness_analysis.compare import RunData, load_run
from harness_schemas.errors import UsageError
from harness_schemas.rundir import RunDir

Say = Callable[[str], None]


def named_databases(name: str) -> list[Path]:
    """Databases that a name stands for.

    Raises:
        UsageError: none, or the run has no database yet.
    """
    if is_folder_of_runs(Path(name)):
        found = [run.database for run, _ in list_runs(Path(name)) if run.database.is_file()]
        if not found:
            raise UsageError(f"no run in {name} has a database yet", "`harness ingest` makes them")
        return found
    # A glob may find a run twice, by its folder and by the link `latest`.
    return list({path.resolve(): path for path in find_databases([name])}.values())


def is_folder_of_runs(path: Path) -> bool:
    """Whether a folder holds runs instead of being one."""
    if not path.is_dir():
        return False
    run = RunDir(path)
    return not (run.run_json.is_file() or run.database.is_file()) and any(list_runs(path))


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
