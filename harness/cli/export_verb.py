"""`harness export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import refuse_given
from harness.cli.output import emit

if TYPE_CHECKING:
    import duckdb

SUGGESTED = {
    "chrome": "trace.json.gz",
    "otlp": "spans.jsonl",
    "parquet": "tables/",
    "csv": "tables/",
}
"""A name for what each format writes."""
FORMATS = tuple(SUGGESTED)
ONLY = {
    "ranks": ("--rank", ("chrome",)),
    "steps": ("--steps", ("chrome",)),
    "tables": ("--table", ("parquet", "csv")),
    "endpoint": ("--endpoint", ("otlp",)),
}
"""Options that some formats have not."""


@click.command(
    "export",
    epilog="Examples: `harness export latest --format chrome -o trace.json.gz`; "
    "`harness export latest --format parquet -o tables/`",
)
@click.argument("run", default="latest", metavar="[RUN]")
@click.option("--format", "style", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File (chrome, otlp; gzip where it ends in .gz) or folder (parquet, csv; a file for one "
    "--table where the name ends so).",
)
@click.option(
    "--rank", "ranks", type=int, multiple=True, help="chrome: only this rank; repeatable."
)
@click.option("--steps", metavar="A:B", help="chrome: only units of steps A to B.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME",
    help="parquet, csv: only this table or view.",
)
@click.option("--endpoint", metavar="URL", help="otlp: send to a receiver instead of a file.")
def command(
    run: str,
    style: str,
    output: Path | None,
    ranks: tuple[int, ...],
    steps: str | None,
    tables: tuple[str, ...],
    endpoint: str | None,
) -> int:
    """Write RUN in another tool's format; prints what was made.

    chrome: a timeline for Perfetto (ui.perfetto.dev opens it), one process a rank. otlp: run,
    requests and units as OpenTelemetry spans, a JSON line each. parquet, csv: a file a table.
    """
    from harness.runs import find_databases
    from harness_analysis.store import open_database
    from harness_schemas.errors import UsageError

    for parameter, (option, formats) in ONLY.items():
        if style not in formats:
            refuse_given({parameter: option}, f"--format {' or '.join(formats)}")
    if endpoint is not None and output is not None:
        raise click.UsageError("--endpoint sends, -o writes: give one of them")
    if output is None and endpoint is None:
        raise UsageError("name what to write with -o", f"as in -o {SUGGESTED[style]}")
    (database,) = find_databases([run])[:1]
    with open_database(database) as con:
        if endpoint is not None:
            from harness_analysis.export import send_otlp

            emit(f"{send_otlp(con, endpoint)} spans sent to {endpoint}")
        elif output is not None:
            for path in _write(con, style, output, (ranks, steps), tables):
                emit(str(path))
    return 0


def _write(
    con: duckdb.DuckDBPyConnection,
    style: str,
    output: Path,
    chosen: tuple[tuple[int, ...], str | None],
    tables: tuple[str, ...],
) -> list[Path]:
    from harness_analysis.export import Selection, write_chrome, write_otlp, write_tables

    if style == "chrome":
        write_chrome(con, output, Selection(chosen[0], _range(chosen[1])))
        return [output]
    if style == "otlp":
        write_otlp(con, output)
        return [output]
    return write_tables(con, output, style, tables)


def _range(text: str | None) -> tuple[int, int] | None:
    """`10:20` -> (10, 20); `7` -> (7, 7)."""
    from harness_schemas.errors import UsageError

    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not first.isdigit() or (colon and not last.isdigit()):
        raise UsageError(f"--steps {text!r} is no range of steps", "such as 10:20")
    return int(first), int(last if colon else first)
