"""The answer holds the database's numbers, and unknown stays unknown."""

from __future__ import annotations

import json

import duckdb
import pytest
from example_run import CORRECTNESS, LATE, batch, example_database
from truth.simulate import Scenario

from harness_analysis.answer import Parts, load_answer, read_correctness, total_parts
from harness_analysis.build.database import build_database
from harness_analysis.store import open_database
from harness_schemas.vocabulary import PARTS


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return example_database(tmp_path_factory.mktemp("answer"))


@pytest.fixture(scope="module")
def answer(database):
    with open_database(database) as con:
        return load_answer(con)


def query(database, sql):
    with open_database(database) as con:
        return con.execute(sql).fetchall()


def test_run_facts(answer):
    run = answer.run
    assert (run.name, run.status, run.verdict, run.exit_code) == ("example", "finished", "ok", 0)
    assert (run.tp, run.pp, run.world_size, run.ranks) == (2, 2, 4, 4)
    assert (run.hosts, run.device, run.dtype) == (("node0",), "cpu", "float32")
    assert run.job_id is None


def test_breakdown_is_the_view_with_places(answer, database):
    rows = query(database, f"SELECT rank, phase, window_ns, {','.join(PARTS)} FROM rank_breakdown")
    found = {
        (row.rank, row.phase): (row.parts.window_ns, *(row.parts.ns[part] for part in PARTS))
        for row in answer.breakdown
    }
    assert found == {row[:2]: row[2:] for row in rows}
    places = {row.rank: (row.stage, row.tp_rank) for row in answer.of_phase("decode")}
    assert places == {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (1, 1)}


def test_parts_sum_to_their_window_and_absent_parts_are_none(answer):
    for row in answer.breakdown:
        known = [ns for ns in row.parts.ns.values() if ns is not None]
        assert sum(known) == row.parts.window_ns
        # Host evidence of a CPU run cannot show these.
        assert row.parts.ns["fused_ns"] is None and row.parts.share("idle_ns") is None


def test_phases_in_the_order_of_work(answer):
    assert answer.phases() == ["prefill", "decode"]


def test_throughput_and_latency_carry_their_counts(answer, database):
    speed = answer.throughput
    assert (speed.requests, speed.output_tokens) == (4, 4 * (LATE.steps + 1))
    assert speed.tok_per_s == pytest.approx(speed.output_tokens / speed.wall_s)
    assert [(row.metric, row.count) for row in answer.latency] == [
        ("ttft", 4),
        ("itl", 4 * LATE.steps),
        ("tpot", 4),
        ("e2e", 4),
    ]
    ((ttft,),) = query(database, "SELECT median(ttft_ns) FROM requests")
    assert answer.latency[0].p50_ns == ttft


def test_the_top_finding_names_the_late_rank(answer):
    assert (answer.findings[0].kind, answer.findings[0].rank) == ("straggler", 3)
    assert [finding.position for finding in answer.findings] == list(range(len(answer.findings)))


def test_collectors_overhead_and_clocks(answer):
    assert {(row.collector, row.state) for row in answer.collectors_not_ok()} == {
        ("nvml", "skipped"),
        ("torch_profiler", "degraded"),
    }
    assert all(row.reason for row in answer.collectors_not_ok())
    assert [(row.collector, row.effect_ns) for row in answer.overhead] == [("app_timers", 11_000)]
    assert sum(clock.clocks for clock in answer.clocks) == 4
    assert answer.clock_residual_ns() == 100


def test_correctness(answer):
    found = answer.correctness
    assert (found.verdict, found.compared, found.equal, found.ties) == ("pass", 164, 163, 1)
    assert found.share_equal == 163 / 164
    assert found.details["max_kl"] == CORRECTNESS["max_kl"]


def test_a_run_without_requests_samples_or_comparison(tmp_path):
    path = example_database(tmp_path, Scenario(steps=2), bare=True, correctness=None, dtype=None)
    with open_database(path) as con:
        answer = load_answer(con)
    assert answer.throughput.tok_per_s is None and answer.throughput.requests is None
    assert answer.latency == () and answer.overhead == () and answer.correctness is None
    assert answer.run.dtype is None


def test_without_units_the_row_of_all_activity_answers(tmp_path):
    """A stranger's trace: device activity, no step marks."""
    span = {"rank": 0, "source": "torch_profiler", "timeline": "device", "complete": True}
    rows = [
        {**span, "span_id": 1, "name": "gemm", "category": "compute", "start_ns": 0, "end_ns": 70},
        {**span, "span_id": 2, "name": "copy", "category": "memcpy", "start_ns": 80, "end_ns": 100},
    ]
    path = example_database(
        tmp_path, Scenario(tp=1, pp=1, steps=1), more=(batch("spans", rows),), bare=True
    )
    with duckdb.connect(str(path)) as con:
        con.execute("DELETE FROM unit_breakdown WHERE phase <> 'all'")
    with open_database(path) as con:
        answer = load_answer(con)
    assert answer.phases() == ["all"]
    (row,) = answer.of_phase("all")
    assert (row.units, row.evidence) == (None, "torch_profiler")
    assert (row.parts.ns["compute_ns"], row.parts.ns["idle_ns"]) == (70, 10)


def test_ranks_are_those_of_calls_where_nothing_else_tells(tmp_path):
    """NCCL's logs alone: two ranks called, and no table says more of them."""
    path = tmp_path / "nccl.duckdb"
    calls = [{"rank": rank, "source": "nccl_log", "op": "all_reduce", "seq": 0} for rank in (0, 1)]
    build_database(path, "nccl", {"name": "nccl"}, [batch("collectives", calls)])
    with open_database(path) as con:
        assert load_answer(con).run.ranks == 2
        assert con.execute("SELECT count(*) FROM ranks").fetchone() == (0,)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", "{", '{"equal": "many"}', '{"compared": true, "equal": 1.5}']
)
def test_a_malformed_comparison_is_unknown_not_an_error(text):
    found = read_correctness(text)
    assert (found.verdict, found.compared, found.equal, found.share_equal) == (None,) * 4
    assert found.max_logit_diff is None


def test_no_share_of_nothing():
    assert read_correctness(json.dumps({"compared": 0, "equal": 0})).share_equal is None
    assert Parts(0, dict.fromkeys(PARTS, 0)).share("compute_ns") is None


def test_total_keeps_unknown_apart_from_zero():
    some = Parts(10, {**dict.fromkeys(PARTS), "compute_ns": 4, "io_ns": 0})
    more = Parts(20, {**dict.fromkeys(PARTS), "compute_ns": 5})
    total = total_parts([some, more])
    assert (total.window_ns, total.ns["compute_ns"]) == (30, 9)
    assert total.ns["io_ns"] == 0 and total.ns["fused_ns"] is None
    assert total_parts([]) is None
