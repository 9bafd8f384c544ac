"""Units of decoding in the order of time, gathered into bins so that a page stays small."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

STEPPING = "phase IN ('decode', 'mixed')"
HEADLINE = "NOT coalesce(warmup, false) AND perturbed_by IS NULL"

MOST_BINS = 400
FEWEST_BINS = 24


@dataclass(frozen=True)
class Bins:
    """How many units there are, into how many bins they go, and what each bin holds."""

    units: int
    bins: int
    labels: tuple[str, ...]
    """As in `step 17`, or `steps 17 to 19 of batch 0`."""

    sizes: tuple[int, ...]
    """Units in each bin."""

    @property
    def centers(self) -> list[float]:
        """Where each bin lies among the units, which count from 1."""
        ends = list(itertools.accumulate(self.sizes))
        centers = [end - (size - 1) / 2 for end, size in zip(ends, self.sizes, strict=True)]
        return [int(center) if center.is_integer() else center for center in centers]

    @property
    def whole(self) -> bool:
        """Every bin is one unit: nothing is averaged."""
        return self.units == self.bins


def placed_units(kept: str) -> str:
    """SQL of the common table `placed`: keys of each unit and its ordinal in time.

    `kept`: the condition for units, on columns of step_breakdown.
    """
    return f"""
        placed AS (
          SELECT *, row_number() OVER (
              ORDER BY first_ns, repeat, batch, microbatch, step) - 1 AS ordinal,
            count(*) OVER () AS units
          FROM (
            SELECT phase, repeat, batch, microbatch, step, min(start_ns) AS first_ns
            FROM step_breakdown WHERE {STEPPING} AND {kept} GROUP BY ALL
          )
        )"""


def same_unit(a: str, b: str) -> str:
    """SQL condition that rows of two tables belong to the same unit."""
    equal = [
        f"{a}.{key} IS NOT DISTINCT FROM {b}.{key}"
        for key in ("repeat", "batch", "microbatch", "step")
    ]
    return f"{a}.phase = {b}.phase AND " + " AND ".join(equal)


def load_bins(con: duckdb.DuckDBPyConnection, kept: str, cells: int, ranks: int) -> Bins | None:
    """Bins for units that fulfil `kept`, so that ranks times bins stay below `cells`.

    None: there are no such units.
    """
    rows = con.execute(
        f"""
        WITH {placed_units(kept)}
        SELECT repeat, batch, microbatch, step FROM placed ORDER BY ordinal
        """
    ).fetchall()
    if not rows:
        return None
    bins = min(len(rows), max(FEWEST_BINS, min(MOST_BINS, cells // max(ranks, 1))))
    names = _names(rows)
    members: list[list[str]] = [[] for _ in range(bins)]
    for ordinal, name in enumerate(names):
        members[ordinal * bins // len(rows)].append(name)
    labels = [own[0] if len(own) == 1 else f"{own[0]} to {own[-1]}" for own in members]
    return Bins(len(rows), bins, tuple(labels), tuple(map(len, members)))


def _names(rows: list[tuple[int | None, ...]]) -> list[str]:
    """Names of units with the keys that differ between them."""
    words = ("repeat", "batch", "micro-batch", "step")
    varying = [k for k in range(4) if len({row[k] for row in rows}) > 1 or k == 3]
    return [
        ", ".join(f"{words[k]} {'-' if row[k] is None else row[k]}" for k in varying)
        for row in rows
    ]
