"""torch.distributed and deepspeed.comm calls of two real gloo ranks, as they are recorded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from unit.probe.spool import lines, read

pytestmark = pytest.mark.integration

HEAD = """
import os, sys
import torch, torch.distributed as dist
import harness_probe as probe
rank, folder = int(sys.argv[1]), sys.argv[2]
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
probe.start(folder, rank=rank, world_size=2)
probe.trace_distributed()
store = f"file://{folder}/store"
x = torch.ones(4)
"""


def run(folder, script):
    """Both ranks' spools after `script` ran in each."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HEAD + script]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder)], env=env, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for rank in ranks:
        _, err = rank.communicate(timeout=120)
        assert rank.returncode == 0, err.decode()
    return [read(folder, rank) for rank in range(2)]


TORCH = """
from torch.distributed import distributed_c10d as c10d
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
alone = dist.new_group([0])
with probe.unit("decode", step=1):
    dist.all_reduce(x)
    work = dist.all_reduce(x, dist.ReduceOp.SUM, None, True)
    posted = dist.irecv(x, src=1) if rank == 0 else dist.isend(x, dst=0)
    c10d.all_gather([x, x.clone()], x)
    posted.wait()
    work.wait()
    work.wait()
    dist.all_reduce(x, group=alone)
    other = torch.zeros(4)
    ops = [dist.P2POp(dist.isend, x, 1 - rank), dist.P2POp(dist.irecv, other, 1 - rank)]
    for request in dist.batch_isend_irecv(ops):
        request.wait()
    dist.barrier()
probe.untrace_distributed()
dist.all_reduce(x)
assert work.is_completed()
probe.stop()
dist.barrier()
dist.destroy_process_group()
"""


def test_torch_calls_are_recorded_once_with_size_group_and_order(tmp_path):
    spools = run(tmp_path, TORCH)
    for rank, spool in enumerate(spools):
        calls = [record for record in spool.records if record.kind in (3, 4)]
        seen = [(call.name, call.bytes, call.ordinal) for call in calls]
        first = ("recv", 16, 0) if rank == 0 else ("send", 16, 0)
        expected = [("all_reduce", 16, 0), ("all_gather", 32, 2), first, ("all_reduce", 16, 1)]
        expected += [("all_reduce", 16, 0)] if rank == 0 else []
        assert seen[: len(expected)] == expected
        assert {name for name, *_ in seen[len(expected) : -1]} == {"send", "recv"}
        assert seen[-1][0] == "barrier"
        groups = {line["id"]: line["ranks"] for line in lines(spool, "group")}
        of_calls = [groups[call.group_peer >> 32] for call in calls]
        assert all(ranks == [0, 1] for ranks in of_calls if ranks != [0])
        assert of_calls.count([0]) == (1 if rank == 0 else 0)
        posted = [call for call in calls if call.extra]
        assert all(call.extra <= call.start_ns for call in posted)
        assert len(posted) == 4  # the async all_reduce and three point-to-point calls
        peers = {(call.group_peer & 0xFFFFFFFF) - 1 for call in calls if call.kind == 4}
        assert peers == {1 - rank}
        assert len({call.unit_id for call in calls}) == 1


DEEPSPEED = """
import deepspeed
import deepspeed.comm as ds
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled here
probe.trace_distributed()
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
ds.init_distributed("gloo", verbose=False)
ds.all_reduce(x)
ds.inference_all_reduce(x)
dist.all_reduce(x)
probe.stop()
dist.barrier()
"""


def test_a_deepspeed_call_is_recorded_at_its_outermost_layer_only(tmp_path):
    for spool in run(tmp_path, DEEPSPEED):
        calls = [record for record in spool.records if record.kind == 3]
        reduces = [(call.name, call.bytes) for call in calls if call.name == "all_reduce"]
        assert reduces == [("all_reduce", 16)] * 3


QUIET = """
import deepspeed
import deepspeed.comm as ds
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled here
probe.trace_distributed()
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
ds.init_distributed("gloo", verbose=False)
def everything():
    ds.inference_all_reduce(x)
    work = dist.all_reduce(x, async_op=True)
    posted = dist.irecv(x, src=1) if rank == 0 else dist.isend(x, dst=0)
    posted.wait()
    work.wait()
everything()
late = dist.all_reduce(x, async_op=True)
with probe.quiet():
    late.wait()
    everything()
    assert x.sum() > 4
everything()
probe.stop()
dist.barrier()
"""


def test_while_quiet_calls_are_made_and_counted_but_not_recorded(tmp_path):
    for rank, spool in enumerate(run(tmp_path, QUIET)):
        calls = [record for record in spool.records if record.kind in (3, 4)]
        ordinals = {"all_reduce": [], "recv": [], "send": []}
        for call in calls:
            if call.name in ordinals:
                ordinals[call.name].append(call.ordinal)
        # 0 and 1 aloud, 2 posted aloud and awaited quietly, 3 and 4 quiet, 5 and 6 aloud.
        assert ordinals["all_reduce"] == [0, 1, 5, 6]
        assert ordinals["send" if rank else "recv"] == [0, 2]
