"""The nine parts over the steps of decoding, for every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness_analysis.report.numbers.units import (
    HEADLINE,
    STEPPING,
    Bins,
    load_bins,
    placed_units,
    same_unit,
)
from harness_schemas.vocabulary import PARTS

if TYPE_CHECKING:
    import duckdb

CELLS = 16_000
"""Bins times ranks: nine numbers each, in the page."""


@dataclass(frozen=True)
class StepSeries:
    """Mean nanoseconds a unit: `values[rank, bin, k]`, k = 0 the window, then the parts.

    NaN: unknown, or the rank has no unit in that bin.
    """

    bins: Bins
    ranks: tuple[int, ...]
    stages: tuple[int | None, ...]
    values: NDArray[np.float64]

    def mean(self, rows: list[int] | None = None) -> NDArray[np.float64]:
        """Mean over ranks (all, or these row numbers): [bin, k]; NaN where no rank knows."""
        chosen = self.values if rows is None else self.values[rows]
        known = ~np.isnan(chosen)
        total = np.where(known, chosen, 0.0).sum(axis=0)
        count = known.sum(axis=0)
        found = np.full(total.shape, np.nan)
        np.divide(total, count, out=found, where=count > 0)
        return found


def load_steps(con: duckdb.DuckDBPyConnection) -> StepSeries | None:
    """The series of headline units; None where the run decoded nothing."""
    places = con.execute(
        f"""
        SELECT b.rank, any_value(k.stage) FROM step_breakdown b
        LEFT JOIN ranks k ON k.rank = b.rank
        WHERE {STEPPING.replace("phase", "b.phase")} GROUP BY b.rank ORDER BY b.rank
        """
    ).fetchall()
    bins = load_bins(con, HEADLINE, CELLS, len(places))
    if bins is None:
        return None
    columns = ("window_ns", *PARTS)
    means = ", ".join(f"avg({name}) AS {name}" for name in columns)
    found = con.execute(
        f"""
        WITH {placed_units(HEADLINE)}
        SELECT b.rank, (p.ordinal * {bins.bins} // p.units)::INTEGER AS bin, {means}
        FROM step_breakdown b JOIN placed p ON {same_unit("b", "p")}
        WHERE {HEADLINE} GROUP BY b.rank, bin
        """
    ).fetchnumpy()
    ranks = tuple(rank for rank, _ in places)
    row = np.searchsorted(np.array(ranks), np.asarray(found["rank"]))
    values = np.full((len(ranks), bins.bins, len(columns)), np.nan)
    for k, name in enumerate(columns):
        values[row, np.asarray(found["bin"]), k] = np.ma.filled(
            np.ma.asarray(found[name], dtype=np.float64), np.nan
        )
    return StepSeries(bins, ranks, tuple(stage for _, stage in places), values)
