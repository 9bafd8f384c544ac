"""Options that several verbs share, and refusals of those that would silently do nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

HTML = (".html", ".htm")
FORMATS = {"json": "JSON", "csv": "CSV", "markdown": "Markdown"}
"""What rows are printed as, beside tables for people: option to title."""


def format_options(function: F) -> F:
    """Adds --json, --csv and --markdown; the verb receives `style`, "table" where none is given."""

    @functools.wraps(function)
    def with_style(*args: Any, **given: Any) -> Any:
        chosen = [name for name in FORMATS if given.pop(f"as_{name}")]
        if len(chosen) > 1:
            raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} are two formats: give one")
        return function(*args, style=chosen[0] if chosen else "table", **given)

    wrapped: Any = with_style
    for name, title in reversed(FORMATS.items()):
        option = click.option(f"--{name}", f"as_{name}", is_flag=True, help=f"Print {title}.")
        wrapped = option(wrapped)
    return cast(F, wrapped)


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
