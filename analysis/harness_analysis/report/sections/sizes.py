"""Collectives by message size, as they look and as they are, above the measured floor."""

from __future__ import annotations

import math
from typing import Any

from harness_analysis.report.blocks import Column, Figure, Section, Table
from harness_analysis.report.numbers.sizes import Floor, Sizes
from harness_analysis.report.palette import SERIES_LIGHT, part_color
from harness_analysis.report.sections.drawing import DASHES, TimeScale, digits, time_scale
from harness_schemas.units import format_bytes, format_count, format_ns

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
MOST_TICKS = 6


def sizes_section(sizes: Sizes | None) -> Section | None:
    """A scatter of calls, with lines of floors."""
    if sizes is None:
        return None
    lead = (
        "Each collective twice: as long as a profiler shows it, and without the waiting. The "
        "distance between the two is no property of the network. Data cannot move faster than the "
        "floor, which `harness bench collectives` measures."
    )
    return Section("sizes", "Collectives by size", "Sizes", lead, [sizes_figure(sizes)])


def sizes_figure(sizes: Sizes) -> Figure:
    """Message size against time, both logarithmic."""
    scale = time_scale([point.duration_ns for point in sizes.points])
    ops = sorted({point.op for point in sizes.points})
    traces = [_points(sizes, op, place, moved, scale)
              for moved in (False, True) for place, op in enumerate(ops)]  # fmt: skip
    traces += [_floor(floor, place, scale) for place, floor in enumerate(sizes.floors)]
    layout: dict[str, Any] = {
        "xaxis": {"type": "log", "title": {"text": "message"}, **_ticks(sizes)},
        "yaxis": {"type": "log", "title": {"text": scale.unit}, "dtick": "D2"},
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(
        id="sizes",
        title="Size and time of collectives",
        label="Scatter: message size against duration and transfer of collectives, and floors.",
        traces=traces,
        layout=layout,
        height=420,
        table=_table(sizes),
        note=_note(sizes),
    )


def _ticks(sizes: Sizes) -> dict[str, Any]:
    """Sizes that are named on the axis: those that occur, or powers of two if there are many."""
    shown = sorted({row.num_bytes for row in sizes.rows})
    drawn = shown + [num_bytes for floor in sizes.floors for num_bytes in floor.sizes]
    low, high = min(drawn), max(drawn)
    if len(shown) > MOST_TICKS or sizes.floors:
        first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        shown = [2**k for k in range(first, last + 1, max(1, -(-(last - first) // MOST_TICKS)))]
    return {
        "tickvals": shown,
        "ticktext": [format_bytes(num_bytes) for num_bytes in shown],
        "range": [math.log10(low / 2), math.log10(high * 2)],
    }


def _points(sizes: Sizes, op: str, place: int, moved: bool, scale: TimeScale) -> dict[str, Any]:
    own = [point for point in sizes.points if point.op == op]
    values = [point.transfer_ns if moved else point.duration_ns for point in own]
    what = "data moves" if moved else "as profilers show it"
    side = 0.12 if moved else -0.12
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{op}, {what}",
        "x": [_spread(point.num_bytes, k, side) for k, point in enumerate(own)],
        "y": [digits(scale.of(value)) for value in values],
        "customdata": [point.num_bytes for point in own],
        "marker": {
            "color": part_color("comm_transfer_ns" if moved else "comm_wait_ns"),
            "symbol": SYMBOLS[place % len(SYMBOLS)] + ("" if moved else "-open"),
            "size": 7,
            "opacity": 0.75 if moved else 0.55,
        },
        "hovertemplate": f"{op}, %{{customdata:,}} bytes<br>{what}: "
        f"<b>%{{y:,.4~g}} {scale.unit}</b><extra></extra>",
    }


def _spread(num_bytes: int, place: int, side: float) -> int:
    """Points of one size side by side, or thousands of them would be one."""
    return round(num_bytes * 2 ** (side + 0.2 * ((place * 37 % 101) / 101 - 0.5)))


def _floor(floor: Floor, place: int, scale: TimeScale) -> dict[str, Any]:
    name = f"floor: {floor.implementation} {floor.op}, {floor.group_size} ranks"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(floor.sizes),
        "y": [digits(scale.of(value)) for value in floor.p50_ns],
        "line": {
            "color": "var(--text)",
            "dash": DASHES[place % len(DASHES)],
            "width": 1.5 + 0.5 * (place // len(DASHES) % len(SERIES_LIGHT)),
        },
        "hovertemplate": f"{name}<br>%{{x:,}} bytes: <b>%{{y:,.4~g}} {scale.unit}</b>"
        "<extra></extra>",
    }


def _note(sizes: Sizes) -> str:
    note = f"From {sizes.source}: {format_count(sizes.calls)} collectives"
    if len(sizes.points) < sizes.calls:
        note += f", {format_count(len(sizes.points))} of them drawn, evenly chosen"
    note += "" if sizes.headline else "; of warm-up or perturbed steps, no others tell"
    if not sizes.floors:
        note += "; no floor was measured for them"
    note += ". Points of one size are spread sideways"
    return note + ". Duration is that of the rank that waited longest."


def _table(sizes: Sizes) -> Table:
    columns = [Column("operation", number=False), Column("message"), Column("ranks")]
    columns += [Column("calls"), Column("duration p50")]
    columns += [Column(f"transfer {p}", part="comm_transfer_ns") for p in ("p10", "p50", "p90")]
    columns += [Column("floor"), Column("transfer p50 / floor")]
    rows = [
        [
            row.op,
            format_bytes(row.num_bytes),
            format_count(row.group_size),
            format_count(row.calls),
            format_ns(row.duration_p50_ns),
            format_ns(row.transfer_p10_ns),
            format_ns(row.transfer_p50_ns),
            format_ns(row.transfer_p90_ns),
            format_ns(row.floor_ns),
            f"{row.transfer_p50_ns / row.floor_ns:.2f}" if row.floor_ns else "-",
        ]
        for row in sizes.rows[:200]
    ]
    return Table("Collectives by operation and size", columns, rows)
