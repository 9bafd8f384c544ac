"""What every rank did in a few steps of decoding, as intervals of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_analysis.report.numbers.units import STEPPING
from harness_schemas.units import format_bytes
from harness_schemas.vocabulary import evidence_order

if TYPE_CHECKING:
    import duckdb

MOST_SEGMENTS = 6_000
"""Intervals of one step in the page; of more, neighbours of one class are drawn as one."""
KEYS = ("phase", "repeat", "batch", "microbatch", "step")
LAYER = "layer"
CLASSES = {
    "layer": LAYER,
    "compute": "compute_ns",
    "memset": "compute_ns",
    "graph": "compute_ns",
    "comm_fused": "fused_ns",
    "memcpy": "memcpy_ns",
    "io": "io_ns",
}
"""Category of a span to the class it is drawn as; communication comes from `collectives`."""

Piece = tuple[int, int, int, str]
"""(rank, start, end, name): nanoseconds since the step began on the first rank."""


@dataclass(frozen=True)
class StepTimeline:
    """One step on all ranks. `pieces` by class, in the order of rank and time."""

    title: str
    length_ns: int
    windows: tuple[Piece, ...]
    pieces: dict[str, tuple[Piece, ...]]
    merged_ns: int
    """Gaps up to this length were closed so that the page stays small; 0: every interval is its
    own."""


@dataclass(frozen=True)
class Timelines:
    """Chosen steps, by one evidence."""

    source: str
    timeline: str
    perturbed: bool
    """A collector slowed these steps."""
    ranks: tuple[int, ...]
    stages: tuple[int | None, ...]
    steps: tuple[StepTimeline, ...]


@dataclass(frozen=True)
class _Unit:
    title: str
    keys: tuple[object, ...]
    start_ns: int
    length_ns: int


def load_timelines(con: duckdb.DuckDBPyConnection) -> Timelines | None:
    """Steps by the finest evidence; None where no step of decoding was recorded."""
    chosen = _evidence(con)
    if chosen is None:
        return None
    source, timeline = chosen
    units, perturbed = _units(con, source)
    steps = [_step(con, source, timeline, unit) for unit in units]
    present = sorted({piece[0] for step in steps for piece in step.windows})
    stages = dict(con.execute("SELECT rank, stage FROM ranks").fetchall())
    return Timelines(
        source=source,
        timeline=timeline,
        perturbed=perturbed,
        ranks=tuple(present),
        stages=tuple(stages.get(rank) for rank in present),
        steps=tuple(steps),
    )


def _evidence(con: duckdb.DuckDBPyConnection) -> tuple[str, str] | None:
    rows = con.execute(
        f"""
        SELECT evidence, any_value(timeline) FROM step_breakdown_all
        WHERE {STEPPING} AND start_ns IS NOT NULL GROUP BY evidence
        """
    ).fetchall()
    rows.sort(key=lambda row: evidence_order(row[0]))
    return rows[0] if rows else None


def _units(con: duckdb.DuckDBPyConnection, source: str) -> tuple[list[_Unit], bool]:
    """The slowest, the median and the fastest step that all ranks have, undisturbed if possible."""
    rows = con.execute(
        f"""
        WITH units AS (
          SELECT {", ".join(KEYS)}, bool_or(perturbed_by IS NOT NULL) AS perturbed,
            bool_or(coalesce(warmup, false)) AS warmup, count(*) AS ranks,
            min(start_ns) AS start_ns, max(start_ns + window_ns) - min(start_ns) AS length_ns
          FROM step_breakdown_all WHERE evidence = ? AND {STEPPING} GROUP BY ALL
        )
        SELECT * EXCLUDE (ranks, warmup) FROM units
        WHERE ranks = (SELECT max(ranks) FROM units)
        QUALIFY rank() OVER (ORDER BY warmup, perturbed) = 1
        ORDER BY length_ns DESC, start_ns
        """,
        [source],
    ).fetchall()
    places = {0: "slowest", len(rows) // 2: "median", len(rows) - 1: "fastest"}
    if len(rows) < 3:
        places = dict.fromkeys(range(len(rows)), "")
    units = []
    batches = len({row[2] for row in rows})
    for place, word in sorted(places.items()):
        *keys, _, start_ns, length_ns = rows[place]
        _, _, batch, _, step = keys
        name = f"step {step} of batch {batch}" if batches > 1 else f"step {step}"
        units.append(_Unit(f"{word}: {name}" if word else name, tuple(keys), start_ns, length_ns))
    return units, bool(rows and rows[0][len(KEYS)])


def _step(con: duckdb.DuckDBPyConnection, source: str, timeline: str, unit: _Unit) -> StepTimeline:
    same = " AND ".join(f"{key} IS NOT DISTINCT FROM ${key}" for key in KEYS)
    given = {**dict(zip(KEYS, unit.keys, strict=True)), "t0": unit.start_ns, "source": source}
    windows = con.execute(
        f"""
        SELECT rank, start_ns - $t0, start_ns - $t0 + window_ns FROM step_breakdown_all
        WHERE evidence = $source AND {same} ORDER BY rank
        """,
        given,
    ).fetchall()
    given["timeline"] = timeline
    found: dict[str, list[Piece]] = {}
    for part, piece in (*_spans(con, same, given), *_calls(con, same, given)):
        found.setdefault(part, []).append(piece)
    pieces, gap = _thinned(found, unit.length_ns)
    return StepTimeline(
        title=unit.title,
        length_ns=unit.length_ns,
        windows=tuple((rank, start, end, "the step") for rank, start, end in windows),
        pieces=pieces,
        merged_ns=gap,
    )


def _spans(
    con: duckdb.DuckDBPyConnection, same: str, given: dict[str, object]
) -> Iterator[tuple[str, Piece]]:
    rows = con.execute(
        f"""
        SELECT category, rank, start_ns - $t0, end_ns - $t0, name FROM spans
        WHERE source = $source AND coalesce(timeline, 'host') = $timeline AND {same}
          AND category IN {tuple(CLASSES)} AND end_ns > start_ns AND rank IS NOT NULL
        ORDER BY rank, start_ns
        """,
        given,
    )
    for category, rank, start, end, name in rows.fetchall():
        yield CLASSES[category], (rank, start, end, _short(name or category))


def _calls(
    con: duckdb.DuckDBPyConnection, same: str, given: dict[str, object]
) -> Iterator[tuple[str, Piece]]:
    """Waiting first, transfer last; what lies between them is unresolved."""
    rows = con.execute(
        f"""
        SELECT rank, start_ns - $t0, end_ns - $t0, op, bytes, wait_ns, transfer_ns
        FROM collectives_all
        WHERE source = $source AND coalesce(timeline, 'host') = $timeline AND {same}
          AND end_ns > start_ns AND rank IS NOT NULL
        ORDER BY rank, start_ns
        """,
        given,
    )
    for rank, start, end, op, num_bytes, wait_ns, transfer_ns in rows.fetchall():
        name = str(op or "communication") + (f", {format_bytes(num_bytes)}" if num_bytes else "")
        if wait_ns is None or transfer_ns is None:
            yield "comm_unsplit_ns", (rank, start, end, name)
            continue
        waited = min(start + wait_ns, end)
        moving = max(end - transfer_ns, waited)
        for part, a, b in (
            ("comm_wait_ns", start, waited),
            ("unresolved_ns", waited, moving),
            ("comm_transfer_ns", moving, end),
        ):
            if b > a:
                yield part, (rank, a, b, name)


def _short(name: str, most: int = 60) -> str:
    return name if len(name) <= most else name[: most - 1] + "~"


def _thinned(
    found: dict[str, list[Piece]], length_ns: int
) -> tuple[dict[str, tuple[Piece, ...]], int]:
    """Intervals with gaps closed, the smallest first, until there are few enough."""
    gap = 0
    pieces = found
    while sum(map(len, pieces.values())) > MOST_SEGMENTS and gap < length_ns:
        gap = 2 * gap or max(1, length_ns // 4096)
        pieces = {part: list(merged(rows, gap)) for part, rows in found.items()}
    return {part: tuple(rows) for part, rows in pieces.items()}, gap


def merged(rows: Iterable[Piece], gap_ns: int) -> Iterator[Piece]:
    """Neighbours on one rank that lie at most `gap_ns` apart as one; rows by rank and start."""
    current: Piece | None = None
    count = 0
    for row in rows:
        if current and row[0] == current[0] and row[1] <= current[2] + gap_ns:
            count += 1
            name = current[3] if row[3] == current[3] else f"{count} intervals"
            current = (current[0], current[1], max(current[2], row[2]), name)
            continue
        if current:
            yield current
        current, count = row, 1
    if current:
        yield current
