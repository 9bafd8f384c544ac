"""NCCL Inspector: documented examples, versions, numbering, damage, and what capture sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import cuts, doubled, flipped, interleaved_chunks, interleaved_lines
from nccl_tables import counted, ingest
from support import ROOT, SAMPLES, needs_samples

from harness_collectors.nccl_inspector import COLLECTOR
from harness_schemas.spi import CaptureRequest

FIXTURES = ROOT / "tests" / "fixtures" / "nccl_inspector"
ONE = (FIXTURES / "node-a-pid4100.log").read_bytes()
TWO = (FIXTURES / "node-a-pid4101.log").read_bytes()
patient = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(folder, text, name="x.log"):
    path = folder / name
    path.write_bytes(text)
    return ingest([path], collector=COLLECTOR)


def record(rank=0, **body):
    head = {"id": "0xab", "rank": rank, "n_ranks": 2, "nnodes": 1}
    meta = {"inspector_output_format_version": "v4.0", "hostname": "n", "pid": 10 + rank}
    return json.dumps({"header": head, "metadata": meta, **body}) + "\n"


def coll(op="AllReduce", sn=0, size=64, exec_us=10, **more):
    return {
        "coll": op,
        "coll_sn": sn,
        "coll_msg_size_bytes": size,
        "coll_exec_time_us": exec_us,
        **more,
    }


@needs_samples
def test_the_documented_examples():
    found = {}
    for path in sorted((SAMPLES / "logs" / "inspector").glob("*.json")):
        assert COLLECTOR.recognise(path, path.read_bytes())
        [found[path.stem[-1]]] = ingest([path], collector=COLLECTOR)["collectives"]
    first, second = found["1"], found["2"]
    assert (first["rank"], first["op"], first["seq"], first["group_size"]) == (
        2,
        "all_reduce",
        1407,
        8,
    )
    assert (first["bytes"], first["duration_ns"], first["start_ns"]) == (1 << 34, 61_974_000, None)
    # 418.4 GB/s in 41 ms are eight times the size that is printed: a share of one rank.
    assert (second["op"], second["bytes"]) == ("reduce_scatter", 8 * 2147483648)
    assert second["end_ns"] == 1752867229275811_000
    assert second["end_ns"] - second["start_ns"] == second["duration_ns"] == 41_057_000
    assert (first["timeline"], second["timeline"]) == ("host", "device")


def test_a_gathered_size_is_told_by_its_bandwidth(tmp_path):
    whole = coll("AllGather", size=1000, exec_us=10, coll_algobw_gbs=0.1)
    share = coll("AllGather", sn=1, size=1000, exec_us=10, coll_algobw_gbs=0.2)
    unsaid = coll("AllGather", sn=2, size=1000)
    text = "".join(record(coll_perf=body) for body in (whole, share, unsaid))
    rows = read(tmp_path, text.encode())["collectives"]
    assert [row["bytes"] for row in rows] == [1000, 2000, 2000]


def test_numbers_of_several_operations_do_not_meet(tmp_path):
    """NCCL counts each sort of operation by itself; a group's ordinals must differ."""
    text = "".join(
        record(rank, coll_perf=coll(op, sn))
        for rank in (0, 1)
        for op in ("AllReduce", "Broadcast")
        for sn in (5, 6)
    )
    rows = read(tmp_path, text.encode())["collectives"]
    per_rank = {rank: [(r["op"], r["seq"]) for r in rows if r["rank"] == rank] for rank in (0, 1)}
    assert per_rank[0] == per_rank[1]
    assert len({seq for _, seq in per_rank[0]}) == 4


def test_a_single_sort_keeps_its_numbers(tmp_path):
    text = "".join(record(coll_perf=coll(sn=sn)) for sn in (7, 9))
    tables = read(tmp_path, text.encode())
    assert [row["seq"] for row in tables["collectives"]] == [7, 9]
    assert json.loads(tables["collection"][0]["detail"])["numbers_missing"] == 1


def p2p(sn, peer, op="Send"):
    return {"p2p": op, "p2p_sn": sn, "p2p_peer": peer, "p2p_msg_size_bytes": 8,
            "p2p_exec_time_us": 3}  # fmt: skip


def test_pairs_are_counted_anew_unless_some_are_missing(tmp_path):
    whole = "".join(record(p2p_perf=p2p(sn, sn % 2)) for sn in range(4))
    rows = read(tmp_path, whole.encode())["collectives"]
    assert [row["seq"] for row in rows] == [0, 0, 1, 1]
    torn = "".join(record(p2p_perf=p2p(sn, sn % 2)) for sn in (0, 1, 3))
    assert {row["seq"] for row in read(tmp_path, torn.encode())["collectives"]} == {None}


def test_several_ranks_in_one_process(tmp_path):
    text = record(0, coll_perf=coll()) + record(1, coll_perf=coll()).replace("11", "10")
    rows = read(tmp_path, text.encode())["collectives"]
    assert counted(rows, "rank", "comm_group") == {(0, "[0,1]#0"): 1, (1, "[0,1]#0"): 1}


@pytest.mark.parametrize(
    "text",
    [
        record(coll_perf=coll(sn=-1)),
        record(coll_perf=coll(sn=1 << 80)),
        record(coll_perf=coll(op="AllRedux")),
        record(coll_perf={**coll(), "coll_exec_time_us": "soon"}),
        record(5, coll_perf=coll()),
        record(),
        "{" * 100_000 + "}" * 100_000 + "\n",
        '{"header": ' + "[" * 50_000 + "\n",
        "not json\n",
    ],
)
def test_what_cannot_be_is_counted(text, tmp_path):
    tables = read(tmp_path, (record(coll_perf=coll()) + text).encode())
    assert len(tables["collectives"]) == 1
    assert tables["collection"][0]["unreadable"] == 1


def test_a_record_without_any_header_is_nobodys(tmp_path):
    tables = read(tmp_path, json.dumps({"coll_perf": coll()}).encode())
    assert tables["collectives"] == []
    assert (tables["collection"][0]["state"], tables["collection"][0]["unreadable"]) == (
        "failed",
        1,
    )


@patient
@given(data=st.data(), source=st.sampled_from([ONE, TWO]))
def test_damaged_records(tmp_path, data, source):
    text = data.draw(st.one_of(cuts(source), doubled(source), flipped(source)))
    tables = read(tmp_path, text)
    assert len(tables["collectives"]) <= text.count(b"_sn")
    for row in tables["collectives"]:
        assert row["rank"] is None or row["rank"] < row["group_size"]


@patient
@given(text=st.one_of(interleaved_lines(ONE, TWO), interleaved_chunks(ONE, TWO)))
def test_mixed_records(tmp_path, text):
    for row in read(tmp_path, text)["collectives"]:
        assert row["rank"] in (None, 0, 1)
        assert row["bytes"] in (6400, 4096)


VARIABLES = ("NCCL_PROFILER_PLUGIN", "NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES", "LD_LIBRARY_PATH")


def test_capture_keeps_small_messages(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not COLLECTOR.check("cuda").available
    assert "NCCL_PROFILER_PLUGIN" in COLLECTOR.check("cuda").hint
    (tmp_path / "libnccl-profiler-inspector.so").write_bytes(b"")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/none:{tmp_path}")
    assert COLLECTOR.check("cuda").available
    options = COLLECTOR.options({"ring": 4096})
    plan = COLLECTOR.prepare(CaptureRequest(Path("/run"), 2, "cuda", options))
    assert plan.env["NCCL_PROFILER_PLUGIN"] == f"{tmp_path}/libnccl-profiler-inspector.so"
    assert plan.env["NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES"] == "0"
    assert plan.env["NCCL_INSPECTOR_DUMP_COLL_RING_SIZE"] == "4096"
    assert plan.env["NCCL_INSPECTOR_DUMP_DIR"] == "/run/artifacts/nccl_inspector"
    assert plan.exclusive == {"nccl_profiler"}
    monkeypatch.setenv("NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES", "1024")
    kept = COLLECTOR.prepare(CaptureRequest(Path("/run"), 2, "cuda", options))
    assert "NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES" not in kept.env
    assert "1024" in kept.notes[0]


def test_options_say_every_mistake():
    with pytest.raises(ValueError, match="ring") as caught:
        COLLECTOR.options({"ring": 0, "verbose": 1, "colour": "red"})
    assert str(caught.value).count("\n") == 2


def test_records_of_plugins_made_after_it(tmp_path):
    """Fractions of microseconds, no communicator's id, and headers that agents flattened."""
    body = {"coll": "AllReduce", "coll_sn": 3, "coll_msg_size_bytes": 64, "coll_exec_time_us": 1.25}
    nested = {"header": {"rank": 1, "n_ranks": 2}, "coll_perf": body}
    flat = {"id": "ab", "rank": 1, "n_ranks": 2, "hostname": "n1", "pid": 7, "coll_perf": body}
    for content in (nested, flat):
        [row] = read(tmp_path, json.dumps(content).encode() + b"\n")["collectives"]
        assert (row["rank"], row["seq"], row["bytes"], row["duration_ns"]) == (1, 3, 64, 1250)
        assert row["group_size"] == 2


def test_records_whose_ends_of_lines_were_lost_are_read(tmp_path):
    whole = "".join(record(coll_perf=coll(sn=sn)) for sn in range(4))
    tables = read(tmp_path, whole.replace("\n", "").encode())
    assert [row["seq"] for row in tables["collectives"]] == [0, 1, 2, 3]
    assert tables["collection"][0]["unreadable"] == 0


@pytest.mark.parametrize("indent", [None, 2, 4])
def test_a_list_of_records_is_read(tmp_path, indent):
    """As `jq -s` (two spaces) and `jq -sc` (one line) write."""
    records = [json.loads(record(coll_perf=coll(sn=sn))) for sn in range(4)]
    text = json.dumps(records, indent=indent).encode() + b"\n"
    lines = b"[\n" + b",\n".join(json.dumps(each).encode() for each in records) + b"\n]\n"
    for listed in (text, lines):
        assert COLLECTOR.recognise(tmp_path / "x.json", listed[:400])
        tables = read(tmp_path, listed)
        assert [row["seq"] for row in tables["collectives"]] == [0, 1, 2, 3]
        assert tables["collection"][0]["unreadable"] == 0


@patient
@given(data=st.data(), indent=st.sampled_from([None, 2]))
def test_damaged_lists(tmp_path, data, indent):
    source = json.dumps([json.loads(line) for line in ONE.splitlines()], indent=indent).encode()
    text = data.draw(st.one_of(cuts(source), doubled(source), flipped(source)))
    tables = read(tmp_path, text)
    assert len(tables["collectives"]) <= text.count(b"_sn")
    for row in tables["collectives"]:
        assert row["rank"] is None or row["rank"] < row["group_size"]
