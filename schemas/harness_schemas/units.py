"""Durations and sizes as people write them, and where times of a wall clock begin."""

from __future__ import annotations

import re
from typing import Final

EARLIEST_WALL_NS: Final = 10**18
"""September 2001: smaller times are of no wall clock, but since a boot or a recording's begin."""
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ns|us|\u00b5s|ms|s|min|m|h)?\s*$")
_NS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_duration_ns(text: str | int | float, default_unit: str = "s") -> int:
    """`250us` -> 250000. A bare number is in `default_unit`.

    Raises:
        ValueError: not a duration.
    """
    match = _DURATION.match(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 250us, 10ms or 2s")
    return round(float(match[1]) * _NS[match[2] or default_unit])


def format_ns(value: float | None) -> str:
    """A duration with the unit that suits its size; `-` for unknown."""
    if value is None:
        return "-"
    size = abs(value)
    for limit, unit in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")):
        if size >= limit:
            return (
                f"{value / limit:.3g} {unit}"
                if size < 100 * limit
                else f"{value / limit:,.0f} {unit}"
            )
    return f"{value:.0f} ns"


def format_bytes(value: float | None) -> str:
    """A size in binary units; `-` for unknown."""
    if value is None:
        return "-"
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_share(value: float | None) -> str:
    """A share of 0 to 1 in percent; `-` for unknown, `<0.1 %` for little but not nothing."""
    if value is None:
        return "-"
    if 0 < abs(value) < 0.0005:
        return "<0.1 %" if value > 0 else ">-0.1 %"
    return f"{100 * value:.1f} %"


def format_count(value: float | None) -> str:
    """A count with separators between thousands; `-` for unknown."""
    if value is None:
        return "-"
    return f"{value:,.0f}"
