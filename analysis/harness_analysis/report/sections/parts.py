"""Where the time went: one stacked bar a rank and phase, and the steps of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness_analysis.answer import Answer, Parts, RankBreakdown, total_parts
from harness_analysis.report.blocks import (
    Block,
    Choice,
    Column,
    Composition,
    Figure,
    Note,
    Piece,
    Section,
    Table,
)
from harness_analysis.report.numbers.steps import StepSeries
from harness_analysis.report.sections.drawing import (
    STEP_AXIS,
    TimeScale,
    digits,
    drawn_parts,
    marker,
    part_label,
    rank_axis,
    rows_height,
    time_scale,
)
from harness_schemas.units import format_count, format_ns, format_share
from harness_schemas.vocabulary import PARTS

PHASE_TITLES = {"all": "the whole run", "mixed": "mixed steps"}
MOST_BARS = 512
"""Ranks with a bar; of more, half of them those that wait least and half those that wait most."""
MOST_CHOICES = 256
"""Ranks that can be chosen one by one; of more, those that wait least, which are the late ones."""


def breakdown_section(answer: Answer) -> Section | None:
    """Bars of every rank for every phase, decoding first."""
    phases = sorted(answer.phases(), key=lambda phase: ("decode", "mixed").count(phase) == 0)
    if not phases:
        return None
    blocks = [_bars(phase, answer.of_phase(phase)) for phase in phases]
    lead = (
        "Every instant of a rank's window has one class. Waiting is time inside a collective or "
        "message that another rank had not reached yet; transfer is what remains of it."
    )
    return Section("breakdown", "Where the time went", "Breakdown", lead, blocks)


def phase_title(phase: str) -> str:
    """The phase as a word of a sentence."""
    return PHASE_TITLES.get(phase, phase)


def composition(answer: Answer, phase: str) -> Composition | None:
    """A single bar of the parts of a phase, over all ranks."""
    rows = answer.of_phase(phase)
    total = total_parts(row.parts for row in rows)
    if total is None:
        return None
    title = f"Where {phase_title(phase)} went"
    pieces = []
    for part in PARTS:
        share = total.share(part)
        if share:
            pieces.append(Piece(part, share, f"{part_label(part)} {format_share(share)}"))
    label = f"{title}: " + ", ".join(piece.text for piece in pieces)
    ranks = "1 rank" if len(rows) == 1 else f"Mean of {len(rows)} ranks"
    note = f"{ranks}, {format_ns(total.window_ns / len(rows))} each"
    return Composition(title, label, pieces, note)


def _basis(rows: Sequence[RankBreakdown]) -> str:
    """What the bars of a phase rest on."""
    units = sum(row.units or 0 for row in rows)
    left_out = sum(row.left_out or 0 for row in rows)
    evidence = " and ".join(sorted({row.basis for row in rows}))
    note = f"From {evidence}, {rows[0].timeline or 'unknown'} timeline"
    note += f", {format_count(units)} units" if units else ", first to last activity"
    note += f" ({format_count(left_out)} warm-up, perturbed or cut left out)" if left_out else ""
    missing = [part_label(p) for p in PARTS if all(row.parts.ns[p] is None for row in rows)]
    note += f"; no evidence for {', '.join(missing)}" if missing else ""
    if len(rows) > MOST_BARS:
        half = MOST_BARS // 2
        note += f"; {MOST_BARS} of {len(rows)} ranks: {half} that wait least, {half} that wait most"
    return note + "."


def rank_label(row: RankBreakdown) -> str:
    """As on the axes: the rank, and its stage where there are several."""
    return f"rank {row.rank}" if row.stage is None else f"rank {row.rank} (stage {row.stage})"


def _extremes(rows: Sequence[RankBreakdown]) -> list[RankBreakdown]:
    if len(rows) <= MOST_BARS:
        return list(rows)
    order = sorted(rows, key=lambda row: (row.parts.share("comm_wait_ns") or 0.0, row.rank))
    kept = [*order[: MOST_BARS // 2], *order[-MOST_BARS // 2 :]]
    return sorted(kept, key=lambda row: row.rank)


def _bars(phase: str, everyone: Sequence[RankBreakdown]) -> Figure:
    rows = _extremes(everyone)
    scale = time_scale(row.parts.window_ns for row in rows)
    labels = [rank_label(row) for row in rows]
    values = {part: [row.parts.ns[part] for row in rows] for part in PARTS}
    traces = [_bar_trace(part, [row.parts for row in rows], scale) for part in drawn_parts(values)]
    layout = {
        "barmode": "stack",
        "bargap": 0.28 if len(rows) <= 64 else 0,
        "xaxis": {"title": {"text": scale.unit}, "rangemode": "tozero", "ticksuffix": ""},
        "yaxis": rank_axis(labels),
        "hovermode": "closest",
    }
    title = f"{_capital(phase_title(phase))} by rank"
    return Figure(
        id=f"parts-{phase}",
        title=title,
        label=f"Stacked bars: the window of {phase_title(phase)} on each rank, divided into parts.",
        traces=traces,
        layout=layout,
        height=rows_height(len(rows)),
        table=_parts_table(title, rows),
        common={"type": "bar", "orientation": "h", "y": labels},
        note=_basis(everyone),
        legend=drawn_parts(values),
        shares=True,
    )


def _bar_trace(part: str, rows: Sequence[Parts], scale: TimeScale) -> dict[str, Any]:
    return {
        "name": part_label(part),
        "x": [scale.of(row.ns[part]) for row in rows],
        "marker": marker(part),
        "hovertemplate": f"%{{y}}<br>{part_label(part)} %{{x:,.4~g}} {scale.unit}<extra></extra>",
    }


def _parts_table(title: str, rows: Sequence[RankBreakdown]) -> Table:
    columns = [Column("rank"), Column("stage"), Column("TP rank"), Column("host", number=False)]
    columns += [Column("units"), Column("window")]
    columns += [Column(part_label(part), part=part) for part in PARTS]
    cells = []
    for row in rows:
        place = [str(row.rank), _known(row.stage), _known(row.tp_rank), row.host or "-"]
        place += [_known(row.units), format_ns(row.parts.window_ns)]
        cells.append([*place, *(_part_cell(row.parts, part) for part in PARTS)])
    return Table(title, columns, cells)


def _part_cell(parts: Parts, part: str) -> str:
    ns = parts.ns[part]
    return "-" if ns is None else f"{format_ns(ns)} ({format_share(parts.share(part))})"


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- over the steps ------------------------------------------------------------------------------


def steps_section(series: StepSeries | None) -> Section | None:
    """Stacked parts over the steps of decoding, for all ranks, a stage or one rank."""
    if series is None:
        return None
    mean = series.mean()
    scale = time_scale(mean[:, 0].tolist())
    anywhere = {part: series.values[:, :, k + 1].ravel() for k, part in enumerate(PARTS)}
    shown = [part for part in PARTS if (anywhere[part] > 0).any()]
    traces = [_step_trace(part, series, scale) for part in shown]
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"title": {"text": STEP_AXIS}, "showgrid": False},
        "yaxis": {"title": {"text": f"{scale.unit} a unit"}, "rangemode": "tozero"},
        "hovermode": "x unified",
    }
    figure = Figure(
        id="steps",
        title="Parts over the steps of decoding",
        label="Stacked bars over decode units in the order of time, divided into parts.",
        traces=traces,
        layout=layout,
        height=380,
        table=_steps_table(series, mean),
        common={
            "type": "bar",
            "x": series.bins.centers,
            "width": [size * (0.86 if series.bins.bins <= 60 else 1) for size in series.bins.sizes],
        },
        legend=shown,
        choices=_choices(series, shown, scale),
        choice_title="Ranks",
        shares=True,
    )
    return Section(
        "steps", "Over the steps", "Steps", _steps_lead(series), [figure, *_kept(series)]
    )


def _kept(series: StepSeries) -> list[Block]:
    hidden = len(series.ranks) - MOST_CHOICES
    if hidden <= 0:
        return []
    return [Note(f"{hidden} ranks that wait longest cannot be chosen one by one here.")]


def _steps_lead(series: StepSeries) -> str:
    bins = series.bins
    text = f"{format_count(bins.units)} measured units of decoding in the order of time"
    if not bins.whole:
        text += f", gathered into {bins.bins} bins; bars are means a unit"
    return text + "."


def _step_trace(part: str, series: StepSeries, scale: TimeScale) -> dict[str, Any]:
    values = _stack(series, None, [part], scale)[0]
    return {
        "name": part_label(part),
        "y": values,
        "marker": marker(part),
        "hovertemplate": "%{y:,.4~g} " + scale.unit,
    }


def _stack(
    series: StepSeries, rows: list[int] | None, shown: list[str], scale: TimeScale
) -> list[list[float | None]]:
    mean = series.mean(rows)
    exact = series.bins.whole and rows is not None and len(rows) == 1
    stacks = []
    for part in shown:
        scaled = [scale.of(value) for value in mean[:, 1 + PARTS.index(part)].tolist()]
        stacks.append(scaled if exact and len(series.ranks) <= 16 else [digits(v) for v in scaled])
    return stacks


def _choices(series: StepSeries, shown: list[str], scale: TimeScale) -> list[Choice]:
    choices = [Choice("all ranks (mean)", _changes(_stack(series, None, shown, scale)))]
    stages = sorted({stage for stage in series.stages if stage is not None})
    if len(stages) > 1:
        for stage in stages:
            rows = [k for k, own in enumerate(series.stages) if own == stage]
            changes = _changes(_stack(series, rows, shown, scale))
            choices.append(Choice(f"stage {stage} (mean)", changes))
    for row in _choosable(series):
        name = f"rank {series.ranks[row]}"
        choices.append(Choice(name, _changes(_stack(series, [row], shown, scale))))
    return choices


def _changes(stacks: list[list[float | None]]) -> list[dict[str, Any]]:
    return [{"y": values} for values in stacks]


def _choosable(series: StepSeries) -> list[int]:
    rows = range(len(series.ranks))
    if len(rows) <= MOST_CHOICES:
        return list(rows)
    import numpy as np

    waits = np.nansum(series.values[:, :, 1 + PARTS.index("comm_wait_ns")], axis=1)
    return sorted(np.argsort(waits, kind="stable")[:MOST_CHOICES].tolist())


def _steps_table(series: StepSeries, mean: Any) -> Table:
    columns = [Column("units", number=False), Column("window")]
    columns += [Column(part_label(part), part=part) for part in PARTS]
    rows = []
    for label, values in zip(series.bins.labels, mean.tolist(), strict=True):
        rows.append([label, *(format_ns(None if v != v else v) for v in values)])
    note = 'Means over ranks. One rank: harness query RUN "FROM step_breakdown WHERE rank = 0"'
    return Table("Parts over the steps of decoding, mean over ranks", columns, rows, note)
