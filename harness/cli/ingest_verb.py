"""`harness ingest`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import emit


@click.command(
    "ingest",
    epilog="Examples: `harness ingest runs/latest`; `harness ingest traces/ logs/ -o job.duckdb`",
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; default for a run: its own.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that read evidence; default: the cores at hand.",
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
def command(paths: tuple[Path, ...], output: Path | None, jobs: int | None, force: bool) -> int:
    """Read the evidence under PATHS and write one DuckDB file; prints its path.

    Evidence is recognised by content: run folders, traces, reports, logs. Repeatable: a run's
    own database is always built anew.
    """
    from harness.ingest import ingest_paths, ingest_run
    from harness.ingest.progress import watch_on
    from harness.runs import find_run
    from harness_schemas.errors import UsageError
    from harness_schemas.rundir import RunDir

    found = [path if path.exists() else find_run(str(path)) for path in paths]
    if output is None:
        if len(found) == 1 and RunDir(found[0]).run_json.is_file():
            emit(str(ingest_run(RunDir(found[0]), jobs, watch_on())))
            return 0
        raise UsageError("name the file to write with -o", "only a run folder has its own database")
    if output.exists() and not force:
        raise UsageError(f"{output} exists", "replace it with -f, or name another with -o")
    emit(str(ingest_paths(found, output, jobs, watch_on())))
    return 0
