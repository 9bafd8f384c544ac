"""Rules for tables of results: columns that contradict each other, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness_analysis.audit.claims import BATCH, STRONG, WEAK, Claim, ClaimTable, Value
from harness_analysis.audit.flags import NOTICE, PROBLEM, Flag

SLACK = 0.02
"""What numbers may differ by beyond their rounding."""
EXACT = 0.01
"""The same where one number is computed of the other, as efficiency of speed-up."""
SUPERLINEAR = 1.02
BATCHED = 1.1
"""A batch must raise the throughput by at least so much to have been one."""

PART_TIMES = ("comm", "io", "preprocess")

Rule = Callable[[ClaimTable], list[Flag]]


def agree(left: float, right: float, *values: Value, slack: float = SLACK) -> bool:
    """Whether two results of arithmetic are the same within the rounding of their inputs."""
    allowed = slack + sum(value.precision() for value in values)
    return left == right or abs(left - right) <= allowed * max(abs(left), abs(right))


def _others(table: ClaimTable, *fields: str) -> Iterator[tuple[Claim, Claim]]:
    """The base row with every other one, where both have all the fields."""
    base = table.base()
    if base is None or any(field not in base.values for field in fields):
        return
    for row in table.rows:
        if row is not base and all(field in row.values for field in fields):
            yield base, row


def _subject(table: ClaimTable, *rows: Claim) -> str:
    return f"{table.name}: {'; '.join(row.label for row in rows)}"


def speedup_against_time(table: ClaimTable) -> list[Flag]:
    """Strong scaling: speed-up times time is the time of the base."""
    if table.kind in (WEAK, BATCH):
        return []
    found = []
    for base, row in _others(table, "time"):
        claimed, before, after = row.values.get("speedup"), base.values["time"], row.values["time"]
        if claimed is None or not after.number:
            continue
        own = (base.get("speedup") or 1.0) * before.number / after.number
        if not agree(claimed.number, own, claimed, before, after):
            numbers = (
                f"speed-up {claimed.number:g}, but {before.number:g} s / {after.number:g} s "
                f"= {own:.3g}"
            )
            found.append(
                Flag("speedup-time", PROBLEM, _subject(table, row), numbers,
                     "recompute the speed-up from the wall clocks")
            )  # fmt: skip
    return found


def speedup_against_throughput(table: ClaimTable) -> list[Flag]:
    """With the same tokens, speed-up is the ratio of the throughputs."""
    if table.kind in (WEAK, BATCH):
        return []
    found = []
    for base, row in _others(table, "throughput"):
        claimed = row.values.get("speedup")
        before, after = base.values["throughput"], row.values["throughput"]
        if claimed is None or not before.number:
            continue
        own = (base.get("speedup") or 1.0) * after.number / before.number
        if not agree(claimed.number, own, claimed, before, after):
            numbers = (
                f"speed-up {claimed.number:g}, but {after.number:g} / {before.number:g} "
                f"tokens/s = {own:.3g}"
            )
            found.append(
                Flag("speedup-throughput", PROBLEM, _subject(table, row), numbers,
                     "time or throughput is of another amount of work: state the tokens")
            )  # fmt: skip
    return found


def tokens_against_time(table: ClaimTable) -> list[Flag]:
    """Throughput times time is the number of tokens; of fixed work the same in every row."""
    found = []
    for row in table.rows:
        if all(field in row.values for field in ("tokens", "throughput", "time")):
            tokens, rate, time = (row.values[f] for f in ("tokens", "throughput", "time"))
            if not agree(tokens.number, rate.number * time.number, tokens, rate, time):
                found.append(_tokens_flag(table, row, tokens.number, rate.number, time.number))
    if found or any("tokens" in row.values for row in table.rows):
        return found
    products = [
        (row, [row.values["throughput"], row.values["time"]])
        for _, row in _others(table, "throughput", "time")
    ]
    base = table.base()
    if base is None or not products:
        return []
    before = [base.values["throughput"], base.values["time"]]
    by_work = [
        [
            _tokens_flag(table, row, wanted, after[0].number, after[1].number)
            for row, after in products
            if not agree(
                wanted := before[0].number * before[1].number * factor(row),
                after[0].number * after[1].number,
                *before,
                *after,
            )
        ]
        for factor in _works(table.kind, base)
    ]
    return min(by_work, key=len, default=[])


def _works(kind: str, base: Claim) -> list[Callable[[Claim], float]]:
    """How the tokens of a row may follow from those of the base: the same prompts, or, of
    batches, as many as the batch holds; in weak scaling in proportion to the GPUs."""

    def by(field: str) -> Callable[[Claim], float]:
        return lambda row: (row.get(field) or 1.0) / (base.get(field) or 1.0)

    def same(row: Claim) -> float:
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
    return Flag("tokens-time", PROBLEM, _subject(table, row), numbers, todo)


def efficiency_against_speedup(table: ClaimTable) -> list[Flag]:
    """Strong scaling: parallel efficiency is speed-up over the factor of GPUs."""
    if table.kind in (WEAK, BATCH):
        return []
    found = []
    for base, row in _others(table, "gpus"):
        share, speedup = row.values.get("efficiency"), row.values.get("speedup")
        factor = (row.get("gpus") or 1) / (base.get("gpus") or 1)
        if share is None or speedup is None or factor == 1:
            continue
        own = speedup.number / factor
        if not agree(share.number, own, share, speedup, slack=EXACT):
            numbers = (
                f"efficiency {share.number:.3g}, but {speedup.number:g} / {factor:g} = {own:.3g}"
            )
            found.append(
                Flag("efficiency-speedup", PROBLEM, _subject(table, row), numbers,
                     "recompute the efficiency, or state the base that it is against")
            )  # fmt: skip
    return found


def efficiency_against_rates(table: ClaimTable) -> list[Flag]:
    """Weak scaling: efficiency is T1 / Tp and, equally, throughput over GPUs times that of one;
    of batches it is throughput over batch times that of one."""
    size = {WEAK: "gpus", BATCH: "batch"}.get(table.kind)
    if size is None:
        return []
    found = []
    for base, row in _others(table, size):
        claimed = row.values.get("efficiency")
        forms = _efficiencies(table.kind, base, row, size)
        wrong = [
            f"{name} = {own:.3g}"
            for name, own in forms
            if claimed is not None and not agree(claimed.number, own, claimed)
        ]
        if wrong and claimed is not None:
            numbers = f"efficiency {claimed.number:.3g}, but {' and '.join(wrong)}"
            found.append(
                Flag("efficiency-speedup", PROBLEM, _subject(table, row), numbers,
                     "both forms must agree: state the work of each row")
            )  # fmt: skip
    return found


def _efficiencies(kind: str, base: Claim, row: Claim, size: str) -> list[tuple[str, float]]:
    """Efficiency by throughput, and in weak scaling by time, with what each is called."""
    factor = (row.get(size) or 1.0) / (base.get(size) or 1.0)
    rate, rate_base = row.get("throughput"), base.get("throughput")
    time, time_base = row.get("time"), base.get("time")
    forms = []
    if rate and rate_base:
        forms.append((f"throughput / ({factor:g} x base)", rate / rate_base / factor))
    if kind == WEAK and time and time_base:
        forms.append(("T1 / Tp", time_base / time))
    return forms


def efficiency_over_one(table: ClaimTable) -> list[Flag]:
    """Neither claimed nor computed efficiency may exceed 1 without a reason."""
    found = []
    base = table.base()
    for row in table.rows:
        claimed = row.get("efficiency")
        source = "claimed"
        if claimed is None and base is not None and row is not base and table.kind == STRONG:
            claimed, source = _own_efficiency(base, row), "computed"
        if claimed is not None and claimed > SUPERLINEAR:
            found.append(
                Flag("efficiency-over-one", PROBLEM, _subject(table, row),
                     f"{source} efficiency {claimed:.3g}",
                     "name the reason (a base that spills, another batch) or repeat the base")
            )  # fmt: skip
    return found


def _own_efficiency(base: Claim, row: Claim) -> float | None:
    gpus, of_base = row.get("gpus"), base.get("gpus")
    rate, rate_base = row.get("throughput"), base.get("throughput")
    if not gpus or not of_base or gpus == of_base or rate is None or not rate_base:
        return None
    return rate / rate_base / (gpus / of_base)


def share_over_one(table: ClaimTable) -> list[Flag]:
    """MBU, MFU, utilisation and wait share are shares."""
    found = []
    for row in table.rows:
        for field in ("mbu", "mfu", "resource_use", "wait_share"):
            value = row.values.get(field)
            if value is not None and value.number - value.half > 1.0:
                found.append(
                    Flag("share-over-one", PROBLEM, _subject(table, row),
                         f"{field} is {value.number:.3g}",
                         "check bytes, FLOPs, peak and time; count per GPU, not over all")
                )  # fmt: skip
    return found


def mbu_against_throughput(table: ClaimTable) -> list[Flag]:
    """On the same GPUs MBU grows at most as the throughput: a step of a batch reads at most as
    many bytes a token as one of a smaller batch."""
    found = []
    for base, row in _others(table, "mbu", "throughput"):
        if row.get("gpus") != base.get("gpus") or (row.get("batch") or 0) <= (
            base.get("batch") or 0
        ):
            continue
        shares, rates = (
            [one.values[field] for one in (base, row)] for field in ("mbu", "throughput")
        )
        if not shares[0].number or not rates[0].number:
            continue
        grown, allowed = (pair[1].number / pair[0].number for pair in (shares, rates))
        if grown > allowed and not agree(grown, allowed, *shares, *rates):
            found.append(
                Flag("mbu-throughput", PROBLEM, _subject(table, base, row),
                     f"MBU grows {grown:.3g} x, the throughput only {allowed:.3g} x",
                     "the bytes of a token cannot grow with the batch: recompute MBU from bytes "
                     "a step and step time")
            )  # fmt: skip
    return found


def single_request_pipeline(table: ClaimTable) -> list[Flag]:
    """A pipeline shortens nothing while one request is in flight."""
    found = []
    for row in table.rows:
        if (row.get("pp") or 1) <= 1 or _in_flight(row) != 1:
            continue
        for base in table.rows:
            same = (base.get("tp") or 1) == (row.get("tp") or 1) and _in_flight(base) == 1
            gain = _gain(base, row)
            if same and (base.get("pp") or 1) == 1 and gain is not None and gain > 1.05:
                numbers = (
                    f"PP {row.get('pp'):g} with one request in flight is {gain:.3g} x as fast "
                    "as PP 1"
                )
                found.append(
                    Flag("single-request-pipeline", PROBLEM, _subject(table, base, row), numbers,
                         "one request passes the stages one after the other: look for what else "
                         "changed (memory that no longer spills, another batch)")
                )  # fmt: skip
    return found


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


def never_batched(table: ClaimTable) -> list[Flag]:
    """A batch whose throughput is that of single requests ran one by one."""
    rows = sorted(
        (row for row in table.rows if row.get("batch") and row.get("throughput")),
        key=lambda row: row.get("batch") or 0,
    )
    found = []
    for row in rows[1:]:
        base = rows[0]
        if row.get("gpus") != base.get("gpus") or row.get("batch") == base.get("batch"):
            continue
        gain = (row.get("throughput") or 0) / (base.get("throughput") or 1)
        if gain < BATCHED:
            numbers = (
                f"batch {row.get('batch'):g} has {gain:.3g} x the throughput of batch "
                f"{base.get('batch'):g}"
            )
            found.append(
                Flag("never-batched", PROBLEM, _subject(table, row), numbers,
                     "check that the prompts were decoded together (steps.batch_size)")
            )  # fmt: skip
    return found


def parts_over_whole(table: ClaimTable) -> list[Flag]:
    """Communication lies within the wall clock; I/O and preprocessing may be counted outside."""
    found, outside = [], []
    for row in table.rows:
        time = row.get("time")
        parts = {f: v for f in PART_TIMES if (v := row.get(f)) is not None}
        if not time or sum(parts.values()) <= time * (1 + SLACK):
            continue
        told = " + ".join(f"{field} {value:g}" for field, value in parts.items())
        numbers = f"{told} s exceed the wall clock of {time:g} s"
        if parts.get("comm", 0.0) > time * (1 + SLACK):
            found.append(
                Flag("parts-over-whole", PROBLEM, _subject(table, row), numbers,
                     "times are summed over ranks, or of another run: state which")
            )  # fmt: skip
        else:
            outside.append((row, numbers))
    if outside:
        rows, (numbers, *_) = zip(*outside, strict=True)
        found.append(
            Flag("parts-over-whole", NOTICE, _subject(table, *rows), numbers,
                 "say whether the wall clock holds I/O and preprocessing")
        )  # fmt: skip
    return found


def parts_against_ideal(table: ClaimTable) -> list[Flag]:
    """Strong scaling: what does not shrink, and an ideal share of the rest, must fit."""
    if table.kind in (WEAK, BATCH):
        return []
    found = []
    for base, row in _others(table, "time", "comm", "gpus"):
        factor = (row.get("gpus") or 1.0) / (base.get("gpus") or 1.0)
        before, after = (_parts(claim) for claim in (base, row))
        rest, time = (base.get("time") or 0.0) - before, row.get("time") or 0.0
        values = [claim.values[f] for claim in (base, row) for f in ("time", "comm")]
        slack = sum(value.precision() * value.number for value in values if value.number)
        if (
            factor > 1
            and rest > 0
            and after <= time < (after + rest / factor - slack) / (1 + SLACK)
        ):
            found.append(
                Flag("parts-ideal", NOTICE, _subject(table, row),
                     f"{after:g} s of communication, I/O and preprocessing + {rest:g} s / "
                     f"{factor:g} exceed the wall clock of {time:g} s",
                     "say what is hidden behind computing, or why that scales better than ideally")
            )  # fmt: skip
    return found


def _parts(row: Claim) -> float:
    return sum(row.get(field) or 0.0 for field in PART_TIMES)


def no_repeats(table: ClaimTable) -> list[Flag]:
    """Results without repeats or intervals do not say how far chance reaches."""
    repeats = [row.get("repeats") for row in table.rows]
    if any(value is not None for value in repeats):
        few = [row for row in table.rows if (row.get("repeats") or 3) < 3]
        if not few:
            return []
        return [Flag("too-few-samples", NOTICE, _subject(table, *few), "fewer than 3 repeats",
                     "repeat every row, interleaved")]  # fmt: skip
    if any(value.spread is not None for row in table.rows for value in row.values.values()):
        return []
    return [
        Flag("too-few-samples", NOTICE, table.name,
             f"{len(table.rows)} rows without a number of repeats or an interval",
             "give both: a difference without them may be chance")
    ]  # fmt: skip


ARITHMETIC: Sequence[Rule] = (
    speedup_against_time,
    speedup_against_throughput,
    tokens_against_time,
    efficiency_against_speedup,
    efficiency_against_rates,
    efficiency_over_one,
    share_over_one,
    mbu_against_throughput,
    single_request_pipeline,
    never_batched,
    parts_over_whole,
    parts_against_ideal,
    no_repeats,
)
