"""Cells that cannot run on this machine: known before anything starts, and asked anew each time.

What is refused later (a port that was taken, a folder that could not be made) has a cause that
may be gone the next time, and is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.sweep.folder import CellRun
from harness.sweep.plan import Item
from harness_schemas.errors import ExitCode
from harness_schemas.spec import RunSpec

REFUSED = "refused"
Problem = tuple[str, str]
Check = Callable[[RunSpec], Sequence[Problem]]
"""What is wrong with a specification here, as `harness_runners.preflight.preflight` says it."""
Refusals = Mapping[str, str]
"""Why a cell cannot run, by its key."""


def find_refusals(items: Sequence[Item], check: Check) -> dict[str, str]:
    """The cells among `items` that cannot run, each looked at once."""
    found: dict[str, str] = {}
    for cell in {item.cell.key: item.cell for item in items}.values():
        problems = check(cell.spec)
        if problems:
            found[cell.key] = say_problems(problems)
    return found


def say_problems(problems: Sequence[Problem]) -> str:
    """Mistakes of a specification in one line."""
    return "; ".join(f"{path}: {text}" if path else text for path, text in problems)


def refused_runs(items: Sequence[Item], refusals: Refusals) -> dict[tuple[str, int], CellRun]:
    """How the runs of the refused cells ended, as they are recorded in `sweep.json`."""
    return {
        (item.cell.key, item.repeat): CellRun(
            item.repeat, None, "failed", REFUSED, refusals[item.cell.key], int(ExitCode.USAGE), 0.0
        )
        for item in items
        if item.cell.key in refusals
    }
