"""Logs of strangers: every file gives the answers that were read off it by hand."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from nccl_tables import counted, ingest
from support import SAMPLES, needs_samples

from harness_collectors.nccl_log import COLLECTOR

pytestmark = needs_samples

LOGS = SAMPLES / "logs" if SAMPLES else None
ANSWERS = json.loads((LOGS / "expected.json").read_text())["nccl"] if LOGS else {}
H200 = SAMPLES / "h200" if SAMPLES else None


def sample(name):
    [path] = LOGS.glob(f"nccl/{name}*")
    return path


def detail(tables):
    [state] = tables["collection"]
    return json.loads(state["detail"])


def edges(tables):
    total = Counter()
    for row in tables["nccl_comms"]:
        total.update(json.loads(row.get("transports") or "{}"))
    return total


def check_versions(tables, answer):
    versions = {row["nccl_version"] for row in tables["nccl_comms"]} - {None}
    assert versions == ({answer["nccl_version"]} if answer["nccl_version"] else set())
    if "cuda" in answer:
        assert detail(tables)["cuda"] == answer["cuda"]
    if "library" in answer:
        assert detail(tables)["library"] == answer["library"]


def check_communicators(tables, answer):
    comms = tables["nccl_comms"]
    sizes = {row.get("nranks") for row in comms} - {None}
    assert sizes == ({answer["nranks"]} if answer["nranks"] else set())
    assert detail(tables)["nranks"] == answer["nranks"]
    if "init_complete" in answer:
        assert detail(tables)["init_complete"] == answer["init_complete"]
    if "coll_channels" in answer:
        found = {row.get("coll_channels") for row in comms} - {None}
        assert found == {answer["coll_channels"]}
    if "ranks_seen" in answer:
        assert sorted(row["comm_rank"] for row in comms) == answer["ranks_seen"]
    if "pids" in answer:
        assert sorted({row["pid"] for row in comms}) == answer["pids"]
    if "transports" in answer:
        assert edges(tables) == answer["transports"]
        net = sum(count for name, count in edges(tables).items() if name.startswith("NET/"))
        assert net == answer.get("net_edges", net)


def check_calls(tables, answer):
    calls = tables["collectives"]
    if "coll" in answer:
        assert detail(tables)["calls"] == answer["coll"]
        assert len(calls) == sum(answer["coll"].values())
    if "coll_by_count" in answer:
        counts = Counter(str(row["bytes"] // 4) for row in calls)
        assert counts == answer["coll_by_count"]
    if "coll_per_rank" in answer:
        assert Counter(str(row["rank"]) for row in calls) == answer["coll_per_rank"]
    if "dtype" in answer:
        assert {row["dtype"] for row in calls} == {answer["dtype"]}
    assert {row.get("start_ns") for row in calls} <= {None}


def check_choices(tables, answer):
    rows = tables["nccl_tuning"]
    if "tuning" in answer:
        assert sum(row["count"] for row in rows) == answer["tuning"]
    if "tuning_bytes" in answer:
        sizes = Counter()
        for row in rows:
            sizes[str(row["bytes"])] += row["count"]
        assert sizes == answer["tuning_bytes"]
    if "algo_proto" in answer:
        names = Counter()
        for row in rows:
            names[f"{row['algo']}/{row['proto']}"] += row["count"]
        assert names == answer["algo_proto"]


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_log_gives_its_answers(name):
    answer = ANSWERS[name]
    tables = ingest([sample(name)])
    check_versions(tables, answer)
    check_communicators(tables, answer)
    check_calls(tables, answer)
    check_choices(tables, answer)
    if "warn" in answer:
        assert len(tables["nccl_events"]) == answer["warn"]
    [state] = tables["collection"]
    assert (state["unreadable"] > 0) == answer.get("torn", False)


def test_every_sample_is_recognised():
    found = sorted(LOGS.glob("nccl/*"))
    assert len(found) == 18
    for path in found:
        tables = ingest([path])
        assert tables["collection"][0]["state"] in ("ok", "degraded"), path.name


def test_ranks_of_one_process_come_from_the_communicator():
    tables = ingest([sample("01_")])
    calls = tables["collectives"]
    per_rank = counted(calls, "rank", "comm_group", "group_size")
    assert per_rank == {(0, "[0,1]#0", 2): 495, (1, "[0,1]#0", 2): 495}
    for rank in (0, 1):
        assert [row["seq"] for row in calls if row["rank"] == rank] == list(range(495))
    # Rank 0 alone prints what was chosen; glued lines are calls like any other.
    assert counted(calls, "rank", "algo", "channels") == {
        (0, "RING", 24): 495,
        (1, None, None): 495,
    }
    assert [row["comm_rank"] for row in tables["nccl_comms"]] == [0, 1]
    assert {row["init_ns"] for row in tables["nccl_comms"]} == {670_000_000}


def test_init_timings_without_init_lines():
    tables = ingest([sample("18_")])
    found = {row["comm_rank"]: row["init_ns"] for row in tables["nccl_comms"]}
    seconds = {5: 2.46, 6: 2.45, 2: 2.46, 7: 2.45, 3: 2.46, 1: 2.45}
    assert found == {rank: round(value * 1e9) for rank, value in seconds.items()}
    parts = json.loads(tables["spans"][0]["attrs"])["parts_ns"]
    assert parts["bootstrap"] == 1_600_000_000
    assert all(row["start_ns"] is None for row in tables["spans"])


def test_a_process_without_init_line_has_no_rank():
    calls = ingest([sample("23_")])["collectives"]
    assert counted(calls, "rank", "group_size", "bytes") == {(8, 16, 4): 1, (None, 16, 4): 1}


def test_libibverbs_missing_on_a_socket_host_is_no_problem():
    assert counted(ingest([sample("07_")])["nccl_events"], "severity") == {("info",): 3}


def test_torn_ray_log():
    tables = ingest([sample("36_")])
    [comm] = tables["nccl_comms"]
    assert (comm["comm_rank"], comm["nranks"], comm["pid"], comm["cuda_dev"]) == (0, 8, 3569860, 0)
    assert comm["state"] is None
    assert tables["collection"][0]["unreadable"] == 5
    assert edges(tables) == {}  # the edge in it lost its prefix


def h200(folder):
    paths = sorted((H200 / folder).glob("nccl*.log.gz"))
    return ingest(paths, root=H200)


def test_tensor_and_pipeline_parallel_decode():
    tables = h200("tp2_pp2")
    groups = counted(tables["collectives"], "rank", "comm_group", "op", "bytes")
    assert groups[(0, "[0,1]#0", "all_reduce", 6400)] == 1248
    assert groups[(3, "[2,3]#0", "all_reduce", 64000)] == 52
    assert groups[(2, "[0,1,2,3]#0", "broadcast", 8)] == 52
    pairs = counted(tables["collectives"], "rank", "op", "src_rank", "dst_rank", "bytes")
    assert pairs[(1, "send", 1, 3, 6400)] == pairs[(3, "recv", 1, 3, 6400)] == 48
    sent = [row["seq"] for row in tables["collectives"] if (row["rank"], row["op"]) == (0, "send")]
    assert sent == list(range(52))
    assert sum(count for key, count in groups.items() if key[2] == "all_reduce") == 5532
    assert {row["state"] for row in tables["collection"]} == {"ok"}
    assert [row["rank"] for row in tables["collection"]] == [0, 1, 2, 3]


def test_choices_belong_to_the_communicator_that_was_called():
    rows = h200("tp2_pp2")["nccl_tuning"]
    found = {(row["rank"], row["op"], row["bytes"]): row["count"] for row in rows}
    assert found == {
        (0, "broadcast", 16): 1,
        (0, "broadcast", 8): 52,
        (0, "all_reduce", 4): 5,
        (0, "all_reduce", 3276800): 104,
        (0, "all_reduce", 6400): 1248,
        (2, "all_reduce", 3276800): 104,
        (2, "all_reduce", 6400): 1248,
        (2, "all_reduce", 64000): 52,
    }


def test_pipeline_of_four_stages():
    tables = h200("tp1_pp4")
    pairs = counted(tables["collectives"], "op", "src_rank", "dst_rank")
    assert {key: count for key, count in pairs.items() if key[0] in ("send", "recv")} == {
        (op, source, source + 1): 52 for op in ("send", "recv") for source in (0, 1, 2)
    }
    sizes = counted(tables["nccl_comms"], "rank", "nranks")
    assert sizes == {(rank, size): 1 for rank in range(4) for size in (1, 4)}


def test_a_group_split_from_a_world_of_the_same_ranks():
    tables = h200("")
    assert counted(tables["collectives"], "rank", "comm_group") == {
        (rank, group): count
        for rank in (0, 1)
        for group, count in (("[0,1]#0", 6), ("[0,1]#1", 10600))
    }
    assert counted(tables["nccl_comms"], "comm_rank", "state") == {
        (0, "complete"): 2,
        (1, "complete"): 2,
    }


def test_watchdogs_of_three_generations():
    found = {}
    for number in ("01", "03", "05"):
        [path] = LOGS.glob(f"failures/{number}_*")
        assert COLLECTOR.recognise(path, path.read_bytes()[:65536])
        rows = ingest([path])["nccl_events"]
        found[number] = [
            (row["rank"], row["kind"], json.loads(row["attrs"])["seq"]) for row in rows
        ]
    assert found["01"] == [
        (0, "watchdog_timeout", 1580),
        (4, "watchdog_timeout", 1580),
        (0, "watchdog_state", 1580),
        (3, "watchdog_state", 1580),
    ]
    # Before 2.2 a line names the rank in its group only, and not the group.
    assert found["03"] == [(None, "watchdog_timeout", 469508)] * 3
    assert [seq for *_, seq in found["05"]] == [96120, 96117, 64088]


def test_warnings_of_ib():
    [path] = LOGS.glob("failures/40_*")
    [row] = ingest([path])["nccl_events"]
    assert (row["severity"], row["pid"], row["host"]) == ("notice", 7038, "gh-3714u15")
    [path] = LOGS.glob("failures/42_*")
    rows = ingest([path])["nccl_events"]
    assert counted(rows, "severity", "host") == {("problem", None): 3}


def test_other_failures_are_not_ours():
    for path in sorted(LOGS.glob("failures/[123]*")):
        assert not COLLECTOR.recognise(path, path.read_bytes()[:65536]), path.name
