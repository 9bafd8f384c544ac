"""Recordings that cannot show the same call, since one had ended when the other began.

Ordinals would match them all the same: two traces of two jobs, or of two moments of one. Clocks
are aligned by now as well as the evidence allows: where matched ends tie them, hosts whose clocks
are off by more than this lie together again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness_analysis.build.recordings import STREAM
from harness_analysis.clocks.ends import FAR_NS
from harness_schemas.units import EARLIEST_WALL_NS

if TYPE_CHECKING:
    import duckdb

REASON: Final = "the recordings of its ranks do not overlap"

Span = tuple[int, int, int]
"""Rank, first moment, last moment."""


def unmatch_apart(con: duckdb.DuckDBPyConnection) -> None:
    """Take the ordinals from calls of streams whose ranks were recorded at different times.

    Changes temp table collective_parts; makes temp table apart (source, ranks, others, gap_ns).
    """
    con.execute(
        "CREATE TEMP TABLE apart (source VARCHAR, ranks INTEGER[], others INTEGER[], gap_ns BIGINT)"
    )
    spans: dict[tuple[str, str], list[Span]] = {}
    for source, stream, *span in con.execute(
        f"""
        SELECT source, {STREAM} AS stream, rank, min(start_ns), max(end_ns) FROM collective_parts
        WHERE source IN ('torch_profiler', 'nsys') AND timeline = 'device' AND rank IS NOT NULL
          AND start_ns > {EARLIEST_WALL_NS} AND end_ns IS NOT NULL AND {STREAM} IS NOT NULL
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall():
        spans.setdefault((source, stream), []).append((span[0], span[1], span[2]))
    parted = [key for key, ranks in spans.items() if len(clusters(ranks)) > 1]
    for source, stream in parted:
        con.execute(
            f"UPDATE collective_parts SET seq = NULL, unsplit_reason = '{REASON}'"
            f" WHERE source = ? AND timeline = 'device' AND {STREAM} = ?",
            [source, stream],
        )
    for source in sorted({source for source, _ in parted}):
        ranks = [span for key in parted if key[0] == source for span in spans[key]]
        first, *later = clusters(_whole(ranks))
        for cluster in later:
            gap = min(span[1] for span in cluster) - max(span[2] for span in first)
            con.execute(
                "INSERT INTO apart VALUES (?, ?, ?, ?)",
                [source, [span[0] for span in cluster], [span[0] for span in first], gap],
            )
            first = cluster


def clusters(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans in groups between which nothing was recorded for longer than `FAR_NS`."""
    found: list[list[Span]] = []
    last = 0
    for span in sorted(spans, key=lambda span: (span[1], span[0])):
        if found and span[1] - last <= FAR_NS:
            found[-1].append(span)
        else:
            found.append([span])
        last = max(last, span[2])
    return found


def _whole(spans: Sequence[Span]) -> list[Span]:
    """One span a rank, from its first to its last moment."""
    whole: dict[int, Span] = {}
    for rank, first, last in spans:
        _, begin, end = whole.get(rank, (rank, first, last))
        whole[rank] = (rank, min(begin, first), max(end, last))
    return sorted(whole.values())
