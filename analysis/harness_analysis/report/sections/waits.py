"""Who waits for whom: the wait matrix, lateness over the steps, and the stragglers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness_analysis.report.blocks import Block, Choice, Column, Figure, Note, Section, Table
from harness_analysis.report.numbers.waiting import Waiting
from harness_analysis.report.palette import color_scale
from harness_analysis.report.sections.drawing import (
    MOST_TICKS,
    STEP_AXIS,
    TimeScale,
    digits,
    rank_axis,
    rows_height,
    time_scale,
)
from harness_schemas.units import format_count, format_ns, format_share

MOST_RANKS = 128
"""Rows of the matrix; of more ranks, neighbours share one."""
MOST_WRITTEN = 9
"""Columns of the matrix up to which its cells hold their numbers."""
COLOR_STEPS = 1000
"""A cell of the map of lateness below this part of the largest is drawn as nothing."""
MOST_ROWS = 50
MOST_HOST_LINES = 130
MOST_DARK_LINES = 16
MOST_ACROSS = 12
TALLEST = 1100
MOST_MARKS = 5
MARKED_SHARE = 0.02
"""Share of all waiting that a rank must have caused to be marked beside its row."""
MOST_WORST = 1024
"""Ranks up to which the page has room for a second map."""
KIND_TITLES = {"collective": "in collectives", "p2p": "in point-to-point calls"}


def waits_section(waiting: Waiting | None) -> Section | None:
    """Matrix, map of lateness and stragglers of the steps of decoding."""
    if waiting is None:
        return None
    lead = (
        "A row waits for a column. The rank with the most communication time is the earliest, "
        "not the slowest: look for the column that many rows wait for."
    )
    blocks: list[Block] = [matrix_figure(waiting)]
    if waiting.caused:
        blocks.append(lateness_figure(waiting))
    if waiting.stragglers:
        blocks.append(_straggler_table(waiting))
    blocks.append(Note(_basis(waiting)))
    return Section("waits", "Who waits for whom", "Waits", lead, blocks)


def _basis(waiting: Waiting) -> str:
    text = f"From {waiting.source}, decode units"
    text += "." if waiting.headline else ", warm-up or perturbed ones: no others tell waiting."
    if waiting.unsplit:
        text += f" {format_count(waiting.unsplit)} calls could not be divided and are left out."
    return text + " Waiting that computing hides is in these numbers, unlike in the breakdown."


# -- matrix --------------------------------------------------------------------------------------


def matrix_figure(waiting: Waiting) -> Figure:
    """Heat map: rows wait for columns, in time summed over the steps of decoding."""
    size = max(1, math.ceil(len(waiting.ranks) / MOST_RANKS))
    ranks = sorted(waiting.ranks)
    blocks = [ranks[k : k + size] for k in range(0, len(ranks), size)]
    labels = [str(b[0]) if len(b) == 1 else f"{b[0]}-{b[-1]}" for b in blocks]
    place = {rank: k for k, block in enumerate(blocks) for rank in block}
    kinds = sorted({pair.kind for pair in waiting.pairs})
    totals = {title: wait_matrix(waiting, place, chosen) for title, chosen in _kind_choices(kinds)}
    everything = next(iter(totals.values()))
    columns = [*labels, "undecided"] if everything[:, -1].any() else labels
    scale = time_scale(everything.ravel().tolist())
    cells = {title: _matrix_cells(total, len(columns), scale) for title, total in totals.items()}
    trace = {
        **_heat_map(columns, labels, scale),
        **next(iter(cells.values())),
        "texttemplate": "%{text}" if len(columns) <= MOST_WRITTEN else "",
        "xgap": 1 if len(labels) <= 64 else 0,
        "ygap": 1 if len(labels) <= 64 else 0,
        "hovertemplate": "%{y} waits for %{x}<br><b>%{z:,.4~g} "
        + scale.unit
        + "</b><extra></extra>",
    }
    return Figure(
        id="wait-matrix",
        title="Wait matrix",
        label="Heat map: how long each rank (row) waited for each other rank (column).",
        traces=[trace],
        layout=_matrix_layout(columns, labels),
        height=rows_height(len(labels), 44 if len(labels) <= 8 else 22, 260, 640),
        table=_pair_table(waiting),
        choices=[Choice(title, [changes]) for title, changes in cells.items()],
        choice_title="Waiting",
    )


def _kind_choices(kinds: list[str]) -> list[tuple[str, list[str]]]:
    """What the matrix can show: everything, and each kind where there are several."""
    single = [(KIND_TITLES[kind], [kind]) for kind in kinds]
    return [("in all calls", kinds), *single] if len(single) > 1 else single


def _matrix_layout(columns: list[str], labels: list[str]) -> dict[str, Any]:
    return {
        "xaxis": {
            **rank_axis(columns, MOST_ACROSS),
            "autorange": True,
            "tickangle": 0 if len(columns) <= MOST_WRITTEN else "auto",
            "title": {"text": "waited for"},
        },
        "yaxis": {**rank_axis(labels), "title": {"text": "waiting rank"}},
        "hovermode": "closest",
    }


def _heat_map(x: Sequence[Any], y: Sequence[str], scale: TimeScale) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": list(x),
        "y": list(y),
        "colorscale": color_scale(),
        "zmin": 0,
        "colorbar": {
            "title": {"text": scale.unit, "side": "top"},
            "thickness": 10,
            "outlinewidth": 0,
            "len": 0.9,
        },
    }


def wait_matrix(
    waiting: Waiting, place: Mapping[int, int], kinds: Sequence[str]
) -> NDArray[np.float64]:
    """[waiting, waited for] in nanoseconds; the last column is waiting for nobody in particular.

    `place`: row and column of each rank.
    """
    size = max(place.values(), default=-1) + 1
    total = np.zeros((size, size + 1))
    for pair in waiting.pairs:
        if pair.rank in place and pair.kind in kinds:
            target = size if pair.waited_for is None else place.get(pair.waited_for, size)
            total[place[pair.rank], target] += pair.wait_ns
    return total


def _matrix_cells(
    total: NDArray[np.float64], columns: int, scale: TimeScale
) -> dict[str, list[list[Any]]]:
    """Values, and their texts where there is room; cells without waiting stay empty."""
    rows = [row[:columns] for row in total.tolist()]
    cells: dict[str, list[list[Any]]] = {
        "z": [[digits(scale.of(value), 5) if value else None for value in row] for row in rows]
    }
    if columns <= MOST_WRITTEN:
        cells["text"] = [[format_ns(value) if value else "" for value in row] for row in rows]
    return cells


def _pair_table(waiting: Waiting) -> Table:
    columns = [Column("rank"), Column("waits for"), Column("where", number=False)]
    columns += [Column("calls"), Column("waited"), Column("a call")]
    rows = [
        [
            str(pair.rank),
            "nobody named" if pair.waited_for is None else f"rank {pair.waited_for}",
            KIND_TITLES[pair.kind],
            format_count(pair.calls),
            format_ns(pair.wait_ns),
            format_ns(pair.wait_ns / pair.calls),
        ]
        for pair in waiting.pairs[:MOST_ROWS]
    ]
    more = len(waiting.pairs) - len(rows)
    note = f'{more} more with less waiting: harness query RUN "FROM waits"' if more > 0 else ""
    return Table("Who waited for whom, longest first", columns, rows, note)


# -- lateness ------------------------------------------------------------------------------------


def lateness_figure(waiting: Waiting) -> Figure:
    """Heat map, rank by step: how long the others waited for this rank."""
    labels = [_row_label(waiting, k) for k in range(len(waiting.ranks))]
    whole = waiting.bins.whole
    drawn = {KIND_TITLES[kind]: values for kind, values in waiting.caused.items()}
    if not whole:
        drawn = {f"{title}, mean of the units": values for title, values in drawn.items()}
        shown = len(waiting.ranks) <= MOST_WORST
        worst = waiting.worst.get("collective") if shown else None
        drawn |= {} if worst is None else {f"{KIND_TITLES['collective']}, worst unit": worst}
    most = max(float(values.max()) for values in drawn.values())
    scale, least = time_scale([most]), most / COLOR_STEPS
    maps = {title: _cells(values, least, scale) for title, values in drawn.items()}
    first = next(iter(maps))
    trace = {
        **_heat_map(waiting.bins.centers, labels, scale),
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
    note = f"Less than 1/{COLOR_STEPS} of the largest is drawn as nothing."
    if not whole:
        units, bins = waiting.bins.units, waiting.bins.bins
        note = f"{format_count(units)} units in {bins} columns. {note}"
    return Figure(
        id="lateness",
        title="Lateness by rank and step",
        label="Heat map: for each rank and decode unit, how long the other ranks waited for it.",
        traces=[trace],
        layout=layout,
        height=rows_height(
            len(labels),
            24 if len(labels) <= 16 else 10,
            200,
            max(760, min(2 * len(labels), TALLEST)),
        ),
        table=_lateness_table(waiting),
        note=note + (" Lines part the hosts." if layout["shapes"] else ""),
        choices=[Choice(title, [{"z": cells}]) for title, cells in maps.items()],
        choice_title="Waiting",
    )


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


def short_group(name: str) -> str:
    """`[0,1,2,3]#0` -> `[0-3]#0`: runs of neighbouring ranks as ranges."""
    head, _, rest = name.partition("[")
    inside, bracket, tail = rest.partition("]")
    members = inside.split(",")
    if not bracket or not all(member.isdigit() for member in members):
        return name
    runs: list[list[int]] = []
    for rank in map(int, members):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    return f"{head}[{','.join(texts)}]{tail}"


def _straggler_table(waiting: Waiting) -> Table:
    columns = [Column("rank"), Column("group", number=False), Column("phase", number=False)]
    columns += [Column("last in"), Column("of"), Column("undecided"), Column("share")]
    columns += [Column("waiting caused"), Column("of all waiting"), Column("why", number=False)]
    columns += [Column("a step"), Column("without it")]
    rows = [
        [
            str(row.rank),
            short_group(row.comm_group),
            row.phase or "-",
            format_count(row.times_last),
            format_count(row.collectives),
            format_count(row.undecided),
            format_share(row.share_last),
            format_ns(row.wait_caused_ns),
            format_share(row.share_of_wait),
            row.main_cause or "-",
            _milliseconds(row.step_ms),
            _milliseconds(row.predicted_step_ms),
        ]
        for row in waiting.stragglers[:MOST_ROWS]
    ]
    more = len(waiting.stragglers) - len(rows)
    note = (
        "A rank that is last in half of the collectives of two ranks is a coin toss; the findings "
        "name a culprit only where it is late in most units and the cost is material. Without "
        "its lateness means that it had always come with the next to last, all else as it was."
    )
    if more > 0:
        note += f' {more} more rows: harness query RUN "FROM stragglers"'
    return Table("Stragglers: who came last, and why", columns, rows, note)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else format_ns(value * 1e6)
