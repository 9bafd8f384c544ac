"""A comparison as text: what changed, the metrics, why, gates."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.cli.printing.rows import printable, render_rows, wrapped
from harness_analysis.compare import Comparison
from harness_analysis.compare.effects import CANNOT, NO_DIFFERENCE, Effect
from harness_analysis.compare.parts import WINDOW
from harness_analysis.compare.show import show_change, show_interval, show_value

COLUMNS = (
    "a_label", "b_label", "metric", "phase", "part", "rank", "unit", "a", "b", "effect", "low",
    "high", "share", "share_low", "share_high", "word", "reason", "values_a", "values_b", "runs_a",
    "runs_b", "method",
)  # fmt: skip
SELDOM = ("_p90", "_p95")
"""Percentiles that the terminal leaves to --json and --csv."""
HIGH = "_p99"


def render_comparisons(found: Sequence[Comparison], style: str, all_ranks: bool) -> str:
    """The comparisons in one of the styles of `rows.render_rows`; JSON holds everything."""
    if style == "json":
        return json.dumps([as_json(comparison) for comparison in found], indent=1, default=str)
    if style == "csv":
        rows = [row for comparison in found for row in metric_rows(comparison)]
        return render_rows(COLUMNS, rows, "csv").rstrip("\n")
    texts = [_joined(_lines(comparison, style, all_ranks), style) for comparison in found]
    return "\n\n".join(text.rstrip("\n") for text in texts)


def _joined(pieces: Iterable[str], style: str) -> str:
    """Lines and tables as one text; for reading, long lines are broken."""
    if style != "table":
        return printable("\n".join(pieces))
    broken = (
        piece if "\n" in piece or not piece else wrapped([piece]).rstrip("\n") for piece in pieces
    )
    return printable("\n".join(broken))


def metric_rows(comparison: Comparison) -> list[tuple[Any, ...]]:
    """One row a metric, in its own unit, unrounded."""
    rows = []
    for effect in comparison.effects:
        ends = dataclasses.astuple(effect.interval)[:6] if effect.interval else (None,) * 6
        rows.append(
            (
                comparison.a.label, comparison.b.label, effect.metric, effect.phase, effect.part,
                effect.rank, effect.unit, effect.a, effect.b, *ends, effect.word,
                effect.reason or None, effect.count_a, effect.count_b, len(comparison.a.runs),
                len(comparison.b.runs), effect.method or None,
            )
        )  # fmt: skip
    return rows


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything of a comparison as plain data."""
    return {
        "a": _side(comparison, "a"),
        "b": _side(comparison, "b"),
        "changed": {
            "verdict": comparison.changes.verdict(),
            "changes": [dataclasses.asdict(change) for change in comparison.changes.changes],
            "unknown": list(comparison.changes.unknown),
        },
        "notes": list(comparison.notes),
        "metrics": [
            dict(zip(COLUMNS[2:], map(_plain, row[2:]), strict=True))
            for row in metric_rows(comparison)
        ],
        "why": list(comparison.why),
        "gates": [dataclasses.asdict(result) for result in comparison.gates],
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _side(comparison: Comparison, name: str) -> dict[str, Any]:
    side = getattr(comparison, name)
    return {"label": side.label, "runs": [run.name for run in side.runs]}


def _lines(comparison: Comparison, style: str, all_ranks: bool) -> Iterator[str]:
    heading = "## {}" if style == "markdown" else "{}"
    bullet = "- " if style == "markdown" else "  "
    a, b = comparison.a, comparison.b
    title = _text(f"{b.label} against {a.label}", style)
    yield f"# {title}" if style == "markdown" else title
    yield f"{bullet}A: {_runs(a.label, [run.name for run in a.runs])}"
    yield f"{bullet}B: {_runs(b.label, [run.name for run in b.runs])}"
    yield ""
    yield heading.format("What changed")
    yield f"{bullet}{_text(comparison.changes.verdict(), style)}"
    rows = [_change_row(change) for change in comparison.changes.changes]
    if rows:
        yield ""
        yield render_rows(("kind", "what", "A", "B", "note"), rows, style)
    for note in comparison.notes:
        yield f"{bullet}note: {_text(note, style)}"
    shown = shown_effects(comparison, all_ranks)
    found = dict.fromkeys(effect.reason for effect in shown if effect.reason)
    reasons = {reason: number for number, reason in enumerate(found, 1)}
    yield ""
    yield heading.format("Metrics")
    if style == "markdown":
        yield ""
    yield render_rows(
        ("metric", "A", "B", "change", "95 % interval", "answer"),
        [effect_row(effect, reasons) for effect in shown],
        style,
    )
    for reason, number in reasons.items():
        yield f"{bullet}({number}) {reason}"
    yield from _footnotes(comparison, bullet, all_ranks)
    yield ""
    yield heading.format("Why")
    for line in comparison.why or ("nothing divides the steps of both sides",):
        yield f"{bullet}{line}"
    if comparison.gates:
        yield ""
        yield heading.format("Gates")
        for result in comparison.gates:
            yield f"{bullet}{result.state}: {result.gate}  ({result.reason})"


def _text(text: str, style: str) -> str:
    """Text from evidence; Markdown is shown by what obeys HTML."""
    return text.replace("<", "&lt;") if style == "markdown" else text


def _runs(label: str, names: Sequence[str]) -> str:
    if list(names) == [label]:
        return label
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {'run' if len(names) == 1 else 'runs'}: {', '.join(names[:3])}{more}"


def _change_row(change: Any) -> tuple[str, str, str, str, str]:
    note = "follows from the number of ranks" if change.follows else ""
    note = "differs among the runs of a side" if change.varies else note
    return (change.group, change.path, change.a, change.b, note)


def shown_effects(comparison: Comparison, all_ranks: bool) -> list[Effect]:
    """What the terminal shows: percentiles that rest on enough values, parts that there are, and
    of single ranks what moved. A prefill without any interval is one line."""
    silent = _silent_phases(comparison)
    found = []
    for effect in comparison.effects:
        if effect.headline:
            keep = not effect.metric.endswith(SELDOM) and not too_few(effect)
        elif effect.rank is None:
            whole = effect.part == WINDOW
            told = effect.phase != "prefill" or effect.phase not in silent
            keep = whole or (told and bool(effect.a or effect.b))
        else:
            keep = all_ranks or effect.word not in (NO_DIFFERENCE, CANNOT)
        if keep:
            found.append(effect)
    return found


def _silent_phases(comparison: Comparison) -> set[str | None]:
    parts = [effect for effect in comparison.effects if not effect.headline]
    return {e.phase for e in parts} - {e.phase for e in parts if e.interval is not None}


def too_few(effect: Effect) -> bool:
    """Whether a high percentile rests on too few values to be compared."""
    return effect.metric.endswith(HIGH) and effect.interval is None


def effect_row(effect: Effect, reasons: Mapping[str, int]) -> tuple[str, str, str, str, str, str]:
    """A metric as people read it; reasons are told once, below the table, by their numbers."""
    word = f"{effect.word} ({reasons[effect.reason]})" if effect.reason else effect.word
    return (
        effect.metric,
        show_value(effect.a, effect.unit),
        show_value(effect.b, effect.unit),
        show_change(effect, brief=True),
        show_interval(effect),
        word,
    )


def _footnotes(comparison: Comparison, bullet: str, all_ranks: bool) -> Iterator[str]:
    methods = dict.fromkeys(e.method for e in comparison.effects if e.interval and e.method)
    if methods:
        yield f"{bullet}rests on: {'; '.join(methods)}"
    few = [effect.metric for effect in comparison.effects if too_few(effect)]
    if few:
        yield f"{bullet}too few values for: {', '.join(few)}"
    by_rank = [effect for effect in comparison.effects if effect.rank is not None]
    by_rank = [effect for effect in by_rank if effect.interval is not None]
    moved = [effect for effect in by_rank if effect.word not in (NO_DIFFERENCE, CANNOT)]
    if by_rank and not all_ranks:
        yield (
            f"{bullet}of {len(by_rank)} parts of single ranks {len(moved)} moved (at most one in "
            "twenty of these by chance); --ranks shows the others too"
        )
