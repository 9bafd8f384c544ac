"""Five tools saw one job: each call is one row that knows what all of them knew."""

from __future__ import annotations

import itertools

import pytest
from truth.mixed_job import CHOICES, SIZES, STEPS, TRANSFER_US, Job

from harness.ingest import ingest_paths
from harness_analysis.store import open_database

TOOLS = ("kineto", "nccl_log", "inspector", "flight_recorder")
CALLS = STEPS * len(SIZES)
TOTALS = """
SELECT rank, source, joined, bytes, algo, proto, channels, transport, count(*)::INT,
  sum(duration_ns)::BIGINT, sum(wait_ns)::BIGINT, sum(transfer_ns)::BIGINT
FROM collectives GROUP BY ALL ORDER BY rank, bytes
"""


def record(job, folder, tools=TOOLS, ranks=(0, 1)):
    folder.mkdir(exist_ok=True)
    for tool, rank in itertools.product(tools, ranks):
        getattr(job, tool)(folder, rank)
    return folder


def ask(folder, sql, tmp_path):
    database = tmp_path / "x.duckdb"
    ingest_paths([folder], database)
    with open_database(database) as con:
        return con.execute(sql).fetchall()


def answers(source, joined):
    """Every call once, with NCCL's choice beside its duration, its transfer and its wait."""
    rows = []
    for rank, size in itertools.product((0, 1), CHOICES):
        calls = STEPS * SIZES.count(size)
        wait = round((Job.late_us[1] - Job.late_us[rank]) * 1000) * calls
        moved = round(TRANSFER_US * 1000) * calls
        facts = (rank, source, joined, size, *CHOICES[size], "P2P")
        rows.append((*facts, calls, wait + moved, wait, moved))
    return rows


def test_four_witnesses_of_a_call_are_one_row(tmp_path):
    folder = record(Job(), tmp_path / "job")
    joined = "flight_recorder+nccl_inspector+nccl_log"
    assert ask(folder, TOTALS, tmp_path) == answers("torch_profiler", joined)


def test_an_nsys_report_that_knows_communicators_by_id_is_joined_too(tmp_path):
    folder = record(Job(), tmp_path / "job")
    Job().nsys(folder)
    joined = "flight_recorder+nccl_inspector+nccl_log+torch_profiler"
    found = ask(folder, TOTALS.replace("channels", "0"), tmp_path)
    assert [(*row[:6], *row[7:]) for row in found] == [
        (*row[:6], *row[7:]) for row in answers("nsys", joined)
    ]


def test_a_rank_whose_trace_is_missing_leaves_waits_unknown(tmp_path):
    folder = record(Job(), tmp_path / "job", ("kineto", "nccl_log"), ranks=(0,))
    record(Job(), folder, ("nccl_log",), ranks=(1,))
    sql = (
        "SELECT DISTINCT rank, wait_ns, transfer_ns, unsplit_reason, algo IS NULL FROM collectives"
    )
    sql += " WHERE source = 'torch_profiler'"
    assert ask(folder, sql, tmp_path) == [(0, None, None, "seen on 1 of 2 ranks", False)]


OTHER = Job(comm_id=0xBAD, begin_us=9e9, host="node-b", pids=(900, 901), late_us=(50.0, 0.0))
JOINED = """
SELECT DISTINCT rank, joined, algo, unsplit_reason FROM collectives
WHERE source = 'torch_profiler' ORDER BY rank
"""
NAMED = "SELECT DISTINCT kind, severity FROM findings WHERE kind = 'other_job'"


@pytest.mark.parametrize("tool", ["nccl_log", "inspector"])
def test_records_of_another_job_complete_nothing_and_are_named(tool, tmp_path):
    record(Job(), tmp_path / "job", ("kineto",))
    folder = record(OTHER, tmp_path / "job", (tool,))
    assert ask(folder, JOINED, tmp_path) == [(rank, None, None, None) for rank in (0, 1)]
    assert ask(folder, NAMED, tmp_path) == [("other_job", "problem")]


def test_logs_of_another_job_beside_those_of_the_job_are_named(tmp_path):
    record(Job(), tmp_path / "a", ("kineto", "nccl_log"))
    alone = ask(tmp_path / "a", TOTALS, tmp_path)
    assert ask(tmp_path / "a", NAMED, tmp_path) == []
    record(OTHER, tmp_path / "b", ("nccl_log",))
    recorded = TOTALS.replace("GROUP BY", "WHERE source <> 'nccl_log' GROUP BY")
    assert ask(tmp_path, recorded, tmp_path) == alone
    assert ask(tmp_path, NAMED, tmp_path) == [("other_job", "problem")]


def test_a_report_of_another_job_is_named(tmp_path):
    record(Job(), tmp_path / "job", ("kineto",))
    OTHER.nsys(tmp_path / "job")
    assert ask(tmp_path / "job", NAMED, tmp_path) == [("other_job", "problem")]


def test_traces_of_another_job_are_not_taken_for_the_same_ranks(tmp_path):
    record(Job(), tmp_path / "a", ("kineto",))
    alone = ask(tmp_path / "a", TOTALS, tmp_path)
    record(OTHER, tmp_path / "b", ("kineto",))
    assert ask(tmp_path, TOTALS, tmp_path) == alone
    assert ask(tmp_path, NAMED, tmp_path) == [("other_job", "problem")]


def test_ranks_that_were_recorded_hours_apart_have_no_waits(tmp_path):
    folder = record(Job(), tmp_path / "job", ("kineto",), ranks=(0,))
    record(OTHER, folder, ("kineto",), ranks=(1,))
    sql = "SELECT count(wait_ns), count(transfer_ns) FROM collectives"
    assert ask(folder, sql, tmp_path) == [(0, 0)]


def test_ranks_of_two_jobs_a_minute_apart_have_no_waits_and_a_wrong_clock_has(tmp_path):
    """Matched ends tell them apart: those of one job lie equally far apart in both recordings."""
    waits = "SELECT sum(wait_ns), count(transfer_ns) > 0 FROM collectives"
    record(Job(), tmp_path / "right", ("kineto",))
    right = ask(tmp_path / "right", waits, tmp_path)
    for name, other in (("clock", Job(begin_us=65e6)), ("job", Job(begin_us=65e6, step_us=1234.0))):
        record(Job(), tmp_path / name, ("kineto",), ranks=(0,))
        record(other, tmp_path / name, ("kineto",), ranks=(1,))
    assert ask(tmp_path / "clock", waits, tmp_path) == right
    assert ask(tmp_path / "clock", NAMED, tmp_path) == []
    assert ask(tmp_path / "job", waits, tmp_path) == [(None, False)]
    assert ask(tmp_path / "job", NAMED, tmp_path) == [("other_job", "problem")]
