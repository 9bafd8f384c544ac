"""`harness report`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import emit


@click.command("report", epilog="Example: `harness report latest --html`")
@click.argument("run", default="latest")
@click.option("--html", is_flag=True, help="Write the report as one self-contained HTML page.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The page's file; default: in the run."
)
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def command(run: str, html: bool, output: Path | None, as_json: bool) -> int:
    """Print the answer of RUN; with --html write it as a page and print the page's path."""
    from harness.runs import find_databases
    from harness_analysis.report import write_report
    from harness_analysis.store import open_database

    (database,) = find_databases([run])[:1]
    if not html and output is None:
        emit(answer_text(database, as_json))
        return 0
    target = output or database.with_name("report.html")
    with open_database(database) as con:
        write_report(con, target)
    emit(str(target))
    return 0


def answer_text(database: Path, as_json: bool = False) -> str:
    """The answer of one run as text."""
    from harness.cli.render import render_answer
    from harness_analysis.answer import load_answer
    from harness_analysis.store import open_database

    with open_database(database) as con:
        answer = load_answer(con)
    if as_json:
        import dataclasses
        import json

        return json.dumps(dataclasses.asdict(answer), indent=2, default=str)
    return render_answer(answer)
