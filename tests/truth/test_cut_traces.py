"""A trace that lost its end: steps before the cut as in the whole trace, the cut one left out."""

from __future__ import annotations

import json

import pytest
from truth.mixed_job import STEPS, Job

from harness.ingest import ingest_paths
from harness_analysis.store import open_database

UNITS = """
SELECT complete, step, window_ns, compute_ns, comm_transfer_ns, comm_wait_ns, comm_unsplit_ns,
  idle_ns
FROM step_breakdown WHERE rank = 0 ORDER BY step
"""


def units(paths, folder):
    with open_database(ingest_paths(paths, folder / "x.duckdb")) as con:
        return con.execute(UNITS).fetchall()


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


@pytest.fixture(scope="module")
def whole(traces, tmp_path_factory):
    found = units([traces], tmp_path_factory.mktemp("database"))
    assert [row[:2] for row in found] == [(True, step + 1) for step in range(STEPS)]
    return found


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_step_that_the_cut_fell_into_is_no_step(traces, whole, tmp_path, share):
    cut = tmp_path / "trace_rank0.json"
    text = (traces / cut.name).read_text()
    cut.write_text(text[: int(len(text) * share)])
    *kept, last = units([cut, traces / "trace_rank1.json"], tmp_path)
    assert kept == whole[: len(kept)]
    assert last[:2] == (False, len(kept) + 1)
