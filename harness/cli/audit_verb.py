"""`harness audit`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import format_options
from harness.cli.output import emit, emit_rows

COLUMNS = ("rule", "severity", "where", "numbers", "what to do")


@click.command(
    "audit", epilog="Example: `harness audit runs/sweep-7` or `harness audit results.md`"
)
@click.argument("names", nargs=-1, required=True, metavar="RUN_OR_TABLE...")
@format_options
def command(names: tuple[str, ...], style: str) -> int:
    """Flag what cannot be, in runs, sweeps or tables of claimed results.

    A name is a run, a database, a folder of runs, a glob, or a file with tables (.csv, .md,
    .json) whose columns are known by their headings. Exit 1 where a problem was found; notices
    alone leave 0.
    """
    from harness.runs.sides import named_databases
    from harness_analysis.audit import (
        audit_claims,
        audit_runs,
        is_claims_file,
        load_facts,
        read_claims,
    )
    from harness_schemas.errors import ExitCode

    files = [Path(name) for name in names if is_claims_file(Path(name))]
    runs = [name for name in names if not is_claims_file(Path(name))]
    databases = dict.fromkeys(path for name in runs for path in named_databases(name))
    reports = [read_claims(path) for path in files]
    flags = [flag for report in reports for flag in audit_claims(report)]
    flags += audit_runs([load_facts(path) for path in databases])
    flags.sort(key=lambda flag: flag.severity != "problem")
    rows = [(f.rule, f.severity, f.subject, f.numbers, f.todo) for f in flags]
    if style == "table":
        emit("\n".join(_as_text(*row) for row in rows) or "nothing to flag")
    else:
        emit_rows(COLUMNS, rows, style)
    problems = sum(flag.severity == "problem" for flag in flags)
    checked = [_count(sum(map(len, reports)), "table")] if files else []
    checked += [_count(len(databases), "run")] if databases else []
    found = f"{_count(problems, 'problem')}, {_count(len(flags) - problems, 'notice')}"
    click.echo(f"{' and '.join(checked)} checked: {found}", err=True)
    return int(ExitCode.GATE_FAILED if problems else ExitCode.OK)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_text(rule: str, severity: str, where: str, numbers: str, todo: str) -> str:
    from harness.cli.printing.rows import printable

    lines = (f"{severity:7} {rule}: {where}", f"        {numbers}", f"        -> {todo}")
    return "\n".join(printable(line) for line in lines)
