"""Runs that really hang: a stopped rank, and one that sleeps; named by `harness status` meanwhile,
ended by `--hang-timeout`, and explained by the database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unit.probe.spool import rows

from harness_analysis.store import open_database

pytestmark = pytest.mark.integration

SPEC = """
name = "hangs"
device = "cpu"
[model]
synthetic = "tiny-llama"
layers = 2
[prompts]
limit = 2
[parallel]
tp = 2
pp = 2
[generation]
batch_size = 2
new_tokens = 2000
warmup = 0
stop_at_eos = false
[launcher]
threads = 1
timeout = "4min"
[check]
reference = false
"""

SLEEPER = """
import os, time
place = {"RANK": os.environ["SLURM_PROCID"], "WORLD_SIZE": os.environ["SLURM_NTASKS"]}
port = str(20000 + int(os.environ["SLURM_JOB_ID"]) % 10000)
os.environ.update(place, MASTER_ADDR=os.environ["SLURM_LAUNCH_NODE_IPADDR"], MASTER_PORT=port)
import torch
import torch.distributed as dist
from harness import probe
probe.start()
dist.init_process_group("gloo")
probe.trace_distributed()
for step in range(100):
    with probe.unit("decode", step=step, batch=0):
        if step == 5 and dist.get_rank() == 1:
            time.sleep(600)
        dist.all_reduce(torch.ones(256))
"""


def harness(folder, *arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(seen, what, seconds=150):
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def decoding(folder):
    """Pid of rank 1 once it decodes."""
    try:
        found = rows(folder / "runs/latest/spans", "start", 1)
        units = rows(folder / "runs/latest/spans", "unit", 1)
    except OSError:
        return None
    return found[0]["pid"] if sum(row["phase"] == "decode" for row in units) > 20 else None


def standing(folder):
    """What `harness status` says once it says that the run hangs."""
    asked = harness(folder, "status", "--hang-after", "1")
    said, problems = asked.communicate(timeout=60)
    assert not problems
    return said if asked.returncode == 1 else None


def test_a_stopped_rank_is_named_and_the_run_is_ended_with_stacks(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    run = harness(tmp_path, "run", "spec.toml", "--hang-timeout", "6s")
    try:
        pid = wait_for(lambda: decoding(tmp_path), "rank 1 decodes")
        os.kill(pid, signal.SIGSTOP)
        said = wait_for(lambda: standing(tmp_path), "status sees the hang", 20)
        first = said.splitlines()[0]
        assert first.startswith("HANGS: ") and "the process of rank 1 is stopped" in first
        assert "wait for that" in first and f"stopped ({pid})" in said
        answer, narration = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == 124, narration
    assert "hangs  failed: hang" in answer and "rank 1" in narration, narration
    folder = tmp_path / "runs" / "latest"
    report = json.loads((folder / "artifacts/hang/report.json").read_text())
    assert (report["kind"], report["culprits"], report["blocked"]) == ("halted", [1], [0, 2, 3])
    places = {rank: row for row in report["stacks"] for rank in row["ranks"]}
    assert sorted(places) == [0, 1, 2, 3]
    assert places[1]["state"].startswith("T") or places[1]["frames"]
    assert any("run_rank (worker.py" in frame for frame in places[2]["frames"])
    with open_database(folder / "run.duckdb") as con:
        verdict, detail = con.execute("SELECT verdict, verdict_detail FROM runs").fetchone()
        assert verdict == "hang" and "suspect: rank 1" in detail
        kind, rank = con.execute("SELECT kind, rank FROM findings WHERE position = 0").fetchone()
        assert (kind, rank) == ("hang", 1)
        waiting = con.execute(
            "SELECT DISTINCT rank FROM collectives WHERE unsplit_reason = 'never ended'"
        ).fetchall()
        assert {0, 2, 3} <= {rank for (rank,) in waiting}
        last = con.execute(
            "SELECT rank, max(end_ns) FROM spans WHERE complete GROUP BY rank ORDER BY rank"
        ).fetchall()
        began = min(
            ns
            for (ns,) in con.execute(
                "SELECT start_ns FROM collectives WHERE unsplit_reason = 'never ended'"
            ).fetchall()
        )
        assert all(began - ns < 1e9 for _, ns in last)  # nothing but a stopped rank's last second
    assert not Path(f"/proc/{pid}").exists()


def test_on_two_nodes_a_wrapped_rank_that_sleeps_is_missing(tmp_path, slurm):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    step = ("srun", "--nodes=2", "--ntasks=2", "--mem=600", sys.executable, "sleeper.py")
    run = harness(tmp_path, "run", "--hang-timeout", "4", "--", *step)
    try:
        _, narration = run.communicate(timeout=150)
    finally:
        run.kill()
    assert run.returncode == 124, narration
    assert "rank 1 has not entered all_reduce 5 of group [0,1]#0 (1.0 KiB)" in narration
    assert "it is in decode step 5 of batch 0; rank 0 waits for that" in narration
    sleeps = 1 + SLEEPER.splitlines().index(" " * 12 + "time.sleep(600)")
    assert f"rank 1: <module> (sleeper.py:{sleeps})" in narration
    found = {path.name for path in (tmp_path / "runs/latest/artifacts/hang").glob("done-*")}
    assert found == {"done-node1.json", "done-node2.json"}  # each took those of its own rank
    asked = harness(tmp_path, "explain", "--json")
    stood = json.loads(asked.communicate(timeout=60)[0])["hang"]["rows"]
    assert stood[0]["rank"] == 1 and "has not entered all_reduce 5" in stood[0]["why"]
