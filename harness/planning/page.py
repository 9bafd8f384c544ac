"""A run's HTML page, with its memory plan beside what was measured where there is a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_schemas.errors import HarnessError
from harness_schemas.units import format_bytes, format_ns

if TYPE_CHECKING:
    import duckdb

    from harness.sections import Section as Answered
    from harness_analysis.report.blocks import Section

PLANNED = ("measured", "memory")
"""Tables of `harness plan RUN` that the page shows."""


def write_run_page(
    con: duckdb.DuckDBPyConnection,
    database: Path,
    page: Path,
    baseline: duckdb.DuckDBPyConnection | None = None,
) -> None:
    """Write the page of the run in `con`, which is open on `database`.

    Raises:
        EvidenceError: the database is not a run's.
        HarnessError: the page cannot be written.
    """
    from harness_analysis.report import write_report

    planned = _plan_section(database)
    write_report(con, page, baseline, [planned] if planned is not None else [])


def _plan_section(database: Path) -> Section | None:
    """None where the run has no specification to plan from: a wrapped command, other evidence."""
    from harness.planning.request import Options
    from harness.planning.session import make_sections
    from harness_analysis.report.blocks import Section

    try:
        found = make_sections(str(database), None, Options(), ())
    except HarnessError:
        return None
    tables = {section.key: section for section in found}
    blocks = [_block(tables[key]) for key in PLANNED if key in tables]
    if not blocks:
        return None
    lead = (
        "What the plan of this specification predicts, and what the run measured: the ratio is "
        "measured over predicted. `harness plan` gives the formulas, and the splits that fit."
    )
    return Section("plan", "Plan against measurement", "Plan", lead, blocks)


def _block(section: Answered) -> Any:
    from harness_analysis.report.blocks import Column, Table

    numeric = [
        any(isinstance(row[k], int | float) for row in section.rows)
        for k in range(len(section.columns))
    ]
    columns = [Column(name, number) for name, number in zip(section.columns, numeric, strict=True)]
    units = list(section.columns).index("unit") if "unit" in section.columns else None
    rows = [
        [_cell(name, value, row[units] if units is not None else "")
         for name, value in zip(section.columns, row, strict=True)]
        for row in section.rows
    ]  # fmt: skip
    notes = [note[:1].upper() + note[1:] for note in section.notes]
    return Table(section.title, columns, rows, ". ".join(notes) + ("." if notes else ""))


def _cell(column: str, value: Any, unit: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if column in ("predicted", "measured") and unit == "bytes":
        return format_bytes(value)
    if column in ("predicted", "measured") and unit == "ns":
        return format_ns(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
