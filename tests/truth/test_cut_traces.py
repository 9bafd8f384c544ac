"""A trace that lost its end: steps before the cut as in the whole trace, the cut one left out."""

from __future__ import annotations

import json

import pytest
from truth.mixed_job import STEPS, Job

from harness.ingest import ingest_paths
from harness_analysis.store import open_database

PARTS = "window_ns, compute_ns, comm_transfer_ns, comm_wait_ns, comm_unsplit_ns, idle_ns"


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Both ranks' traces, their events in the order of time, as a profiler writes them."""
    folder = tmp_path_factory.mktemp("whole")
    for rank in (0, 1):
        path = Job().kineto(folder, rank)
        trace = json.loads(path.read_text())
        marks = [event for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
        rest = [event for event in trace["traceEvents"] if event not in marks]
        trace["traceEvents"] = marks + sorted(rest, key=lambda event: event["ts"])
        path.write_text(json.dumps(trace))
    return folder


def ask(paths, folder, sql):
    with open_database(ingest_paths(paths, folder / "x.duckdb")) as con:
        return con.execute(sql).fetchall()


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6, 0.75, 0.9])
def test_a_step_that_the_cut_fell_into_is_no_step(traces, tmp_path, share):
    sql = f"SELECT step, {PARTS} FROM step_breakdown WHERE rank = 0 AND complete ORDER BY step"
    (tmp_path / "whole").mkdir()
    whole = ask([traces], tmp_path / "whole", sql)
    assert [row[0] for row in whole] == list(range(1, STEPS + 1))
    cut = tmp_path / "trace_rank0.json"
    text = (traces / cut.name).read_text()
    cut.write_text(text[: int(len(text) * share)])
    paths = [cut, traces / "trace_rank1.json"]
    kept = ask(paths, tmp_path, sql)
    assert kept == whole[: len(kept)]
    seen = ask(
        paths,
        tmp_path,
        "SELECT count(*), count(*) FILTER (NOT complete) FROM step_breakdown WHERE rank = 0",
    )
    assert seen == [(len(kept) + 1, 1)]
