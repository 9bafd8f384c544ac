"""Files of floors: what is no row is left out and counted, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from harness_collectors.floors import COLLECTOR, FORMAT
from harness_runners.bench import plan as bench_plan
from harness_schemas.spi import IngestContext

ROW = {"op": "all_reduce", "implementation": "nccl", "dtype": "bfloat16", "bytes": 1024,
       "group_size": 2, "calls": 8, "p10_us": 1.5, "p50_us": 2.0, "p90_us": 2.5,
       "algbw_gb_s": 0.5, "busbw_gb_s": 0.5}  # fmt: skip


def read(folder, document):
    path = folder / "floors.json"
    path.write_text(json.dumps(document))
    tables = {}
    for batch in COLLECTOR.ingest([path], IngestContext(folder)):
        tables.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return tables.get("floors", []), tables["collection"][0]


def document(*rows):
    return {"format": FORMAT, "version": 1, "device": "cpu", "skipped": [], "rows": list(rows)}


def test_ranks_and_collector_agree_on_the_format():
    assert (bench_plan.FORMAT, bench_plan.VERSION) == (FORMAT, 1)


def test_microseconds_become_whole_nanoseconds(tmp_path):
    rows, state = read(tmp_path, document(ROW))
    assert rows[0]["p10_ns"] == 1500 and rows[0]["p90_ns"] == 2500
    assert (state["state"], state["records"], state["unreadable"]) == ("ok", 1, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"p50_us": None}, {"p50_us": float("nan")}, {"p50_us": -1}, {"p50_us": 0}, {"bytes": True},
     {"bytes": 0}, {"bytes": "1024"}, {"op": 3}, {"p90_us": 1e300}, {"group_size": None}],
)  # fmt: skip
def test_a_row_without_a_size_or_a_time_is_counted_and_left_out(wrong, tmp_path):
    rows, state = read(tmp_path, document(ROW, {**ROW, **wrong}))
    assert len(rows) == 1
    assert (state["state"], state["unreadable"]) == ("degraded", 1)


def test_another_version_is_not_guessed_at(tmp_path):
    rows, state = read(tmp_path, {**document(ROW), "version": 2})
    assert rows == [] and state["state"] == "failed"


def test_why_something_was_not_measured_is_kept(tmp_path):
    skipped = [{"op": "all_reduce", "reason": "no peer access"}]
    _, state = read(tmp_path, {**document(ROW), "skipped": skipped})
    assert json.loads(state["detail"])["files"]["floors.json"]["skipped"] == ["no peer access"]


@pytest.mark.parametrize("head", [b'{"rows": []}', b'[{"format": "harness.floors"}]', b""])
def test_other_json_is_not_recognised(head, tmp_path):
    assert not COLLECTOR.recognise(tmp_path / "floors.json", head)
