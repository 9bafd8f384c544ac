"""Rules over the tables of one report: rows of the same configuration, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from harness_analysis.audit.claim_rules import PART_TIMES, agree
from harness_analysis.audit.claims import MEASURED, Claim, ClaimTable
from harness_analysis.audit.flags import NOTICE, PROBLEM, Flag

SETTINGS = ("gpus", "nodes", "tp", "pp", "batch")
RELATIVE = ("speedup", "efficiency")
"""What depends on the table's base."""
FAR = 1.5
"""Communication a token of the same layout differs by less, however noisy the machine."""
FIXED = 1.1
"""Fewer prompts may be this much faster each than what is spent once explains."""

Placed = tuple[ClaimTable, Claim]
CrossRule = Callable[[Sequence[ClaimTable]], list[Flag]]


def _pairs(tables: Sequence[ClaimTable]) -> Iterator[tuple[Placed, Placed]]:
    """Two rows of one layout and batch, that with fewer requests first."""
    rows = [(table, row) for table in tables for row in table.rows if "gpus" in row.values]
    for one, two in combinations(rows, 2):
        if all(one[1].get(field) == two[1].get(field) for field in SETTINGS):
            few, many = sorted((one, two), key=lambda placed: placed[1].get("requests") or 0)
            yield few, many


def _subject(*places: Placed) -> str:
    return "; ".join(f"{table.name}: {row.label}" for table, row in places)


def one_run_two_results(tables: Sequence[ClaimTable]) -> list[Flag]:
    """A run that serves two tables has the same results in both."""
    found = []
    for one, two in _pairs(tables):
        left, right = one[1].values, two[1].values
        if one[0] is two[0] or one[1].get("requests") != two[1].get("requests"):
            continue
        if any(left.get(f) is None or left[f] != right.get(f) for f in ("time", "throughput")):
            continue
        told = [
            f"{field} {left[field].number:g} and {right[field].number:g}"
            for field in MEASURED
            if field not in RELATIVE and field in left and field in right
            if left[field] != right[field]
        ]
        if told:
            numbers = f"the same {left['time'].number:g} s in both, but {', '.join(told)}"
            todo = "one run has one result: take both rows from its records"
            found.append(Flag("one-run-two-results", PROBLEM, _subject(one, two), numbers, todo))
    return found


def communication_per_token(tables: Sequence[ClaimTable]) -> list[Flag]:
    """Of one layout and batch a token costs the same messages, however many prompts there are."""
    found = []
    for few, many in _pairs(tables):
        costs = [_per_token(row) for _, row in (few, many)]
        if few[1].get("requests") == many[1].get("requests") or None in costs:
            continue
        low, high = sorted(cost for cost in costs if cost is not None)
        if low > 0 and high / low > FAR:
            numbers = " and ".join(f"{cost * 1e3:.3g} ms" for cost in costs if cost is not None)
            found.append(
                Flag("communication-token", NOTICE, _subject(few, many),
                     f"{numbers} of communication a token in the same layout",
                     "say what was counted; measure it a step, waiting apart from transfer")
            )  # fmt: skip
    return found


def _per_token(row: Claim) -> float | None:
    comm, time, rate = row.get("comm"), row.get("time"), row.get("throughput")
    if comm is None or not time or not rate:
        return None
    return comm / (time * rate)


def spent_once(tables: Sequence[ClaimTable]) -> list[Flag]:
    """What is spent once makes few prompts dear: more of them cannot cost more each."""
    found = []
    for few, many in _pairs(tables):
        work = (many[1].get("requests") or 0) / (few[1].get("requests") or 1)
        before, after = few[1].get("time"), many[1].get("time")
        once = min(_once(row) for _, row in (few, many))
        if work <= 1 or not before or not after or not 0 < once < before:
            continue
        wanted = (before - once) * work + once
        if after > wanted * FIXED:
            found.append(
                Flag("spent-once", NOTICE, _subject(few, many),
                     f"{work:g} x the prompts take {after / before:.3g} x the time, though {once:g}"
                     f" s of I/O and preprocessing are spent once: {wanted:.3g} s would do",
                     "say whether the wall clock holds them; throughput a user sees does")
            )  # fmt: skip
    return found


def _once(row: Claim) -> float:
    return sum(row.get(field) or 0.0 for field in PART_TIMES if field != "comm")


def efficiency_of_base(tables: Sequence[ClaimTable]) -> list[Flag]:
    """The row that the others are measured against has efficiency 1."""
    found = []
    for table in tables:
        base = table.base()
        own = base.values.get("efficiency") if base else None
        if base is None or own is None or agree(own.number, 1.0, own):
            continue
        for row in table.rows:
            share, speedup = row.values.get("efficiency"), row.values.get("speedup")
            field = "batch" if table.kind == "batch" else "gpus"
            factor = (row.get(field) or 1.0) / (base.get(field) or 1.0)
            if row is base or share is None or speedup is None or factor <= 1:
                continue
            if agree(share.number, speedup.number / factor, share, speedup):
                found.append(
                    Flag("efficiency-base", PROBLEM, f"{table.name}: {base.label}",
                         f"efficiency {own.number:g} of the base, but {share.number:g} = "
                         f"{speedup.number:g} / {factor:g} of {row.label} holds it for 1",
                         "one column, one definition: say against what each row is measured")
                )  # fmt: skip
                break
    return found


CROSS: Sequence[CrossRule] = (
    one_run_two_results,
    efficiency_of_base,
    communication_per_token,
    spent_once,
)
