"""`harness ingest`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from harness.cli.options import refuse_given
from harness.cli.output import emit


@click.command(
    "ingest",
    epilog="Examples: `harness ingest runs/latest`; `harness ingest traces/ logs/ -o job.duckdb`; "
    "`srun harness ingest --parquet DIR --share slurm RUN`, then `harness ingest DIR -o FILE`",
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
@click.option(
    "--parquet",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write Parquet files there instead, to be read by `harness ingest` of that folder.",
)
@click.option(
    "--share",
    default="1/1",
    metavar="K/N",
    help="With --parquet: the part of the evidence to write, as in 3/8; `slurm`: this task's.",
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Rules of your own for what a kernel is (TOML, docs/classification.md), asked first.",
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
def command(
    paths: tuple[Path, ...],
    output: Path | None,
    jobs: int | None,
    folder: Path | None,
    share: str,
    rules: Path | None,
    force: bool,
) -> int:
    """Read the evidence under PATHS and write one DuckDB file; prints its path.

    Evidence is recognised by content: run folders, traces, reports, logs. Repeatable: a run's
    own database is always built anew.
    """
    from harness.ingest import store_share, use_rules
    from harness.ingest.parquet import Share
    from harness.ingest.progress import watch_on
    from harness.runs import find_run

    if folder is None:
        refuse_given({"share": "--share"}, "--parquet DIR")
    elif output is not None:
        raise click.UsageError("--parquet writes a folder, -o a file: give one of them")
    if rules is not None:
        use_rules(rules)
    found = [path if path.exists() else find_run(str(path)) for path in paths]
    with _tidy_end():
        if folder is not None:
            emit(str(store_share(found, folder, Share.parse(share), watch_on())))
        else:
            emit(str(_build(found, output, jobs, force)))
    return 0


def _build(found: list[Path], output: Path | None, jobs: int | None, force: bool) -> Path:
    from harness.ingest import ingest_paths, ingest_run, ingest_stored
    from harness.ingest.progress import watch_on
    from harness_schemas.errors import UsageError
    from harness_schemas.parquet import is_parquet_set
    from harness_schemas.rundir import RunDir

    if output is None:
        if len(found) == 1 and RunDir(found[0]).run_json.is_file():
            return ingest_run(RunDir(found[0]), jobs, watch_on())
        raise UsageError("name the file to write with -o", "only a run folder has its own database")
    if output.exists() and not force:
        raise UsageError(f"{output} exists", "replace it with -f, or name another with -o")
    if not output.parent.is_dir():
        raise UsageError(f"no folder {output.parent}", "make it, or name another place with -o")
    if len(found) == 1 and is_parquet_set(found[0]):
        return ingest_stored(found[0], output, watch_on())
    return ingest_paths(found, output, jobs, watch_on())


@contextlib.contextmanager
def _tidy_end() -> Iterator[None]:
    """Let SIGTERM, as of scancel, leave as Ctrl-C does: nothing half, no process behind."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
