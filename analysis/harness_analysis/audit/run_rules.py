"""Rules for one run: what makes its numbers worthless, or weaker than they look."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from harness_analysis.audit.facts import Facts
from harness_analysis.audit.flags import NOTICE, PROBLEM, Flag
from harness_schemas.units import format_bytes, format_ns, format_share

COLD = 1.5
"""A first unit so many times the median of the others belongs to the warm-up."""
FIRST = 3
FEWEST_STEPS = 30
FEWEST_OTHERS = 8
THROTTLED = 0.01
POWER_CAPPED = 0.05
WALLS_DIFFER = 0.1
FASTEST_BYTES_PER_S = {"cuda": 1e13, "cpu": 2e12}
"""More than the memory of any device of today delivers (a B200: 8e12)."""
DEAR = 0.05

Rule = Callable[[Facts], list[Flag]]


def failed_run(run: Facts) -> list[Flag]:
    """A run that failed, or computed something else, measures nothing."""
    found = []
    if run.data.row.get("status") == "failed":
        found.append(
            Flag("failed-run", PROBLEM, run.name, f"verdict {run.data.row.get('verdict')}",
                 "leave it out and run it again")
        )  # fmt: skip
    if '"verdict": "fail"' in str(run.data.row.get("correctness") or ""):
        found.append(
            Flag("wrong-tokens", PROBLEM, run.name, "its tokens differ from the reference's",
                 "mend the model's cut or its weights before measuring speed")
        )  # fmt: skip
    return found


def clocks_jumped(run: Facts) -> list[Flag]:
    """A clock that was set during the run."""
    return [
        Flag("clock-jump", PROBLEM, run.name,
             f"the clock of {jump.source} on {jump.host or 'its host'} moved by "
             f"{format_ns(jump.jump_ns)} against the wall clock within {jump.after_s:.3g} s",
             "do not compare ranks of that host; run again with the time service settled")
        for jump in run.jumps[:1]
    ]  # fmt: skip


def warmup_measured(run: Facts) -> list[Flag]:
    """The first measured units are much slower than the others."""
    found = []
    for phase, values, first in (("decode", run.decode_ns, FIRST), ("prefill", run.prefill_ns, 1)):
        if len(values) < first + FEWEST_OTHERS:
            continue
        early, late = float(np.median(values[:first])), float(np.median(values[first:]))
        usual = float(np.quantile(values[first:], 0.9))
        if early > COLD * late and early > usual:
            noun = f"first {first} {phase} units" if first > 1 else f"first {phase}"
            found.append(
                Flag("warm-up-measured", PROBLEM, run.name,
                     f"the {noun} took {format_ns(early)}, the others {format_ns(late)}",
                     "raise generation.warmup, or mark these units as warm-up")
            )  # fmt: skip
    return found


def no_warmup(run: Facts) -> list[Flag]:
    """The specification asks for no warm-up at all."""
    generation = (run.data.spec or {}).get("generation") or {}
    if generation.get("warmup") != 0:
        return []
    return [Flag("no-warm-up", NOTICE, run.name, "generation.warmup is 0",
                 "run at least one batch first; it is left out of the numbers")]  # fmt: skip


def too_few_samples(run: Facts) -> list[Flag]:
    """Too few decode steps to say anything about their spread."""
    steps = len(run.decode_ns)
    if not run.data.phases or steps >= FEWEST_STEPS:
        return []
    return [Flag("too-few-samples", NOTICE, run.name,
                 f"{steps} measured decode steps, {len(run.data.requests.keys)} requests",
                 f"measure at least {FEWEST_STEPS} steps, and repeat the run")]  # fmt: skip


def throttled(run: Facts) -> list[Flag]:
    """Clocks were lowered for heat, power or by the hardware."""
    found = []
    for kind, share in run.throttled.items():
        if share <= (POWER_CAPPED if kind == "power" else THROTTLED):
            continue
        severity = NOTICE if kind == "power" else PROBLEM
        found.append(
            Flag("throttled", severity, run.name,
                 f"{kind}: clocks lowered in {format_share(share)} of the samples",
                 "cool the node or fix the clocks below the limit; compare only runs that "
                 "throttle alike")
        )  # fmt: skip
    return found


def wall_against_tokens(run: Facts) -> list[Flag]:
    """Units and requests must tell the same wall clock: throughput is tokens over it."""
    units, requests = run.unit_wall_s, run.request_wall_s
    if not units or not requests or abs(units - requests) <= WALLS_DIFFER * max(units, requests):
        return []
    return [Flag("tokens-time", PROBLEM, run.name,
                 f"measured batches last {units:.4g} s by their units, {requests:.4g} s by their "
                 "requests",
                 "tokens/s rests on the first: look for units that are missing, or requests that "
                 "queued")]  # fmt: skip


def never_batched(run: Facts) -> list[Flag]:
    """More prompts a batch were asked for than the engine ever had at once."""
    asked = run.data.row.get("batch_size")
    if not asked or run.batched is None or run.batched >= int(asked):
        return []
    return [Flag("never-batched", PROBLEM, run.name,
                 f"batch size {asked} was asked for, at most {run.batched} ran together",
                 "give at least as many prompts as the batch holds")]  # fmt: skip


def share_over_one(run: Facts) -> list[Flag]:
    """A step that used more than the whole bandwidth or arithmetic of its device."""
    return [
        Flag("share-over-one", PROBLEM, run.name, f"{name} is {share:.3g}",
             "the steps do not span the work, the peak is too low (generation.peaks measures it), "
             "or a small model is read from a cache")
        for name, share in run.used.items()
        if share > 1
    ]  # fmt: skip


def impossible_bandwidth(run: Facts) -> list[Flag]:
    """A decode step reads its rank's weights once: MBU would be over 1 on any device."""
    if run.used:
        return []  # the device's own peak is known
    device = str(run.data.row.get("device") or "")
    fastest = FASTEST_BYTES_PER_S.get(device.split(":")[0])
    if not run.weights_bytes or not fastest or not len(run.decode_ns):
        return []
    step_ns = max(float(np.median(run.decode_ns)), 1.0)
    rate = run.weights_bytes / step_ns * 1e9
    if rate <= fastest:
        return []
    numbers = (
        f"{format_bytes(run.weights_bytes)} of weights in a step of {format_ns(step_ns)} are "
        f"{rate / 1e12:.3g} TB/s, more than any memory delivers (MBU over 1)"
    )
    todo = "the steps do not span the work: wait for the device before reading the clock"
    return [Flag("share-over-one", PROBLEM, run.name, numbers, todo)]


def dear_observation(run: Facts) -> list[Flag]:
    """Observing cost more than a twentieth of what it observed."""
    found = []
    for cost in run.costs:
        share = cost.effect_ns / cost.off_ns
        if cost.resolved and share > DEAR:
            found.append(
                Flag("perturbed", NOTICE, run.name,
                     f"{cost.collector} cost {format_share(share)} of {cost.phase or 'a unit'}",
                     "switch collectors off for headline numbers; compare only runs observed alike")
            )  # fmt: skip
    return found


RUN_RULES: Sequence[Rule] = (
    failed_run,
    clocks_jumped,
    warmup_measured,
    no_warmup,
    too_few_samples,
    throttled,
    wall_against_tokens,
    never_batched,
    share_over_one,
    impossible_bandwidth,
    dear_observation,
)
