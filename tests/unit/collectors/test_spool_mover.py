"""Spools on their way from a node's own disk to the run folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.probe.spool import lines, read

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


PARTS = st.lists(st.tuples(st.binary(max_size=300), st.sampled_from("wts")), max_size=6)


@settings(max_examples=50, deadline=None)
@given(PARTS, st.booleans())
def test_a_copy_is_always_a_beginning_and_in_the_end_the_whole(tmp_path_factory, parts, stream):
    """Of a stream: one that ends in a whole flush, also while a flush is torn (t) or was cut back
    (s: shorter again)."""
    folder = tmp_path_factory.mktemp("bring")
    name = "rank-00000.units.jsonl.gz" if stream else "rank-00000.meta.jsonl"
    source, target = folder / name, folder / f"copy-{name}"
    data, brought = b"", 0
    source.write_bytes(data)
    for part, kind in parts:
        torn = part.replace(b"\0", b"") if stream and kind != "w" else b""
        if not torn:
            data += part + spool.SYNC
        source.write_bytes(data + torn)
        brought += bring(source, target)
        assert target.read_bytes() == data and brought == len(data)
        if kind == "s":
            source.write_bytes(data)
    whole = source.read_bytes()
    assert bring(source, target, last=True) == len(whole) - brought
    assert target.read_bytes() == whole


def test_a_copy_of_what_was_taken_back_is_made_anew(tmp_path):
    source, target = tmp_path / "rank-00000.spans.gz", tmp_path / "copy.spans.gz"
    source.write_bytes(b"one" + spool.SYNC)
    target.write_bytes(b"one" + spool.SYNC + b"taken back" + spool.SYNC)
    assert bring(source, target) == len(source.read_bytes())
    assert target.read_bytes() == source.read_bytes()


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
    size = (run.spans / "rank-00000.spans.gz").stat().st_size
    found = read(run.spans)
    assert len(found.records) >= 400 and found.meta[0]["t"] == "start"
    assert {record.unit_id for record in found.records} <= {
        row["id"] for row in lines(found, "unit")
    }
    assert (run.spans / "rank-00000.live").stat().st_size == spool.LIVE_BYTES
    assert not (tmp_path / "disk").exists(), "nothing is left on the node"
    [batch, _] = COLLECTOR.ingest([run.spans / "stage-n1.otel.jsonl"], None)
    rows = batch.data.to_pylist()
    assert {row["category"] for row in rows} == {"io"}
    assert sum(json.loads(row["attrs"])["bytes"] for row in rows) >= size


def test_live_pages_come_each_second_and_spans_when_it_is_their_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(spool_mover, "TICK_SECONDS", 0.02)
    disk = tmp_path / "disk" / "n1"
    for name in ("rank-00000.spans.gz", "rank-00000.meta.jsonl", "rank-00000.live"):
        (disk / name).write_bytes(b"\0" * 16 + spool.SYNC)
    moving = mover(run, tmp_path, every="1h")
    moving.start()
    _wait(lambda: len(list(run.spans.glob("rank-*"))) == 3)
    (disk / "rank-00000.spans.gz").write_bytes(b"\0" * 16 + spool.SYNC + b"more")
    (disk / "rank-00000.live").write_bytes(b"\1" * 16)
    _wait(lambda: (run.spans / "rank-00000.live").read_bytes()[:1] == b"\1")
    assert (run.spans / "rank-00000.spans.gz").stat().st_size == 20
    moving.stop()
    assert (run.spans / "rank-00000.spans.gz").stat().st_size == 24


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
    kinds = {path.name.removeprefix("rank-00000") for path in tmp_path.iterdir()}
    assert kinds == {spool.RECORDS, spool.UNITS, spool.META, spool.LIVE}
