"""What differs between runs, how much, how surely, and why.

load (a database) -> samples (a metric's values) -> effects (with intervals, stats) -> why, gates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness_analysis.compare.changes import Changes, what_changed
from harness_analysis.compare.effects import Effect, Side, headline_effects, pair_runs
from harness_analysis.compare.gates import Gate, GateResult, check_gate
from harness_analysis.compare.load import RunData, load_run
from harness_analysis.compare.parts import part_effects
from harness_analysis.compare.why import explain
from harness_schemas.vocabulary import MEASURED_PHASES

__all__ = ["Comparison", "RunData", "Side", "compare_sides", "load_run"]

REPEAT = "repeat each (harness sweep) before believing a small effect"
ONE_RUN_EACH = (
    "one run each: intervals come from the steps within these two runs and cannot see how much "
    f"runs differ from one another; {REPEAT}"
)
NO_INTERVAL = f"one run each: nothing says how much runs differ from one another; {REPEAT}"


@dataclass(frozen=True)
class Comparison:
    """The answer about one pair of sides, in the order in which it is read."""

    a: Side
    b: Side
    changes: Changes
    effects: tuple[Effect, ...]
    why: tuple[str, ...]
    notes: tuple[str, ...]
    gates: tuple[GateResult, ...] = ()


def compare_sides(a: Side, b: Side, gates: Sequence[Gate] = ()) -> Comparison:
    """Compare B against A.

    Raises:
        UsageError: a gate names a metric that neither side has.
    """
    effects = headline_effects(a, b)
    for phase in phases_of(a, b):
        effects += part_effects(a, b, phase)
    return Comparison(
        a=a,
        b=b,
        changes=what_changed(a, b),
        effects=tuple(effects),
        why=tuple(explain(a, b, effects)),
        notes=tuple(_notes(a, b, any(effect.interval for effect in effects))),
        gates=tuple(check_gate(gate, effects) for gate in gates),
    )


def phases_of(a: Side, b: Side) -> list[str]:
    """Phases that a run has, in order; `all` only where there is nothing finer on both sides."""
    present = {phase for side in (a, b) for run in side.runs for phase in run.phases}
    return [phase for phase in (*MEASURED_PHASES, "all") if phase in present]


def _notes(a: Side, b: Side, told: bool) -> list[str]:
    """What a reader must know before believing anything."""
    found = []
    if len(a.runs) == len(b.runs) == 1:
        found.append(ONE_RUN_EACH if told else NO_INTERVAL)
    elif pair_runs(a, b)[2]:
        found.append(f"{len(a.runs)} repeats of one sweep, compared pair by pair")
    for label, side in (("A", a), ("B", b)):
        found += [f"{label}: {note}" for run in side.runs for note in _run_notes(run)]
    same = {run.path.resolve() for run in a.runs} & {run.path.resolve() for run in b.runs}
    if same:
        found.append(f"A and B hold the same run: {', '.join(sorted(p.name for p in same))}")
    return found


def _run_notes(run: RunData) -> list[str]:
    found = []
    if run.row.get("status") not in (None, "finished"):
        found.append(f"{run.name} is {run.row['status']} ({run.row.get('verdict')})")
    correctness = str(run.row.get("correctness") or "")
    if '"verdict": "fail"' in correctness:
        found.append(f"{run.name} does not compute the reference's tokens")
    return found
