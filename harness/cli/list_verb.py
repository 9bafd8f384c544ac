"""`harness list`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import format_options
from harness.cli.output import emit_rows

if TYPE_CHECKING:
    from harness_schemas.rundir import RunDir

COLUMNS = (
    *("run", "started", "status", "verdict", "tp", "pp", "device"),
    *("sweep", "cell", "repeat", "database"),
)


@click.command("list", epilog="Example: `harness list runs/ --json`")
@click.argument("root", required=False, type=click.Path(path_type=Path))
@click.option("--collectors", is_flag=True, help="List the collectors instead.")
@format_options
def command(root: Path | None, collectors: bool, style: str) -> int:
    """List the runs under ROOT (default: runs/), oldest first."""
    if collectors:
        from harness.registry import all_collectors

        rows: list[tuple[Any, ...]] = []
        for collector in all_collectors():
            answer = collector.check("cpu")
            state = "available" if answer.available else "unavailable"
            rows.append((collector.name, collector.title, state, answer.reason or None))
        emit_rows(("collector", "evidence", "state", "reason"), rows, style)
        return 0
    from harness.runs.folders import list_runs, runs_root
    from harness_schemas.errors import UsageError

    if root is not None and not root.is_dir():
        raise UsageError(f"no folder {root}", "name a folder that holds run folders")
    if root is not None and (root / "run.json").is_file():
        raise UsageError(f"{root} is a run, not a folder of runs", f"`harness report {root}`")
    found = []
    for run, data in list_runs(root or runs_root()):
        parallel = (data.get("spec") or {}).get("parallel") or {}
        started = data.get("started_ns")
        found.append(
            (
                _name(run),
                _when(started),
                data.get("status"),
                data.get("verdict"),
                parallel.get("tp"),
                parallel.get("pp"),
                data.get("device"),
                data.get("sweep_id"),
                data.get("cell"),
                data.get("repeat"),
                run.database.is_file(),
            )
        )
    emit_rows(COLUMNS, found, style)
    return 0


def _name(run: RunDir) -> str:
    """The folder's name; of an array's task, which many arrays have, with the array's before it."""
    own = run.run_id
    return f"{run.path.parent.name}/{own}" if own.startswith("task-") else own


def _when(started_ns: Any) -> str | None:
    if not isinstance(started_ns, int):
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started_ns / 1e9))
