"""`harness status`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import format_options
from harness.cli.output import emit, emit_sections

if TYPE_CHECKING:
    from harness.sections import Section
    from harness.status.snapshot import Snapshot
    from harness_schemas.rundir import RunDir

HANG_SECONDS = 30.0
CLEAR = "\x1b[H\x1b[2J"


@click.command(
    "status", epilog="Examples: `harness status`; `harness status 4711 --watch 5`; `--json`"
)
@click.argument("run", default="latest")
@click.option(
    "--hang-after",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Call it a hang when no rank recorded anything for so long; default: the run's own "
    f"--hang-timeout, else {HANG_SECONDS:.0f}.",
)
@click.option(
    "--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Look again every so often."
)
@format_options
def command(run: str, hang_after: float | None, watch: float | None, style: str) -> int:
    """What RUN (folder, id, Slurm job, `latest`) is doing now: whether it hangs, where, on whom.

    Reads the files that the ranks write, and asks nobody: no controller, no rank. Returns 1 when
    the run hangs, else 0.
    """
    folder = _folder(run)
    while True:
        now = _look(folder, hang_after)
        text = "" if watch is None or not sys.stdout.isatty() else CLEAR
        _show(now, style, text)
        if watch is None or now.over:
            return 1 if now.diagnosis.hangs and not now.over else 0
        time.sleep(watch)


def _folder(name: str) -> RunDir:
    """The run; of a sweep or a job array the one that runs.

    Raises:
        UsageError: no such run.
    """
    from harness.runs import find_run
    from harness.status.collectors import latest_folder
    from harness_schemas.errors import UsageError
    from harness_schemas.rundir import RunDir

    path = find_run(name)
    if path.is_file():
        raise UsageError(f"{path} is a file", "name the run's folder: status reads what it holds")
    below = None if any((path / "spans").glob("rank-*")) else latest_folder(path)
    run = RunDir(Path(below or path))
    if not run.run_json.is_file() and not run.spans.is_dir():
        raise UsageError(
            f"{path} is no run folder: it holds neither run.json nor spans/",
            "`harness list` shows the runs",
        )
    return run


def _look(run: RunDir, hang_after: float | None) -> Snapshot:
    from harness.status.snapshot import planned_limit_ns, take_snapshot

    limit = None if hang_after is None else round(hang_after * 1e9)
    return take_snapshot(run, limit or planned_limit_ns(run) or round(HANG_SECONDS * 1e9))


def _show(now: Snapshot, style: str, before: str) -> None:
    from harness.status import tables
    from harness.status.collectors import read_collectors
    from harness.status.hang_report import read_report
    from harness.status.headline import facts, headline
    from harness.status.progress import read_progress

    machine = style in ("json", "csv")
    progress = None if now.over else read_progress(now.run, now.ranks, now.now_ns)
    report = read_report(now.run)
    lines = headline(now, progress, report)
    collectors = read_collectors(now.run, now.data, now.ranks, now.over)
    sections = [
        tables.call_section(now, machine),
        tables.rank_section(now, machine),
        tables.stack_section(report, machine),
        tables.group_section(now, machine),
        tables.collector_section(collectors, now, machine),
    ]
    if machine:
        emit_sections([tables.state_section(now, progress, lines), *sections], style)
        return
    emit(before + "\n".join([*_wrapped(lines), f"  {now.run.run_id}", facts(now)]))
    if worth := _worth(sections):
        emit("")
        emit_sections(worth, style)


def _wrapped(lines: list[str]) -> list[str]:
    """The first line whole, since it is what one greps for; the others at the width of a page."""
    from harness.cli.printing.rows import printable, wrap_lines

    return [printable(lines[0]), *(part for line in lines[1:] for part in wrap_lines(line.strip()))]


def _worth(sections: list[Section]) -> list[Section]:
    """Tables with rows; what was pending is also said of a run that has ended."""
    return [section for section in sections if section.rows]
