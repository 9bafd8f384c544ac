"""Recordings made on real GPUs give the values that were worked out for them by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support import SAMPLES, needs_samples

from harness.ingest import ingest_paths
from harness_analysis.store import open_database

pytestmark = needs_samples


@pytest.fixture(scope="module")
def dlrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SAMPLES is not None
    folder = tmp_path_factory.mktemp("dlrm")
    return ingest_paths([SAMPLES / "kineto" / "dlrm_8ranks"], folder / "d.duckdb")


@pytest.fixture(scope="module")
def four_gpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SAMPLES is not None
    folder = tmp_path_factory.mktemp("h200")
    return ingest_paths([SAMPLES / "h200" / "tp2_pp2"], folder / "h.duckdb")


# rank: window, compute, exposed communication, exposed copies, idle (microseconds)
DLRM = {
    0: (13009, 1034, 5537, 19, 6419),
    1: (18749, 1246, 11056, 19, 6428),
    2: (11350, 1068, 3217, 19, 7046),
    3: (18853, 1250, 9440, 18, 8145),
    4: (16589, 1133, 6550, 19, 8887),
    5: (16392, 1041, 6211, 19, 9121),
    6: (11410, 1051, 3289, 19, 7051),
    7: (10967, 1059, 1580, 20, 8308),
}


def test_dlrm_windows_divide_as_worked_out(dlrm: Path) -> None:
    with open_database(dlrm) as con:
        rows = con.execute(
            """
            SELECT rank, window_ns // 1000, compute_ns // 1000,
              (comm_transfer_ns + comm_wait_ns + comm_unsplit_ns) // 1000,
              memcpy_ns // 1000, idle_ns // 1000
            FROM rank_breakdown WHERE phase = 'all'
            """
        ).fetchall()
    assert {row[0]: row[1:] for row in rows} == DLRM


def test_dlrm_waits_are_96_percent_and_the_last_arrivers_known(dlrm: Path) -> None:
    with open_database(dlrm) as con:
        total, wait = con.execute(
            "SELECT sum(duration_ns) // 1000, sum(wait_ns) // 1000 FROM collectives"
        ).fetchone()
        instances = con.execute(
            """
            SELECT last_arriver, end_spread_ns // 1000, transfer_ns // 1000
            FROM collective_waits ORDER BY start_ns
            """
        ).fetchall()
    assert (total, wait) == (48542, 46806)
    assert [row[0] for row in instances] == [7, 7, 7, 7, 7, 5, 5, 4]
    assert [row[1] for row in instances] == [2, 2, 1, 2, 5, 3, 5, 7]
    assert [row[2] for row in instances] == [10, 8, 7, 7, 86, 10, 20, 69]


def test_four_gpus_all_reduces_split_as_worked_out(four_gpus: Path) -> None:
    with open_database(four_gpus) as con:
        waits = con.execute(
            """
            SELECT rank, round(sum(wait_ns) / 1e6, 2), count(*) FROM collectives
            WHERE source = 'torch_profiler' AND op = 'all_reduce' GROUP BY rank ORDER BY rank
            """
        ).fetchall()
        groups = con.execute(
            """
            SELECT comm_group, count(*), round(sum(transfer_ns) / 1e6, 3),
              max(end_spread_ns) / 1e3 < 5.9
            FROM collective_waits WHERE source = 'torch_profiler' AND op = 'all_reduce'
            GROUP BY comm_group ORDER BY comm_group
            """
        ).fetchall()
    assert waits == [(0, 16.73, 338), (1, 2.11, 338), (2, 0.62, 351), (3, 469.49, 351)]
    assert groups == [("[0,1]#0", 338, 2.979, True), ("[2,3]#0", 351, 3.107, True)]


def test_four_gpus_the_rank_with_the_shortest_all_reduces_is_the_culprit(four_gpus: Path) -> None:
    with open_database(four_gpus) as con:
        found = con.execute(
            "SELECT rank FROM findings WHERE kind = 'straggler' AND phase = 'decode'"
        ).fetchall()
        last = con.execute(
            "SELECT sum(times_last) FROM stragglers WHERE comm_group = '[2,3]#0' AND rank = 2"
        ).fetchone()
    assert (2,) in found and (3,) not in found
    assert last == (336,)


def test_four_gpus_the_culprit_is_bound_by_its_host(four_gpus: Path) -> None:
    """Rank 2's kernels start 10 us after their launch; the other ranks' queue for 40 ms."""
    with open_database(four_gpus) as con:
        late, gap, compute, copy, inherited, cause, root, saving = con.execute(
            """
            SELECT late_ns, late_gap_ns, late_compute_ns, late_copy_ns, late_inherited_ns,
              main_cause, late_root_rank, saving_ns
            FROM stragglers WHERE comm_group = '[2,3]#0' AND rank = 2 AND phase = 'decode'
            """
        ).fetchone()
        lead = con.execute(
            """
            SELECT median(start_ns - launch_ns) < 15000 AS prompt FROM spans
            WHERE timeline = 'device' AND phase = 'decode' GROUP BY rank ORDER BY rank
            """
        ).fetchall()
        step, predicted = con.execute(
            """
            SELECT step_ms, predicted_step_ms FROM what_if
            WHERE comm_group = '[2,3]#0' AND rank = 2 AND phase = 'decode'
            """
        ).fetchone()
        text = con.execute("SELECT text FROM findings WHERE position = 0").fetchone()[0]
    assert [row[0] for row in lead] == [False, False, True, False]
    assert cause == "its device waits for launches (bound by its host)" and root is None
    # What a pair's last arriver is late by is what its peer waits: two clocks say the same.
    assert late == gap + compute + copy + inherited and abs(late - saving) < 1_000
    assert late == pytest.approx(456.75e6, rel=1e-4) and gap > 0.99 * late
    assert abs(compute) < 0.001 * late and copy == 0
    assert step == pytest.approx(45.5, abs=0.1) and predicted == pytest.approx(6.8, abs=0.1)
    assert "without it a decode step would take about 6.79 ms instead of 45.5 ms" in text


@pytest.mark.parametrize("recording", ["dlrm", "four_gpus"])
def test_every_collective_is_split_or_says_why_not(
    recording: str, request: pytest.FixtureRequest
) -> None:
    with open_database(request.getfixturevalue(recording)) as con:
        rows = con.execute(
            """
            SELECT DISTINCT source, op FROM collectives
            WHERE (wait_ns IS NULL) = (unsplit_reason IS NULL)
            """
        ).fetchall()
    assert rows == []


def test_four_gpus_windows_are_classified(four_gpus: Path) -> None:
    with open_database(four_gpus) as con:
        shares = con.execute(
            """
            SELECT sum(unresolved_ns) / sum(window_ns), sum(comm_unsplit_ns) / sum(window_ns),
              min(least(compute_ns, comm_transfer_ns, comm_wait_ns, memcpy_ns, idle_ns))
            FROM step_breakdown WHERE phase = 'decode'
            """
        ).fetchone()
    assert shares is not None
    assert shares[0] == 0 and shares[1] < 0.01 and shares[2] >= 0


def test_four_gpus_what_the_logs_say_stands_beside_the_kernels(four_gpus: Path) -> None:
    """Four equal passes are in the logs, one in the traces: which one cannot be told, but what
    NCCL chose for a size it chose every time."""
    with open_database(four_gpus) as con:
        facts = con.execute(
            """
            SELECT op, bytes, algo, proto, channels, transport, joined, count(*),
              count(nccl_seq), count(DISTINCT rank)
            FROM collectives WHERE source = 'torch_profiler' AND op = 'all_reduce'
            GROUP BY ALL ORDER BY bytes
            """
        ).fetchall()
        # What the log alone shows: torch's first broadcast of 16 bytes, long before the traces.
        alone = con.execute(
            """
            SELECT op, bytes, count(*), any_value(algo) FROM collectives
            WHERE source <> 'torch_profiler' GROUP BY ALL
            """
        ).fetchall()
        rows = con.execute(
            """
            SELECT (SELECT count(*) FROM collectives_all), (SELECT count(*) FROM collectives),
              (SELECT count(*) FROM collectives_aside WHERE source = 'nccl_log')
            """
        ).fetchone()
    said = ("P2P", "~nccl_log")
    assert facts == [
        ("all_reduce", 6400, "RING", "LL", 1, *said, 1248, 0, 4),
        ("all_reduce", 64000, "RING", "LL", 7, *said, 26, 0, 2),
        ("all_reduce", 3276800, "RING", "SIMPLE", 24, *said, 104, 0, 4),
    ]
    assert alone == [("broadcast", 16, 4, "RING")]
    assert rows[0] == rows[1] + rows[2] and rows[2] == 5948


def test_logs_of_another_run_complete_nothing(tmp_path: Path) -> None:
    """The traces are those of two stages, the logs those of two tensor-parallel ranks."""
    assert SAMPLES is not None
    path = ingest_paths(sorted((SAMPLES / "h200").glob("*.gz")), tmp_path / "mixed.duckdb")
    with open_database(path) as con:
        joined = con.execute(
            """
            SELECT DISTINCT algo, transport, joined FROM collectives
            WHERE source = 'torch_profiler'
            """
        ).fetchall()
        logged = con.execute(
            "SELECT rank, count(*), count(algo) FROM collectives "
            "WHERE source = 'nccl_log' AND bytes >= 6400 GROUP BY rank ORDER BY rank"
        ).fetchall()
    assert joined == [(None, None, None)]
    assert logged == [(0, 10600, 10600), (1, 10600, 10600)]


def test_four_gpus_a_profiler_opened_late_is_no_wait(four_gpus: Path, tmp_path: Path) -> None:
    """Rank 3's trace without what was before its fifth decode step: the rest stays as it was."""
    assert SAMPLES is not None
    source = SAMPLES / "h200" / "tp2_pp2"
    for rank in (0, 1, 2):
        (tmp_path / f"kineto_rank{rank}.json.gz").symlink_to(source / f"kineto_rank{rank}.json.gz")
    trace = json.loads(gzip.decompress((source / "kineto_rank3.json.gz").read_bytes()))
    events = trace["traceEvents"]
    marks = [e["ts"] for e in events if e.get("name") == "decode_step_5" and e["ph"] == "X"]
    later = [e for e in events if e["ph"] != "X" or e["ts"] >= min(marks)]
    hosts = {e["args"].get("correlation") for e in later if "cuda_" in str(e.get("cat"))}
    trace["traceEvents"] = [
        e for e in later if e.get("cat") != "kernel" or e["args"].get("correlation") in hosts
    ]
    (tmp_path / "kineto_rank3.json").write_text(json.dumps(trace))
    late = ingest_paths([tmp_path], tmp_path / "late.duckdb")
    sums = """
        SELECT rank, count(*), sum(wait_ns), sum(transfer_ns) FROM collectives
        WHERE op = 'all_reduce' AND source = 'torch_profiler' AND phase = 'decode' AND step >= 5
        GROUP BY rank ORDER BY rank
    """
    with open_database(four_gpus) as con:
        whole = con.execute(sums).fetchall()
    with open_database(late) as con:
        assert con.execute(sums).fetchall() == whole
        (text,) = con.execute(
            "SELECT text FROM findings WHERE kind = 'trimmed' AND phase = 'decode'"
        ).fetchone()
        units = con.execute(
            "SELECT rank, units, left_out FROM rank_breakdown WHERE phase = 'decode' ORDER BY 1"
        ).fetchall()
    assert "15 of 43 of decode are left out (5 of rank 0, 5 of rank 1, 5 of rank 2)" in text
    assert units == [(0, 7, 5), (1, 7, 5), (2, 7, 5), (3, 7, 0)]
