"""What no row of a table can be, whatever was measured: shares, batches, stages, parts."""

from __future__ import annotations

from collections.abc import Iterator

from harness_analysis.audit.claim_rules import (
    PART_TIMES,
    SLACK,
    Rule,
    agree,
    grown,
    others,
    subject,
)
from harness_analysis.audit.claims import BATCH, WEAK, Claim, ClaimTable
from harness_analysis.audit.flags import NOTICE, PROBLEM, Flag

BATCHED = 1.1
"""A batch must raise the throughput by at least so much to have been one."""
FASTER = 1.05
"""Chance does not make a pipeline so much faster."""


def share_over_one(table: ClaimTable) -> Iterator[Flag]:
    """MBU, MFU, utilisation and wait share are shares."""
    for row in table.rows:
        for field in ("mbu", "mfu", "resource_use", "wait_share"):
            value = row.values.get(field)
            if value is not None and value.number - value.half > 1.0:
                numbers = f"{field} is {value.number:.3g}"
                todo = "check bytes, FLOPs, peak and time; count per GPU, not over all"
                yield Flag("share-over-one", PROBLEM, subject(table, row), numbers, todo)


def mbu_against_throughput(table: ClaimTable) -> Iterator[Flag]:
    """On the same GPUs MBU grows at most as the throughput: a step of a batch reads at most as
    many bytes a token as one of a smaller batch."""
    for base, row in others(table, "mbu", "throughput"):
        larger = (row.get("batch") or 0) > (base.get("batch") or 0)
        if row.get("gpus") != base.get("gpus") or not larger:
            continue
        shares, rates = (
            [one.values[field] for one in (base, row)] for field in ("mbu", "throughput")
        )
        if not shares[0].number or not rates[0].number:
            continue
        factor, allowed = (pair[1].number / pair[0].number for pair in (shares, rates))
        if factor > allowed and not agree(factor, allowed, *shares, *rates):
            numbers = f"MBU grows {factor:.3g} x, the throughput only {allowed:.3g} x"
            todo = (
                "the bytes of a token cannot grow with the batch: recompute MBU from bytes a step "
                "and step time"
            )
            yield Flag("mbu-throughput", PROBLEM, subject(table, base, row), numbers, todo)


def single_request_pipeline(table: ClaimTable) -> Iterator[Flag]:
    """A pipeline shortens nothing while one request is in flight."""
    for row in table.rows:
        if (row.get("pp") or 1) <= 1 or _in_flight(row) != 1:
            continue
        for base in table.rows:
            same = (base.get("tp") or 1) == (row.get("tp") or 1) and _in_flight(base) == 1
            gain = _gain(base, row)
            if same and (base.get("pp") or 1) == 1 and gain is not None and gain > FASTER:
                numbers = (
                    f"PP {row.get('pp'):g} with one request in flight is {gain:.3g} x as fast "
                    "as PP 1"
                )
                todo = (
                    "one request passes the stages one after the other: look for what else "
                    "changed (memory that no longer spills, another batch)"
                )
                where = subject(table, base, row)
                yield Flag("single-request-pipeline", PROBLEM, where, numbers, todo)


def _in_flight(row: Claim) -> float | None:
    batch = row.get("batch")
    return batch if batch is not None else row.get("requests")


def _gain(base: Claim, row: Claim) -> float | None:
    for field, inverse in (("throughput", False), ("time", True)):
        before, after = base.get(field), row.get(field)
        if before and after:
            return before / after if inverse else after / before
    speedup = row.get("speedup")
    return None if speedup is None else speedup / (base.get("speedup") or 1.0)


def never_batched(table: ClaimTable) -> Iterator[Flag]:
    """A batch whose throughput is that of single requests ran one by one."""
    rows = sorted(
        (row for row in table.rows if row.get("batch") and row.get("throughput")),
        key=lambda row: row.get("batch") or 0,
    )
    for row in rows[1:]:
        base = rows[0]
        if row.get("gpus") != base.get("gpus") or row.get("batch") == base.get("batch"):
            continue
        gain = grown(base, row, "throughput")
        if gain < BATCHED:
            numbers = (
                f"batch {row.get('batch'):g} has {gain:.3g} x the throughput of batch "
                f"{base.get('batch'):g}"
            )
            todo = "check that the prompts were decoded together (steps.batch_size)"
            yield Flag("never-batched", PROBLEM, subject(table, row), numbers, todo)


def parts_over_whole(table: ClaimTable) -> Iterator[Flag]:
    """Communication lies within the wall clock; I/O and preprocessing may be counted outside."""
    outside = []
    for row in table.rows:
        time = row.get("time")
        parts = {f: v for f in PART_TIMES if (v := row.get(f)) is not None}
        if not time or sum(parts.values()) <= time * (1 + SLACK):
            continue
        told = " + ".join(f"{field} {value:g}" for field, value in parts.items())
        numbers = f"{told} s exceed the wall clock of {time:g} s"
        if parts.get("comm", 0.0) > time * (1 + SLACK):
            todo = "times are summed over ranks, or of another run: state which"
            yield Flag("parts-over-whole", PROBLEM, subject(table, row), numbers, todo)
        else:
            outside.append((row, numbers))
    if outside:
        rows, (numbers, *_) = zip(*outside, strict=True)
        todo = "say whether the wall clock holds I/O and preprocessing"
        yield Flag("parts-over-whole", NOTICE, subject(table, *rows), numbers, todo)


def parts_against_ideal(table: ClaimTable) -> Iterator[Flag]:
    """Strong scaling: what does not shrink, and an ideal share of the rest, must fit."""
    if table.kind in (WEAK, BATCH):
        return
    for base, row in others(table, "time", "comm", "gpus"):
        factor = grown(base, row, "gpus")
        before, after = (_parts(claim) for claim in (base, row))
        rest, time = (base.get("time") or 0.0) - before, row.get("time") or 0.0
        values = [claim.values[f] for claim in (base, row) for f in ("time", "comm")]
        slack = sum(value.precision() * value.number for value in values if value.number)
        least = (after + rest / factor - slack) / (1 + SLACK)
        if factor > 1 and rest > 0 and after <= time < least:
            numbers = (
                f"{after:g} s of communication, I/O and preprocessing + {rest:g} s / {factor:g} "
                f"exceed the wall clock of {time:g} s"
            )
            todo = "say what is hidden behind computing, or why that scales better than ideally"
            yield Flag("parts-ideal", NOTICE, subject(table, row), numbers, todo)


def _parts(row: Claim) -> float:
    return sum(row.get(field) or 0.0 for field in PART_TIMES)


def no_repeats(table: ClaimTable) -> Iterator[Flag]:
    """Results without repeats or intervals do not say how far chance reaches."""
    if any(row.get("repeats") is not None for row in table.rows):
        few = [row for row in table.rows if (row.get("repeats") or 3) < 3]
        where, numbers = subject(table, *few), "fewer than 3 repeats"
        if few:
            yield Flag("too-few-samples", NOTICE, where, numbers, "repeat every row, interleaved")
    elif not any(value.spread is not None for row in table.rows for value in row.values.values()):
        numbers = f"{len(table.rows)} rows without a number of repeats or an interval"
        todo = "give both: a difference without them may be chance"
        yield Flag("too-few-samples", NOTICE, table.name, numbers, todo)


LIMITS: tuple[Rule, ...] = (
    share_over_one,
    mbu_against_throughput,
    single_request_pipeline,
    never_batched,
    parts_over_whole,
    parts_against_ideal,
    no_repeats,
)
