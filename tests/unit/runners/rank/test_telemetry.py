from __future__ import annotations

import json
import re
import time

from harness_runners.rank.telemetry import Telemetry, run_span


def spans(path):
    found = []
    for line in path.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                found += scope["spans"]
    return found


def test_ranks_hang_below_the_session_that_started_them(tmp_path, monkeypatch):
    session, rank = tmp_path / "session.otel.jsonl", tmp_path / "rank-00001.otel.jsonl"
    with run_span(session, "demo", "run-1") as traceparent:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-9]", traceparent)
        monkeypatch.setenv("TRACEPARENT", traceparent)
        start = time.monotonic_ns()
        telemetry = Telemetry(rank, "rank 1", start, rank=1)
        telemetry.add("load", start + 10, start + 30, batch=None, share=0.5, cold=True)
        telemetry.close()
        telemetry.close()
    (run,) = spans(session)
    load, whole = spans(rank)
    assert (whole["name"], load["name"], run["name"]) == ("rank 1", "load", "run demo")
    assert whole["parentSpanId"] == run["spanId"]
    assert load["parentSpanId"] == whole["spanId"]
    assert {load["traceId"], whole["traceId"], run["traceId"]} == {traceparent.split("-")[1]}
    assert int(load["endTimeUnixNano"]) - int(load["startTimeUnixNano"]) == 20
    assert abs(int(load["startTimeUnixNano"]) - time.time_ns()) < 5e9
    assert load["attributes"] == [
        {"key": "share", "value": {"doubleValue": 0.5}},
        {"key": "cold", "value": {"boolValue": True}},
    ]


def test_without_a_parent_a_rank_begins_its_own_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    telemetry = Telemetry(tmp_path / "t.jsonl", "rank 0", time.monotonic_ns())
    telemetry.close()
    assert spans(tmp_path / "t.jsonl")[0]["parentSpanId"] == ""


def test_a_file_that_cannot_be_written_harms_nothing(tmp_path):
    telemetry = Telemetry(tmp_path / "no" / "t.jsonl", "rank 0", time.monotonic_ns())
    telemetry.add("load", 0, 1)
    telemetry.close()
