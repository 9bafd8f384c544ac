"""Kineto traces to rows: every header form, attribution by launch, communication."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.collectors.kineto.traces import (
    BASE,
    GEMM,
    OLD_CATS,
    decode_events,
    device_spans,
    groups,
    launched,
    mark,
    rows,
    span,
    tables,
    text,
    units,
)

from harness_collectors.kineto import COLLECTOR, by_rank, head_rank

TP2 = groups((0, 1))


def keyed(found):
    """The steps of device work by its correlation."""
    return {row["correlation"]: (row["phase"], row["step"]) for row in device_spans(found)}


# -- header forms --------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["pretty", "line", "compact"])
@pytest.mark.parametrize("at_end", [(), ("distributedInfo", "baseTimeNanoseconds")])
@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_layout_of_the_file_does_not_matter(tmp_path, style, at_end, name):
    found = rows(tmp_path, text(decode_events(), TP2, at_end=at_end, style=style), name)
    state = found["collection"][0]
    assert (state["state"], state["rank"], state["unreadable"]) == ("ok", 0, 0)
    assert keyed(found) == {
        11: ("decode", 1),
        12: ("decode", 1),
        13: (None, None),
        14: ("decode", 2),
        15: ("decode", 2),
    }
    first = device_spans(found)[0]
    assert first["start_ns"] == first["raw_start_ns"] == BASE + 130_125
    assert first["end_ns"] == BASE + 150_625
    assert first["launch_ns"] == BASE + 110_000
    assert (first["rank"], first["device"], first["stream"]) == (0, 0, 7)
    assert (first["category"], first["rule"], first["complete"]) == ("compute", "gemm", True)
    assert found["clock_anchors"][0]["raw_ns"] == found["clock_anchors"][0]["wall_ns"]
    assert found["ranks"][0]["last_record_ns"] == BASE + 255_250


def test_bare_list_of_events(tmp_path):
    found = rows(tmp_path, text(decode_events(), style="list"), "list_rank3.json")
    assert len(device_spans(found)) == 5
    assert found["collection"][0]["rank"] == 3
    assert "no base time" in found["collection"][0]["reason"]
    assert "clock_anchors" not in found


def test_old_spelling_absolute_integer_microseconds(tmp_path):
    epoch = 1_623_142_623_460_000
    events = []
    for event in decode_events():
        event["cat"] = OLD_CATS.get(event["cat"], event["cat"])
        event["ts"] = epoch + int(event["ts"])
        if "dur" in event:
            event["dur"] = int(event["dur"])
        if event["cat"] in ("Kernel", "Memcpy"):
            event["tid"] = "stream 7"
            del event["args"]["stream"]
        elif event["ph"] == "X":
            event["tid"] = "7"
        events.append(event)
    found = rows(tmp_path, text(events, base=None), "old.json")
    first = device_spans(found)[0]
    assert first["start_ns"] == (epoch + 130) * 1000
    assert (first["stream"], first["rank"], first["step"]) == (7, 0, 1)
    assert found["collection"][0]["state"] == "ok"


def test_absolute_times_with_decimals_stay_exact(tmp_path):
    body = text([span("kernel", GEMM, 0, 1.5, correlation=1, device=0, stream=7)], base=None)
    written = body.replace('"ts": 0', '"ts": 1712195495505543.217')
    assert written != body
    assert device_spans(rows(tmp_path, written))[0]["start_ns"] == 1712195495505543217


def test_times_stay_exact_beside_what_is_damaged(tmp_path):
    """A name that had to be mended, in a list that had to be read event by event."""
    events = [
        span("kernel", f"{name}_{GEMM}", 0, 1.5, correlation=1, device=0, stream=7)
        for name in ("first", "second", "third")
    ]
    written = text(events, base=None).replace('"ts": 0', '"ts": 1712195495505543.217')
    damaged = written.replace("first", "fir\x01st").replace('"dur": 1.5', '"dur": 1.5.5', 2)
    damaged = damaged.replace('"dur": 1.5.5', '"dur": 1.5', 1)
    found = device_spans(rows(tmp_path, damaged))
    assert [row["start_ns"] for row in found] == [1712195495505543217] * 2


def test_peer_copy_without_device_key(tmp_path):
    events = launched(
        1, 10.0, 20.0, 5.0, "Memcpy PtoP (Device -> Device)", "gpu_memcpy", device=None,
        fromDevice=3, inDevice=3, toDevice=1, bytes=4096,
    )  # fmt: skip
    copy = device_spans(rows(tmp_path, text(events, TP2)))[0]
    assert (copy["device"], copy["category"], copy["bytes"]) == (3, "memcpy", 4096)


@pytest.mark.parametrize(
    ("info", "name", "rank"),
    [
        (groups((0, 1), rank=1), "worker7.json", 1),
        (None, "worker7_step_12.1694.pt.trace.json", 7),
        (None, "dp0_pp1_tp3_dcp0_ep0_rank11.1770.pt.trace.json", 11),
        (None, "trace-[rank 4].json", 4),
        (None, "rank-00005.json", 5),
        ({"rank": "zero"}, "rank_2.json", 2),
        ({"rank": "3"}, "rank_2.json", 3),
    ],
)
def test_rank(tmp_path, info, name, rank):
    found = rows(tmp_path, text(decode_events(), info), name)
    assert {row["rank"] for row in found["spans"]} == {rank}
    assert found["collection"][0]["rank"] == rank


@pytest.mark.parametrize("name", ["frank3.json", "node-1_999.pt.trace.json", "local_rank2.json"])
def test_unknown_rank(tmp_path, name):
    (tmp_path / name).write_text(text(decode_events()))
    assert head_rank(tmp_path / name) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("dp0_pp1_tp3_dcp0_ep0_rank11.json", (3, 1)),
        ("1770000000.5-TP-2-DP-0-PP-1-EP-0.trace.json", (2, 1)),
        ("1770000000.5-TP-2.trace.json", (2, None)),
        ("kineto_pp2_eager_decode_rank0.json", (None, None)),
    ],
)
def test_place_in_the_parallel_plan_from_engines_file_names(tmp_path, name, place):
    rank = rows(tmp_path, text(decode_events()), name)["ranks"][0]
    assert (rank["tp_rank"], rank["stage"]) == place


# -- attribution -----------------------------------------------------------------------------


def test_graph_replay_belongs_to_its_launch(tmp_path):
    replay = launched(5, 120.0, 300.0, 10.0, call="cudaGraphLaunch")
    later = [
        span("kernel", GEMM, 310.0 + n, 0.5, pid=0, device=0, stream=7, correlation=5)
        for n in range(3)
    ]
    events = [mark("decode_step_4", 100.0, 50.0), mark("decode_step_5", 200.0, 200.0)]
    found = rows(tmp_path, text([*events, *replay, *later], TP2))
    assert [row["step"] for row in device_spans(found)] == [4] * 4
    assert [row["launch_ns"] for row in device_spans(found)] == [BASE + 120_000] * 4
    assert {row["attrs"] for row in device_spans(found)} == {'{"graph_launch": true}'}


def test_graph_id_is_kept(tmp_path):
    events = launched(5, 1.0, 3.0, 1.0, **{"graph id": 17, "graph node id": 4})
    assert device_spans(rows(tmp_path, text(events)))[0]["graph_id"] == 17


def test_negative_launch_latency_and_lost_launches(tmp_path):
    early = launched(6, 120.0, 119.5, 10.0)
    orphan = span("kernel", GEMM, 130.0, 5.0, pid=0, device=0, stream=7, correlation=99)
    nothing = span("kernel", GEMM, 140.0, 5.0, pid=0, device=0, stream=7, correlation=0)
    found = rows(tmp_path, text([mark("decode_step_1", 100.0, 50.0), *early, orphan, nothing]))
    assert [row["launch_ns"] for row in device_spans(found)] == [BASE + 120_000, None, None]
    assert [row["step"] for row in device_spans(found)] == [1, None, None]
    detail = json.loads(found["collection"][0]["detail"])
    assert (detail["device_rows"], detail["device_rows_launched"]) == (3, 1)


def test_launch_on_another_thread_belongs_to_the_step_of_the_process(tmp_path):
    events = [mark("ProfilerStep#3", 100.0, 50.0), *launched(1, 110.0, 120.0, 5.0, tid=99)]
    assert device_spans(rows(tmp_path, text(events)))[0]["step"] == 3


def test_thread_of_the_launch_is_preferred(tmp_path):
    events = [
        mark("decode_step_1", 100.0, 50.0, tid=7),
        mark("decode_step_2", 105.0, 60.0, tid=8),
        *launched(1, 110.0, 120.0, 5.0, tid=7),
        *launched(2, 110.0, 126.0, 5.0, tid=8),
    ]
    assert keyed(rows(tmp_path, text(events))) == {1: ("decode", 1), 2: ("decode", 2)}


def test_profiler_step_gives_way_to_better_marks(tmp_path):
    events = [
        mark("ProfilerStep#3", 90.0, 200.0),
        mark("prefill", 100.0, 50.0),
        mark("decode_step_1", 150.0, 50.0),
    ]
    found = rows(tmp_path, text(events))
    assert [(row["phase"], row["step"], row["batch"]) for row in units(found)] == [
        ("prefill", 0, None),
        ("decode", 1, None),
    ]
    outer = [row for row in found["spans"] if row["name"] == "ProfilerStep#3"]
    assert [(row["category"], row["rule"]) for row in outer] == [("phase", "profiler-step")]


def test_annotations_of_one_step_collapse_and_batches_are_counted(tmp_path):
    names = [
        "prefill",
        "decode_step_1",
        "decode_step_1",
        "decode_step_2",
        "prefill",
        "decode_step_1",
    ]
    events = [mark(name, 100.0 * n, 50.0) for n, name in enumerate(names)]
    found = units(rows(tmp_path, text(events)))
    assert [(row["batch"], row["phase"], row["step"]) for row in found] == [
        (0, "prefill", 0),
        (0, "decode", 1),
        (0, "decode", 2),
        (1, "prefill", 0),
        (1, "decode", 1),
    ]
    assert (found[1]["start_ns"], found[1]["end_ns"]) == (BASE + 100_000, BASE + 250_000)


def test_engine_steps_without_numbers_are_numbered_in_order(tmp_path):
    names = [
        "execute_context_2(14721)_generation_0(0)",
        "execute_context_0(0)_generation_2(2)",
        "execute_context_1(512)_generation_2(2)",
    ]
    found = rows(tmp_path, text([mark(name, 100.0 * n, 50.0) for n, name in enumerate(names)]))
    assert [(row["phase"], row["step"]) for row in units(found)] == [
        ("prefill", 0),
        ("decode", 1),
        ("mixed", 2),
    ]
    sizes = [(s["batch_size"], s["prefill_tokens"], s["decode_tokens"]) for s in found["steps"]]
    assert sizes == [(2, 14721, 0), (2, 0, 2), (3, 512, 2)]


def test_host_rows_are_inside_their_unit(tmp_path):
    events = [
        mark("decode_step_1", 100.0, 50.0),
        span("cpu_op", "aten::linear", 101.0, 10.0),
        span("cpu_op", "aten::mm", 102.0, 5.0),
        span("cpu_op", "aten::add", 112.0, 5.0, tid=99),
        *launched(1, 103.0, 120.0, 5.0),
        span("overhead", "Activity Buffer Request", 104.0, 1.0, pid=-1, tid=0),
        span("python_function", "model.py(3): forward", 100.0, 40.0),
        span("gpu_user_annotation", "decode_step_1", 120.0, 5.0, pid=0),
    ]
    found = rows(tmp_path, text(events))
    host = {row["name"]: row for row in found["spans"] if row["timeline"] == "host"}
    assert set(host) == {
        "decode_step_1", "aten::linear", "aten::add", "cudaLaunchKernel", "Activity Buffer Request",
    }  # fmt: skip
    unit = host.pop("decode_step_1")
    assert {row["parent_id"] for row in host.values()} == {unit["span_id"]}
    assert {row["step"] for row in host.values()} == {1}
    assert (host["aten::linear"]["stream"], host["aten::add"]["stream"]) == (0, 99)
    assert host["cudaLaunchKernel"]["correlation"] == 1
    assert host["aten::linear"]["category"] == "other"  # beside a device it only launches
    assert host["Activity Buffer Request"]["category"] == "overhead"
    ids = [row["span_id"] for row in found["spans"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("outer_first", [True, False])
def test_operators_inside_operators_are_left_out_in_any_order(tmp_path, outer_first):
    nest = [
        span("cpu_op", "outer", 100.0, 50.0),
        span("cpu_op", "middle", 110.0, 20.0),
        span("cpu_op", "inner", 111.0, 5.0),
        span("cpu_op", "elsewhere", 111.0, 5.0, tid=8),
    ]
    found = rows(tmp_path, text(nest if outer_first else nest[::-1]))
    assert {row["name"] for row in found["spans"]} == {"outer", "elsewhere"}


def test_without_a_device_operators_compute(tmp_path):
    events = [
        span("cpu_op", "aten::linear", 101.0, 10.0),
        span("user_annotation", "gloo:all_reduce", 120.0, 10.0, tid=9),
    ]
    found = rows(tmp_path, text(events, groups((0, 1))))
    assert [row["category"] for row in found["spans"]] == ["compute", "comm"]
    reduce = found["collectives"][0]
    assert (reduce["timeline"], reduce["op"], reduce["comm_group"]) == (
        "host",
        "all_reduce",
        "[0,1]#0",
    )
    assert (reduce["duration_ns"], reduce.get("bytes")) == (10_000, None)
    assert reduce["span_id"] == found["spans"][1]["span_id"]


def test_span_without_an_end(tmp_path):
    open_ended = mark("decode_step_1", 100.0, 0)
    del open_ended["dur"]
    found = rows(tmp_path, text([open_ended, *launched(1, 110.0, 120.0, -5.0)]))
    assert [(row["end_ns"], row["complete"]) for row in units(found)] == [(None, False)]
    assert [(r["end_ns"], r["complete"], r["step"]) for r in device_spans(found)] == [
        (None, False, 1)
    ]


# -- several files, and the collector's own face ------------------------------------------------


def test_files_of_one_rank_are_numbered_on(tmp_path):
    paths = []
    for part in ("a", "b"):
        paths.append(tmp_path / f"rank0_{part}.json")
        paths[-1].write_text(text(decode_events(), TP2, base=BASE + len(paths) * 10**9))
    found = tables(paths, tmp_path)
    assert [row["seq"] for row in found["collectives"]] == [0, 1, 2, 3]
    ids = [row["span_id"] for row in found["spans"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))


def test_files_are_grouped_by_rank_from_their_heads(tmp_path):
    for name, rank in (("x.json", 1), ("y.json", 0), ("z.json", 1)):
        (tmp_path / name).write_text(text(decode_events(), groups((0, 1), rank=rank)))
    (tmp_path / "worker4.json").write_text(text(decode_events()))
    (tmp_path / "nobody.json").write_text(text(decode_events()))
    grouped, doubted = by_rank(sorted(tmp_path.iterdir()))
    assert not doubted
    assert {rank: [path.name for path in group] for rank, group in grouped.items()} == {
        None: ["nobody.json"],
        4: ["worker4.json"],
        1: ["x.json", "z.json"],
        0: ["y.json"],
    }


def test_host_of_a_run_folder(tmp_path):
    folder = tmp_path / "artifacts" / "torch_profiler" / "node-3"
    folder.mkdir(parents=True)
    found = rows(folder, text(decode_events(), TP2))
    assert found["ranks"][0]["host"] == "node-3"
    assert found["ranks"][0]["clock_domain"] == "wall:node-3"


@pytest.mark.parametrize("style", ["pretty", "line", "compact", "list"])
def test_recognised_by_content(style):
    head = text(decode_events(), TP2, style=style).encode()
    assert COLLECTOR.recognise(Path("whatever"), head)
    assert not COLLECTOR.recognise(Path("trace.json"), b'{"entries": [], "version": "2.4"}')
    assert not COLLECTOR.recognise(Path("trace.json"), b"")


def test_what_cannot_be_read_is_a_failed_collection(tmp_path):
    found = tables([tmp_path / "absent.json"], tmp_path)
    assert [row["state"] for row in found["collection"]] == ["failed"]
    assert set(found) == {"collection"}


def test_secrets_in_the_header_go_nowhere(tmp_path):
    header = {"env": {"HF_TOKEN": "hf_secret"}, "HF_TOKEN": "hf_secret", "cmd": "--key hf_secret"}
    found = rows(tmp_path, text(decode_events(), TP2, **header))
    assert "hf_secret" not in json.dumps(found)


def test_plain_ranges_of_a_loop_are_numbered_within_their_batch(tmp_path):
    names = ["prefill", "decode", "decode", "prefill", "decode"]
    events = [mark(name, 100.0 * n, 60.0) for n, name in enumerate(names)]
    found = units(rows(tmp_path, text(events)))
    keys = [(row["batch"], row["phase"], row["step"]) for row in found]
    first = [(0, "prefill", 0), (0, "decode", 1), (0, "decode", 2)]
    assert keys == [*first, (1, "prefill", 0), (1, "decode", 1)]


def test_steps_of_two_engines_that_overlap_are_two(tmp_path):
    name = "execute_context_0(0)_generation_1(1)"
    events = [mark(name, 0.0, 60.0, tid=7), mark(name, 30.0, 60.0, tid=8)]
    events += launched(11, 35.0, 40.0, 5.0) + launched(12, 50.0, 55.0, 5.0, tid=8)
    found = rows(tmp_path, text(events))
    assert [row["step"] for row in units(found)] == [0, 1]
    assert [row["step"] for row in device_spans(found)] == [0, 1]


@pytest.mark.parametrize("base", [str(BASE), float(BASE), BASE])
def test_headers_that_were_written_anew_say_the_same(tmp_path, base):
    """`add_metadata` leaves objects as texts; JavaScript and jq leave numbers as floats."""
    info = json.dumps(groups((0, 1), rank=3, world_size=4))
    found = rows(tmp_path, text(decode_events(), info, base=base), "trace.json")
    assert {row["rank"] for row in device_spans(found)} == {3}
    assert min(row["start_ns"] for row in device_spans(found)) == BASE + 130_125
    assert found["collectives"][0]["comm_group"] == "[0,1]#0"
