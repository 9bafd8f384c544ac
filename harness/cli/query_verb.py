"""`harness query`."""

from __future__ import annotations

import click

from harness.cli.output import emit_rows, format_options


@click.command(
    "query",
    epilog='Example: `harness query latest "SELECT rank, step, comm_wait_ns FROM step_breakdown"`',
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN... SQL")
@format_options
def command(runs: tuple[str, ...], style: str) -> int:
    """Run SQL over one run, or over several at once (`'runs/sweep-7/*'`).

    Over several runs every table and view holds the rows of all of them, told apart by run_id.
    `harness schema` lists tables, views and columns. The database is read-only.
    """
    from harness.runs import find_databases
    from harness_analysis.query import query_runs

    *names, sql = runs
    result = query_runs(find_databases(names or ["latest"]), sql)
    emit_rows(result.columns, result.rows, style)
    return 0
