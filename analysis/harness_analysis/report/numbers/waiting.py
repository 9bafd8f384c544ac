"""Who waits for whom, and when: sums of the view `waits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from harness_schemas.vocabulary import EVIDENCE_RANK

if TYPE_CHECKING:
    import duckdb

CELLS = 120_000
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


@dataclass(frozen=True)
class Waiting:
    """Waiting in the steps of decoding, by one evidence.

    `caused[kind][rank, bin]`: nanoseconds a unit that the others together waited for this rank.
    """

    source: str
    headline: bool
    """False: only perturbed or warm-up units tell wait from transfer."""
    ranks: tuple[int, ...]
    hosts: tuple[str | None, ...]
    pairs: tuple[Pair, ...]
    bins: Bins
    caused: dict[str, NDArray[np.float64]]
    unsplit: int
    """Calls whose waiting could not be told."""
    stragglers: tuple[Straggler, ...]


def load_waiting(con: duckdb.DuckDBPyConnection) -> Waiting | None:
    """Waiting by the best evidence; None where no call's waiting is known."""
    chosen = _best_source(con)
    if chosen is None:
        return None
    source, headline = chosen
    kept = HEADLINE if headline else "true"
    places = con.execute("SELECT rank, host FROM ranks ORDER BY host NULLS LAST, rank").fetchall()
    bins = load_bins(con, kept, CELLS, len(places))
    if bins is None or not places:
        return None
    found = con.execute(
        f"""
        WITH {placed_units(kept)}
        SELECT w.rank, w.waited_for, w.kind, (p.ordinal * {bins.bins} // p.units)::INTEGER AS bin,
          count(w.wait_ns) AS calls, sum(w.wait_ns)::BIGINT AS wait_ns,
          count(*) - count(w.wait_ns) AS unsplit
        FROM waits w JOIN placed p ON {same_unit("w", "p")}
        WHERE w.source = ? AND {kept} GROUP BY ALL ORDER BY ALL
        """,
        [source],
    ).fetchall()
    ranks = tuple(rank for rank, _ in places)
    return Waiting(
        source=source,
        headline=headline,
        ranks=ranks,
        hosts=tuple(host for _, host in places),
        pairs=_pairs(found),
        bins=bins,
        caused=_caused(found, ranks, bins),
        unsplit=sum(row[6] for row in found),
        stragglers=_stragglers(con, source),
    )


def _best_source(con: duckdb.DuckDBPyConnection) -> tuple[str, bool] | None:
    """The best evidence whose headline units tell waiting, else the best that tells any."""
    rows = con.execute(
        f"""
        SELECT source, bool_or({HEADLINE}) AS headline FROM collectives
        WHERE wait_ns IS NOT NULL AND {STEPPING} GROUP BY source
        """
    ).fetchall()
    order = {name: place for place, name in enumerate(EVIDENCE_RANK)}
    rows.sort(key=lambda row: (not row[1], order.get(row[0], len(order)), row[0]))
    return (rows[0][0], rows[0][1]) if rows else None


def _pairs(found: list[tuple[Any, ...]]) -> tuple[Pair, ...]:
    sums: dict[tuple[int, int | None, str], list[int]] = {}
    for rank, waited_for, kind, _, calls, wait_ns, _ in found:
        total = sums.setdefault((rank, waited_for, kind), [0, 0])
        total[0] += calls
        total[1] += wait_ns or 0
    pairs = [Pair(*key, *total) for key, total in sums.items() if total[0]]
    return tuple(sorted(pairs, key=lambda pair: (-pair.wait_ns, pair.rank, pair.kind)))


def _caused(
    found: list[tuple[Any, ...]], ranks: tuple[int, ...], bins: Bins
) -> dict[str, NDArray[np.float64]]:
    place = {rank: index for index, rank in enumerate(ranks)}
    caused = {}
    for kind in KINDS:
        total = np.zeros((len(ranks), bins.bins))
        rows = [row for row in found if row[2] == kind and row[1] in place and row[5]]
        for row in rows:
            total[place[row[1]], row[3]] += row[5]
        if rows:
            caused[kind] = total / np.array(bins.sizes)
    return caused


def _stragglers(con: duckdb.DuckDBPyConnection, source: str) -> tuple[Straggler, ...]:
    rows = con.execute(
        """
        SELECT comm_group, phase, rank, collectives, undecided, times_last, share_last,
          wait_caused_ns, share_of_wait, main_cause
        FROM stragglers WHERE source = ? AND times_last > 0
        ORDER BY list_position(['decode', 'mixed', 'prefill'], phase) NULLS LAST,
          wait_caused_ns DESC, rank, comm_group, phase
        """,
        [source],
    ).fetchall()
    return tuple(Straggler(*row) for row in rows)
