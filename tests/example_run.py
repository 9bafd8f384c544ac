"""A complete example database: simulated spans, and rows of everything else a run records."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from truth.simulate import EPOCH_NS, Scenario, Simulation

from harness_analysis.build.database import build_database
from harness_collectors.app_timers import COLLECTOR
from harness_schemas.spi import Batch, IngestContext
from harness_schemas.tables import BY_NAME, arrow_schema

LATE = Scenario(steps=40, late_rank=3, late_ns=400_000)
"""TP=2 x PP=2, rank 3 late in every layer."""

CORRECTNESS = {
    "verdict": "pass",
    "compared": 164,
    "equal": 163,
    "ties": 1,
    "max_logit_diff": 3.1e-05,
    "max_kl": 1.2e-09,
    "first_difference": None,
    "share": 163 / 164,
    "why": "163 of 164 tokens equal, one tie",
    "per_prompt": [
        {"id": "prompt-0", "compared": 41, "equal": 41, "ties": 0, "consistent": True},
        {"id": "prompt-1", "compared": 41, "equal": 40, "ties": 1, "consistent": True},
    ],
}

SPEC = {
    "name": "example",
    "dtype": "float32",
    "runner": "deepspeed",
    "model": {"synthetic": "tiny-llama", "seed": 0},
    "parallel": {"tp": 2, "pp": 2},
    "generation": {"batch_size": 4, "microbatches": 1, "new_tokens": 41},
}


def batch(table: str, rows: list[dict]) -> Batch:
    """Rows as a collector yields them."""
    names = {name for row in rows for name in row}
    schema = pa.schema([field for field in arrow_schema(BY_NAME[table]) if field.name in names])
    return Batch(table, pa.Table.from_pylist(rows, schema=schema))


def requests_and_tokens(scenario: Scenario, step_ns: int = 3_000_000) -> list[Batch]:
    """Four requests, one token a step, each a little later than the one before."""
    start = 5_000_000_000
    requests, tokens = [], []
    for index in range(4):
        name = f"prompt-{index}"
        ttft = 4_000_000 + 150_000 * index
        e2e = ttft + scenario.steps * step_ns
        keys = {"request_id": name, "rank": 0, "batch": 0, "repeat": 0, "warmup": False}
        requests.append(
            {
                **keys,
                "prompt_tokens": 20 + index,
                "output_tokens": scenario.steps + 1,
                "start_ns": start,
                "ttft_ns": ttft,
                "tpot_ns": step_ns,
                "e2e_ns": e2e,
            }
        )
        for step in range(scenario.steps + 1):
            at = start + ttft + step * step_ns + (step % 7) * 20_000
            phase = "decode" if step else "prefill"
            row = {**keys, "microbatch": 0, "phase": phase, "step": step, "n_tokens": 1}
            tokens.append({**row, "device_ns": at, "host_ns": at})
    return [batch("requests", requests), batch("step_tokens", tokens)]


def host_samples(world: int, seconds: int = 12) -> Batch:
    """CPU, memory and power, a second apart; sources without a clock write Unix time."""
    rows = []
    for second in range(seconds):
        at = {"host": "node0", "ts_ns": EPOCH_NS + second * 1_000_000_000}
        for rank in range(world):
            mine = {**at, "rank": rank, "source": "psutil"}
            rss = (400 + 60 * min(second, 4) + 10 * rank) * 1024 * 1024
            rows.append({**mine, "metric": "rss", "unit": "bytes", "value": rss})
            cpu = second * (0.9 - 0.05 * rank)
            rows.append({**mine, "metric": "cpu_seconds", "unit": "s", "value": cpu})
        busy = 0.2 if second < 3 else 0.87
        node = {**at, "source": "psutil", "metric": "cpu_share", "unit": "1"}
        rows.append({**node, "value": busy})
        for device in range(2):
            gpu = {**at, "device": device, "source": "nvml", "metric": "power_usage"}
            watts = 95 + 12 * device + (0 if second < 3 else 310)
            rows.append({**gpu, "unit": "W", "value": watts})
    return batch("samples", rows)


def collector_rows() -> Batch:
    skipped = "no NVIDIA driver on this host; GPU samples need one"
    return batch(
        "collection",
        [
            {"collector": "psutil", "host": "node0", "state": "ok", "records": 120, "dropped": 0},
            {"collector": "nvml", "host": "node0", "state": "skipped", "reason": skipped},
            {"collector": "torch_profiler", "state": "degraded", "reason": "buffer was full"},
        ],
    )


def overhead_rows() -> Batch:
    row = {"collector": "app_timers", "phase": "decode", "pairs": 24, "off_ns": 2_900_000}
    return batch(
        "overhead",
        [{**row, "effect_ns": 11_000, "low_ns": -9_000, "high_ns": 30_000, "resolved": False}],
    )


def run_row(scenario: Scenario, **changes: object) -> dict[str, object]:
    """The row of `runs`."""
    row = {
        "name": "example",
        "status": "finished",
        "verdict": "ok",
        "exit_code": 0,
        "spec": json.dumps(SPEC),
        "provenance": json.dumps({"harness": "0.1", "torch": "2.13.0", "python": "3.11"}),
        "correctness": json.dumps(CORRECTNESS),
        "runner": "deepspeed",
        "dtype": "float32",
        "device": "cpu",
        "tp": scenario.tp,
        "pp": scenario.pp,
        "batch_size": 4,
        "microbatches": 1,
        "world_size": scenario.tp * scenario.pp,
        "started_ns": EPOCH_NS,
        "ended_ns": EPOCH_NS + 12_000_000_000,
    }
    return {**row, **changes}


def example_database(
    folder: Path,
    scenario: Scenario = LATE,
    more: tuple[Batch, ...] = (),
    bare: bool = False,
    **changes: object,
) -> Path:
    """Write spools and build `run.duckdb` in `folder`.

    `bare`: spans only. `changes`: columns of the run's row.
    """
    Simulation(scenario).run().write(folder / "spans")
    spools = sorted((folder / "spans").iterdir())
    files = [path for path in spools if COLLECTOR.recognise(path, path.read_bytes()[:65536])]
    batches = list(COLLECTOR.ingest(files, IngestContext(root=folder)))
    # The simulation knows where its ranks stand; the recorder's meta lines do not say it.
    world = scenario.tp * scenario.pp
    places = [
        {"rank": rank, "stage": rank // scenario.tp, "tp_rank": rank % scenario.tp}
        for rank in range(world)
    ]
    batches.append(batch("ranks", places))
    if not bare:
        batches += requests_and_tokens(scenario)
        batches += [host_samples(world), collector_rows(), overhead_rows()]
    path = folder / "run.duckdb"
    build_database(path, "example-1", run_row(scenario, **changes), [*batches, *more])
    return path
