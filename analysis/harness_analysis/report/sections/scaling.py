"""Scaling studies: curves with ideal lines and intervals, where the time went, the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness_analysis.report.blocks import Block, Column, Figure, Finding, Findings, Section, Table
from harness_analysis.report.sections.drawing import digits, marker, time_scale
from harness_analysis.scaling.document import HOW_TO_READ
from harness_analysis.scaling.intervals import Estimate
from harness_analysis.scaling.model import Point, Study
from harness_analysis.scaling.rows import against, limits_table, seed_table, sentences, title
from harness_schemas.vocabulary import PART_LABELS, PARTS


def scaling_section(study: Study, position: int) -> Section:
    """One study."""
    name = f"study-{position}"
    findings = [Finding("notice", text) for text in study.marks]
    findings += [Finding("info", text) for text in sentences(study)]
    blocks: list[Block] = [Findings(findings)] if findings else []
    curves = _curves(study, name)
    blocks += curves
    blocks += [_parts(study, name)] if any(point.parts_ns for point in study.points) else []
    blocks += [_table(title(study), *seed_table(study), HOW_TO_READ)]
    blocks += [_table("What limits it", *limits_table(study), "")]
    return Section(name, title(study), study.kind, "", blocks)


def _curves(study: Study, name: str) -> list[Block]:
    known = [point for point in study.points if point.size and point.speedup and point.efficiency]
    if study.kind == "grid" or len({point.size for point in known}) < 2:
        return []
    word = "throughput" if study.kind == "batch" else "speed-up"
    return [
        _curve(study, known, f"{name}-speedup", f"{word} against {against(study)}", ideal=True),
        _curve(study, known, f"{name}-efficiency", "parallel efficiency", ideal=False),
    ]


def _base(study: Study) -> str:
    size = study.base.size if study.base else None
    return (
        f"batch {size}" if study.kind == "batch" else f"{size} {'rank' if size == 1 else 'ranks'}"
    )


def _curve(study: Study, known: Sequence[Point], name: str, what: str, ideal: bool) -> Figure:
    sizes = [point.size or 1 for point in known]
    values = [point.speedup if ideal else point.efficiency for point in known]
    best = [size / sizes[0] if ideal else 1.0 for size in sizes]
    measured = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "measured",
        "y": [digits(value.value) if value else None for value in values],
        "error_y": _whiskers(values),
        "text": [point.label for point in known],
        "line": {"color": "var(--series-0)", "width": 2},
        "marker": {"color": "var(--series-0)", "size": 9},
        "hovertemplate": "%{text}<br><b>%{y:.3g}</b><extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "ideal",
        "y": [digits(value) for value in best],
        "line": {"color": "var(--muted)", "width": 2, "dash": "dash"},
        "hoverinfo": "skip",
    }
    reach = [part for v in values if v for part in (v.value, v.low or v.value)]
    rising = {"type": "log", "tickvals": _powers([*reach, *best])} if ideal else _FROM_ZERO
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": study.axis}, "type": "log", "tickvals": sizes},
        "yaxis": {"title": {"text": what}, **rising},
        "showlegend": True,
        "hovermode": "closest",
    }
    rows = [
        [str(point.size), *_texts(value), f"{one:g}"]
        for point, value, one in zip(known, values, best, strict=True)
    ]
    columns = [Column(study.axis), Column(what), Column("from"), Column("to"), Column("ideal")]
    return Figure(
        id=name,
        title=what[0].upper() + what[1:],
        label=f"{what} over {study.axis}, with the ideal as a dashed line.",
        traces=[measured, line],
        layout=layout,
        height=330,
        table=Table(what, columns, rows, "from, to: 95 % interval over repeats"),
        common={"x": sizes},
    )


_FROM_ZERO = {"rangemode": "tozero"}


def _powers(values: Sequence[float]) -> list[float]:
    """Powers of two around the values: what a speed-up is counted in."""
    first, last = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    step = max(1, (last - first) // 8)
    return [2.0**power for power in range(first, last + 1, step)]


def _whiskers(values: Sequence[Estimate | None]) -> dict[str, Any]:
    """Intervals as plotly's error bars; none from single runs."""
    above = [
        value.high - value.value if value and value.high is not None else 0 for value in values
    ]
    below = [value.value - value.low if value and value.low is not None else 0 for value in values]
    shown = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 5}
    return {**shown, "array": list(map(digits, above)), "arrayminus": list(map(digits, below))}


def _texts(value: Estimate | None) -> list[str]:
    parts = (value.value, value.low, value.high) if value else (None, None, None)
    return ["-" if part is None else f"{part:.3g}" for part in parts]


def _parts(study: Study, name: str) -> Figure:
    known = [point for point in study.points if point.parts_ns]
    used = [part for part in PARTS if any((point.parts_ns or {}).get(part) for point in known)]
    scale = time_scale(sum((point.parts_ns or {}).values()) for point in known)
    traces = [
        {
            "type": "bar",
            "name": PART_LABELS[part],
            "y": [digits(scale.of((point.parts_ns or {}).get(part))) for point in known],
            "marker": marker(part),
            "hovertemplate": f"%{{x}}<br>{PART_LABELS[part]} <b>%{{y:.3g}} {scale.unit}</b>"
            "<extra></extra>",
        }
        for part in used
    ]
    columns = [Column("cell", number=False), *(Column(PART_LABELS[p], part=p) for p in used)]
    rows = [
        [point.label, *(_time((point.parts_ns or {}).get(part), scale.ns) for part in used)]
        for point in known
    ]
    return Figure(
        id=f"{name}-parts",
        title="Where a rank's time went",
        label="Stacked bars: the measured time of a rank and its parts, by configuration.",
        traces=traces,
        layout={
            "barmode": "stack",
            "xaxis": {"type": "category"},
            "yaxis": {"title": {"text": f"time of a rank, {scale.unit}"}},
            "hovermode": "closest",
        },
        height=360,
        table=Table(f"Time of a rank, {scale.unit}, mean over ranks and runs", columns, rows),
        common={"x": [point.label for point in known]},
        legend=used,
        shares=True,
    )


def _time(ns: float | None, unit_ns: int) -> str:
    return "-" if ns is None else f"{ns / unit_ns:.3g}"


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> Table:
    columns = [Column(name, number=name != "cell") for name in names]
    return Table(caption, columns, rows, note)
