"""The recorder: what a script calls, and what is then on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.probe.spool import lines, read

import harness_probe as probe
from harness_probe.spool import CHUNK_BYTES, RECORD_BYTES

RECORDS_A_CHUNK = CHUNK_BYTES // RECORD_BYTES


@pytest.fixture
def folder(tmp_path):
    assert probe.start(tmp_path / "spans", rank=0, world_size=2, local_rank=0)
    yield tmp_path / "spans"
    probe.stop()


def recorded(folder):
    probe.stop()
    return read(folder)


def test_start_line_and_anchors_say_who_wrote(folder):
    spool = recorded(folder)
    (start,) = lines(spool, "start")
    assert (start["rank"], start["world_size"], start["pid"]) == (0, 2, os.getpid())
    assert start["boot_id"] and start["host"]
    for anchor in lines(spool, "anchor"):
        drift = anchor["wall_ns"] - anchor["mono_ns"] - (time.time_ns() - time.monotonic_ns())
        assert abs(drift) < 1e9
        assert 0 <= anchor["width_ns"] < 1e8
    (end,) = lines(spool, "end")
    assert (end["records"], end["dropped"], end["dropped_meta"]) == (0, 0, 0)


def test_spans_nest_and_carry_the_unit(folder):
    with probe.span("outside"):
        pass
    with (
        probe.unit("decode", step=3, batch=1, warmup=True, perturbed_by="nsys") as unit_id,
        probe.span("layer", category="layer", layer=7),
        probe.span("mlp"),
    ):
        time.sleep(0.002)
    spool = recorded(folder)
    by_name = {record.name: record for record in spool.records}
    outside, layer, mlp, unit = (by_name[n] for n in ("outside", "layer", "mlp", "decode"))
    assert (outside.parent_id, outside.unit_id) == (0, 0)
    assert (mlp.parent_id, layer.parent_id, unit.parent_id) == (layer.span_id, unit.span_id, 0)
    assert {mlp.unit_id, layer.unit_id, unit.unit_id} == {unit_id}
    assert unit.start_ns <= layer.start_ns <= mlp.start_ns
    assert mlp.end_ns <= layer.end_ns <= unit.end_ns
    assert mlp.end_ns - mlp.start_ns >= 2_000_000
    assert 0 <= unit.cpu_end_ns - unit.cpu_start_ns < unit.end_ns - unit.start_ns
    (line,) = lines(spool, "unit")
    assert line["id"] == unit_id
    assert (line["phase"], line["step"], line["batch"]) == ("decode", 3, 1)
    assert (line["warmup"], line["perturbed_by"]) == (True, "nsys")
    (described,) = [line for line in lines(spool, "desc") if line["name"] == "layer"]
    assert (described["layer"], described["category"]) == (7, "layer")


TREE = st.recursive(
    st.just([]), lambda children: st.lists(children, max_size=4), max_leaves=30
).map(lambda tree: tree or [[]])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=TREE)
def test_any_nesting_comes_back_as_it_was(tmp_path_factory, tree):
    def walk(children, names, prefix=""):
        for index, below in enumerate(children):
            name = f"{prefix}.{index}"
            names.append((name, prefix))
            with probe.span(name):
                walk(below, names, name)

    place = tmp_path_factory.mktemp("tree")
    probe.start(place, rank=0, world_size=1)
    names = []
    walk(tree, names)
    records = recorded(place).records
    by_id = {record.span_id: record.name for record in records}
    assert len(by_id) == len(records) == len(names)
    assert {(r.name, by_id.get(r.parent_id, "")) for r in records} == set(names)


def test_more_than_a_chunk_keeps_order_and_count(folder):
    count = 2 * RECORDS_A_CHUNK + 17
    for _ in range(count):
        with probe.span("x"):
            pass
    spool = recorded(folder)
    assert [record.span_id for record in spool.records] == list(range(1, count + 1))
    assert lines(spool, "end")[0]["records"] == count


def test_an_error_inside_closes_the_spans(folder):
    with pytest.raises(KeyError), probe.unit("decode"), probe.span("bad"):
        raise KeyError
    with probe.span("after"):
        pass
    after = recorded(folder).records[-1]
    assert (after.name, after.parent_id, after.unit_id) == ("after", 0, 0)


def test_io_counts_bytes_and_keeps_notes(folder):
    with probe.io("read", "/data/a.safetensors") as file:
        file.add(10)
        file.add(5)
        file.note(served="page_cache")
    with pytest.raises(OSError), probe.io("write", "b"):
        raise OSError(28, "full")
    spool = recorded(folder)
    read_span, write_span = spool.records
    attrs = {line["id"]: line["attrs"] for line in lines(spool, "attrs")}
    assert (read_span.kind, read_span.bytes) == (5, 15)
    assert attrs[read_span.extra] == {"path": "/data/a.safetensors", "served": "page_cache"}
    assert write_span.bytes == -1
    assert attrs[write_span.extra]["error"] == "OSError"


def test_threads_write_whole_records_under_a_mark(folder):
    def work(number):
        for _ in range(200):
            with probe.span("side"), probe.io("read", f"f{number}") as file:
                file.add(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    with probe.unit("load"):
        for thread in threads:
            thread.start()
        for _ in range(3000):
            with probe.span("main"):
                pass
        for thread in threads:
            thread.join()
    spool = recorded(folder)
    side = [record for record in spool.records if record.thread]
    assert len(side) == 2 * 4 * 200
    assert all(record.parent_id == 0 and record.span_id == 0 for record in side)
    assert sum(record.name == "main" for record in spool.records) == 3000
    assert lines(spool, "end")[0]["records"] == len(spool.records)
    # No two threads were given the same id: every file's bytes match its own path.
    attrs = {line["id"]: line["attrs"]["path"] for line in lines(spool, "attrs")}
    assert len(attrs) == 800
    reads = [record for record in side if record.kind == 5]
    assert all(attrs[record.extra] == f"f{record.bytes}" for record in reads)


def test_a_collective_of_another_thread_hides_none_of_this_one(folder):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with probe.collective("barrier", 2, 0):
            inside.set()
            leave.wait(10)

    group = probe.group([0, 1])
    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with probe.collective("all_reduce", group, 8):
        pass
    leave.set()
    thread.join()
    assert {record.name for record in recorded(folder).records} == {"barrier", "all_reduce"}


def test_outermost_call_only(folder):
    group = probe.group([0, 1])
    with (
        probe.collective("all_reduce", group, 64, "float32"),
        probe.collective("all_reduce", group, 64),
        probe.p2p("send", 1, 64),
    ):
        pass
    spool = recorded(folder)
    assert [(r.name, r.kind, r.bytes) for r in spool.records] == [("all_reduce", 3, 64)]


def test_ordinals_count_per_group_and_per_pair(folder):
    first, second = probe.group([0, 1], "tp"), probe.group([0, 2], "pp")
    assert first != second == probe.group([0, 2], "pp")
    for group in (first, second, first):
        with probe.collective("all_reduce", group, 4):
            pass
    for op, peer in (("send", 1), ("send", 2), ("send", 1), ("recv", 1)):
        with probe.p2p(op, peer, 4):
            pass
    records = recorded(folder).records
    collectives = [(r.group_peer >> 32, r.ordinal) for r in records if r.kind == 3]
    assert collectives == [(first, 0), (second, 0), (first, 1)]
    pairs = [(r.name, (r.group_peer & 0xFFFFFFFF) - 1, r.ordinal) for r in records if r.kind == 4]
    assert pairs == [("send", 1, 0), ("send", 2, 0), ("send", 1, 1), ("recv", 1, 0)]


def test_groups_of_the_same_ranks_are_told_apart(folder):
    one, other = probe.group([0, 1], token="a"), probe.group([0, 1], token="b")
    assert one != other
    ordinals = {line["id"]: line["ordinal"] for line in lines(recorded(folder), "group")}
    assert ordinals == {one: 0, other: 1}


def test_entry_of_a_collective_is_on_record_before_the_call(folder):
    group = probe.group([0, 1])
    with probe.unit("decode", step=1) as unit_id, probe.collective("all_reduce", group, 64):
        live = read(folder).live
        assert (live.unit_id, live.ordinal, live.bytes, live.entered) == (unit_id, 0, 64, 1)
        assert live.pending and live.group_peer >> 32 == group
        assert live.groups == [(group << 32, 0, -1)]
    live = read(folder).live
    assert live.pending == 0
    assert live.groups == [(group << 32, 0, 0)]


def test_the_page_names_the_unit_also_when_an_inner_one_has_ended(folder):
    group = probe.group([0, 1])
    with probe.unit("load", batch=3) as outer:
        with probe.unit("prefill", step=0), probe.collective("all_reduce", group, 64):
            live = read(folder).live
            assert (live.unit.phase[:7], live.unit.unit_id) == (b"prefill", live.unit_id)
        live = read(folder).live
        assert (live.unit_id, live.unit.unit_id, live.unit.batch) == (outer, outer, 3)
        with (
            pytest.raises(RuntimeError),
            probe.unit("decode", step=1) as inner,
            probe.collective("all_reduce", group, 64),
        ):
            raise RuntimeError
    live = read(folder).live
    assert (live.unit_id, live.unit.unit_id, bool(live.pending)) == (inner, inner, True)
    assert 0 < live.prefill_ns <= live.start_ns


def test_a_rank_that_makes_no_calls_is_seen_to_move(folder):
    with probe.unit("load"):
        for name in ("a", "b"):
            with probe.span(name):
                pass
            probe.flush()
            spool = read(folder)
            assert spool.live.recorded_ns == spool.records[-1].end_ns > spool.live.updated_ns


def test_a_call_that_failed_stays_pending_after_stop(folder):
    with pytest.raises(RuntimeError), probe.collective("all_reduce", probe.group([0, 1]), 64):
        raise RuntimeError("Connection closed by peer")
    spool = recorded(folder)
    assert spool.live.pending
    assert spool.records == []


def test_stop_inside_spans_does_not_harm_the_workload(folder):
    with probe.unit("decode"), probe.collective("barrier", 0, 0), probe.span("x"):
        probe.stop()
    assert not probe.enabled()


def test_facts_that_are_no_json_are_dropped_and_counted(folder):
    probe.fact(stage=1, path={("a", "b"): 1})
    probe.fact(stage=2)
    spool = recorded(folder)
    assert [line["stage"] for line in lines(spool, "fact")] == [2]
    assert lines(spool, "end")[0]["dropped_meta"] == 1


def test_rows_of_steps_tokens_and_requests_name_their_unit(folder):
    with probe.unit("prefill", batch=0, step=0) as unit_id:
        probe.step_info(
            batch_size=2, padded_batch=2, prefill_tokens=9, decode_tokens=2, kv_tokens=9
        )
        probe.tokens([1, 0], device_ns=5, host_ns=6)
    probe.tokens([1], first_row=1, unit=unit_id)
    probe.batch(0, ["a", "b"], repeat=1)
    probe.request("a", batch=0, output_tokens=3)
    probe.clock_sample(1, 1, 2, 3, 4)
    probe.sample("rss", 5.0, "bytes")
    probe.collection("nvml", "skipped", "no NVIDIA driver")
    spool = recorded(folder)
    assert lines(spool, "step")[0]["unit"] == unit_id
    assert [(t["unit"], t["n"], t["first_row"]) for t in lines(spool, "tokens")] == [
        (unit_id, [1, 0], 0),
        (unit_id, [1], 1),
    ]
    assert lines(spool, "batch")[0]["requests"] == ["a", "b"]
    assert lines(spool, "request")[0]["output_tokens"] == 3
    assert [lines(spool, "clock")[0][key] for key in ("t0", "t1", "t2", "t3")] == [1, 2, 3, 4]
    assert lines(spool, "sample")[0]["value"] == 5.0
    assert lines(spool, "collection")[0]["state"] == "skipped"


def test_disabled_is_a_no_op_everywhere(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_SPOOL_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert not probe.start()
    with probe.unit("decode") as unit_id, probe.span("x"), probe.collective("barrier", 0, 0):
        assert unit_id == 0
    with probe.p2p("send", 1, 4), probe.io("read", "x") as file:
        file.add(1)
        file.note(a=1)
    assert probe.group([0]) == 0 == probe.attrs(a=1)
    probe.fact(a=1)
    probe.batch(0, [])
    probe.tokens([1])
    probe.step_info(batch_size=1, padded_batch=1, prefill_tokens=1, decode_tokens=1, kv_tokens=1)
    probe.request("a")
    probe.sample("m", 1.0)
    probe.collection("c", "ok")
    probe.clock_sample(0, 0, 0, 0, 0)
    probe.error("e", "m")
    probe.anchor()
    probe.flush()
    probe.stop()
    assert not probe.enabled()
    assert list(tmp_path.iterdir()) == []


def test_errors_pass_through_while_disabled():
    with pytest.raises(KeyError), probe.unit("decode"), probe.span("x"), probe.io("read", "f"):
        raise KeyError


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert not probe.start(tmp_path / "file" / "spans")
    assert capfd.readouterr().err.count("\n") == 1
    assert not probe.enabled()


@pytest.mark.parametrize(
    ("env", "rank"), [({"RANK": "3"}, 3), ({"SLURM_PROCID": "2"}, 2), ({"RANK": "x"}, 0), ({}, 0)]
)
def test_rank_comes_from_the_launcher(tmp_path, monkeypatch, env, rank):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**env, "HARNESS_SPOOL_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert probe.start()
    probe.stop()
    assert lines(read(tmp_path, rank), "start")[0]["rank"] == rank


def test_recorder_needs_the_standard_library_only():
    code = (
        "import sys, harness_probe\n"
        "top = {name.split('.')[0] for name in sys.modules} - {'harness_probe', '__main__'}\n"
        "print(sorted(n for n in top - sys.stdlib_module_names if not n.startswith('_')))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "[]\n", done.stderr


def test_importing_torch_is_left_to_the_script(folder):
    probe.trace_distributed()
    probe.untrace_distributed()
