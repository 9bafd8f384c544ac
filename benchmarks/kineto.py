"""Kineto ingest: events per second and peak memory, `python benchmarks/kineto.py [TRACE...]`.

Each reader runs in a process of its own and is timed from an imported interpreter to the last
row (`--database`: to the finished DuckDB file); CPU seconds hold imports too. Modules are compiled
beforehand, as where they are installed. An event is a complete one (`"ph": "X"`), which is what
HolisticTraceAnalysis counts: name a python that has it with `--hta-python`. Without a trace,
`--synthetic GIB` writes one: eager decode steps in the proportions of a real trace.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LAYERS = 32
OPS_A_LAYER = 12
KERNELS_A_LAYER = 4
STEP_US = 20_000.0
_HEADER = """{
  "schemaVersion": 1,
  "deviceProperties": [],
  "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 2, "pg_count": 1,
    "pg_config": [{"pg_name": "0", "pg_desc": "default_pg", "pg_size": 2, "ranks": [0, 1]}]},
  "displayTimeUnit": "ms",
  "baseTimeNanoseconds": 1790857026000000000,
  "traceEvents": [
  {
    "name": "process_name", "ph": "M", "ts": 0.000, "pid": 7, "tid": 0,
    "args": {
      "name": "python"
    }
  }"""
_SPAN = """,
  {
    "ph": "X", "cat": "%s", "name": "%s", "pid": %d, "tid": %d,
    "ts": %.3f, "dur": %.3f,
    "args": {
      %s
    }
  }"""
_FLOW = """,
  {
    "ph": "%s", "id": %d, "pid": %d, "tid": 7, "ts": %.3f,
    "cat": "ac2g", "name": "ac2g"
  }"""
_OP = '"External id": %d,"Record function id": 0, "Ev Idx": %d'
_RUNTIME = '"External id": %d, "cbid": 211, "correlation": %d'
_KERNEL = """"External id": %d, "queued": 0, "device": 0, "context": 1,
      "stream": 7, "correlation": %d,
      "registers per thread": 40, "shared memory": 4096,
      "blocks per SM": 4.740741, "warps per SM": 75.851852,
      "grid": [512, 1, 1], "block": [512, 1, 1], "est. achieved occupancy %%": 100"""
_COLLECTIVE = (
    _KERNEL.replace('[512, 1, 1], "block"', '[24, 1, 1], "block"')
    + """,
      "Collective name": "allreduce", "In msg nelems": 8192, "Out msg nelems": 8192,
      "Group size": 2, "dtype": "BFloat16", "In split size": "[]", "Out split size": "[]",
      "Process Group Name": "0", "Process Group Description": "default_pg",
      "Process Group Ranks": "[0, 1]\""""
)
_OPS = ("aten::linear", "aten::matmul", "aten::mm", "aten::mul", "aten::add", "aten::empty")
_GEMM = "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_64x64_64x6_tn_align8>(Params)"
_ELEMENTWISE = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>,"
    " std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<c10::BFloat16>)"
)
_NCCL = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"


def step_text(step: int) -> str:
    """The events of one decode step: operators, launches, flows, kernels, its annotation."""
    begin = 4_352_618_238_366.724 + step * STEP_US
    number = step * LAYERS * OPS_A_LAYER
    parts = [_SPAN % ("user_annotation", f"decode_step_{step}", 7, 7, begin, STEP_US - 50.0, "")]
    for layer in range(LAYERS):
        at = begin + layer * 600.0
        for index in range(OPS_A_LAYER):
            number += 1
            name, ts = _OPS[index % len(_OPS)], at + index * 45.0
            parts.append(_SPAN % ("cpu_op", name, 7, 7, ts, 41.5, _OP % (number, number)))
            if index % (OPS_A_LAYER // KERNELS_A_LAYER) == 0:
                parts += _launch(number, index, ts)
    return "".join(parts).replace("\n      \n", "\n")


def _launch(number: int, index: int, ts: float) -> Iterator[str]:
    yield _SPAN % (
        "cuda_runtime",
        "cudaLaunchKernel",
        7,
        7,
        ts + 5,
        4.2,
        _RUNTIME % (number, number),
    )
    yield _FLOW % ("s", number, 7, ts + 5)
    name, args = (
        (_NCCL, _COLLECTIVE) if index == 0 else (_GEMM if index == 3 else _ELEMENTWISE, _KERNEL)
    )
    yield _SPAN % ("kernel", name, 0, 7, ts + 90, 6.112, args % (number, number))
    yield _FLOW % ("f", number, 0, ts + 90)


def write_synthetic(path: Path, gib: float) -> None:
    """Write a trace of about `gib` GiB, gzipped where the name says so."""
    packed = path.suffix == ".gz"
    with gzip.open(path, "wt", compresslevel=1) if packed else path.open("w") as stream:
        written = stream.write(_HEADER)
        step = 0
        while written < gib * 2**30:
            written += stream.write(step_text(step))
            step += 1
        stream.write('\n  ],\n  "traceName": "synthetic.json"\n}\n')


# -- the readers, each in a process of its own -------------------------------------------------


def read_with_harness(path: Path) -> int:
    """Arrow batches, not kept."""
    from harness_collectors.kineto import COLLECTOR
    from harness_schemas.spi import IngestContext

    detail = ""
    for batch in COLLECTOR.ingest([path], IngestContext(path.parent)):
        if batch.table == "collection":
            detail = batch.data.column("detail")[0].as_py()
    return int(json.loads(detail)["complete_events"])


def read_into_tables(path: Path) -> int:
    """Rows in DuckDB: every span classified and given its step, as ingest writes them."""
    from harness.ingest.ahead import ahead
    from harness_analysis.store.writer import Writer
    from harness_collectors.kineto import COLLECTOR
    from harness_schemas.spi import IngestContext

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "trace.duckdb"
        with (
            ahead(COLLECTOR.ingest([path], IngestContext(path.parent))) as batches,
            Writer(database, "trace") as writer,
        ):
            with writer.transaction():
                for batch in batches:
                    writer.add(batch.table, batch.data)
            writer.finish()
        return _events_in(database)


def read_into_database(path: Path) -> int:
    """The finished DuckDB file: besides, calls matched, windows divided, causes and findings."""
    from harness.ingest import ingest_paths

    with tempfile.TemporaryDirectory() as folder:
        return _events_in(ingest_paths([path], Path(folder) / "trace.duckdb"))


def _events_in(database: Path) -> int:
    import duckdb

    with duckdb.connect(str(database), read_only=True) as con:
        found = con.execute(
            "SELECT detail->>'complete_events' FROM collection WHERE collector = 'kineto'"
        ).fetchone()
    assert found is not None
    return int(found[0])


def read_with_hta(path: Path) -> int:
    """HolisticTraceAnalysis, one rank in this process."""
    from hta.common.trace import Trace  # type: ignore[import-not-found]

    trace = Trace(trace_files={0: str(path)}, trace_dir=str(path.parent))
    trace.parse_traces(use_multiprocessing=False)
    return len(trace.get_trace(0))


READERS = {
    "harness, Arrow": read_with_harness,
    "harness, rows in DuckDB": read_into_tables,
    "harness, finished database": read_into_database,
    "HolisticTraceAnalysis": read_with_hta,
}
_INGEST = ("harness_collectors.kineto.rows", "harness.ingest", "harness_analysis.build.database")
_IMPORTS = {
    "harness, Arrow": _INGEST[:1],
    "harness, rows in DuckDB": (*_INGEST, "duckdb", "pyarrow.compute"),
    "harness, finished database": (*_INGEST, "duckdb", "pyarrow.compute"),
    "HolisticTraceAnalysis": ("hta.common.trace",),
}


def child(reader: str, path: Path) -> None:
    """Read once; the last line of stdout is the result."""
    import importlib
    import logging

    logging.disable(logging.CRITICAL)
    for name in _IMPORTS[reader]:
        importlib.import_module(name)
    begin = time.perf_counter()
    events = READERS[reader](path)
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"events": events, "seconds": seconds, "cpu": cpu, "peak": used.ru_maxrss}))


def measure(python: str, reader: str, path: Path, repeat: int) -> dict[str, float]:
    """The quickest of `repeat` processes."""
    command = [python, __file__, "--child", reader, str(path)]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "harness-benchmark-pycache")
    results = []
    for _ in range(repeat):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise SystemExit(f"{reader} failed:\n{done.stderr[-2000:]}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
    return min(results, key=lambda result: result["seconds"])


def report(path: Path, readers: dict[str, str], repeat: int) -> None:
    """One table a trace; readers by their python."""
    print(f"\n{path.name}, {path.stat().st_size / 1e6:,.1f} MB as stored\n")
    print("| reader | events | s | CPU s | events/s | peak MiB | against HTA | CPU against HTA |")
    print("|---|---|---|---|---|---|---|---|")
    results = {name: measure(python, name, path, repeat) for name, python in readers.items()}
    base = results.get("HolisticTraceAnalysis")
    for name, result in results.items():
        events, seconds = result["events"], result["seconds"]
        times = f"{seconds:.2f} | {result['cpu']:.2f} | {events / seconds:,.0f}"
        ratios = [f"{base[key] / result[key]:.1f} x" if base else "-" for key in ("seconds", "cpu")]
        peak = f"{result['peak'] / 1024:,.0f}"
        print(f"| {name} | {events:,} | {times} | {peak} | {' | '.join(ratios)} |")


def main() -> None:
    """Parse arguments and print a Markdown table for each trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--synthetic", type=float, metavar="GIB", help="write and read a trace")
    parser.add_argument("--gzip", action="store_true", help="the synthetic trace is gzipped")
    parser.add_argument("--hta-python", help="a python with HolisticTraceAnalysis")
    parser.add_argument("--database", action="store_true", help="measure up to DuckDB as well")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    readers = {"harness, Arrow": sys.executable}
    if given.database:
        readers["harness, rows in DuckDB"] = sys.executable
        readers["harness, finished database"] = sys.executable
    if given.hta_python:
        readers["HolisticTraceAnalysis"] = given.hta_python
    for path in given.traces:
        report(path, readers, given.repeat)
    if given.synthetic or not given.traces:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("synthetic.json.gz" if given.gzip else "synthetic.json")
            write_synthetic(path, given.synthetic or 0.1)
            report(path, readers, given.repeat)


if __name__ == "__main__":
    main()
