"""What the charts share: axes, bars of parts, scales of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_analysis.report.palette import STYLES, color_scale, part_color
from harness_schemas.vocabulary import PART_LABELS, PARTS

STEP_AXIS = "decode unit, in the order of time"
DASHES = ("solid", "dot", "dash", "dashdot")
MOST_TICKS = 32
"""Ranks that are all named on an axis; of more, every n-th."""
KIND_TITLES = {"collective": "in collectives", "p2p": "in point-to-point calls"}
"""How charts name the kinds of waiting."""


@dataclass(frozen=True)
class TimeScale:
    """A unit of time that suits a chart."""

    unit: str
    ns: int

    def of(self, value_ns: float | None) -> float | None:
        """A value in this unit; exact for integers of nanoseconds."""
        if value_ns is None or math.isnan(value_ns):
            return None
        return round(value_ns / self.ns, len(str(self.ns)) - 1)


def time_scale(values_ns: Iterable[float | None]) -> TimeScale:
    """The largest unit in which the largest value is at least 1."""
    most = max((value for value in values_ns if value is not None), default=0)
    for unit, ns in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if most >= ns:
            return TimeScale(unit, ns)
    return TimeScale("ns", 1)


def digits(value: float | None, significant: int = 4) -> float | None:
    """A value rounded to what a chart can show: pages stay small."""
    if value is None or not math.isfinite(value):
        return None
    if value == 0:
        return 0
    places = significant - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return int(rounded) if places <= 0 else rounded


def marker(part: str) -> dict[str, Any]:
    """Fill and hatching of a part's bars."""
    found: dict[str, Any] = {"color": part_color(part), "line": {"width": 0}}
    if STYLES[part].pattern:
        found["pattern"] = {
            "shape": STYLES[part].pattern,
            "fillmode": "overlay",
            "fgcolor": "var(--hatch)",
            "fgopacity": 0.6,
            "size": 7,
            "solidity": 0.22 if STYLES[part].pattern != "." else 0.3,
        }
    return found


def drawn_parts(values: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Parts with anything to draw, in the order of the vocabulary."""
    return [part for part in PARTS if any(values[part])]


def part_label(part: str) -> str:
    """The part's name."""
    return PART_LABELS[part]


def rank_axis(labels: Sequence[str], most: int = MOST_TICKS) -> dict[str, Any]:
    """A vertical axis of ranks, the first on top, with as many names as can be read."""
    every = max(1, math.ceil(len(labels) / most))
    shown = list(labels)[::every]
    return {
        "type": "category",
        "autorange": "reversed",
        "categoryorder": "array",
        "categoryarray": list(labels),
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": shown,
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
    }


def rows_height(rows: int, each: int = 30, least: int = 150, most: int = 900) -> int:
    """Pixels for a chart with a line a row."""
    return max(least, min(most, 90 + each * rows))


def heat_map(x: Sequence[Any], y: Sequence[str], scale: TimeScale) -> dict[str, Any]:
    """The trace of a heat map of times, its cells still to be put in as `z`."""
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
