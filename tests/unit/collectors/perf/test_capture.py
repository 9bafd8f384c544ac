"""How perf is put around a rank, and what is told from the names of its files."""

from __future__ import annotations

import json

import pytest
from unit.collectors.perf.outputs import JSON, ingest

from harness_collectors.perf import ATTACH, COLLECTOR, EVENTS
from harness_schemas.spi import CaptureRequest


def test_names_of_our_files_say_rank_pid_and_beginning(tmp_path):
    folder = tmp_path / "artifacts" / "perf" / "n7"
    folder.mkdir(parents=True)
    path = folder / "stat.rank-00003.pid-812.begin-1700000000000000000.jsonl"
    path.write_text(JSON)
    tables = ingest(path, root=tmp_path)
    first = tables["perf_counters"][0]
    assert (first["rank"], first["pid"], first["host"]) == (3, 812, "n7")
    assert (first["ts_ns"], first["offset_ns"]) == (1700000001000000001, 1_000_000_001)
    [state] = tables["collection"]
    assert (state["host"], state["records"], state["state"]) == ("n7", 6, "degraded")
    assert json.loads(state["detail"])["events"]["task-clock"] == "not_counted+ok"


def test_without_a_beginning_there_is_no_moment(tmp_path):
    path = tmp_path / "stat.jsonl"
    path.write_text(JSON)
    assert {row["ts_ns"] for row in ingest(path)["perf_counters"]} == {None}
    assert {row["rank"] for row in ingest(path)["perf_counters"]} == {None}


def test_the_complaint_of_our_perf_is_the_reason(tmp_path):
    folder = tmp_path / "artifacts" / "perf" / "n7"
    folder.mkdir(parents=True)
    path = folder / "stat.rank-00000.err"
    path.write_text(
        "Error:\nAccess to performance monitoring is limited: perf_event_paranoid is 4\n"
    )
    assert COLLECTOR.recognise(path, path.read_bytes())
    [state] = ingest(path, root=tmp_path)["collection"]
    assert state["state"] == "failed"
    assert "perf_event_paranoid is 4" in state["reason"]


def test_perf_data_without_perf_says_so(tmp_path, monkeypatch):
    path = tmp_path / "perf.data"
    path.write_bytes(b"PERFILE2" + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert COLLECTOR.recognise(path, path.read_bytes())
    [state] = ingest(path)["collection"]
    assert (state["state"], "not on PATH" in state["reason"]) == ("failed", True)


def test_the_prefix_is_pure_and_readable(tmp_path):
    request = CaptureRequest(tmp_path, 4, "cpu", {"interval_ms": 250, "events": ["task-clock"]})
    plan = COLLECTOR.prepare(request)
    assert plan.argv_prefix == (
        *("sh", "-c", ATTACH, "perf-attach", str(tmp_path / "artifacts" / "perf")),
        *("stat", "250", "task-clock", "99"),
    )
    assert (plan.env, plan.exclusive, list(tmp_path.iterdir())) == ({}, frozenset(), [])


def test_options_are_checked_all_at_once():
    assert COLLECTOR.options({})["events"] == list(EVENTS)
    with pytest.raises(ValueError, match="no option 'evnts'") as wrong:
        COLLECTOR.options({"evnts": 1, "interval_ms": 0, "mode": "top", "events": ["a;rm -rf /"]})
    assert len(str(wrong.value).splitlines()) == 4


def test_without_perf_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = COLLECTOR.check("cpu")
    assert not found.available
    assert "install" in found.hint


def test_a_forbidden_perf_says_why(tmp_path, monkeypatch):
    script = tmp_path / "perf"
    script.write_text(
        "#!/bin/sh\necho 'Error:' >&2\n"
        "echo 'No permission to enable task-clock event.' >&2\nexit 255\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = COLLECTOR.check("cpu")
    assert not found.available
    assert found.reason == ("perf counts nothing here: No permission to enable task-clock event.")
    assert found.hint
