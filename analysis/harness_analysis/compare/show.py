"""Values, changes and intervals as people read them: the same on the terminal and on the page."""

from __future__ import annotations

from harness_analysis.compare.effects import Effect
from harness_schemas.units import format_bytes, format_ns


def show_value(value: float | None, unit: str) -> str:
    """A value in its unit; `-` for unknown."""
    if value is None:
        return "-"
    if unit == "ns":
        return format_ns(value)
    if unit == "s":
        return format_ns(value * 1e9)
    if unit == "bytes":
        return format_bytes(value)
    return f"{value:.4g} {unit}"


def show_change(effect: Effect, brief: bool = False) -> str:
    """What B adds to A, absolute and in percent; `brief`: in percent where A is not zero."""
    if effect.a is None or effect.b is None:
        return "-"
    change = effect.b - effect.a
    if not effect.a:
        return signed(change, effect.unit)
    share = f"{percent(change / abs(effect.a))} %"
    return share if brief else f"{signed(change, effect.unit)} ({share})"


def show_interval(effect: Effect) -> str:
    """The interval of the change, in percent where A is not zero."""
    found = effect.interval
    if found is None:
        return "-"
    if found.share_low is None or found.share_high is None:
        return f"{signed(found.low, effect.unit)} to {signed(found.high, effect.unit)}"
    return f"{percent(found.share_low)} to {percent(found.share_high)} %"


def signed(value: float, unit: str) -> str:
    """A difference with its sign."""
    return ("-" if value < 0 else "+") + show_value(abs(value), unit)


def percent(share: float) -> str:
    """A share in percent with its sign: a decimal, more for what would look like nothing."""
    value = 100 * share
    return f"{value:+.1f}" if value == 0 or abs(value) >= 0.05 else f"{value:+.1g}"
