"""What a run measured, beside what its plan predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.planning.request import LOOPBACK
from harness.planning.tables import Plan
from harness.sections import Section
from harness_analysis.store import rows_of
from harness_runners.capacity.hardware import Card, read_floors
from harness_runners.capacity.memory import plan_ranks, worst_rank
from harness_runners.capacity.steptime import decode_floor

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Peaks:
    """Bytes/s of a copy (read and written) and FLOP/s of a product; None: not measured."""

    bandwidth: float | None
    flops: float | None


def read_peaks(con: duckdb.DuckDBPyConnection) -> Peaks:
    """The slowest rank's measured peaks."""
    row = con.execute(
        """
        SELECT min(peak_bytes_per_s), min(peak_flops_per_s) FROM ranks
        WHERE peak_source = 'measured'
        """
    ).fetchone()
    return Peaks(*(row or (None, None)))


def run_floors(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Floors of collectives that lie in the run's database."""
    sql = "SELECT op, implementation, bytes, group_size, p50_ns / 1e3 AS p50_us FROM floors"
    return read_floors(rows_of(con, sql))


Row = tuple[str, float | None, float | None, float | None, str, str]


def compare_section(con: duckdb.DuckDBPyConnection, plan: Plan) -> Section:
    """Predicted against measured: weights, memory, KV cache, step."""
    rows = [_weights(con, plan), _memory(con, plan), _step(con, plan)]
    columns = ("quantity", "predicted", "measured", "ratio", "unit", "measured by")
    notes = ["- is unknown. The ratio is measured over predicted; a step's prediction is a floor"]
    if rows[-1][1] is None:
        notes.append("no step is predicted: what this CPU reaches was not measured, as "
                     "generation.peaks = true does")  # fmt: skip
    return Section("measured", "Predicted against measured", columns, rows, notes)


def _row(name: str, predicted: float | None, measured: float | None, unit: str, how: str) -> Row:
    ratio = measured / predicted if measured is not None and predicted else None
    return (name, predicted, measured, ratio, unit, how)


def _weights(con: duckdb.DuckDBPyConnection, plan: Plan) -> Row:
    ranks = plan_ranks(plan.request.shape, plan.layout, plan.request.work)
    predicted = max(rank.part("weights") for rank in ranks)
    found = con.execute("SELECT max(weights_bytes) FROM ranks").fetchone()
    measured = found[0] if found else None
    return _row("weights, largest rank", predicted, measured, "bytes", "parameters held")


MEMORY = (
    ("GPU memory", "allocator's peak (torch)", "SELECT max(peak_memory_bytes) FROM ranks"),
    (
        "GPU memory",
        "NVML, whole card",
        "SELECT max(value) FROM samples WHERE metric = 'memory_used' AND device IS NOT NULL",
    ),
    (
        "process memory",
        "psutil, resident",
        "SELECT max(value) FROM samples WHERE metric = 'rss' AND rank IS NOT NULL",
    ),
)
OUTSIDE = ("CUDA context", "NCCL buffers", "fragmentation")
"""Parts that torch's allocator does not see."""


def _memory(con: duckdb.DuckDBPyConnection, plan: Plan) -> Row:
    """The peak of the rank that needs most, by the best evidence there is."""
    worst = worst_rank(plan.request.shape, plan.layout, plan.request.work)
    on_cpu = plan.request.work.device == "cpu"
    for name, how, sql in MEMORY[2:] if on_cpu else MEMORY[:2]:
        found = con.execute(sql).fetchone()
        if found and found[0] is not None:
            inside = how.startswith("allocator")
            predicted = worst.bytes - sum(worst.part(part) for part in OUTSIDE if inside)
            return _row(f"{name}, largest", predicted, round(found[0]), "bytes", how)
    return _row("memory, largest", worst.bytes, None, "bytes", "no evidence of it")


def _step(con: duckdb.DuckDBPyConnection, plan: Plan) -> Row:
    found = con.execute("SELECT step_ms FROM run_summary").fetchone()
    measured = found[0] if found else None
    request = plan.request
    name, how = "decode step, median", "windows of all ranks"
    card = request.card or _cpu(read_peaks(con))
    if card is None:
        return _row(name, None, measured, "ms", how)
    floor = decode_floor(request.shape, plan.layout, request.work, card, request.links)
    return _row(name, floor.ns / 1e6, measured, "ms", how)


def _cpu(peaks: Peaks) -> Card | None:
    """The CPU as the run measured it (generation.peaks); None: it did not."""
    if peaks.bandwidth is None or peaks.flops is None:
        return None
    return Card("cpu", "CPU", 0, peaks.bandwidth, peaks.flops, LOOPBACK, "measured")
