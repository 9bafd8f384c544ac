"""Pipeline bubbles against the structural floor."""

from __future__ import annotations

from collections.abc import Sequence

from harness_analysis.report.blocks import Column, Figure, Section, Table
from harness_analysis.report.numbers.pipeline import Bubble
from harness_analysis.report.sections.drawing import marker, rank_axis, rows_height
from harness_schemas.units import format_ns, format_share

MOST_BARS = 512


def pipeline_section(bubbles: Sequence[Bubble]) -> Section | None:
    """Waiting for the neighbouring stages, a chart a phase."""
    phases = [phase for phase in ("decode", "prefill") if any(b.phase == phase for b in bubbles)]
    if not phases:
        return None
    lead = (
        "A pipeline waits by construction. The line is that floor: what a perfectly even pipeline "
        "with this many micro-batches in flight would wait; only what lies beyond it can be won."
    )
    figures = [_figure(phase, [b for b in bubbles if b.phase == phase]) for phase in phases]
    return Section("pipeline", "Pipeline bubbles", "Pipeline", lead, figures)


def _worst(rows: Sequence[Bubble]) -> list[Bubble]:
    worst = sorted(rows, key=lambda row: (-(row.excess_share or 0.0), row.rank))[:MOST_BARS]
    return sorted(worst, key=lambda row: row.rank)


def _figure(phase: str, everyone: Sequence[Bubble]) -> Figure:
    rows = _worst(everyone)
    hidden = len(everyone) - len(rows)
    labels = [f"rank {row.rank} (stage {_known(row.stage)})" for row in rows]
    waits = {
        "type": "bar",
        "orientation": "h",
        "name": "waiting for other stages",
        "x": [_percent(row.wait_share) for row in rows],
        "marker": marker("comm_wait_ns"),
        "hovertemplate": "%{y}<br>waits <b>%{x:.1f} %</b> of " + phase + "<extra></extra>",
    }
    floor = {
        "type": "scatter",
        "mode": "markers",
        "name": "floor of the schedule",
        "x": [_percent(row.floor_share) for row in rows],
        "marker": {
            "symbol": "line-ns",
            "size": 18 if len(rows) <= 32 else 8,
            "line": {"width": 3, "color": "var(--text)"},
            "color": "var(--text)",
        },
        "hovertemplate": "%{y}<br>floor <b>%{x:.1f} %</b><extra></extra>",
    }
    layout = {
        "bargap": 0.35 if len(rows) <= 64 else 0,
        "xaxis": {
            "title": {"text": f"% of {phase}"},
            "rangemode": "tozero",
            "range": [0, max(100.0, *(100 * (row.wait_share or 0) for row in rows))],
        },
        "yaxis": rank_axis(labels),
        "showlegend": True,
        "hovermode": "closest",
    }
    title = f"Waiting for other stages in {phase}, against the floor"
    return Figure(
        id=f"pipeline-{phase}",
        title=title,
        label="Bars: share of the phase each rank waits for other stages; a mark shows the floor.",
        traces=[waits, floor],
        layout=layout,
        height=rows_height(len(rows), 30, 190),
        table=_table(title, rows),
        common={"y": labels},
        note=f"{hidden} ranks that wait least beyond the floor are not shown." if hidden else "",
    )


def _table(title: str, rows: Sequence[Bubble]) -> Table:
    columns = [
        Column("rank"),
        Column("stage"),
        Column("window"),
        Column("waited", part="comm_wait_ns"),
    ]
    columns += [Column("transferred", part="comm_transfer_ns"), Column("wait share")]
    columns += [Column("floor"), Column("beyond the floor")]
    cells = [
        [
            str(row.rank),
            _known(row.stage),
            format_ns(row.window_ns),
            format_ns(row.p2p_wait_ns),
            format_ns(row.p2p_transfer_ns),
            format_share(row.wait_share),
            format_share(row.floor_share),
            format_share(row.excess_share),
        ]
        for row in rows
    ]
    return Table(title, columns, cells)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)
