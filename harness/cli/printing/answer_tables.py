"""A run's answer as tables, for --csv and --markdown: every number that the text rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.sections import Section
from harness_schemas.vocabulary import PARTS

if TYPE_CHECKING:
    from harness_analysis.answer import Answer

TABLES = {
    "findings": "What stands out",
    "latency": "Latency",
    "coverage": "Coverage",
    "collectors": "Collectors",
    "overhead": "What observing cost",
    "clocks": "Clocks",
}
"""Fields of the answer that are rows, and their titles."""
SHOWN_FIRST = ("findings", "latency")


def answer_sections(answer: Answer) -> list[Section]:
    """Tables in the order of the text; those without rows are left out. Times in nanoseconds."""
    single = {"run": "What ran", "throughput": "Speed", "correctness": "Correctness"}
    facts = {key: _facts(key, title, getattr(answer, key)) for key, title in single.items()}
    rows = {key: _table(key, title, getattr(answer, key)) for key, title in TABLES.items()}
    order = [facts["run"], rows["findings"], facts["throughput"], rows["latency"]]
    order += [_breakdown(answer), facts["correctness"]]
    order += [rows[key] for key in TABLES if key not in SHOWN_FIRST]
    return [section for section in order if section is not None and section.rows]


def _facts(key: str, title: str, value: Any) -> Section | None:
    """One object as names and values."""
    if value is None:
        return None
    rows = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return Section(key, title, ("what", "value"), [row for row in rows if row[0] != "details"])


def _table(key: str, title: str, values: Sequence[Any]) -> Section | None:
    if not values:
        return None
    names = [field.name for field in dataclasses.fields(values[0])]
    return Section(
        key, title, names, [[getattr(value, name) for name in names] for value in values]
    )


def _breakdown(answer: Answer) -> Section:
    """A row a rank and phase: the window and its parts."""
    names = [f.name for f in dataclasses.fields(answer.breakdown[0])] if answer.breakdown else []
    names = [name for name in names if name != "parts"]
    rows = [
        [*(getattr(row, name) for name in names), row.parts.window_ns]
        + [row.parts.ns[part] for part in PARTS]
        for row in answer.breakdown
    ]
    title = "Where the time went, by rank and phase"
    return Section("breakdown", title, [*names, "window_ns", *PARTS], rows)
