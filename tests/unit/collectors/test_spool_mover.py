"""Spools on their way from a node's own disk to the run folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness_probe as probe
from harness_collectors import spool_mover
from harness_collectors.otel_spans import COLLECTOR
from harness_collectors.spool_mover import SpoolMover, bring
from harness_schemas import spool
from harness_schemas.rundir import RunDir

# A rank that records until it is told to end, or kills itself.
RANK = """
import os, sys, time
import harness_probe as probe
probe.start(sys.argv[1], 0, 1, 0)
for step in range(10**9):
    with probe.unit("decode", step=step, batch=0):
        with probe.span("work"):
            time.sleep(0.001)
    if step == 200:
        probe.flush()
        print("ready", flush=True)
"""


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "runs" / "r")
    run.spans.mkdir(parents=True)
    (tmp_path / "disk" / "n1").mkdir(parents=True)
    return run


def mover(run, tmp_path, every="100ms"):
    options = {"source": str(tmp_path / "disk"), "every": every}
    return SpoolMover(run.path, "n1", options)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.booleans())
def test_a_copy_is_always_a_beginning_and_in_the_end_the_whole(tmp_path_factory, parts, records):
    folder = tmp_path_factory.mktemp("bring")
    name = "rank-00000.spans" if records else "rank-00000.meta.jsonl"
    source, target = folder / name, folder / f"copy-{name}"
    data = b"\0" * spool.HEADER_BYTES
    source.write_bytes(data)
    brought = bring(source, target)
    for part in parts:
        data += part
        source.write_bytes(data)
        brought += bring(source, target)
        have = target.read_bytes()
        assert data.startswith(have) and brought == len(have)
        cut = (len(data) - spool.HEADER_BYTES) % spool.RECORD_BYTES if records else 0
        assert len(have) == len(data) - cut
    assert bring(source, target) == 0


@pytest.mark.parametrize("number", [9, 15])
def test_a_rank_that_is_killed_loses_nothing_that_it_had_written(run, tmp_path, number):
    disk = tmp_path / "disk" / "n1"
    moving = mover(run, tmp_path)
    moving.start()
    rank = subprocess.Popen(
        [sys.executable, "-P", "-c", RANK, disk], stdout=subprocess.PIPE, text=True
    )
    assert rank.stdout is not None and rank.stdout.readline() == "ready\n"
    rank.send_signal(number)
    moving.stop()  # at once, as Slurm ends all steps of a job
    rank.wait()
    rank.stdout.close()
    size = (run.spans / "rank-00000.spans").stat().st_size
    assert (size - spool.HEADER_BYTES) // spool.RECORD_BYTES >= 400
    lines = (run.spans / "rank-00000.meta.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["t"] == "start"
    assert (run.spans / "rank-00000.live").stat().st_size == spool.LIVE_BYTES
    assert not (tmp_path / "disk").exists(), "nothing is left on the node"
    [batch, _] = COLLECTOR.ingest([run.spans / "stage-n1.otel.jsonl"], None)
    rows = batch.data.to_pylist()
    assert {row["category"] for row in rows} == {"io"}
    assert sum(json.loads(row["attrs"])["bytes"] for row in rows) >= size


def test_live_pages_come_each_second_and_spans_when_it_is_their_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(spool_mover, "TICK_SECONDS", 0.02)
    disk = tmp_path / "disk" / "n1"
    for name in ("rank-00000.spans", "rank-00000.meta.jsonl", "rank-00000.live"):
        (disk / name).write_bytes(b"\0" * spool.HEADER_BYTES)
    moving = mover(run, tmp_path, every="1h")
    moving.start()
    _wait(lambda: len(list(run.spans.glob("rank-*"))) == 3)
    (disk / "rank-00000.spans").write_bytes(b"\0" * (spool.HEADER_BYTES + spool.RECORD_BYTES))
    (disk / "rank-00000.live").write_bytes(b"\1" * spool.HEADER_BYTES)
    _wait(lambda: (run.spans / "rank-00000.live").read_bytes()[:1] == b"\1")
    assert (run.spans / "rank-00000.spans").stat().st_size == spool.HEADER_BYTES
    moving.stop()
    whole = spool.HEADER_BYTES + spool.RECORD_BYTES
    assert (run.spans / "rank-00000.spans").stat().st_size == whole


def test_what_cannot_be_brought_stays_and_is_said(run, tmp_path, capfd):
    disk = tmp_path / "disk" / "n1"
    (disk / "rank-00000.meta.jsonl").write_text("{}\n")
    (run.spans / "rank-00000.meta.jsonl").mkdir()
    moving = mover(run, tmp_path)
    moving.start()
    moving.stop()
    assert (disk / "rank-00000.meta.jsonl").exists()
    assert f"spools stay in {disk}" in capfd.readouterr().err


def _wait(ready, seconds=20):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_probe_writes_no_other_kind_of_file(tmp_path):
    """What the mover appends to must be what a rank appends to."""
    assert probe.start(tmp_path, 0, 1, 0)
    probe.stop()
    assert {path.suffix for path in tmp_path.iterdir()} == {".spans", ".jsonl", ".live"}
