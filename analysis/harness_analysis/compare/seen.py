"""What the evidence itself shows of a run whose specification nobody recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness_schemas.units import format_bytes

Rows = Callable[[str], list[dict[str, Any]]]
"""Runs a query, and gives its rows."""

_LIBRARIES = """
SELECT DISTINCT nccl_version AS version, attrs ->> 'cuda' AS cuda, attrs ->> 'network' AS network,
  attrs ->> 'nnodes' AS nodes
FROM nccl_comms WHERE comm_rank IS NOT NULL
"""
_CALLS = """
WITH units AS (
  SELECT rank, phase, count(*) AS units FROM step_breakdown
  WHERE phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false) GROUP BY ALL
), calls AS (
  SELECT rank, phase, op, group_size, count(*) AS calls, avg(bytes) AS bytes FROM collectives
  WHERE phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false) GROUP BY ALL
)
SELECT phase, op, group_size, sum(calls) / sum(units) AS calls, count(*) AS ranks,
  sum(bytes * calls) / sum(calls) AS bytes
FROM calls JOIN units USING (rank, phase) GROUP BY ALL ORDER BY ALL
"""


def seen_in(rows: Rows) -> dict[str, str]:
    """Dotted paths to values: ranks, libraries, groups, and what a unit of each phase calls."""
    found = _placed(rows)
    for path, column in (("nccl", "version"), ("cuda", "cuda"), ("network", "network"),
                         ("nodes", "nodes")):  # fmt: skip
        values = {str(row[column]) for row in rows(_LIBRARIES) if row[column] is not None}
        if values:
            found[path] = " | ".join(sorted(values))
    for row in rows(_CALLS):
        paired = row["op"] in ("send", "recv") or not row["group_size"]
        size = "" if paired else f"[{row['group_size']}]"
        each = "" if row["bytes"] is None else f" of {format_bytes(row['bytes'])}"
        found[f"{row['phase']}.{row['op']}{size}"] = (
            f"{float(row['calls']):.4g} a unit{each}, on {row['ranks']} ranks"
        )
    return found


def _placed(rows: Rows) -> dict[str, str]:
    (ranks,) = rows("SELECT count(DISTINCT rank) AS count FROM ranks")
    groups = rows(
        """
        SELECT DISTINCT comm_group AS name FROM collectives
        WHERE comm_group IS NOT NULL AND group_size > 1 AND src_rank IS NULL ORDER BY name
        """
    )
    found = {"ranks": str(ranks["count"])} if ranks["count"] else {}
    names = [str(row["name"]).removesuffix("#0") for row in groups]
    if names:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        found["groups"] = " ".join(names[:8]) + more
    return found
