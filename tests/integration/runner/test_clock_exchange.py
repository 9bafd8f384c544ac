"""Ranks of two hosts compare their clocks through gloo; the second host is made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from unit.probe.spool import lines, read

from harness.ingest import ingest_run
from harness_analysis.store import open_database
from harness_runners.rank.clock_exchange import ROUND_TRIPS, host_leads
from harness_schemas.rundir import RunDir

pytestmark = [pytest.mark.integration, pytest.mark.alone]

RANK = """
import sys, time
import torch, torch.distributed as dist
import harness_probe as probe
from harness_runners.rank.clock_exchange import ClockExchange
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
probe.start(folder + "/spans", rank=rank, world_size=world, local_rank=rank)
probe.trace_distributed()
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
probe.group(list(range(world)), "world", id(dist.group.WORLD))
with probe.unit("startup"):
    clocks = ClockExchange(rank, torch.device("cpu"))
    clocks.exchange()
with probe.unit("postprocess"):
    time.sleep(0.1)
    clocks.exchange()
    dist.send(torch.ones(1), 1) if rank == 0 else dist.recv(torch.ones(1), 0) if rank == 1 else 0
print(clocks.leads)
dist.barrier()
probe.stop()
"""


def run(folder, hosts):
    """Spools of ranks on the named hosts, and what each rank takes for the leads."""
    ranks = []
    for rank, host in enumerate(hosts):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HARNESS_FAKE_BOOT_ID": host}
        command = [sys.executable, "-c", RANK, str(rank), str(len(hosts)), str(folder)]
        ranks.append(subprocess.Popen(command, env=env, stdout=-1, stderr=-1))
    leads = []
    for rank in ranks:
        out, err = rank.communicate(timeout=120)
        assert rank.returncode == 0, err.decode()
        leads.append(json.loads(out))
    return [read(folder / "spans", rank) for rank in range(len(hosts))], leads


def test_two_hosts_are_aligned_by_ping_pong(tmp_path):
    spools, leads = run(tmp_path, ["host-a", "host-b", "host-b"])
    assert leads == [[0, 1]] * 3
    trips = lines(spools[0], "clock")
    assert [trip["peer"] for trip in trips] == [1] * (2 * ROUND_TRIPS)
    for trip in trips:
        assert trip["t0"] < trip["t1"] <= trip["t2"] < trip["t3"]
    assert not lines(spools[1], "clock") and not lines(spools[2], "clock")
    # The trips are no messages of the workload: the only one that is on record is, on both sides.
    for spool, name in zip(spools, ("send", "recv"), strict=False):
        messages = [(r.name, r.ordinal) for r in spool.records if r.kind == 4]
        assert [message[0] for message in messages] == [name]
        assert messages[0][1] == 2 * ROUND_TRIPS

    spec = {"parallel": {"tp": 3, "pp": 1}}
    (tmp_path / "run.json").write_text(json.dumps({"name": "two", "device": "cpu", "spec": spec}))
    with open_database(ingest_run(RunDir(tmp_path))) as con:
        clocks = con.execute(
            "SELECT rank, clock_domain, method, offset_ns, residual_ns "
            "FROM clock_offsets ORDER BY rank"
        ).fetchall()
    assert [clock[:3] for clock in clocks] == [
        (0, "host-a", "reference"),
        (1, "host-b", "ping_pong"),
        (2, "host-b", "ping_pong"),
    ]
    # In truth both "hosts" have one clock: the offsets must agree within what is claimed.
    residual = clocks[1][4]
    assert 0 < residual < 5_000_000
    assert abs(clocks[1][3] - clocks[0][3]) <= residual


def test_on_one_host_nothing_is_exchanged(tmp_path):
    spools, leads = run(tmp_path, ["host-a", "host-a"])
    assert leads == [[0]] * 2
    for spool in spools:
        assert not lines(spool, "clock")
        assert all(record.name != "clock.exchange" for record in spool.records)


def test_leads_are_the_lowest_ranks_of_their_hosts():
    assert host_leads([7, 7, 9, 7, 3, 9]) == [0, 2, 4]
