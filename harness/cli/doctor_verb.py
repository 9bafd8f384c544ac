"""`harness doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from harness.cli.output import emit, emit_rows, format_options

if TYPE_CHECKING:
    from harness.doctor import Check


@click.command("doctor", epilog="Example: `harness doctor --json`")
@format_options
def command(style: str) -> int:
    """Check this machine: what can be recorded here, what is missing, and how to mend it.

    Changes nothing. Returns 0 whatever it finds: a missing collector is no failure.
    """
    from harness.doctor import diagnose

    if style == "table":
        emit("\n".join(line for check in diagnose() for line in describe(check)))
        return 0
    rows = [
        (check.state, check.name, check.found, check.cost or None, check.mend or None)
        for check in diagnose()
    ]
    emit_rows(("state", "check", "found", "what that costs", "how to mend it"), rows, style)
    return 0


def describe(check: Check) -> Iterator[str]:
    """A check as lines: what was found, and below it what that costs and how to mend it."""
    yield f"{check.state:<8} {check.name:<26} {check.found}".rstrip()
    if check.state != "ok":
        for label, text in (("costs", check.cost), ("mend", check.mend)):
            if text:
                yield f"{'':8} {label + ':':>9} {text}"
