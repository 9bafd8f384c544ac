"""Columns of a scaling table that contradict each other: speed-up, efficiency, tokens, time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness_analysis.audit.claim_rules import EXACT, Rule, agree, grown, others, subject
from harness_analysis.audit.claims import BATCH, STRONG, WEAK, Claim, ClaimTable, Value
from harness_analysis.audit.flags import PROBLEM, Flag

SUPERLINEAR = 1.02


def speedup_against_time(table: ClaimTable) -> Iterator[Flag]:
    """Strong scaling: speed-up times time is the time of the base."""
    for row, claimed, before, after in _speedups(table, "time"):
        said = f"{before.number:g} s / {after.number:g} s"
        todo = "recompute the speed-up from the wall clocks"
        yield from _speedup_flag("speedup-time", table, row, (claimed, before, after), said, todo)


def speedup_against_throughput(table: ClaimTable) -> Iterator[Flag]:
    """With the same tokens, speed-up is the ratio of the throughputs."""
    for row, claimed, before, after in _speedups(table, "throughput"):
        said = f"{after.number:g} / {before.number:g} tokens/s"
        todo = "time or throughput is of another amount of work: state the tokens"
        values = (claimed, after, before)
        yield from _speedup_flag("speedup-throughput", table, row, values, said, todo)


def _speedups(table: ClaimTable, field: str) -> Iterator[tuple[Claim, Value, Value, Value]]:
    """Rows that claim a speed-up, with it and the field's value in the base and in the row."""
    if table.kind in (WEAK, BATCH):
        return
    for base, row in others(table, field):
        claimed = row.values.get("speedup")
        if claimed is not None:
            yield row, claimed, base.values[field], row.values[field]


def _speedup_flag(
    rule: str,
    table: ClaimTable,
    row: Claim,
    values: tuple[Value, Value, Value],
    said: str,
    todo: str,
) -> Iterator[Flag]:
    """A flag unless the speed-up, first of the values, is the second over the third."""
    claimed, above, below = values
    base = table.base()
    if base is None or not below.number:
        return
    own = (base.get("speedup") or 1.0) * above.number / below.number
    if not agree(claimed.number, own, *values):
        numbers = f"speed-up {claimed.number:g}, but {said} = {own:.3g}"
        yield Flag(rule, PROBLEM, subject(table, row), numbers, todo)


def tokens_against_time(table: ClaimTable) -> list[Flag]:
    """Throughput times time is the number of tokens; of fixed work the same in every row."""
    if any("tokens" in row.values for row in table.rows):
        return list(_stated_tokens(table))
    base = table.base()
    if base is None:
        return []
    by_work = [list(_unlike_tokens(table, factor)) for factor in _works(table.kind, base)]
    return min(by_work, key=len, default=[])


def _stated_tokens(table: ClaimTable) -> Iterator[Flag]:
    for row in table.rows:
        if all(field in row.values for field in ("tokens", "throughput", "time")):
            tokens, rate, time = (row.values[f] for f in ("tokens", "throughput", "time"))
            if not agree(tokens.number, rate.number * time.number, tokens, rate, time):
                yield _tokens_flag(table, row, tokens.number, rate.number, time.number)


def _unlike_tokens(table: ClaimTable, factor: Callable[[Claim], float]) -> Iterator[Flag]:
    """Rows whose tokens are not those of the base times the factor of their work."""
    for base, row in others(table, "throughput", "time"):
        rate_base, time_base = base.values["throughput"], base.values["time"]
        rate, time = row.values["throughput"], row.values["time"]
        wanted = rate_base.number * time_base.number * factor(row)
        if not agree(wanted, rate.number * time.number, rate_base, time_base, rate, time):
            yield _tokens_flag(table, row, wanted, rate.number, time.number)


def _works(kind: str, base: Claim) -> list[Callable[[Claim], float]]:
    """How the tokens of a row may follow from those of the base: the same prompts, or, of
    batches, as many as the batch holds; in weak scaling in proportion to the GPUs."""

    def by(field: str) -> Callable[[Claim], float]:
        return lambda row: grown(base, row, field)

    def same(_: Claim) -> float:
        return 1.0

    works: dict[str, list[Callable[[Claim], float]]] = {
        STRONG: [same],
        WEAK: [by("gpus")],
        BATCH: [same, by("batch")],
    }
    return works.get(kind, [])


def _tokens_flag(table: ClaimTable, row: Claim, tokens: float, rate: float, time: float) -> Flag:
    numbers = f"{rate:g} tokens/s x {time:g} s = {rate * time:,.0f} tokens, not {tokens:,.0f}"
    todo = "wall clock must be tokens / throughput; say what each of the three counts"
    return Flag("tokens-time", PROBLEM, subject(table, row), numbers, todo)


def efficiency_against_speedup(table: ClaimTable) -> Iterator[Flag]:
    """Strong scaling: parallel efficiency is speed-up over the factor of GPUs."""
    if table.kind in (WEAK, BATCH):
        return
    for base, row in others(table, "gpus"):
        share, speedup = row.values.get("efficiency"), row.values.get("speedup")
        factor = grown(base, row, "gpus")
        if share is None or speedup is None or factor == 1:
            continue
        own = speedup.number / factor
        if not agree(share.number, own, share, speedup, slack=EXACT):
            said = f"{speedup.number:g} / {factor:g} = {own:.3g}"
            todo = "recompute the efficiency, or state the base that it is against"
            yield _efficiency_flag(table, row, share.number, said, todo)


def efficiency_against_rates(table: ClaimTable) -> Iterator[Flag]:
    """Weak scaling: efficiency is T1 / Tp and, equally, throughput over GPUs times that of one;
    of batches it is throughput over batch times that of one."""
    size = {WEAK: "gpus", BATCH: "batch"}.get(table.kind)
    if size is None:
        return
    for base, row in others(table, size):
        claimed = row.values.get("efficiency")
        if claimed is None:
            continue
        wrong = [
            f"{name} = {own:.3g}"
            for name, own in _efficiencies(table.kind, base, row, grown(base, row, size))
            if not agree(claimed.number, own, claimed)
        ]
        if wrong:
            todo = "both forms must agree: state the work of each row"
            yield _efficiency_flag(table, row, claimed.number, " and ".join(wrong), todo)


def _efficiency_flag(table: ClaimTable, row: Claim, claimed: float, said: str, todo: str) -> Flag:
    numbers = f"efficiency {claimed:.3g}, but {said}"
    return Flag("efficiency-speedup", PROBLEM, subject(table, row), numbers, todo)


def _efficiencies(kind: str, base: Claim, row: Claim, factor: float) -> Iterator[tuple[str, float]]:
    """Efficiency by throughput, and in weak scaling by time, with what each is called."""
    rate, rate_base = row.get("throughput"), base.get("throughput")
    time, time_base = row.get("time"), base.get("time")
    if rate and rate_base:
        yield f"throughput / ({factor:g} x base)", rate / rate_base / factor
    if kind == WEAK and time and time_base:
        yield "T1 / Tp", time_base / time


def efficiency_over_one(table: ClaimTable) -> Iterator[Flag]:
    """Neither claimed nor computed efficiency may exceed 1 without a reason."""
    base = table.base()
    for row in table.rows:
        claimed, source = row.get("efficiency"), "claimed"
        if claimed is None and base is not None and row is not base and table.kind == STRONG:
            claimed, source = _own_efficiency(base, row), "computed"
        if claimed is not None and claimed > SUPERLINEAR:
            numbers = f"{source} efficiency {claimed:.3g}"
            todo = "name the reason (a base that spills, another batch) or repeat the base"
            yield Flag("efficiency-over-one", PROBLEM, subject(table, row), numbers, todo)


def _own_efficiency(base: Claim, row: Claim) -> float | None:
    gpus, of_base = row.get("gpus"), base.get("gpus")
    rate, rate_base = row.get("throughput"), base.get("throughput")
    if not gpus or not of_base or gpus == of_base or rate is None or not rate_base:
        return None
    return rate / rate_base / (gpus / of_base)


SCALING: tuple[Rule, ...] = (
    speedup_against_time,
    speedup_against_throughput,
    tokens_against_time,
    efficiency_against_speedup,
    efficiency_against_rates,
    efficiency_over_one,
)
