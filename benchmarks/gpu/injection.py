"""Section of `benchmarks/gpu/tables.py`: a delay put into a rank comes back as its peer's waiting.

What was injected is what the delaying kernels took where they were recorded (the clock of a GPU
moves), else the delay as asked for. What came back is the peer's waiting a step, less the late
rank's own in the same collectives, less the same of a run without a delay. Beside it stands what a
delayed call shows, less what that call of a step shows without a delay: a step holds the lateness
of other causes too, such as hosts that begin an eager step at different moments.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu.runs import Bench, micro, percent, rows_of, table
from benchmarks.injection import median_interval

LATE, PEER = 1, 0
GPU_CASES = (
    ("graph", "device", "layer"),
    ("eager", "device", "layer"),
    ("graph", "host", "step"),
    ("eager", "host", "layer"),
    ("graph", "device", "step"),
    ("eager", "host", "step"),
    ("eager", "device", "step"),
)
CPU_CASES = (("eager", "host", "step"), ("eager", "host", "layer"))
GPU_DELAYS_US = (50, 250, 1000)
CPU_DELAYS_US = (2000,)
HALF_NS = 500
"""Half a microsecond: a call in which the peer waited half of the delay was a delayed one."""
COLUMNS = ("mode", "where", "every", "delay us", "evidence", "steps", "injected us a step",
           "returned us [95 %]", "error", "within 3 us or 3 %", "delayed calls found",
           "injected us a call", "returned us p50 [p10, p90]", "within 3 us or 3 %",
           "culprit right", "named")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run: how it decodes, what is kept busy, how often and for how long."""

    mode: str
    where: str
    every: str
    delay_us: int

    def inject(self) -> dict[str, object] | None:
        """The specification's section."""
        if not self.delay_us:
            return None
        delay = f"{self.delay_us}us"
        return {"rank": LATE, "delay": delay, "every": self.every, "where": self.where}


@dataclass(frozen=True)
class Net:
    """A call at its place in a step: what the peer waited, and that less the late rank's own."""

    place: int
    waited_ns: float
    net_ns: float


@dataclass(frozen=True)
class Found:
    """What one evidence of a run says. `net_ns`: waiting for the late rank, a value a step."""

    net_ns: np.ndarray
    injected_ns: float
    delayed: int
    expected: int
    right: float | None
    calls: list[Net]


def injection(bench: Bench) -> Iterator[str]:
    """Delays of one rank against the waiting that they cause."""
    started = time.monotonic()
    cases = bench.cases or (GPU_CASES if bench.on_gpu else CPU_CASES)
    cases = tuple(case for case in cases if case[0] in bench.modes)
    delays = bench.delays_us or (GPU_DELAYS_US if bench.on_gpu else CPU_DELAYS_US)
    yield f"{bench.where}; rank {LATE} is delayed, rank {PEER} waits."
    lines, base = [], {}
    for mode in dict.fromkeys(case[0] for case in cases):
        none = Case(mode, "-", "-", 0)
        database = bench.plain(mode)
        base[mode] = measure(bench, database, none)
        lines += _lines(none, base[mode], base[mode], named(database))
    left_out = []
    for case in (Case(*case, delay) for case in cases for delay in delays if delay):
        if time.monotonic() - started > bench.budget_s:
            left_out.append(f"{case.mode}:{case.where}:{case.every}:{case.delay_us}us")
            continue
        database = bench.run(case.mode, case.inject())
        found = measure(bench, database, case)
        lines += _lines(case, found, base[case.mode], named(database))
    yield table(COLUMNS, lines)
    if left_out:
        yield f"Not run within {bench.budget_s:.0f} s: {', '.join(left_out)}."


def named(database: Path) -> str:
    """Ranks that the run's findings blame for decoding."""
    sql = """
        SELECT DISTINCT rank FROM findings
        WHERE kind IN ('straggler', 'stage') AND phase = 'decode' AND rank IS NOT NULL
    """
    return ", ".join(str(rank) for (rank,) in sorted(rows_of(database, sql))) or "nobody"


def measure(bench: Bench, database: Path, case: Case) -> dict[str, Found]:
    """What each evidence that splits waiting says of a run."""
    kind = "collective" if bench.tp > 1 else "p2p"
    half_ns = case.delay_us * HALF_NS
    rows = rows_of(database, _STEPS, [PEER, LATE, kind, half_ns])
    times = _layers(database) if case.every == "layer" else 1
    injected = _spun(database) if case.where == "device" else None
    calls = rows_of(database, _CALLS, [PEER, LATE, kind])
    found = {}
    for source in sorted({row[0] for row in rows}):
        steps = [row for row in rows if row[0] == source]
        delayed = sum(row[2] for row in steps)
        known = sum(row[3] for row in steps)
        found[source] = Found(
            np.array([row[1] for row in steps], dtype=float),
            injected if injected is not None else case.delay_us * 1e3 * times,
            delayed,
            times * len(steps),
            known / delayed if delayed and case.delay_us else None,
            [Net(*row[1:]) for row in calls if row[0] == source],
        )
    return found


# Steps of which every wait is known. Of messages only what the peer receives: its own sends wait
# at the same time for the same late rank, and would count a delay twice.
_STEPS = f"""
SELECT source, sum(CASE WHEN rank = $1 THEN wait_ns ELSE -wait_ns END) AS net_ns,
  count(*) FILTER (rank = $1 AND wait_ns >= $4),
  count(*) FILTER (rank = $1 AND wait_ns >= $4 AND waited_for = {LATE})
FROM waits
WHERE phase = 'decode' AND NOT warmup AND kind = $3
  AND CASE kind WHEN 'p2p' THEN op = 'recv' AND rank = $1
                ELSE op = 'all_reduce' AND rank IN ($1, $2) END
  AND (source <> 'app_timers' OR perturbed_by IS NULL)
GROUP BY source, repeat, batch, microbatch, step
HAVING count(*) = count(wait_ns) AND count(*) FILTER (rank = $1) > 0
ORDER BY source, repeat, batch, microbatch, step
"""

_CALLS = """
SELECT p.source, row_number() OVER (
    PARTITION BY p.source, p.repeat, p.batch, p.microbatch, p.step ORDER BY p.comm_group, p.seq),
  p.wait_ns, p.wait_ns - coalesce(l.wait_ns, 0)
FROM waits p LEFT JOIN waits l
  ON l.rank = $2 AND l.source = p.source AND l.comm_group = p.comm_group AND l.seq = p.seq
  AND p.kind <> 'p2p'
WHERE p.phase = 'decode' AND NOT p.warmup AND p.kind = $3 AND p.rank = $1
  AND p.op IN ('recv', 'all_reduce') AND (p.source <> 'app_timers' OR p.perturbed_by IS NULL)
"""


def _layers(database: Path) -> int:
    """Layers of the late rank."""
    sql = "SELECT last_layer - first_layer + 1 FROM ranks WHERE rank = ?"
    return int(rows_of(database, sql, [LATE])[0][0])


def _spun(database: Path) -> float | None:
    """Median time a step of the kernels that delayed the late rank; None: not recorded."""
    rows = rows_of(
        database,
        """
        SELECT median(ns) FROM (
          SELECT sum(end_ns - start_ns) AS ns FROM spans
          WHERE rank = ? AND source = 'torch_profiler' AND timeline = 'device'
            AND phase = 'decode' AND name LIKE '%spin_kernel%'
          GROUP BY repeat, batch, microbatch, step)
        """,
        [LATE],
    )
    return None if rows[0][0] is None else float(rows[0][0])


def _lines(
    case: Case, found: dict[str, Found], base: dict[str, Found], who: str
) -> list[list[object]]:
    lines: list[list[object]] = []
    for source, got in found.items():
        if source not in base:
            continue
        zero = float(np.median(base[source].net_ns)) if case.delay_us else 0.0
        middle, low, high = (value - zero for value in median_interval(got.net_ns))
        want = got.injected_ns if case.delay_us else 0.0
        error = middle - want
        share = f" ({100 * error / want:+.1f} %)" if want else ""
        ok = ("yes" if abs(error) <= max(3000.0, 0.03 * want) else "no") if want else None
        expected = f"{got.delayed} of {got.expected}" if case.delay_us else None
        lines.append(
            [case.mode, case.where, case.every, case.delay_us, source, len(got.net_ns),
             micro(want), f"{middle / 1e3:.1f} [{low / 1e3:.1f}, {high / 1e3:.1f}]",
             f"{error / 1e3:+.1f} us{share}" if case.delay_us else None, ok, expected,
             *_a_call(case, got, base[source]), percent(got.right), who]
        )  # fmt: skip
    return lines or [
        [case.mode, case.where, case.every, case.delay_us, "none", 0, *[None] * 9, who]
    ]


def _a_call(case: Case, got: Found, base: Found) -> tuple[str | None, ...]:
    """What was injected before a delayed call, what its peer waited in it, and whether they agree.

    A call is compared with the calls at its place in the steps of the run without a delay.
    """
    if not case.delay_us or not got.delayed or not len(got.net_ns):
        return None, None, None
    usual: dict[int, list[float]] = {}
    for call in base.calls:
        if call.waited_ns is not None:
            usual.setdefault(call.place, []).append(call.net_ns)
    back = [
        call.net_ns - float(np.median(usual[call.place]))
        for call in got.calls
        if call.waited_ns is not None
        and call.waited_ns >= case.delay_us * HALF_NS
        and call.place in usual
    ]
    if not back:
        return None, None, None
    want = got.injected_ns / max(1, round(got.delayed / len(got.net_ns)))
    low, middle, high = np.quantile(back, [0.1, 0.5, 0.9])
    ok = "yes" if abs(middle - want) <= max(3000.0, 0.03 * want) else "no"
    return micro(want), f"{middle / 1e3:.1f} [{low / 1e3:.1f}, {high / 1e3:.1f}]", ok
