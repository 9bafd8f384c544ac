"""Traces of the host's activities alone: what a device did is unknown there, and not nothing."""

from __future__ import annotations

import duckdb
import pytest
from unit.collectors.kineto.traces import collective, groups, launched, mark, span, text

from harness.ingest import ingest_paths

CALLS = {
    "nccl": [
        span("cpu_op", "c10d::allreduce_", 120.0, 10.0),
        span("cpu_op", "record_param_comms", 121.0, 5.0, **collective()),
        span("user_annotation", "nccl:all_reduce", 121.0, 4.0),
    ],
    "gloo": [span("user_annotation", "gloo:all_reduce", 120.0, 10.0, tid=9)],
    "nothing": [],
}


def ingested(tmp_path, calls, ranks):
    for rank in ranks:
        steps = [mark(f"decode_step_{n}", n * 100.0, 50.0) for n in (1, 2)]
        events = [*steps, span("cpu_op", "aten::mm", 105.0, 10.0), *CALLS[calls]]
        info = groups(ranks, rank=rank, world_size=len(ranks))
        (tmp_path / f"rank{rank}.json").write_text(text(events, info))
    path = ingest_paths([tmp_path], tmp_path / "d.duckdb")
    return duckdb.connect(str(path), read_only=True)


@pytest.mark.parametrize(
    ("calls", "ranks", "told"),
    [
        ("nccl", (0, 1), False),
        ("gloo", (0, 1), True),
        ("nothing", (0, 1), False),
        ("nothing", (0,), True),
    ],
)
def test_communication_that_the_host_only_launched_is_unknown(tmp_path, calls, ranks, told):
    columns = "comm_transfer_ns, comm_wait_ns, comm_unsplit_ns"
    with ingested(tmp_path, calls, ranks) as con:
        steps = con.sql(f"SELECT {columns} FROM step_breakdown").fetchall()
        summed = con.sql(f"SELECT {columns} FROM rank_breakdown").fetchall()
        reasons = con.sql(
            "SELECT reason FROM can_answer WHERE of_columns LIKE '%comm_wait_ns%'"
            " AND relation IN ('step_breakdown', 'rank_breakdown')"
        ).fetchall()
    assert len(steps) == len(ranks) * 2 and len(summed) == len(ranks) * 2
    known = [value is not None for row in (*steps, *summed) for value in row]
    assert all(known) if told else not any(known)
    assert all(
        reason is None if told else "kineto recorded, but not this (it shows nothing" in reason
        for (reason,) in reasons
    )


@pytest.mark.parametrize(("sizes", "size"), [((2, 2), 2), ((2, 4), None), ((1, 1), None)])
def test_how_many_ranks_a_job_had_is_what_its_traces_agree_on(tmp_path, sizes, size):
    for rank, said in enumerate(sizes):
        events = [mark("decode_step_1", 100.0, 50.0), *launched(1, 110.0, 120.0, 5.0)]
        info = groups(range(said), rank=rank, world_size=said)
        (tmp_path / f"rank{rank}.json").write_text(text(events, info))
    path = ingest_paths([tmp_path], tmp_path / "d.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.sql("SELECT world_size FROM runs").fetchall() == [(size,)]
