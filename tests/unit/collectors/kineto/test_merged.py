"""Traces of several processes in one file: divided where their events can be told apart."""

from __future__ import annotations

import json

import pytest
from unit.collectors.kineto.traces import (
    BASE,
    decode_events,
    device_spans,
    groups,
    rows,
    tables,
    text,
)

TP2 = groups((0, 1))


def labelled(label):
    """As SGLang's merger writes a rank's events."""
    return [{**event, "pid": f"{label} {event['pid']}"} for event in decode_events()]


def offset(number):
    """As tools that add an offset to every process id and correlation write them."""
    events = json.loads(json.dumps(decode_events()))
    for event in events:
        event["pid"] += number
        if "correlation" in event.get("args", {}):
            event["args"]["correlation"] += number
    return events


def on_one_node(number):
    """As rocpd writes the processes of a node: device work is filed under the GPU."""
    events = offset(number)
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy"):
            event["pid"] = number // 1000
    return events


def told(spans):
    return [
        [row[name] for name in ("start_ns", "end_ns", "name", "phase", "step")] for row in spans
    ]


@pytest.mark.parametrize(
    "parts",
    [
        (labelled("[TP00]"), labelled("[TP01]")),
        (offset(1000), offset(2000)),
        (on_one_node(1000), on_one_node(2000)),
    ],
)
def test_each_process_is_a_rank(tmp_path, parts):
    found = rows(tmp_path, text([*parts[0], *parts[1]], TP2), "merged-1.trace.json.gz")
    (tmp_path / "one").mkdir()
    alone = told(device_spans(rows(tmp_path / "one", text(decode_events(), TP2))))
    for rank in (0, 1):
        assert told([row for row in device_spans(found) if row["rank"] == rank]) == alone
    assert [row["rank"] for row in found["ranks"]] == [0, 1]
    assert all("merges the traces of several" in row["reason"] for row in found["collection"])
    assert {row["comm_group"] for row in found["collectives"]} == {"[0,1]#0"}
    assert [row["bytes"] is None for row in found["collection"]] == [False, True]


@pytest.mark.parametrize("label", ["", "[TP0{}] "])
def test_device_work_alone_is_divided_by_its_places(tmp_path, label):
    device = [event for event in decode_events() if event.get("cat") == "kernel"]
    merged = [
        {**event, "pid": f"{label.format(n)}{event['pid']}" if label else 10_000 * (n + 1)}
        for n in range(2)
        for event in device
    ]
    found = rows(tmp_path, text(merged, base=BASE), "all.json")
    assert [row["rank"] for row in device_spans(found)] == [0] * 4 + [1] * 4
    odd = [{**device[0], "pid": pid} for pid in (None, -3, [], "x", 5)]
    found = rows(tmp_path, text([*decode_events() * 200, *odd], TP2))
    assert {row["rank"] for row in device_spans(found)} == {0}, "damage is no merging"


def test_a_damaged_process_id_makes_no_second_process(tmp_path):
    kept = [event for event in decode_events() if event.get("cat") != "cuda_runtime"]
    found = rows(tmp_path, text([*kept, {**kept[0], "pid": kept[0]["pid"] ^ 64}], TP2))
    assert {row["rank"] for row in found["spans"]} == {0}


def test_work_that_two_processes_may_have_launched_is_nobodys(tmp_path):
    merged = [{**event, "pid": event["pid"] + n} for n in (1000, 2000) for event in decode_events()]
    found = rows(tmp_path, text(merged, base=BASE), "all.json")
    assert set(found) == {"collection"}
    assert "merges the traces of 2 processes (1007, 2007)" in found["collection"][0]["reason"]


def test_beside_the_traces_of_its_ranks_a_merged_one_is_not_used(tmp_path):
    for rank in (0, 1):
        path = tmp_path / f"rank{rank}.json"
        path.write_text(text(decode_events(), groups((0, 1), rank=rank)))
    merged = labelled("[TP00]") + labelled("[TP01]")
    (tmp_path / "merged.json").write_text(text(merged, TP2))
    found = tables(sorted(tmp_path.iterdir()), tmp_path)
    assert len(device_spans(found)) == 10
    assert [row["state"] for row in found["collection"]].count("failed") == 1
