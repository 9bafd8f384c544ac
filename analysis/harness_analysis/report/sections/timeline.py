"""The timeline: chosen steps over all ranks, with zoom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness_analysis.report.blocks import Choice, Column, Figure, Section, Table
from harness_analysis.report.numbers.timeline import LAYER, Piece, StepTimeline, Timelines
from harness_analysis.report.palette import part_color
from harness_analysis.report.sections.drawing import MOST_TICKS, TimeScale, part_label, time_scale
from harness_schemas.units import format_count, format_ns
from harness_schemas.vocabulary import PARTS

WINDOW = "window"
ORDER = (WINDOW, LAYER, *PARTS)
"""What is drawn later lies on top: communication over the layers it is in."""
MOST_ROWS = 64


def timeline_section(found: Timelines | None) -> Section | None:
    """One figure, in which a step is chosen."""
    if found is None or not found.steps:
        return None
    lead = (
        "One step on every rank, on one clock. Where all ranks end a stretch of waiting together, "
        "look for the rank that does not wait: the others stand still for it."
    )
    figure = timeline_figure(found)
    return Section("timeline", "A step, rank by rank", "Timeline", lead, [figure])


def timeline_figure(found: Timelines) -> Figure:
    """Lines by class over time, a row a rank."""
    scale = time_scale(step.length_ns for step in found.steps)
    used = {part for step in found.steps for part in step.pieces}
    drawn = [part for part in ORDER if part == WINDOW or part in used]
    height = max(180, min(820, 80 + 26 * len(found.ranks)))
    thick = max(1.0, min(18.0, 0.72 * (height - 80) / len(found.ranks)))
    row_of = {rank: row for row, rank in enumerate(found.ranks)}
    choices = [
        Choice(step.title, [{"segments": _segments(step, part, row_of, scale)} for part in drawn])
        for step in found.steps
    ]
    labels = [
        f"rank {rank}" + ("" if stage is None else f" (stage {stage})")
        for rank, stage in zip(found.ranks, found.stages, strict=True)
    ]
    return Figure(
        id="timeline",
        title="Timeline",
        label="Timeline of one decode step: what each rank did, by class.",
        traces=[_trace(part, thick, scale) for part in drawn],
        layout=_layout(found, labels, scale),
        height=height,
        table=_table(found.steps),
        common={"type": "scatter", "mode": "lines", "hoveron": "points"},
        note=_note(found),
        legend=[part for part in drawn if part in PARTS],
        choices=choices,
        choice_title="Step",
        zoom=True,
    )


def _layout(found: Timelines, labels: Sequence[str], scale: TimeScale) -> dict[str, Any]:
    every = max(1, -(-len(labels) // MOST_TICKS))
    rows = list(range(0, len(labels), every))
    longest = max(step.length_ns for step in found.steps)
    return {
        "xaxis": {
            "title": {"text": f"{scale.unit} since the step began on its first rank"},
            "showgrid": True,
            "zeroline": False,
            "range": [0, scale.of(longest)],
        },
        "yaxis": {
            "tickmode": "array",
            "tickvals": rows,
            "ticktext": [labels[row] for row in rows],
            "range": [len(labels) - 0.4, -0.6],
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
        },
        "hovermode": "closest",
    }


def _trace(part: str, thick: float, scale: TimeScale) -> dict[str, Any]:
    if part == WINDOW:
        line = {"color": part_color("idle_ns"), "width": thick}
    elif part == LAYER:
        line = {"color": part_color("compute_ns"), "width": thick}
    else:
        line = {"color": part_color(part), "width": thick}
    name = {WINDOW: "the step", LAYER: "layer"}.get(part) or part_label(part)
    return {
        "name": name,
        "line": line,
        "hovertemplate": f"%{{text}}<br>{name}<br>%{{x:,.5~g}} {scale.unit}<extra></extra>",
    }


def _segments(
    step: StepTimeline, part: str, row_of: dict[int, int], scale: TimeScale
) -> dict[str, Any]:
    """Rows, starts and lengths, and an index into names: the page makes lines of them."""
    pieces: Sequence[Piece] = step.windows if part == WINDOW else step.pieces.get(part, ())
    names = list(dict.fromkeys(piece[3] for piece in pieces))
    index = {name: place for place, name in enumerate(names)}
    return {
        "row": [row_of[rank] for rank, *_ in pieces],
        "start": [scale.of(start) for _, start, _, _ in pieces],
        "length": [scale.of(end - start) for _, start, end, _ in pieces],
        "name": [index[name] for *_, name in pieces],
        "names": names,
    }


def _note(found: Timelines) -> str:
    note = f"From {found.source}, {found.timeline} timeline"
    note += "; these steps were slowed by observing them" if found.perturbed else ""
    gaps = max(step.merged_ns for step in found.steps)
    if gaps:
        note += f"; gaps up to {format_ns(gaps)} are closed to keep the page small"
    if any(LAYER in step.pieces for step in found.steps):
        note += "; layers are drawn as compute, communication over them"
    bare = "nothing recorded" if found.timeline == "device" else "the host between calls"
    return note + f". Grey: {bare}. Drag to zoom, double click to see all; or use the sliders."


def _table(steps: Sequence[StepTimeline]) -> Table:
    columns = [Column("step", number=False), Column("rank", number=False), Column("begins")]
    columns += [Column("lasts")]
    parts = [part for part in PARTS if any(part in step.pieces for step in steps)]
    columns += [Column(part_label(part), part=part) for part in parts]
    columns.append(Column("intervals"))
    rows = []
    for step in steps:
        sums: dict[tuple[str, int], int] = {}
        counts: dict[int, int] = {}
        for part, pieces in step.pieces.items():
            for rank, start, end, _ in pieces:
                sums[part, rank] = sums.get((part, rank), 0) + end - start
                counts[rank] = counts.get(rank, 0) + 1
        for rank, start, end, _ in step.windows[:MOST_ROWS]:
            cells = [step.title, f"rank {rank}", format_ns(start), format_ns(end - start)]
            cells += [format_ns(sums.get((part, rank))) for part in parts]
            rows.append([*cells, format_count(counts.get(rank, 0))])
    note = "Sums of intervals as drawn: those of one class may overlap, unlike in the breakdown."
    return Table("Intervals of the steps drawn, by rank", columns, rows, note)
