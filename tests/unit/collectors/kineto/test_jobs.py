"""Traces of several jobs under one folder: one whole job is taken, and the others are named."""

from __future__ import annotations

import duckdb
from unit.collectors.kineto.traces import decode_events, groups, text

from harness.ingest import ingest_paths


def write(path, rank, pid, size=2):
    path.parent.mkdir(exist_ok=True)
    events = [{**e, "pid": pid} if e["pid"] == 7 else e for e in decode_events()]
    path.write_text(text(events, groups(range(size), rank=rank, world_size=size)))


def test_of_several_jobs_the_one_with_the_most_ranks_is_taken_whole(tmp_path, monkeypatch):
    write(tmp_path / "all" / "alone_rank0.json", 0, pid=11)
    write(tmp_path / "all" / "early" / "rank0.json", 0, pid=21)
    for rank in (0, 1):
        write(tmp_path / "all" / "late" / f"rank{rank}.json", rank, pid=31 + rank)
    monkeypatch.chdir(tmp_path / "all" / "early")
    path = ingest_paths([tmp_path / "all" / "early" / ".."], tmp_path / "d.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.sql("SELECT rank, pid FROM ranks ORDER BY rank").fetchall() == [(0, 31), (1, 32)]
        refused = con.sql("SELECT reason FROM collection WHERE state = 'failed'").fetchall()
    first = [reason.partition(" here and 31 in late/rank0.json: ")[0] for (reason,) in refused]
    assert sorted(first) == [
        "alone_rank0.json: rank 0 is process 11",
        "early/rank0.json: rank 0 is process 21",
    ]


def test_of_two_jobs_in_one_folder_no_run_is_put_together(tmp_path):
    """The larger's ranks 2 and 3 with the smaller's 0 and 1 would be no run at all."""
    for rank in range(4):
        write(
            tmp_path / "all" / f"worker{rank}_step_12.{1694128201545 + rank}.json", rank, 70 + rank
        )
    for rank in range(2):
        write(tmp_path / "all" / f"kineto_rank{rank}.json", rank, 50 + rank)
    path = ingest_paths([tmp_path / "all"], tmp_path / "d.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        ranks = con.sql("SELECT rank, pid FROM ranks ORDER BY rank").fetchall()
        assert ranks == [(rank, 70 + rank) for rank in range(4)]
        said = con.sql("SELECT text FROM findings WHERE kind = 'other_job'").fetchall()
    assert len(said) == 1
    than = "a trace of another job or attempt than worker0_step_12.1694128201545.json"
    assert said[0][0].startswith(f"kineto_rank0.json: {than}")


def test_windows_of_one_process_are_one_job_whatever_they_are_called(tmp_path):
    for rank in range(2):
        for name in ("prefill", "decode"):
            write(tmp_path / "all" / f"{name}_rank{rank}.json", rank, 50 + rank)
    path = ingest_paths([tmp_path / "all"], tmp_path / "d.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        told = con.sql("SELECT state, reason FROM collection ORDER BY ALL").fetchall()
    # They show the same moments: copies, as the reader says, which has read them.
    assert [state for state, _ in told].count("ok") == 2
    assert all("the same recording again" in reason for state, reason in told if state != "ok")


def test_files_that_all_claim_rank_0_are_told_apart_by_their_names(tmp_path):
    for rank in (0, 1, 2):
        write(tmp_path / "all" / f"trace_rank{rank}.json", 0, pid=40 + rank, size=1)
    path = ingest_paths([tmp_path / "all"], tmp_path / "d.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.sql("SELECT rank, pid FROM ranks ORDER BY rank").fetchall() == [
            (0, 40),
            (1, 41),
            (2, 42),
        ]
        assert con.sql("SELECT DISTINCT state, reason FROM collection").fetchall() == [
            ("ok", "several files claim one rank: their names are believed")
        ]
        assert con.sql("SELECT world_size FROM runs").fetchall() == [(None,)]
