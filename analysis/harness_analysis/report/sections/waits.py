"""Who waits for whom: the wait matrix, lateness over the steps, and the stragglers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness_analysis.report.blocks import Block, Choice, Column, Figure, Note, Section, Table
from harness_analysis.report.numbers.waiting import Waiting
from harness_analysis.report.sections.drawing import (
    KIND_TITLES,
    TimeScale,
    digits,
    heat_map,
    rank_axis,
    rows_height,
    time_scale,
)
from harness_analysis.report.sections.lateness import lateness_figure
from harness_schemas.units import format_count, format_ns, format_share

MOST_RANKS = 128
"""Rows of the matrix; of more ranks, neighbours share one."""
MOST_WRITTEN = 9
"""Columns of the matrix up to which its cells hold their numbers."""
MOST_ROWS = 50
MOST_ACROSS = 12


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
        **heat_map(columns, labels, scale),
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


# -- stragglers --------------------------------------------------------------------------------


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
