"""Which view divides a phase: measured, or estimated from sampled steps where those alone tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def parts_view(con: duckdb.DuckDBPyConnection) -> str:
    """`rank_estimate`, or in databases made before there were estimates `rank_breakdown`."""
    found = con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'rank_estimate'").fetchall()
    return "rank_estimate" if found else "rank_breakdown"


def parts_relation(con: duckdb.DuckDBPyConnection) -> str:
    """A subquery: the rows of that view, `sampled_units` and `slowed`, and those of phase `all`."""
    whole = "SELECT * FROM rank_breakdown WHERE phase = 'all'"
    unknown = "(SELECT NULL::BIGINT AS sampled_units, NULL::DOUBLE AS slowed WHERE false)"
    if parts_view(con) == "rank_breakdown":
        return f"(FROM rank_breakdown UNION ALL BY NAME FROM {unknown})"
    return f"(FROM rank_estimate UNION ALL BY NAME {whole})"
