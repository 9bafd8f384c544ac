"""`harness explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import format_options
from harness.cli.output import emit_sections

if TYPE_CHECKING:
    from harness.sections import Section
    from harness_analysis.explain import Explanation

READ = ("unit", "length", "over median", "why")
KEYS = ("phase", "repeat", "batch", "microbatch", "step")
UNIT = ("step_ns", "median_ns", "excess_ns", "rank", "part", "part_excess_ns")
MORE = ("waiting_rank", "wait_excess_ns", "evidence", "perturbed", "why")
LATE = ("rank", "phase", "comm_group", "why")
COUNTS = ("times_last", "collectives", "wait_caused_ns", "main_cause", "step_ms")
PREDICTED = ("predicted_step_ms", "named", "source", "perturbed", "why")


@click.command("explain", epilog="Example: `harness explain latest --worst 10`")
@click.argument("run", default="latest")
@click.option("--worst", type=click.IntRange(1), default=10, help="How many units; default 10.")
@format_options
def command(run: str, worst: int, style: str) -> int:
    """The slowest units of RUN and what made each slow; who makes the others late, and why.

    A unit is held against the median of its phase, each part against the median of the same
    rank and phase. What lacks its evidence is said: "cannot answer: ...".
    """
    from harness.runs import find_databases
    from harness_analysis.explain import explain
    from harness_analysis.store import open_database

    (database,) = find_databases([run])[:1]
    with open_database(database) as con:
        found = explain(con, worst)
    emit_sections(_sections(found, machine=style in ("json", "csv")), style)
    return 0


def _sections(found: Explanation, machine: bool) -> list[Section]:
    """Every column for machines; for readers a sentence a row."""
    from harness.sections import Section
    from harness_schemas.units import format_ns

    units: list[tuple[Any, ...]] = [
        (row["unit"], format_ns(row["step_ns"]), "+" + format_ns(row["excess_ns"]), row["why"])
        for row in found.units
    ]
    if machine:
        units = [tuple(row[name] for name in (*KEYS, *UNIT, *MORE)) for row in found.units]
    late = (*LATE[:3], *COUNTS, *PREDICTED) if machine else LATE
    title = f"The {len(found.units)} slowest units" if len(found.units) > 1 else "The slowest units"
    title = "The slowest unit" if len(found.units) == 1 else title
    stood = [(row["rank"], row["text"]) for row in found.hang]
    hang = [Section("hang", "What the ranks stood on", ("rank", "why"), stood)] if stood else []
    return [
        *hang,
        Section(
            "units",
            title,
            (*KEYS, *UNIT, *MORE) if machine else READ,
            units,
            found.unit_notes,
        ),
        Section(
            "late",
            "Who makes the others late",
            late,
            [tuple(row[name] for name in late) for row in found.late],
            found.late_notes,
        ),
        *_host(found, machine),
    ]


def _host(found: Explanation, machine: bool) -> list[Section]:
    """Where nothing ran on a device, what there is to say: who took the host's time."""
    from harness.sections import Section
    from harness_schemas.units import format_ns, format_share

    if not found.host:
        return []
    columns = ("operator", "calls", "total_ns" if machine else "total", "share")
    rows: list[tuple[Any, ...]] = [
        (row["name"], row["calls"], row["total_ns"], row["share"])
        if machine
        else (row["name"], row["calls"], format_ns(row["total_ns"]), format_share(row["share"]))
        for row in found.host
    ]
    note = "nothing ran on a device here; on the wall clock, outermost operators only"
    return [Section("host", "What took the host's time", columns, rows, [note])]
