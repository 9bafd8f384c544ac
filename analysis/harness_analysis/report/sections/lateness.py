"""The map of lateness: for each rank and step, how long the others waited for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness_analysis.report.blocks import Choice, Column, Figure, Table
from harness_analysis.report.numbers.waiting import Waiting
from harness_analysis.report.sections.drawing import (
    KIND_TITLES,
    MOST_TICKS,
    STEP_AXIS,
    TimeScale,
    digits,
    heat_map,
    rank_axis,
    rows_height,
    time_scale,
)
from harness_schemas.units import format_count, format_ns

COLOR_STEPS = 1000
"""A cell below this part of the largest is drawn as nothing."""
MOST_ROWS = 50
MOST_HOST_LINES = 130
MOST_DARK_LINES = 16
TALLEST = 1100
MOST_MARKS = 5
MARKED_SHARE = 0.02
"""Share of all waiting that a rank must have caused to be marked beside its row."""
MOST_WORST = 1024
"""Ranks up to which the page has room for a second map."""


def lateness_figure(waiting: Waiting) -> Figure:
    """Heat map, rank by step: how long the others waited for this rank."""
    labels = [_row_label(waiting, k) for k in range(len(waiting.ranks))]
    drawn = _maps(waiting)
    most = max(float(values.max()) for values in drawn.values())
    scale, least = time_scale([most]), most / COLOR_STEPS
    maps = {title: _cells(values, least, scale) for title, values in drawn.items()}
    first = next(iter(maps))
    trace = {
        **heat_map(waiting.bins.centers, labels, scale),
        "z": maps[first],
        "hovertemplate": "%{y}, unit %{x}<br>others waited <b>%{z:,.4~g} "
        + scale.unit
        + "</b><extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": STEP_AXIS}, "showgrid": False, "zeroline": False},
        "yaxis": rank_axis(labels),
        "hovermode": "closest",
        "shapes": _host_lines(waiting),
        "annotations": _late_marks(waiting),
    }
    if layout["annotations"]:
        trace["colorbar"]["x"] = 1.08
    return Figure(
        id="lateness",
        title="Lateness by rank and step",
        label="Heat map: for each rank and decode unit, how long the other ranks waited for it.",
        traces=[trace],
        layout=layout,
        height=_height(len(labels)),
        table=_lateness_table(waiting),
        note=_note(waiting, bool(layout["shapes"])),
        choices=[Choice(title, [{"z": cells}]) for title, cells in maps.items()],
        choice_title="Waiting",
    )


def _maps(waiting: Waiting) -> dict[str, NDArray[np.float64]]:
    """What can be shown, by its title: each kind of call, and of binned units the worst ones."""
    drawn = {KIND_TITLES[kind]: values for kind, values in waiting.caused.items()}
    if waiting.bins.whole:
        return drawn
    drawn = {f"{title}, mean of the units": values for title, values in drawn.items()}
    worst = waiting.worst.get("collective") if len(waiting.ranks) <= MOST_WORST else None
    return drawn | ({} if worst is None else {f"{KIND_TITLES['collective']}, worst unit": worst})


def _height(rows: int) -> int:
    return rows_height(rows, 24 if rows <= 16 else 10, 200, max(760, min(2 * rows, TALLEST)))


def _note(waiting: Waiting, parted: bool) -> str:
    note = f"Less than 1/{COLOR_STEPS} of the largest is drawn as nothing."
    if not waiting.bins.whole:
        units, bins = waiting.bins.units, waiting.bins.bins
        note = f"{format_count(units)} units in {bins} columns. {note}"
    return note + (" Lines part the hosts." if parted else "")


def _host_lines(waiting: Waiting) -> list[dict[str, Any]]:
    """A line between the last rank of a host and the first of the next."""
    hosts = waiting.hosts
    places = [row for row in range(1, len(hosts)) if hosts[row] != hosts[row - 1]]
    if len(places) > MOST_HOST_LINES:
        return []
    # Among many, a line must not look like a late rank.
    line = {
        "color": "var(--muted)" if len(places) <= MOST_DARK_LINES else "var(--line)",
        "width": 1,
    }
    across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y"}
    return [{**across, "y0": row - 0.5, "y1": row - 0.5, "line": line} for row in places]


def _late_marks(waiting: Waiting) -> list[dict[str, Any]]:
    """Beside rows too thin to be read: the ranks for which the others waited most."""
    if len(waiting.ranks) <= MOST_TICKS:
        return []
    caused = sum(values.sum(axis=1) for values in waiting.caused.values())
    total = float(np.sum(caused))
    worst = np.argsort(-np.asarray(caused), kind="stable")[:MOST_MARKS].tolist()
    return [
        {
            "xref": "paper", "x": 1, "xanchor": "left", "yref": "y", "y": row,
            "text": f"\u25c2 {waiting.ranks[row]}", "showarrow": False, "font": {"size": 11},
        }
        for row in worst
        if total and caused[row] > MARKED_SHARE * total
    ]  # fmt: skip


def _row_label(waiting: Waiting, row: int) -> str:
    several = len(set(waiting.hosts)) > 1
    host = waiting.hosts[row]
    return f"rank {waiting.ranks[row]}" + (f" {host}" if several and host else "")


def _cells(values: NDArray[np.float64], least: float, scale: TimeScale) -> list[list[float | None]]:
    rows = np.where(values < least, 0.0, values).tolist()
    return [[digits(scale.of(value), 2) or 0 for value in row] for row in rows]


def _lateness_table(waiting: Waiting) -> Table:
    columns = [Column("rank"), Column("waiting", number=False), Column("waited for it, a unit")]
    columns += [Column("at most"), Column("in", number=False)]
    rows = []
    for kind, values in waiting.caused.items():
        for row in np.argsort(-values.sum(axis=1), kind="stable").tolist():
            if values[row].any():
                worst = int(values[row].argmax())
                rows.append(
                    [
                        str(waiting.ranks[row]),
                        KIND_TITLES[kind],
                        format_ns(float(values[row].mean())),
                        format_ns(float(values[row].max())),
                        waiting.bins.labels[worst],
                    ]
                )
    return Table("For whom the others waited, by rank", columns, rows[:MOST_ROWS])
