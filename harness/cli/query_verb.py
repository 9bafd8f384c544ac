"""`harness query`."""

from __future__ import annotations

import click

from harness.cli.options import format_options
from harness.cli.output import emit_rows, emit_tables


@click.command(
    "query",
    epilog='Examples: `harness query latest "SELECT rank, comm_wait_ns FROM step_breakdown"`; '
    "`harness query latest --example who-makes-others-wait`",
)
@click.argument("runs", nargs=-1, metavar="RUN... SQL")
@click.option("--example", metavar="NAME", help="Ask a question of the cookbook instead of SQL.")
@click.option("--list-examples", is_flag=True, help="List the cookbook's questions.")
@format_options
def command(runs: tuple[str, ...], example: str | None, list_examples: bool, style: str) -> int:
    """Run SQL over one run, or over several at once (`'runs/sweep-7/*'`).

    Over several runs every table and view holds the rows of all of them, told apart by run_id.
    `harness schema` lists tables, views and columns. The database is read-only. Where a query
    names what nothing was recorded of, stderr says so and why (table `can_answer`). Of several
    statements (`a; b`) every result is printed, in JSON as a list of them; CSV takes one only.
    """
    from harness.runs import find_databases
    from harness_analysis.cookbook import find_question, load_questions
    from harness_analysis.query import query_runs

    if list_examples:
        rows = [(found.name, found.question) for found in load_questions()]
        emit_rows(("example", "question"), rows, style)
        return 0
    if example is not None:
        names, sql = list(runs), find_question(example).sql
    elif runs:
        *names, sql = runs
    else:
        raise click.UsageError("name a run and a query, or --example")
    if any(map(_is_query, names)):
        raise click.UsageError(
            "--example asks its own question: leave the query out"
            if example is not None
            else "the query comes last, after the runs"
        )
    if not sql.strip() or (not names and example is None and _names_a_run(sql)):
        raise click.UsageError("the query is missing: it comes after the run, in quotes")
    answer = query_runs(find_databases(names or ["latest"]), sql)
    if style == "csv" and len(answer.results) > 1:
        raise click.UsageError(f"CSV holds one table: the query has {len(answer.results)} results")
    for line in answer.unanswered:
        click.echo(line, err=True)
    emit_tables([(result.columns, result.rows) for result in answer.results], style)
    return 0


def _is_query(word: str) -> bool:
    first, *more = word.split() or [""]
    return bool(more) and first.lower() in ("select", "from", "with", "describe", "summarize")


def _names_a_run(word: str) -> bool:
    from harness.runs import find_run
    from harness_schemas.errors import UsageError

    try:
        return len(word.split()) == 1 and find_run(word).exists()
    except UsageError:
        return False
