"""What observing cost, in a sentence each: the same words in the terminal and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_schemas.units import format_ns

if TYPE_CHECKING:
    from harness_analysis.answer import Answer, Overhead

NOT_MEASURED = "overhead not measured in this run"
SET_IT = "set generation.calibrate = 20"
"""What measures it; only a run of a specification has that key."""
_WHAT = {"prefill": "a prefill", "decode": "a decode step", "mixed": "a step", "all": "a batch"}


def overhead_lines(answer: Answer) -> list[str]:
    """A sentence for every measured effect, or how to have one."""
    if answer.overhead:
        return [overhead_line(cost) for cost in answer.overhead]
    return [NOT_MEASURED if answer.run.runner is None else f"{NOT_MEASURED}: {SET_IT}"]


def overhead_line(cost: Overhead) -> str:
    """For example: overhead of recorder: +0.4 % of a decode step of 2 ms [-0.2, +1.0], 20 pairs,
    not resolved from noise. In units of time where the step's own length is unknown."""
    what = _WHAT.get(cost.phase or "", cost.phase or "a unit")
    pairs = "pairs unknown" if cost.pairs is None else f"{cost.pairs} pairs"
    if cost.off_ns and cost.effect_ns is not None:
        share = 100 / cost.off_ns
        text = f"{cost.effect_ns * share:+.1f} % of {what} of {format_ns(cost.off_ns)}"
        interval = [
            None if ns is None else f"{ns * share:+.1f}" for ns in (cost.low_ns, cost.high_ns)
        ]
    else:
        text = f"{format_ns(cost.effect_ns)} on {what}"
        interval = [None if ns is None else format_ns(ns) for ns in (cost.low_ns, cost.high_ns)]
    line = f"overhead of {cost.collector}: {text}"
    if None in interval:
        return f"{line}, {pairs}: too few for an interval"
    line += f" [{interval[0]}, {interval[1]}], {pairs}"
    return line if cost.resolved else f"{line}, not resolved from noise"
