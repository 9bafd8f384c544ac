"""Sections of `benchmarks/gpu/tables.py`: floors, classified, timers, overhead."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import overhead
from benchmarks.gpu.runs import INSTRUMENT_EVERY, Bench, micro, percent, rows_of, table
from harness.bench import Wanted, bench_collectives
from harness.session import run_spec
from harness_analysis.answer import load_answer
from harness_analysis.store import open_database
from harness_runners.bench.plan import parse_sizes

DEFAULT_EVERY = 32
"""`generation.instrument_every` of a run that says nothing."""
PAIRS = 20
SILENCE_NS = 50_000_000
"""NVLinks sleep after such a silence, and a transfer must wake them (benchmarks.gpu.messages)."""


def floors(bench: Bench) -> Iterator[str]:
    """Measured floors, and each run's transfers against them."""
    plain = {mode: bench.plain(mode) for mode in bench.modes}
    target = bench.folder / "floors.json"
    wanted = Wanted(
        sizes=parse_sizes("1KiB:64MiB" if bench.on_gpu else "1KiB:16KiB"),
        run=str(plain["eager"].parent),
        device=bench.device,
    )
    document = bench_collectives(wanted, target, bench.narrator)
    bench.floors = target
    yield f"{document['device']}, {document['world_size']} ranks, median us (busbw GB/s)."
    yield _floor_table(document["rows"])
    if bench.on_gpu:
        yield "The NCCL all-reduce by its kernel, between time stamps, and in a bare chain, us."
        yield _ways_table(document["rows"])
    for item in sorted({item["reason"] for item in document["skipped"]}):
        yield f"not measured: {item}"
    for mode, database in plain.items():
        bench.compare(database)
        yield f"Transfer against the floor of the same size, {mode}, decode."
        yield _against_floors(database)


def _floor_table(rows: list[dict[str, Any]]) -> str:
    """A row a group and size, a column an operation and implementation."""
    heads = list(dict.fromkeys((row["op"], row["implementation"]) for row in rows))
    cells = {
        (row["group_size"], row["bytes"], row["op"], row["implementation"]): row for row in rows
    }
    lines = []
    for group, size in sorted({(row["group_size"], row["bytes"]) for row in rows}):
        found = [cells.get((group, size, *head)) for head in heads]
        texts = [row and f"{row['p50_us']:.1f} ({row['busbw_gb_s']:.1f})" for row in found]
        lines.append([group, size, *texts])
    return table(["ranks", "bytes", *(" ".join(head) for head in heads)], lines)


def _ways_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            row["group_size"],
            row["bytes"],
            row["warm_us"],
            row["p50_us"],
            row["warm_stamps_us"],
            row["stamps_us"],
            row["chain_us"],
        ]
        for row in rows
        if (row["op"], row["implementation"]) == ("all_reduce", "nccl")
    ]
    columns = ["ranks", "bytes", "warm kernel", "kernel", "warm stamps", "stamps", "chain"]
    return table(columns, lines)


def _against_floors(database: Path) -> str:
    rows = rows_of(
        database,
        """
        WITH calls AS (
          SELECT *, coalesce(start_ns - lag(end_ns) OVER (
            PARTITION BY rank, source, comm_group ORDER BY start_ns) > $1, true) AS silence,
            -- Outside the range between the warm floor and that behind other work.
            CASE WHEN transfer_ns > floor_ns THEN transfer_ns - floor_ns
                 ELSE least(0, transfer_ns - least(floor_warm_ns, floor_ns)) END AS excess_ns
          FROM collectives_all
        )
        SELECT source, wait_method, op, bytes, CASE WHEN silence THEN 'yes' ELSE 'no' END,
          count(*), median(transfer_ns), any_value(floor_warm_ns), any_value(floor_ns),
          quantile_cont(excess_ns, [0.1, 0.5, 0.9]),
          avg((abs(excess_ns) <= greatest(0.15 * floor_ns, 2000))::INT)
        FROM calls
        WHERE phase = 'decode' AND NOT warmup AND transfer_ns IS NOT NULL AND floor_ns IS NOT NULL
          AND wait_method <> 'floor'  -- those are the floor
        GROUP BY ALL ORDER BY ALL
        """,
        [SILENCE_NS],
    )
    lines = [
        [*row[:6], *map(micro, row[6:9]), *map(micro, row[9]), percent(row[10])] for row in rows
    ]
    columns = ["evidence", "method", "op", "bytes", "after a silence", "calls", "transfer us"]
    floors = ["warm floor us", "floor us", "excess p10", "p50", "p90", "within 15 % or 2 us"]
    return table([*columns, *floors], lines)


def classified(bench: Bench) -> Iterator[str]:
    """Share of decode windows that the best evidence divides into known parts."""
    evidence = "torch_profiler" if bench.on_gpu else "app_timers"
    lines = []
    for mode in bench.modes:
        lines += [
            [mode, *row[:2], micro(row[2]), *map(percent, row[3:])]
            for row in rows_of(bench.plain(mode), _CLASSIFIED, [evidence])
        ]
    columns = ["mode", "rank", "units", "window us", "classified", "worst unit", "compute"]
    yield f"Decode windows by {evidence}."
    yield table([*columns, "transfer", "wait", "memcpy", "idle", "unsplit", "unresolved"], lines)


_CLASSIFIED = """
WITH parts AS (
  SELECT *, coalesce(unresolved_ns, 0) + coalesce(comm_unsplit_ns, 0) AS unknown_ns
  FROM step_breakdown_all WHERE phase = 'decode' AND NOT warmup AND evidence = ?
)
SELECT rank, count(*), median(window_ns), 1 - sum(unknown_ns) / sum(window_ns),
  min(1 - unknown_ns / window_ns), sum(compute_ns) / sum(window_ns),
  sum(comm_transfer_ns) / sum(window_ns), sum(comm_wait_ns) / sum(window_ns),
  sum(memcpy_ns) / sum(window_ns), sum(idle_ns) / sum(window_ns),
  sum(comm_unsplit_ns) / sum(window_ns), sum(unresolved_ns) / sum(window_ns)
FROM parts GROUP BY rank ORDER BY rank
"""


def timers(bench: Bench) -> Iterator[str]:
    """Timers against kernels of the same pass and call."""
    if not bench.on_gpu:
        yield "Skipped: kernels and graphs need a GPU."
        return
    yield (
        "Stamps inside the graph against kernels, calls that both saw; transfer is an upper bound, "
        "and the bounds hold where low <= kernel <= stamps."
    )
    yield _in_graph(bench.plain("graph"))
    yield (
        "Event pairs of eager calls against kernels: the bounds hold where low <= kernel <= pair, "
        "and a split holds where waiting is off by no more than the error that it claims."
    )
    for mode in bench.modes:
        yield _pairs(mode, bench.plain(mode))
    if bench.pp > 1:
        yield (
            "Posted sends: NCCL sends beside the stream, so the event pair shows what the stream "
            "waited for it. The kernel must lie between the post and the end of that wait."
        )
        for mode in bench.modes:
            yield _posted(mode, bench.plain(mode))


_PAIRED = """
WITH paired AS (
  SELECT t.op, t.bytes, t.wait_method AS method, t.low_ns, t.duration_ns AS pair_ns,
    k.duration_ns AS kernel_ns, t.transfer_ns, t.wait_ns,
    k.transfer_ns AS kernel_transfer_ns, k.wait_ns AS kernel_wait_ns, t.wait_error_ns AS error_ns,
    coalesce(t.unsplit_reason LIKE 'posted%', false) AS posted,
    greatest(t.enqueue_ns - k.start_ns, k.end_ns - t.end_ns, 0) AS outside_ns
  FROM collectives_all t JOIN collectives_all k
    ON k.rank = t.rank AND k.op = t.op AND k.comm_group = t.comm_group AND k.seq = t.seq
    AND k.batch IS NOT DISTINCT FROM t.batch AND k.repeat IS NOT DISTINCT FROM t.repeat
    AND k.step IS NOT DISTINCT FROM t.step
  WHERE t.source = ? AND k.source = 'torch_profiler' AND t.phase = 'decode' AND NOT t.warmup
    AND k.duration_ns IS NOT NULL AND t.duration_ns IS NOT NULL
)
"""
"""Calls that the timers and the kernels of one pass both saw."""
_SPLIT = """
  quantile_cont(abs(transfer_ns - kernel_transfer_ns), [0.5, 0.9]),
  avg((abs(transfer_ns - kernel_transfer_ns)
       <= greatest(2000, 0.05 * kernel_transfer_ns))::INT),
  quantile_cont(abs(wait_ns - kernel_wait_ns), [0.5, 0.9]),
  avg((abs(wait_ns - kernel_wait_ns) <= greatest(2000, 0.05 * kernel_wait_ns))::INT)
FROM paired WHERE NOT posted GROUP BY op, bytes, method ORDER BY op, bytes, method
"""
_SPLIT_COLUMNS = ("transfer off us p50", "p90", "within 5 % or 2 us", "wait off us p50", "p90",
                  "within 5 % or 2 us")  # fmt: skip


def _split_cells(row: tuple[Any, ...]) -> list[str | None]:
    """Cells of `_SPLIT`; empty where timers split nothing."""
    transfer, transfer_share, wait, wait_share = row
    return [
        *map(micro, transfer or (None, None)),
        percent(transfer_share),
        *map(micro, wait or (None, None)),
        percent(wait_share),
    ]


def _in_graph(database: Path) -> str:
    sql = f"""{_PAIRED} SELECT op, bytes, count(*), median(low_ns), median(kernel_ns),
      median(pair_ns), avg((kernel_ns BETWEEN low_ns AND pair_ns)::INT),
      quantile_cont(transfer_ns - kernel_transfer_ns, [0.05, 0.95]), {_SPLIT}"""
    lines = []
    for row in rows_of(database, sql, ["graph_events"]):
        excess = " to ".join(micro(ns) or "?" for ns in row[7] or (None, None))
        lines.append([*row[:3], *map(micro, row[3:6]), percent(row[6]), excess,
                      *_split_cells(row[8:])[3:]])  # fmt: skip
    columns = ("op", "bytes", "calls", "low us", "kernel us", "stamps us", "inside the bounds",
               "transfer above the kernel's us p5 to p95")  # fmt: skip
    return table([*columns, *_SPLIT_COLUMNS[3:]], lines)


def _pairs(mode: str, database: Path) -> str:
    sql = f"""{_PAIRED} SELECT op, bytes, coalesce(method, 'unsplit'), count(*),
      median(low_ns), median(kernel_ns), median(pair_ns),
      avg((kernel_ns BETWEEN low_ns AND pair_ns)::INT),
      max(greatest(low_ns - kernel_ns, kernel_ns - pair_ns, 0)),
      median(error_ns), avg((abs(wait_ns - kernel_wait_ns) <= error_ns)::INT), {_SPLIT}"""
    rows = rows_of(database, sql, ["app_timers"])
    lines = [
        [mode, *row[:4], *map(micro, row[4:7]), percent(row[7]), micro(row[8]),
         micro(row[9]), percent(row[10]), *_split_cells(row[11:])]
        for row in rows
    ]  # fmt: skip
    columns = ("mode", "op", "bytes", "method", "calls", "low us", "kernel us", "pair us",
               "inside the bounds", "worst outside us", "error claimed us",
               "wait off within it")  # fmt: skip
    return table([*columns, *_SPLIT_COLUMNS], lines)


def _posted(mode: str, database: Path) -> str:
    sql = f"""{_PAIRED} SELECT op, bytes, count(*), median(kernel_ns), median(pair_ns),
      avg((outside_ns = 0)::INT), quantile_cont(outside_ns, 0.9), max(outside_ns)
      FROM paired WHERE posted GROUP BY op, bytes ORDER BY op, bytes"""
    rows = rows_of(database, sql, ["app_timers"])
    lines = [[mode, *row[:3], *map(micro, row[3:5]), percent(row[5]), *map(micro, row[6:])]
             for row in rows]  # fmt: skip
    columns = ("mode", "op", "bytes", "calls", "kernel us", "stream waited us")
    return table([*columns, "inside", "outside us p90", "worst"], lines)


def overheads(bench: Bench) -> Iterator[str]:
    """What recording costs, and what events inside a graph cost."""
    mode = bench.modes[-1]
    args = argparse.Namespace(
        device=bench.device, mode=mode, tp=bench.tp, pp=bench.pp, batch=1,
        pairs=PAIRS if bench.on_gpu else 6, tokens=None if bench.on_gpu else 8,
    )  # fmt: skip
    result = run_spec(overhead.make_spec(bench.folder, args), bench.narrator)
    if result.exit_code != 0:
        raise RuntimeError(f"the run failed: {result.outcome.detail}")
    with open_database(result.run.database) as con:
        costs = load_answer(con).overhead
    yield "\n".join(overhead.table(f"TP={bench.tp} x PP={bench.pp}, {bench.device}, {mode}", costs))
    if not bench.on_gpu:
        yield "Skipped: stamps inside graphs need a GPU."
        return
    yield f"Stamps inside the graph; share at the default of every {DEFAULT_EVERY}th step."
    yield _instrumentation(bench.plain("graph"))


def _instrumentation(database: Path) -> str:
    """Instrumented against clean steps of one run, outside the profiler's windows."""
    rows = rows_of(
        database,
        """
        WITH lengths AS (
          SELECT rank, perturbed_by = 'graph_events' AS inside, window_ns
          FROM step_breakdown_all
          WHERE phase = 'decode' AND NOT warmup AND evidence = 'app_timers'
            AND coalesce(perturbed_by, 'graph_events') = 'graph_events'
        ), events AS (
          SELECT rank, median(n) AS n FROM (
            SELECT rank, step, 2 * count(*) AS n FROM spans
            WHERE source = 'graph_events' AND phase = 'decode' AND category = 'comm'
            GROUP BY rank, repeat, batch, step)
          GROUP BY rank
        )
        SELECT rank, count(*) FILTER (inside), count(*) FILTER (NOT coalesce(inside, false)),
          median(window_ns) FILTER (NOT coalesce(inside, false)) AS clean,
          median(window_ns) FILTER (inside) AS marked, any_value(n),
          (marked - clean) / any_value(n), (marked - clean) / clean
        FROM lengths JOIN events USING (rank) GROUP BY rank ORDER BY rank
        """,
    )
    lines = [
        [*row[:3], micro(row[3]), micro(row[4]), row[5], micro(row[6], 2), percent(row[7]),
         percent(None if row[7] is None else row[7] / DEFAULT_EVERY)]
        for row in rows
    ]  # fmt: skip
    columns = ["rank", f"instrumented (every {INSTRUMENT_EVERY})", "clean", "clean us", "marked us"]
    return table([*columns, "stamps", "us a stamp", "of a step", "at the default"], lines)
