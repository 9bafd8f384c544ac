"""Pipeline bubbles against what the schedule costs by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Bubble:
    """A row of the view `pipeline_bubbles`."""

    phase: str
    rank: int
    stage: int | None
    window_ns: int
    p2p_wait_ns: int | None
    p2p_transfer_ns: int | None
    wait_share: float | None
    floor_share: float | None
    excess_share: float | None


def load_bubbles(con: duckdb.DuckDBPyConnection) -> list[Bubble]:
    """Rows of phases that have a floor, by phase and rank."""
    rows = con.execute(
        """
        SELECT phase, rank, stage, window_ns, p2p_wait_ns, p2p_transfer_ns, wait_share,
          floor_share, excess_share
        FROM pipeline_bubbles WHERE floor_share IS NOT NULL ORDER BY phase, rank
        """
    ).fetchall()
    return [Bubble(*row) for row in rows]
