"""Options that several verbs share, and refusals of those that would silently do nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

HTML = (".html", ".htm")


def format_options(function: F) -> F:
    """Adds --json, --csv and --markdown; the verb receives `style`."""
    for name, title in (("markdown", "Markdown"), ("csv", "CSV"), ("json", "JSON")):
        function = click.option(f"--{name}", "style", flag_value=name, help=f"Rows as {title}.")(
            function
        )
    return click.option("--table", "style", flag_value="table", default="table", hidden=True)(
        function
    )


def check_ending(option: str, path: Path | None, endings: Sequence[str]) -> None:
    """Refuse a name that promises another format; one without an ending promises none.

    Raises:
        click.UsageError: it does.
    """
    if path is not None and path.suffix and path.suffix.lower() not in endings:
        raise click.UsageError(f"{option} writes {', '.join(endings)}, not {path.suffix}")


def refuse_given(options: Mapping[str, str], instead: str) -> None:
    """Refuse options on the command line that would do nothing: parameter to what it is called.

    `instead`: what they go with, as in "a specification: the command runs as it is".

    Raises:
        click.UsageError: one of them was given.
    """
    context = click.get_current_context()
    for parameter, option in options.items():
        if context.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} goes with {instead}")
