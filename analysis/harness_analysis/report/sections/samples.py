"""Samples over the run: CPU, memory, power."""

from __future__ import annotations

from typing import Any

from harness_analysis.report.blocks import Block, Column, Figure, Section, Table
from harness_analysis.report.numbers.samples import Curves, Samples
from harness_analysis.report.palette import SERIES_LIGHT
from harness_analysis.report.sections.drawing import DASHES, digits
from harness_schemas.units import format_bytes, format_count


def samples_section(samples: Samples | None) -> Section | None:
    """A chart for each well-known metric, and a table of all."""
    if samples is None:
        return None
    blocks: list[Block] = [_figure(curves) for curves in samples.curves]
    blocks.append(_all_metrics(samples))
    lead = "Seconds count from the run's first sample. Cumulative counters are drawn as rates."
    return Section("samples", "Hosts and devices", "Samples", lead, blocks, grid=True)


def _figure(curves: Curves) -> Figure:
    traces = [_trace(curves, index) for index in range(len(curves.lines))]
    layout = {
        "xaxis": {"title": {"text": "s"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": curves.unit}, "rangemode": "tozero"},
        "showlegend": len(traces) > 1,
        "hovermode": "x unified",
    }
    title = curves.title
    if len(curves.lines) < curves.series:
        title += f" ({curves.series} series: mean and range)"
    return Figure(
        id=f"samples-{curves.metric.replace('_', '-')}",
        title=title,
        label=f"Lines over time: {curves.title}, in {curves.unit}.",
        traces=traces,
        layout=layout,
        height=260,
        table=_table(curves),
    )


def _trace(curves: Curves, index: int) -> dict[str, Any]:
    line = curves.lines[index]
    colors = len(SERIES_LIGHT)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": line.name,
        "x": [round(second, 3) for second in line.seconds],
        "y": [digits(value, 5) for value in line.values],
        "line": {
            "color": f"var(--series-{index % colors})",
            "dash": DASHES[index // colors % len(DASHES)],
            "width": 2,
        },
        "hovertemplate": "%{y:,.4~g} " + curves.unit,
    }


def _table(curves: Curves) -> Table:
    columns = [Column("series", number=False), Column("points")]
    columns += [Column(name) for name in ("first", "least", "mean", "most", "last")]
    rows = []
    for line in curves.lines:
        values = line.values
        mean = sum(values) / len(values)
        numbers = (values[0], min(values), mean, max(values), values[-1])
        rows.append(
            [line.name, format_count(len(values)), *(f"{number:,.4g}" for number in numbers)]
        )
    return Table(f"{curves.title}, in {curves.unit}", columns, rows)


def _amount(value: float | None, unit: str | None) -> str:
    if value is None:
        return "-"
    if unit == "bytes":
        return format_bytes(value)
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.5g}"


def _all_metrics(samples: Samples) -> Table:
    columns = [Column("metric", number=False), Column("unit", number=False)]
    columns += [Column("collector", number=False), Column("series"), Column("samples")]
    columns += [Column(name) for name in ("least", "mean", "most", "increase")]
    rows = []
    for row in samples.metrics:
        numbers = (row.least, row.mean, row.most, row.increase)
        name = [row.metric, row.unit or "-", row.source or "-"]
        counts = [format_count(row.series), format_count(row.samples)]
        rows.append([*name, *counts, *(_amount(number, row.unit) for number in numbers)])
    note = "Increase: last minus first, summed over series; what a cumulative counter counted."
    return Table("Everything that was sampled", columns, rows, note)
