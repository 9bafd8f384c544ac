"""A pair's sections: what changed, effects with their intervals, where the step's time moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness_analysis.compare import Comparison
from harness_analysis.compare.effects import BETTER, NO_DIFFERENCE, WORSE, Effect
from harness_analysis.compare.gates import FAILED, UNDERPOWERED
from harness_analysis.compare.parts import WINDOW
from harness_analysis.compare.show import show_change, show_interval, show_value
from harness_analysis.report.blocks import (
    Block,
    Column,
    Figure,
    Finding,
    Findings,
    Note,
    Section,
    Table,
    Tile,
    Tiles,
)
from harness_analysis.report.sections.drawing import (
    digits,
    marker,
    part_label,
    rank_axis,
    rows_height,
    time_scale,
)
from harness_schemas.vocabulary import MEASURED_PHASES, PARTS

TILES = ("tok_per_s", "ttft_p50", "tpot_p50", "step_p50", "j_per_token")
WIDE, WIDEST = 200.0, 400.0
"""Percent to which the chart of effects reaches: with its intervals, with its effects."""
MOST_RANKS = 128
COLORS = {
    BETTER: "var(--series-2)",
    WORSE: "var(--series-1)",
    NO_DIFFERENCE: "var(--series-6)",
}


def changes_section(pair: Comparison, position: int) -> Section:
    """The configuration's difference, drift, and what must be known before believing anything."""
    findings = [Finding("info", pair.changes.verdict())]
    findings += [Finding("notice", note) for note in pair.notes]
    states = {FAILED: "problem", UNDERPOWERED: "notice"}
    findings += [
        Finding(states.get(gate.state, "info"), f"gate {gate.gate}: {gate.state}; {gate.reason}")
        for gate in pair.gates
    ]
    blocks: list[Block] = [Findings(findings)]
    if pair.changes.changes:
        blocks.append(_changes_table(pair))
    lead = f"A: {_runs(pair.a)}. B: {_runs(pair.b)}."
    title = f"{pair.b.label} against {pair.a.label}: what changed"
    short = _short("What changed", pair, position)
    return Section(f"changed-{position}", title, short, lead, blocks)


def _short(name: str, pair: Comparison, position: int) -> str:
    """Name in the navigation; from the second pair on it says of which side."""
    return f"{name}: {pair.b.label}" if position else name


def _runs(side: Any) -> str:
    names = [run.name for run in side.runs]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _changes_table(pair: Comparison) -> Table:
    columns = [Column(name, number=False) for name in ("kind", "what", "A", "B", "note")]
    rows = []
    for change in pair.changes.changes:
        note = "follows from the number of ranks" if change.follows else ""
        note = "differs among the runs of a side" if change.varies else note
        rows.append([change.group, change.path, change.a, change.b, note])
    return Table("What differs", columns, rows)


# -- metrics ---------------------------------------------------------------------------------


def metrics_section(pair: Comparison, position: int) -> Section:
    """Tiles, the chart of effects in percent, and the table of all metrics."""
    shown = [effect for effect in pair.effects if effect.rank is None]
    blocks: list[Block] = [
        Tiles([_tile(e) for e in shown if e.metric in TILES and e.a is not None])
    ]
    drawn = [e for e in shown if e.interval is not None and e.interval.share is not None]
    table = effects_table("Every metric", shown)
    if drawn:
        blocks.append(_effects_figure(drawn, table, position))
    else:
        blocks.append(table)
    methods = dict.fromkeys(e.method for e in shown if e.interval is not None)
    if methods:
        blocks.append(Note(f"Intervals rest on: {'; '.join(methods)}."))
    lead = (
        "What B adds to A, in percent of A, with its 95 % interval. Where the interval holds zero, "
        "no difference is shown; that is not the same as none."
    )
    return Section(
        f"metrics-{position}", "Metrics", _short("Metrics", pair, position), lead, blocks
    )


def _tile(effect: Effect) -> Tile:
    change = effect.b - effect.a if effect.a and effect.b is not None else None
    value = "-" if change is None or not effect.a else f"{100 * change / abs(effect.a):+.1f} %"
    before, after = (show_value(side, effect.unit) for side in (effect.a, effect.b))
    return Tile(value, effect.metric, f"{before} to {after}; {effect.word}")


def effects_table(caption: str, effects: Sequence[Effect]) -> Table:
    """Rows of effects as text."""
    columns = [Column("metric", number=False)]
    columns += [Column(name) for name in ("A", "B", "change", "95 % interval")]
    columns.append(Column("answer", number=False))
    rows = [
        [
            effect.metric,
            show_value(effect.a, effect.unit),
            show_value(effect.b, effect.unit),
            show_change(effect),
            show_interval(effect),
            f"{effect.word}: {effect.reason}" if effect.reason else effect.word,
        ]
        for effect in effects
    ]
    return Table(caption, columns, rows)


def _effects_figure(effects: Sequence[Effect], table: Table, position: int) -> Figure:
    traces = [
        _effects_trace(word, [effect for effect in effects if effect.word == word])
        for word in (BETTER, WORSE, NO_DIFFERENCE)
    ]
    traces = [trace for trace in traces if trace["y"]]
    names = [effect.metric for effect in effects]
    layout = {
        "xaxis": {
            "title": {"text": "change in % of A"},
            "zeroline": True,
            "range": _range(effects),
        },
        "yaxis": {"categoryorder": "array", "categoryarray": names[::-1], "automargin": True},
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(
        id=f"effects-{position}",
        title="Effects with their 95 % intervals",
        label="A point a metric: the change in percent; the line through it is its interval.",
        traces=traces,
        layout=layout,
        height=rows_height(len(names), 22, 120),
        table=table,
        note=_beyond(effects),
    )


def _beyond(effects: Sequence[Effect]) -> str:
    far = [e.metric for e in effects if e.interval and abs(e.interval.share or 0) * 100 > WIDEST]
    return f"Beyond {WIDEST:.0f} %, in the table only: {', '.join(far)}." if far else ""


def _range(effects: Sequence[Effect]) -> list[float]:
    ends = [
        100 * end
        for effect in effects
        if effect.interval is not None
        for end in (effect.interval.share_low or 0.0, effect.interval.share_high or 0.0)
    ]
    points = [100 * (e.interval.share or 0.0) for e in effects if e.interval is not None]
    limit = max(WIDE, min(1.15 * max(abs(point) for point in points), WIDEST))
    low, high = (max(min(end, limit), -limit) for end in (min(ends), max(ends)))
    space = 0.06 * max(high - low, 1.0)
    return [round(min(low, 0.0) - space, 2), round(max(high, 0.0) + space, 2)]


def _effects_trace(word: str, effects: Sequence[Effect]) -> dict[str, Any]:
    points, above, below = [], [], []
    for effect in effects:
        found = effect.interval
        if found is None or found.share is None:
            continue
        point = 100 * found.share
        points.append(digits(point, 5))
        above.append(digits(100 * (found.share_high or 0.0) - point, 5))
        below.append(digits(point - 100 * (found.share_low or 0.0), 5))
    color = COLORS[word]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": word,
        "x": points,
        "y": [effect.metric for effect in effects],
        "error_x": {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below,
            "color": color, "thickness": 2, "width": 4,
        },
        "marker": {"color": color, "size": 9},
        "hovertemplate": "%{y}<br><b>%{x:+.2f} %</b><extra>" + word + "</extra>",
    }  # fmt: skip


# -- why -------------------------------------------------------------------------------------


def reasons_section(pair: Comparison, position: int) -> Section:
    """The sentences, and for every phase what each part of a unit gained or lost."""
    blocks: list[Block] = [Findings([Finding("info", text) for text in pair.why])]
    for phase in (*MEASURED_PHASES, "all"):
        effects = [e for e in pair.effects if e.phase == phase and e.a is not None]
        figure = _parts_figure(effects, phase, position)
        if figure is not None:
            blocks.append(figure)
    lead = (
        "Where the time of a unit went. What one rank gains in computing may come back as its own "
        "waiting; what one rank loses shows as waiting of the others."
    )
    return Section(f"why-{position}", "Why", _short("Why", pair, position), lead, blocks)


def _parts_figure(effects: Sequence[Effect], phase: str, position: int) -> Figure | None:
    """Bars of what every part adds to a unit: the mean, then rank by rank."""
    parts = [e for e in effects if e.part in PARTS and e.b is not None]
    ranks = sorted({e.rank for e in parts if e.rank is not None})
    hidden = max(0, len(ranks) - MOST_RANKS)
    rows: list[int | None] = [None, *_most_moved(parts, ranks)]
    changes = {(e.part, e.rank): e.b - e.a for e in parts if e.a is not None and e.b is not None}
    if not any(changes.values()):
        return None
    scale = time_scale([abs(value) for value in changes.values()])
    labels = ["mean" if rank is None else f"rank {rank}" for rank in rows]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part_label(part),
            "x": [scale.of(changes.get((part, rank), 0.0)) for rank in rows],
            "marker": marker(part),
            "hovertemplate": "%{y}: " + part_label(part) + " <b>%{x:+.4~g} " + scale.unit
            + "</b><extra></extra>",
        }
        for part in PARTS
        if any(changes.get((part, rank)) for rank in rows)
    ]  # fmt: skip
    title = f"What each part adds to a unit of {phase}"
    layout = {
        "barmode": "relative",
        "bargap": 0.3,
        "xaxis": {"title": {"text": f"{scale.unit}, B minus A"}, "zeroline": True},
        "yaxis": rank_axis(labels),
        "hovermode": "closest",
    }
    return Figure(
        id=f"moved-{phase}-{position}",
        title=title,
        label="Bars to the right: parts that take longer in B; to the left: shorter.",
        traces=traces,
        layout=layout,
        height=rows_height(len(rows), 24, 120),
        table=effects_table(title, [e for e in effects if e.part == WINDOW or e in parts]),
        common={"y": labels},
        legend=[part for part in PARTS if any(changes.get((part, rank)) for rank in rows)],
        note=f"{hidden} ranks that moved least are not drawn." if hidden else "",
    )


def _most_moved(parts: Sequence[Effect], ranks: Sequence[int]) -> list[int]:
    moved = dict.fromkeys(ranks, 0.0)
    for effect in parts:
        if effect.rank is not None and effect.a is not None and effect.b is not None:
            moved[effect.rank] += abs(effect.b - effect.a)
    return sorted(sorted(ranks, key=lambda rank: -moved[rank])[:MOST_RANKS])
