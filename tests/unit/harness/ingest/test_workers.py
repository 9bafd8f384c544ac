"""Several processes read evidence: the same database, and one that dies costs its part only."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from support import ROOT
from truth.simulate import Clock, Scenario, Simulation

from harness.ingest import find_tasks, ingest_paths
from harness.ingest.exchange import read_batches, write_batches
from harness.ingest.parts import Task, read_task
from harness.ingest.progress import BarWatch, LineWatch, watch_on
from harness.ingest.workers import Workers
from harness_schemas.spi import IngestContext, Part

FIXTURES = ROOT / "tests" / "fixtures"
STRANGE = """
import os, signal, time
from harness import registry
from harness.ingest import parts
import harness.ingest.worker

class Strange:
    def ingest(self, files, context):
        name = files[0].name
        if name == "deadly": os.kill(os.getpid(), signal.SIGKILL)
        if name == "slow": time.sleep(600)
        if name == "odd": print("something on stdout", flush=True)
        import pyarrow as pa
        from harness_schemas.spi import Batch
        yield Batch("samples", pa.table({"metric": [name]}))
        if name == "torn": raise ValueError("torn")

parts.load_collector = lambda name: Strange()
harness.ingest.worker.main()
"""
"""A worker whose only reader does what the name of its file says."""


@pytest.fixture
def evidence(tmp_path):
    """Four ranks of two hosts, and a stranger's trace beside them."""
    clocks = (Clock(), Clock(offset_ns=40_000_000, drift_ppb=30_000, boot_id="boot-b"))
    simulation = Simulation(Scenario(late_rank=1, late_ns=90_000, clocks=clocks, ranks_per_host=2))
    simulation.run()
    simulation.write(tmp_path / "run" / "spans")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"name": "sim", "device": "cpu"}))
    for rank in (5, 6):
        trace = (
            (FIXTURES / "kineto" / "rank0.json").read_text().replace('"rank": 0', f'"rank": {rank}')
        )
        (tmp_path / "run" / f"trace_rank{rank}.json").write_text(trace)
    return tmp_path / "run"


def contents(path):
    """Every table's rows, in an order of their own."""
    with duckdb.connect(str(path), read_only=True) as con:
        names = [row[0] for row in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: sorted(map(repr, con.execute(f"FROM {name}").fetchall())) for name in names}


def test_the_database_does_not_depend_on_the_number_of_processes(evidence, tmp_path):
    found = []
    for jobs in (1, 3):
        (tmp_path / str(jobs)).mkdir()
        path = ingest_paths([evidence], tmp_path / str(jobs) / "a.duckdb", jobs)
        found.append(contents(path))
        assert [item.name for item in path.parent.iterdir()] == ["a.duckdb"]
    assert found[0] == found[1]
    assert len(found[0]["spans"]) > 300
    assert {row.split(", ")[1] for row in found[0]["spans"]} == set("012356")


def test_parts_name_every_file_once_and_clocks_come_first(evidence):
    tasks, _ = find_tasks([evidence])
    rows = [task for task in tasks if task.part.step != "clocks"]
    files = [path for task in rows for path in task.part.files]
    assert len(files) == len(set(files)) == 6
    assert next(t.part.step for t in tasks if t.collector == "app_timers") == "clocks"
    assert all(task.size > 0 for task in rows)


def tasks_named(*names):
    return [Task("psutil", Part((Path("/evidence") / name,)), 1) for name in names]


def strange_workers(tmp_path, jobs=2):
    command = (sys.executable, "-c", STRANGE)
    return Workers(jobs, tmp_path / "parts", IngestContext(Path("/evidence")), command)


def test_a_process_that_dies_costs_its_part_only(tmp_path):
    names = ("first", "deadly", "odd", "torn", "deadly", "last")
    with strange_workers(tmp_path) as workers:
        read = [
            (task.part.files[0].name, list(batches))
            for task, batches in workers.read(tasks_named(*names))
        ]
    assert [name for name, _ in read] == list(names)
    for name, batches in read:
        tables = [batch.table for batch in batches]
        expected = {"deadly": ["collection"], "torn": ["samples", "collection"]}
        assert tables == expected.get(name, ["samples"])
    [row] = read[1][1][0].data.to_pylist()
    assert row["state"] == "failed"
    assert row["reason"] == "its reader died: SIGKILL (out of memory?)"
    assert json.loads(row["detail"]) == {"files": ["deadly"], "more": 0}
    [row] = read[3][1][1].data.to_pylist()
    assert row["reason"] == "its reader failed: ValueError: torn"
    assert not (tmp_path / "parts").exists()


def test_an_interrupt_ends_the_processes_at_once(tmp_path):
    begin = time.monotonic()
    workers = strange_workers(tmp_path)
    with pytest.raises(KeyboardInterrupt), workers:
        for task, batches in workers.read(tasks_named("first", "slow", "slow", "slow")):
            list(batches)
            assert task.part.files[0].name == "first"
            raise KeyboardInterrupt
    assert time.monotonic() - begin < 60
    assert workers.pids
    assert not [pid for pid in workers.pids if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / "parts").exists()


def test_a_job_that_is_cancelled_leaves_nothing_half(evidence, tmp_path):
    """SIGTERM, as of scancel, in the middle of an ingest that would wait for ever."""
    output = tmp_path / "d.duckdb"
    code = f"""
import harness.ingest as ingest, time
from harness.cli.main import run
def stop(*_):
    print("here", flush=True)
    time.sleep(600)
    yield
ingest.read_task = stop
run(["ingest", {str(evidence)!r}, "-j", "1", "-o", {str(output)!r}])
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.terminate()
        assert process.wait(60) == 143
    assert list(tmp_path.glob("d.duckdb*")) == []


def test_batches_survive_the_way_through_a_file(evidence, tmp_path):
    tasks, context = find_tasks([evidence])
    task = tasks[-1]
    sent = list(read_task(task, context))
    stored = write_batches(tmp_path / "x", sent)
    came = list(read_batches(tmp_path / "x", stored))
    assert [(b.table, b.data) for b in came] == [(b.table, b.data) for b in sent]
    assert not (tmp_path / "x").exists()


def test_one_line_where_there_is_no_terminal():
    stream = io.StringIO()
    with watch_on(stream) as watch:
        watch.begin(3, 5 << 20, 2)
        watch.advance(5 << 20)
        watch.phase("divide every step")
    assert isinstance(watch, LineWatch)
    assert stream.getvalue() == "ingest: 3 parts, 5.0 MiB, 2 processes\n"


def test_a_bar_on_a_terminal():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, watch_on(stream) as watch:
        assert isinstance(watch, BarWatch)
        watch.begin(3, 5 << 20, 2)
        watch.advance(5 << 20)
        watch.phase("divide every step")
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "3 parts" in shown or "divide every step" in shown
