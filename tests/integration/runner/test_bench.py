"""`harness bench collectives` with real ranks over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness.bench import Wanted, bench_collectives
from harness.ingest import ingest_paths
from harness.progress import Narrator
from harness_analysis.store import open_database
from harness_runners.bench import plan as bench_plan
from harness_schemas.errors import HarnessError

pytestmark = pytest.mark.integration


def test_two_ranks_measure_every_operation_and_ingest_stores_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    file = tmp_path / "floors.json"
    document = bench_collectives(Wanted((4096, 65536), device="cpu"), file, Narrator(quiet=True))
    assert json.loads(file.read_text()) == document
    assert document["skipped"] == [] and document["provenance"]["packages"]["torch"]
    found = [(row["op"], row["implementation"], row["bytes"]) for row in document["rows"]]
    ops = ("all_reduce", "all_gather", "reduce_scatter", "send_recv")
    assert found == [(op, "gloo", size) for op in ops for size in (4096, 65536)]
    assert all(0 < row["p10_us"] <= row["p50_us"] <= row["p90_us"] for row in document["rows"])
    with open_database(ingest_paths([file], tmp_path / "f.duckdb")) as con:
        stored = con.execute("SELECT op, implementation, bytes FROM floors").fetchall()
    assert sorted(stored) == sorted(found)
    assert list(tmp_path.glob("harness-bench-*")) == []


def test_ranks_alone_need_no_session(tmp_path):
    """As on a machine where only ranks are wanted; a group smaller than the world."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3",
               "-m", "harness_runners.bench.collectives", "--ops", "all_reduce,all_gather",
               "--sizes", "4000", "--groups", "2,3", "--device", "cpu",
               "--output", str(tmp_path / "f.json")]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=200)
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert [(row["op"], row["group_size"], row["bytes"]) for row in rows] == [
        ("all_reduce", 2, 4000),
        ("all_reduce", 3, 4000),
        ("all_gather", 2, 4000),
        ("all_gather", 3, 3996),
    ]


def test_ranks_that_fail_leave_their_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    # A type that torch has and gloo cannot be asked for: the ranks end, not the harness.
    monkeypatch.setitem(bench_plan.ITEM_BYTES, "odd", 4)
    with pytest.raises(HarnessError, match="the ranks failed") as caught:
        bench_collectives(
            Wanted((4096,), device="cpu", dtype="odd"), tmp_path / "f", Narrator(quiet=True)
        )
    assert "see " in caught.value.hint
    assert len(list(tmp_path.glob("harness-bench-*/logs/rank-00000.err"))) == 1
