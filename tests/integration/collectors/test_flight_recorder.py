"""A real recorder in real ranks: what gloo ranks issued comes back, in step, from their dumps."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from nccl_tables import ingest

from harness_collectors.flight_recorder import COLLECTOR
from harness_schemas.spi import CaptureRequest

pytestmark = pytest.mark.integration

RANK = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from harness_collectors.flight_recorder import DumpHook

rank, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
hook = DumpHook()
hook.start(rank, 2, folder)
for size in (4, 8):
    dist.all_reduce(torch.ones(size))
dist.broadcast(torch.ones(2, dtype=torch.int64), 0)
hook.stop()
dist.destroy_process_group()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_dumps_of_two_gloo_ranks(tmp_path):
    torch = pytest.importorskip("torch")
    if not hasattr(torch._C._distributed_c10d, "_dump_fr_trace"):
        pytest.skip("this torch records NCCL only")
    plan = COLLECTOR.prepare(CaptureRequest(tmp_path, 2, "cpu", COLLECTOR.options({})))
    port = str(free_port())
    env = {**os.environ, **plan.env, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = ":".join(sys.path)
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), port, str(tmp_path)], env=env)
        for rank in (0, 1)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    files = sorted(tmp_path.glob("end_rank_*"))
    for path in files:
        assert COLLECTOR.recognise(path, path.read_bytes()[:65536])
    tables = ingest(files, collector=COLLECTOR)
    calls = {
        rank: [(row["seq"], row["op"], row["bytes"], row["dtype"], row["comm_group"])
               for row in tables["collectives"] if row["rank"] == rank]
        for rank in (0, 1)
    }  # fmt: skip
    assert calls[0] == calls[1]
    assert [call[1:] for call in calls[0][-3:]] == [
        ("all_reduce", 16, "float32", "[0,1]#0"),
        ("all_reduce", 32, "float32", "[0,1]#0"),
        ("broadcast", 16, "int64", "[0,1]#0"),
    ]
    assert [row["state"] for row in tables["collection"]] == ["ok", "ok"]
