"""What every verb that returns rows shares: the format options, and the only writer to stdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def format_options(function: F) -> F:
    """Adds --json, --csv and --markdown; the verb receives `style`."""
    for name in ("markdown", "csv", "json"):
        function = click.option(
            f"--{name}", "style", flag_value=name, help=f"Rows as {name.upper()}."
        )(function)
    return click.option("--table", "style", flag_value="table", default="table", hidden=True)(
        function
    )


def emit(text: str) -> None:
    """Write data to stdout."""
    click.echo(text)


def emit_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], style: str) -> None:
    """Write rows to stdout in the chosen format."""
    from harness.cli.render import render_rows

    emit(render_rows(columns, rows, style).rstrip("\n"))
