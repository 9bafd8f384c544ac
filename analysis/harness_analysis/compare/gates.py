"""Gates: conditions under which a change is refused, for CI.

    METRIC OP CHANGE          tpot_p50 > +5%     decode.wait > +200us     tok_per_s < -3%

METRIC is a name of the table of metrics. OP is > or <. CHANGE is what B adds to A: percent of A,
a time (ns, us, ms, s) or a number in the metric's own unit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness_analysis.compare.effects import Effect
from harness_analysis.compare.samples import METRICS, SPREAD
from harness_schemas.errors import UsageError
from harness_schemas.vocabulary import MEASURED_PHASES, PARTS

FAILED, PASSED, UNDERPOWERED = "failed", "passed", "cannot tell"
_GATE = re.compile(r"^\s*([A-Za-z_][\w.\[\]]*)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*([A-Za-z%/]*)\s*$")
_TIMES = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
EXAMPLE = "as in 'tpot_p50 > +5%', 'decode.wait > +200us' or 'tok_per_s < -3%'"


@dataclass(frozen=True)
class Gate:
    """A condition that must not hold. `limit`: a share where `relative`, else ns or own unit."""

    text: str
    metric: str
    above: bool
    limit: float
    relative: bool
    is_time: bool


@dataclass(frozen=True)
class GateResult:
    """What became of a gate on one pair: failed, passed or cannot tell, and why."""

    gate: str
    state: str
    reason: str


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Raises:
        UsageError: not of the grammar.
    """
    match = _GATE.match(text)
    if match is None or match[4] not in ("", "%", *_TIMES):
        raise UsageError(f"{text!r} is no gate", f"METRIC OP CHANGE, {EXAMPLE}")
    unit = match[4]
    limit = float(match[3]) * (0.01 if unit == "%" else _TIMES.get(unit, 1.0))
    return Gate(text.strip(), match[1], match[2] == ">", limit, unit == "%", unit in _TIMES)


def check_gate(gate: Gate, effects: Sequence[Effect]) -> GateResult:
    """Judge one gate: it fails where the whole interval lies beyond the limit, it passes where
    none of it does, and in between the measurement cannot tell.

    Raises:
        UsageError: there is no such metric, or the unit is not the metric's.
    """
    effect = next((effect for effect in effects if effect.metric == gate.metric), None)
    if effect is None and gate.metric in _known_names():
        return GateResult(gate.text, UNDERPOWERED, f"neither side has measured {gate.metric}")
    if effect is None:
        raise UsageError(
            f"the gate {gate.text!r} names no metric of this comparison",
            _names(gate.metric, effects),
        )
    scale = 1.0
    if not gate.relative and effect.unit in ("ns", "s") and not gate.is_time:
        raise UsageError(f"{gate.text!r}: {gate.metric} is a time; give ns, us, ms, s or %")
    if gate.is_time:
        if effect.unit not in ("ns", "s"):
            raise UsageError(f"{gate.text!r}: {gate.metric} is in {effect.unit}, not a time")
        scale = 1e-9 if effect.unit == "s" else 1.0
    interval = effect.interval
    if interval is None:
        return GateResult(gate.text, UNDERPOWERED, effect.reason or "no interval")
    ends = (interval.low, interval.high)
    if gate.relative:
        if interval.share_low is None or interval.share_high is None:
            return GateResult(gate.text, UNDERPOWERED, f"{gate.metric} of A is zero: no percent")
        ends = (interval.share_low, interval.share_high)
    state = judge(gate, ends[0], ends[1], gate.limit * scale)
    shown = [100 * end if gate.relative else end / (scale if effect.unit == "s" else 1.0)
             for end in ends]  # fmt: skip
    return GateResult(gate.text, state, f"the change lies within {_range(gate, effect, shown)}")


def judge(gate: Gate, low: float, high: float, limit: float) -> str:
    """failed, passed or cannot tell, from the ends of the interval."""
    if gate.above:
        return FAILED if low > limit else PASSED if high <= limit else UNDERPOWERED
    return FAILED if high < limit else PASSED if low >= limit else UNDERPOWERED


def _range(gate: Gate, effect: Effect, ends: Sequence[float]) -> str:
    if gate.relative:
        return f"{ends[0]:+.2f} and {ends[1]:+.2f} %"
    if effect.unit == "ns":
        return f"{ends[0] / 1e3:+,.1f} and {ends[1] / 1e3:+,.1f} us"
    return f"{ends[0]:+.4g} and {ends[1]:+.4g} {effect.unit}"


def _known_names() -> set[str]:
    """Metrics that a comparison can have, whether or not these runs do."""
    found = {
        name
        for metric in METRICS
        for name in (
            [metric.name]
            if metric.cluster == "run" or metric.ratio
            else [f"{metric.name}_{kind}" for kind in SPREAD]
        )
    }
    return found | {
        f"{phase}.{part}"
        for phase in (*MEASURED_PHASES, "all")
        for part in ("window", *(p.removesuffix("_ns").removeprefix("comm_") for p in PARTS))
    }


def _names(wanted: str, effects: Sequence[Effect]) -> str:
    """The metric that `wanted` resembles, or the metrics without their percentiles."""
    names = [effect.metric for effect in effects]
    close = difflib.get_close_matches(wanted.lower(), names, n=2, cutoff=0.75)
    if close:
        return f"it has {' and '.join(close)}"
    short = dict.fromkeys(
        re.sub(r"_(mean|p\d+)$", "_p50", effect.metric) for effect in effects if effect.rank is None
    )
    return (
        f"it has {', '.join(short)}; instead of p50 mean, p90, p95 or p99; of a rank decode.wait[0]"
    )


def exit_state(results: Sequence[GateResult]) -> str:
    """What all gates together come to: one that failed outweighs one that cannot tell."""
    states = {result.state for result in results}
    return next((state for state in (FAILED, UNDERPOWERED) if state in states), PASSED)
