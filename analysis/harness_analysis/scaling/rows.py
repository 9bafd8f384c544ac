"""Scaling tables as rows: for people in the seeds' columns, for machines one number a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness_analysis.scaling.intervals import Estimate
from harness_analysis.scaling.limits import Limit
from harness_analysis.scaling.model import Point, Study
from harness_schemas.vocabulary import PART_LABELS

UNKNOWN = "-"
TITLES = {
    "strong": "Strong scaling: the same prompts on more ranks",
    "weak": "Weak scaling: prompts proportional to the ranks",
    "batch": "Batches: the same prompts, more of them at a time",
    "grid": "Configurations",
}
QUANTITIES = (
    "wall_s",
    "speedup",
    "efficiency",
    "throughput_efficiency",
    "throughput",
    "resource_use",
    "io_s",
    "communication_s",
    "wait_share",
    "preprocessing_s",
    "tpot_ms",
    "load_balance",
    "communication_efficiency",
    "pop_efficiency",
    "decode_compute",
    "decode_transfer",
    "decode_wait",
)
"""Fields of a point that are estimates."""

Cell = Callable[[Point], str]


def title(study: Study) -> str:
    """`Strong scaling: the same prompts on more ranks; batch_size=4`."""
    return f"{TITLES[study.kind]}; {study.series}" if study.series else TITLES[study.kind]


def seconds(value: Estimate | None) -> str:
    """A time with its interval on a second line."""
    return _shown(value, _seconds)


def number(value: Estimate | None) -> str:
    """A number with its interval on a second line."""
    return _shown(value, lambda v: f"{v:,.0f}" if v >= 1000 else f"{v:.3g}")


def percent(value: Estimate | None, runs: int | None = None) -> str:
    """A share with its interval on a second line; of fewer than all `runs`, also of how many."""
    text = _shown(value, lambda v: f"{100 * v:.0f} %" if v >= 0.1 else f"{100 * v:.1f} %")
    if value is None or runs is None or value.count == runs:
        return text
    return f"{text}\n({value.count} of {runs} runs)"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _shown(value: Estimate | None, text: Callable[[float], str]) -> str:
    if value is None:
        return UNKNOWN
    if value.low is None or value.high is None:
        return text(value.value)
    return f"{text(value.value)}\n[{text(value.low)}, {text(value.high)}]"


def limit_text(limit: Limit | None) -> str:
    """`wait (31 %)`."""
    if limit is None:
        return UNKNOWN
    return f"{PART_LABELS[limit.part]} ({100 * limit.share:.0f} %)"


def against(study: Study) -> str:
    """What the points are compared with: `1 rank`, `batch 1`."""
    if study.base is None:
        return "nothing"
    size = study.base.size
    if study.kind == "batch":
        return f"batch {size}"
    return f"{size} {'rank' if size == 1 else 'ranks'}"


def _runs(point: Point) -> str:
    failed = f"\n{', '.join(point.failures)}" if point.failures else ""
    return f"{point.runs}{failed}"


def _split(point: Point) -> str:
    return f"{point.tp or UNKNOWN} x {point.pp or UNKNOWN}"


def _place(study: Study, point: Point) -> str:
    """The size; where several points have it, also how the model is cut."""
    alike = [other for other in study.points if other.size == point.size]
    return f"{_size(point)} ({_split(point)})" if len(alike) > 1 else _size(point)


def _size(point: Point) -> str:
    return UNKNOWN if point.size is None else str(point.size)


def _seed_columns(study: Study) -> list[tuple[str, Cell]]:
    first: list[tuple[str, Cell]] = [("cell", lambda p: p.label)]
    if study.kind != "grid":
        first = [(study.axis, _size)]
    if study.kind in ("strong", "weak"):
        first.append(("TP x PP", _split))
    scaling: list[tuple[str, Cell]] = [
        ("speed-up", lambda p: number(p.speedup)),
        ("parallel efficiency", lambda p: percent(p.efficiency)),
    ]
    if study.kind == "weak":
        scaling.append(("efficiency by throughput", lambda p: percent(p.throughput_efficiency)))
    if study.kind == "batch":
        scaling[1] = ("batch efficiency", lambda p: percent(p.efficiency))
    if study.kind == "grid":
        scaling = []
    return [
        *first,
        ("runs", _runs),
        ("wall clock", lambda p: seconds(p.wall_s)),
        *scaling,
        ("throughput (tokens/s)", lambda p: number(p.throughput)),
        ("resource use", lambda p: percent(p.resource_use)),
        ("I/O time", lambda p: seconds(p.io_s)),
        ("communication time", lambda p: seconds(p.communication_s)),
        ("of it waiting", lambda p: percent(p.wait_share, p.runs)),
        ("preprocessing cost", lambda p: seconds(p.preprocessing_s)),
    ]


def seed_table(study: Study) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: the columns of the seeds' tables."""
    columns = _seed_columns(study)
    return [name for name, _ in columns], [
        [cell(point) for _, cell in columns] for point in study.points
    ]


def limits_table(study: Study) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: POP's efficiencies and what limits each point."""
    axis = "cell" if study.kind == "grid" else study.axis
    names = [
        axis,
        "load balance",
        "communication efficiency",
        "POP parallel efficiency",
        "TPOT (ms)",
        "decode: computing",
        "decode: transfer",
        "decode: waiting",
        "limited first by",
    ]
    rows = [
        [
            point.label if study.kind == "grid" else _place(study, point),
            percent(point.load_balance, point.runs),
            percent(point.communication_efficiency, point.runs),
            percent(point.pop_efficiency, point.runs),
            number(point.tpot_ms),
            percent(point.decode_compute),
            percent(point.decode_transfer),
            percent(point.decode_wait),
            limit_text(point.limit) + (" of its own time" if point.base and point.limit else ""),
        ]
        for point in study.points
    ]
    return names, rows


def flat_rows(studies: Sequence[Study]) -> tuple[list[str], list[list[Any]]]:
    """One row a point; every estimate as value, low and high. NULL where unknown."""
    names = ["study", "series", "cell", "size", "base", "tp", "pp", "runs", "failures"]
    for quantity in QUANTITIES:
        names += [quantity, f"{quantity}_low", f"{quantity}_high"]
    names += ["limited_by", "limited_share", "knee"]
    return names, [_flat(study, point) for study in studies for point in study.points]


def _flat(study: Study, point: Point) -> list[Any]:
    row: list[Any] = [study.kind, study.series or None, point.label, point.size, point.base]
    row += [point.tp, point.pp, point.runs, ", ".join(point.failures) or None]
    for quantity in QUANTITIES:
        value: Estimate | None = getattr(point, quantity)
        row += [value.value, value.low, value.high] if value else [None, None, None]
    row += [point.limit.part, point.limit.share] if point.limit else [None, None]
    return [*row, study.knee is not None and study.knee.size == point.size]


def sentences(study: Study) -> list[str]:
    """What the table says, point by point, and the knee."""
    found = [text for point in study.points if (text := _sentence(study, point))]
    return [*found, study.knee.sentence()] if study.knee else found


def _sentence(study: Study, point: Point) -> str:
    if point.base or point.efficiency is None or point.speedup is None:
        return ""
    name = f"batch {point.size}" if study.kind == "batch" else f"{point.label} ({point.size} ranks)"
    text = (
        f"{name}: {point.speedup.value:.2f} times the speed of {against(study)}, "
        f"efficiency {100 * point.efficiency.value:.0f} %"
    )
    if point.limit is not None:
        text += (
            f"; first limited by {PART_LABELS[point.limit.part]}, which beyond its ideal share "
            f"takes {100 * point.limit.share:.0f} % of the time"
        )
    return text
