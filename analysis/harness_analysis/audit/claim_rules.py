"""What rules over tables of results share: agreement within rounding, rows against their base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness_analysis.audit.claims import Claim, ClaimTable, Value
from harness_analysis.audit.flags import Flag

SLACK = 0.02
"""What numbers may differ by beyond their rounding."""
EXACT = 0.01
"""The same where one number is computed of the other, as efficiency of speed-up."""

PART_TIMES = ("comm", "io", "preprocess")

Rule = Callable[[ClaimTable], Iterable[Flag]]


def agree(left: float, right: float, *values: Value, slack: float = SLACK) -> bool:
    """Whether two results of arithmetic are the same within the rounding of their inputs."""
    allowed = slack + sum(value.precision() for value in values)
    return left == right or abs(left - right) <= allowed * max(abs(left), abs(right))


def others(table: ClaimTable, *fields: str) -> Iterator[tuple[Claim, Claim]]:
    """The base row with every other one, where both have all the fields."""
    base = table.base()
    if base is None or any(field not in base.values for field in fields):
        return
    for row in table.rows:
        if row is not base and all(field in row.values for field in fields):
            yield base, row


def grown(base: Claim, row: Claim, field: str) -> float:
    """How many times as much of a setting the row has; 1 where it is not said."""
    return (row.get(field) or 1.0) / (base.get(field) or 1.0)


def subject(table: ClaimTable, *rows: Claim) -> str:
    """The table and the rows that a flag is about."""
    return f"{table.name}: {'; '.join(row.label for row in rows)}"
