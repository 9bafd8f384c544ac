"""Ranks in the names that people give to traces and reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness_collectors.names.rank_names import rank_in_name

NAMES = {
    3: (
        "rank3.json",
        "rank-3.json",
        "rank_3.json",
        "RANK=3.json",
        "rank:3.json",
        "rank 3.json",
        "job1234.rank.3.json",
        "trace-[rank 3].json",
        "rank00003.json.gz",
        "rank3_of_8.json",
        "iteration_10_rank3_trace.json",
        "worker3.1698925322189.pt.trace.json",
        "worker_3.json",
        "trace-3-of-8.json",
        "trace_00003-of-00008.json",
        "profile_3.json",
        "vllm-instance-ab12-rank-3.1700.pt.trace.json.gz",
        "dp0_pp1_tp0_dcp0_ep2_rank3.17.pt.trace.json.gz",
        "global_rank3_local_rank1.json",
        "local_rank1_global_rank3.json",
        "tp_rank1_rank3.json",
        "node1_rank3.sqlite",
        "rank3/trace.json",
        "rank_3/report.sqlite",
        "worker3/pytorch.123.pt.trace.json",
        "rank3/local_rank_1.json",
    ),
    None: (
        "frank3.json",
        "rankings3.json",
        "r3.json",
        "gpu3.json",
        "trace_3.json",
        "tp0pp3.json",
        "local_rank_3.json",
        "localrank3.json",
        "node_rank_3.json",
        "tp_rank_3.json",
        "ep_rank3.json",
        "rank.1698925322189.pt.trace.json",
        "host_4242.1700000000000.pt.trace.json",
        "step-3-of-10.json",
        "trace-8-of-8.json",
        "3-ranks/trace.json",
        "rank8-test/trace.json",
        "tp_rank_1/trace.json",
    ),
}


@pytest.mark.parametrize(
    ("name", "rank"), [(name, rank) for rank, names in NAMES.items() for name in names]
)
def test_rank_in_name(name, rank):
    assert rank_in_name(Path(name)) == rank
