"""`harness report`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import HTML, check_ending, format_options
from harness.cli.output import emit, emit_sections

if TYPE_CHECKING:
    import duckdb

MARKDOWN = ".md"


@click.command("report", epilog="Example: `harness report latest --html`")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--html", is_flag=True, help="Write the report as one self-contained HTML page.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The page's file; default: in the run."
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Write each rank's communication time, and who caused it, as an SVG.",
)
@click.option(
    "--baseline",
    metavar="RUN",
    help="A run of the same work: its measured step stands beside the predicted one.",
)
@format_options
def command(
    runs: tuple[str, ...],
    html: bool,
    output: Path | None,
    picture: Path | None,
    baseline: str | None,
    style: str,
) -> int:
    """Print the answer of RUN; with --html write it as a page and print the page's path.

    RUN is `latest` if not given. Of a sweep, of several runs or sweeps, or of a wildcard, scaling
    tables are printed, or written as a page; with -o FILE.md as a Markdown page with pictures
    beside it. Of a specification run with --split, one table: what each run's evidence says.
    """
    names = runs or ("latest",)
    check_ending("-o", output, (*HTML, MARKDOWN))
    check_ending("--picture", picture, (".svg",))
    written = html or output is not None or picture is not None
    if written and style != "table":
        raise click.UsageError(f"--{style} prints the answer: leave --html, -o and --picture out")
    if baseline is not None and not written:
        raise click.UsageError("--baseline goes with --html, -o or --picture")
    if len(names) == 1 and _report_group(names[0], style, html, output, picture):
        return 0
    from harness.planning.page import write_run_page
    from harness.runs import find_databases
    from harness_analysis.store import open_database

    database, *more = find_databases(names)
    if more:
        from harness.cli.printing.sweep import report_runs

        said = " ".join(names) if len(names) <= 3 else f"{len(names)} names"
        report_runs(said, [database, *more], style, html, output)
        return 0
    check_ending("-o", output, HTML)
    page = output or (database.with_name("report.html") if html else None)
    if page is None and picture is None:
        _print_answer(database, style)
        return 0
    with open_database(database) as con, _opened(baseline) as other:
        if page is not None:
            write_run_page(con, database, page, other)
            emit(str(page))
        if picture is not None:
            _draw(con, picture, other)
            emit(str(picture))
    return 0


def _report_group(
    name: str, style: str, html: bool, output: Path | None, picture: Path | None
) -> bool:
    """Report what is the folder of a sweep or of a split specification; whether it is one."""
    from harness.runs import find_split, find_sweep

    sweep = find_sweep(name)
    if sweep is not None:
        from harness.cli.printing.sweep import report_sweep

        report_sweep(sweep, style, html, output)
        return True
    split = find_split(name)
    if split is None or html or output is not None or picture is not None:
        return False
    from harness.cli.printing.split import report_split

    report_split(split, style)
    return True


@contextlib.contextmanager
def _opened(run: str | None) -> Iterator[duckdb.DuckDBPyConnection | None]:
    from harness.runs import find_databases
    from harness_analysis.store import open_database

    if run is None:
        yield None
        return
    (database,) = find_databases([run])[:1]
    with open_database(database) as con:
        yield con


def _draw(
    con: duckdb.DuckDBPyConnection, path: Path, baseline: duckdb.DuckDBPyConnection | None
) -> None:
    from harness_analysis.answer import load_answer
    from harness_analysis.report import write_picture
    from harness_analysis.report.numbers.blame import load_blame

    write_picture(load_blame(con, baseline), load_answer(con).run, path)


def _print_answer(database: Path, style: str) -> None:
    """The answer on stdout; as CSV or Markdown its tables one after another."""
    if style not in ("csv", "markdown"):
        emit(answer_text(database, style == "json"))
        return
    from harness.cli.printing.answer_tables import answer_sections
    from harness_analysis.answer import load_answer
    from harness_analysis.store import open_database

    with open_database(database) as con:
        emit_sections(answer_sections(load_answer(con)), style)


def answer_text(database: Path, as_json: bool = False) -> str:
    """The answer of one run as text."""
    from harness.cli.printing.answer import render_answer
    from harness_analysis.answer import load_answer
    from harness_analysis.store import open_database

    with open_database(database) as con:
        answer = load_answer(con)
    if as_json:
        import dataclasses
        import json

        return json.dumps(dataclasses.asdict(answer), indent=2, default=str)
    return render_answer(answer)
