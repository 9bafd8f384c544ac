"""Who waits for whom, and when: sums of the view `waits`."""

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
from harness_schemas.vocabulary import evidence_order

if TYPE_CHECKING:
    import duckdb

CELLS = 56_000
"""Bins times ranks of the map of lateness."""
KINDS = ("collective", "p2p")


@dataclass(frozen=True)
class Pair:
    """How long one rank waited for another; `waited_for` None: nobody could be named."""

    rank: int
    waited_for: int | None
    kind: str
    calls: int
    wait_ns: int


@dataclass(frozen=True)
class Straggler:
    """A row of the view `stragglers`."""

    comm_group: str
    phase: str | None
    rank: int
    collectives: int
    undecided: int
    times_last: int
    share_last: float | None
    wait_caused_ns: int
    share_of_wait: float | None
    main_cause: str | None
    step_ms: float | None
    predicted_step_ms: float | None
    """What a step would take had the rank always come with the next to last."""


@dataclass(frozen=True)
class Waiting:
    """Waiting in the steps of decoding, by one evidence.

    `caused[kind][rank, bin]`: nanoseconds a unit that the others together waited for this rank;
    `worst`: in the unit of the bin that was worst.
    """

    source: str
    headline: bool
    """False: only perturbed or warm-up units tell wait from transfer."""
    ranks: tuple[int, ...]
    hosts: tuple[str | None, ...]
    pairs: tuple[Pair, ...]
    bins: Bins
    caused: dict[str, NDArray[np.float64]]
    worst: dict[str, NDArray[np.float64]]
    unsplit: int
    """Calls whose waiting could not be told."""
    stragglers: tuple[Straggler, ...]


def load_waiting(con: duckdb.DuckDBPyConnection) -> Waiting | None:
    """Waiting by the best evidence; None where no call's waiting is known."""
    chosen = best_source(con)
    if chosen is None:
        return None
    source, headline = chosen
    kept = HEADLINE if headline else "true"
    places = con.execute("SELECT rank, host FROM ranks ORDER BY host NULLS LAST, rank").fetchall()
    bins = load_bins(con, kept, CELLS, len(places))
    if bins is None or not places:
        return None
    found = _sums(con, source, kept, bins)
    ranks = tuple(rank for rank, _ in places)
    caused = _by_bin(found, "wait_ns", ranks, bins)
    return Waiting(
        source=source,
        headline=headline,
        ranks=ranks,
        hosts=tuple(host for _, host in places),
        pairs=_pairs(found),
        bins=bins,
        caused={kind: total / np.array(bins.sizes) for kind, total in caused.items()},
        worst=_by_bin(found, "most_ns", ranks, bins),
        unsplit=int(found["unsplit"].sum()),
        stragglers=_stragglers(con, source),
    )


def best_source(con: duckdb.DuckDBPyConnection, calls: str = "true") -> tuple[str, bool] | None:
    """The best evidence whose headline units tell waiting, else the best that tells any.

    `calls`: the condition for calls that count, on columns of `collectives_all`.
    """
    rows = con.execute(
        f"""
        SELECT source, bool_or({HEADLINE}) AS headline FROM collectives_all
        WHERE wait_ns IS NOT NULL AND {STEPPING} AND {calls} GROUP BY source
        """
    ).fetchall()
    rows.sort(key=lambda row: (not row[1], *evidence_order(row[0])))
    return (rows[0][0], rows[0][1]) if rows else None


def _sums(
    con: duckdb.DuckDBPyConnection, source: str, kept: str, bins: Bins
) -> dict[str, NDArray[np.int64]]:
    """Sums by rank, waited_for (-1: nobody), kind (index of KINDS) and bin, as columns."""
    found = con.execute(
        f"""
        WITH {placed_units(kept)},
        by_unit AS (
          SELECT w.rank, coalesce(w.waited_for, -1) AS waited_for,
            CASE w.kind WHEN 'p2p' THEN 1 ELSE 0 END AS kind, p.ordinal, p.units,
            count(w.wait_ns) AS calls, coalesce(sum(w.wait_ns), 0)::BIGINT AS wait_ns,
            count(*) - count(w.wait_ns) AS unsplit
          FROM waits w JOIN placed p ON {same_unit("w", "p")}
          WHERE w.source = ? AND {kept} GROUP BY ALL
        ), worst AS (
          SELECT waited_for, kind, bin, max(together_ns)::BIGINT AS most_ns FROM (
            SELECT waited_for, kind, ordinal * {bins.bins} // units AS bin,
              sum(wait_ns) AS together_ns
            FROM by_unit GROUP BY waited_for, kind, ordinal, units
          ) GROUP BY ALL
        ), binned AS (
          SELECT rank, waited_for, kind, ordinal * {bins.bins} // units AS bin,
            sum(calls)::BIGINT AS calls, sum(wait_ns)::BIGINT AS wait_ns,
            sum(unsplit)::BIGINT AS unsplit
          FROM by_unit GROUP BY ALL
        )
        FROM binned JOIN worst USING (waited_for, kind, bin)
        """,
        [source],
    ).fetchnumpy()
    return {name: np.ma.filled(column, -1).astype(np.int64) for name, column in found.items()}


def _pairs(found: dict[str, NDArray[np.int64]]) -> tuple[Pair, ...]:
    keys = np.stack([found["rank"], found["waited_for"], found["kind"]], axis=1)
    unique, place = np.unique(keys, axis=0, return_inverse=True)
    calls, wait = np.zeros((2, len(unique)), dtype=np.int64)
    np.add.at(calls, place.ravel(), found["calls"])
    np.add.at(wait, place.ravel(), found["wait_ns"])
    pairs = [
        Pair(rank, None if target < 0 else target, KINDS[kind], count, ns)
        for (rank, target, kind), count, ns in zip(
            unique.tolist(), calls.tolist(), wait.tolist(), strict=True
        )
        if count
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.wait_ns, pair.rank, pair.kind)))


def _by_bin(
    found: dict[str, NDArray[np.int64]], column: str, ranks: tuple[int, ...], bins: Bins
) -> dict[str, NDArray[np.float64]]:
    """A column by kind, summed into [rank waited for, bin]; kinds without waiting are left out.

    Of `most_ns`, which is the same in all rows of a rank that is waited for, the largest.
    """
    order = np.argsort(ranks)
    place = np.searchsorted(np.array(ranks)[order], found["waited_for"]).clip(max=len(ranks) - 1)
    row = order[place]
    known = np.array(ranks)[row] == found["waited_for"]
    sums = {}
    for index, kind in enumerate(KINDS):
        own = known & (found["kind"] == index) & (found["wait_ns"] > 0)
        total = np.zeros((len(ranks), bins.bins))
        if column == "most_ns":
            np.maximum.at(total, (row[own], found["bin"][own]), found[column][own])
        else:
            np.add.at(total, (row[own], found["bin"][own]), found[column][own])
        if own.any():
            sums[kind] = total
    return sums


def _stragglers(con: duckdb.DuckDBPyConnection, source: str) -> tuple[Straggler, ...]:
    rows = con.execute(
        """
        SELECT s.comm_group, s.phase, s.rank, collectives, undecided, times_last, share_last,
          wait_caused_ns, share_of_wait, main_cause, step_ms, predicted_step_ms
        FROM stragglers s LEFT JOIN what_if w ON w.source = s.source
          AND w.comm_group = s.comm_group AND w.phase = s.phase AND w.rank = s.rank
        WHERE s.source = ? AND times_last > 0
        ORDER BY list_position(['decode', 'mixed', 'prefill'], s.phase) NULLS LAST,
          wait_caused_ns DESC, s.rank, s.comm_group, s.phase
        """,
        [source],
    ).fetchall()
    return tuple(Straggler(*row) for row in rows)
