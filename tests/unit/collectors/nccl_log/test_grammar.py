"""The grammar of the log, version by version."""

from __future__ import annotations

import json

import pytest
from nccl_tables import counted, ingest_text
from unit.collectors.nccl_log.log_lines import CALL, INIT, P

from harness_collectors.nccl_log.evidence.apply import HANDLERS
from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.words import KINDS


def init_of(line, folder):
    return ingest_text(folder, P + line + "\n")["nccl_comms"]


@pytest.mark.parametrize(
    ("line", "more"),
    [
        # 2.4: no bus
        (f"{INIT} nvmlDev 1 - Init COMPLETE", {"state": "complete"}),
        # 2.5 to 2.15
        (f"{INIT} busId 60 - Init COMPLETE", {"bus_id": "60", "comm_id": None}),
        # 2.16 to 2.18.1
        (f"{INIT} busId 60 commId 0xbeef - Init COMPLETE", {"comm_id": "0xbeef"}),
        # 2.18.3 to 2.20
        (f"{INIT} nvmlDev 1 busId 60 commId 0xbeef - Init START", {"state": "started"}),
        # 2.21.5, 2.22
        (
            f"ncclCommInitRank {INIT} nvmlDev 1 busId 60 commId 0xbeef - Init COMPLETE",
            {"comm_id": "0xbeef", "bus_id": "60"},
        ),
        (
            f"ncclCommSplit {INIT} nvmlDev 1 busId 60 parent 0xa0 color 5 key 1 commId 0xbee - "
            "Init COMPLETE",
            {"parent": "0xa0", "comm_id": "0xbee"},
        ),
        # 2.24 to 2.28: no space before the dash, no commId
        (
            f"ncclCommSplit {INIT} nvmlDev 1 busId 60 parent 0xa0 splitCount 2 color 5 key 1- "
            "Init START",
            {"parent": "0xa0", "state": "started", "comm_id": None},
        ),
        # 2.29 on
        (
            f"[Rank 1] ncclCommInitRankConfig {INIT} nvmlDev 1 busId 60 commId 0xbeef - Init START",
            {"state": "started"},
        ),
        # RCCL
        (
            f"ncclCommInitRank {INIT} nvmlDev 1 busId 60 commId 0xbeef localSize 120 used 77 bytes "
            "on core 3 - Init COMPLETE",
            {"comm_id": "0xbeef", "state": "complete"},
        ),
        (f"{INIT} busId 60 - Abort COMPLETE", {"state": "aborted"}),
    ],
)
def test_init_lines_of_every_version(line, more, tmp_path):
    [comm] = init_of(line, tmp_path)
    known = {"comm": "0xa1", "comm_rank": 1, "nranks": 4, "cuda_dev": 1, "host": "node", "pid": 70}
    assert {key: comm[key] for key in {**known, **more}} == {**known, **more}


def test_a_cut_init_line_gives_what_is_whole(tmp_path):
    [comm] = ingest_text(tmp_path, P + f"{INIT} nvmlDev 1 busId 1700")["nccl_comms"]
    assert (comm["comm_rank"], comm["nranks"], comm["cuda_dev"], comm["bus_id"]) == (1, 4, 1, None)
    assert ingest_text(tmp_path, P + "comm 0xa1 rank 1 nranks 4")["nccl_comms"] == []


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("24 coll channels, 32 p2p channels, 2 p2p channels per peer", (24, 32, None)),
        ("2 coll channels, 4 nvls channels, 8 p2p channels, 2 p2p channels per peer", (2, 8, 4)),
        (
            "2 coll channels, 99 collnet channels, 0 nvls channels, 8 p2p channels, "
            "2 p2p channels per peer",
            (2, 8, 0),
        ),
    ],
)
def test_channel_counts(line, counts, tmp_path):
    text = P + f"{INIT} busId 1 commId 0x1 - Init START\n" + P + line + "\n"
    [comm] = ingest_text(tmp_path, text)["nccl_comms"]
    found = comm["coll_channels"], comm["p2p_channels"], comm["nvls_channels"]
    assert found == counts


@pytest.mark.parametrize(
    ("via", "name"),
    [
        ("NET/IB/0/GDRDMA", "NET/IB/GDRDMA"),
        ("NET/IBext_v8/3(7)/GDRDMA/Shared", "NET/IBext_v8/GDRDMA/Shared"),
        ("NET/AWS Libfabric/1/GDRDMA(PCI)", "NET/AWS Libfabric/GDRDMA(PCI)"),
        ("NET/Socket/0", "NET/Socket"),
        ("P2P/direct pointer/read", "P2P/direct pointer/read"),
        ("P2P/CUMEM/CE", "P2P/CUMEM/CE"),
        ("P2P/indirect/5[a1]", "P2P/indirect"),
        ("SHM/direct/direct", "SHM/direct/direct"),
        ("direct shared memory", "direct shared memory"),
        ("P2P/CUM", None),
        ("NET/IB", None),
        ("P2P/direct point", None),
    ],
)
def test_transports(via, name):
    assert lines.transport(via.encode()) == name


@pytest.mark.parametrize(
    "line",
    [
        "Ring 00 : 0[0] -> 1[1] via P2P/IPC",  # 2.4
        "Channel 00 : 0[89000] -> 1[8e000] via P2P/IPC",  # 2.5 to 2.17
        "Channel 00/0 : 0[0] -> 1[1] via P2P/IPC",  # 2.18 on
        "Channel 00/0 : 0[0] -> 1[1] via P2P/IPC comm 0xa1 nRanks 02",  # RCCL
    ],
)
def test_edges_of_every_version(line, tmp_path):
    start = "comm 0xa1 rank 0 nranks 2 cudaDev 0 busId 1 commId 0x1 - Init START"
    [comm] = ingest_text(tmp_path, f"{P}{start}\n{P}{line}\n")["nccl_comms"]
    assert json.loads(comm["transports"]) == {"P2P/IPC": 1}


def test_edges_before_an_unannounced_init_belong_to_it(tmp_path):
    """Up to 2.18 nothing says that an initialisation starts; its lines come before it ends."""
    text = "".join(
        f"{P}{line}\n"
        for line in (
            "Channel 00 : 1[10] -> 0[20] via P2P/IPC",
            "8 coll channels, 8 p2p channels, 1 p2p channels per peer",
            f"{INIT} busId 60 - Init COMPLETE",
        )
    )
    [comm] = ingest_text(tmp_path, text)["nccl_comms"]
    assert (comm["coll_channels"], json.loads(comm["transports"])) == (8, {"P2P/IPC": 1})


def test_an_edge_printed_by_both_ends_counts_once(tmp_path):
    text = ""
    for rank in (0, 1):
        prefix = f"n{rank}:9:9 [0] NCCL INFO "
        side = "send" if rank == 0 else "receive"
        text += f"{prefix}comm 0xa{rank} rank {rank} nranks 2 cudaDev 0 commId 0x1 - Init START\n"
        text += f"{prefix}Channel 00/0 : 0[0] -> 1[0] [{side}] via NET/IB/{rank}\n"
    comms = ingest_text(tmp_path, text)["nccl_comms"]
    assert [row["transports"] for row in comms] == ['{"NET/IB": 1}', None]


def test_trees_of_a_communicator_without_its_init_lines_are_kept(tmp_path):
    p = "[1,3]<stdout>:h:1:2 [1] NCCL INFO "
    trees = f"{p}Trees [0] -1/-1/-1->3->2 [1] 2/-1/-1->3->1\n"
    [row] = ingest_text(tmp_path, trees + trees)["nccl_comms"]
    assert (row["pid"], row.get("nranks"), row.get("comm")) == (1, None, None)
    assert json.loads(row["attrs"])["trees"] == ["-1/-1/-1->3->2", "2/-1/-1->3->1"]
    told = f"{p}comm 0xa rank 3 nranks 4 cudaDev 0 commId 0x1 - Init START\n{trees}"
    [row] = ingest_text(tmp_path, told)["nccl_comms"]
    assert row["comm"] and len(json.loads(row["attrs"])["trees"]) == 2


def test_a_ring_map_is_no_transport(tmp_path):
    start = f"{P}{INIT} busId 60 commId 0x1 - Init START\n"
    [comm] = ingest_text(tmp_path, f"{start}{P}Channel 00/04 : 0 2 1 3\n")["nccl_comms"]
    assert comm["transports"] is None
    assert json.loads(comm["attrs"])["rings"] == ["0 2 1 3"]


CHOICES = {
    "262144 Bytes -> Algo 0 proto 1 time 54.7": (None, 262144, "TREE", "LL128", None, 54.7),
    "AllReduce: 8 Bytes -> Algo 1 proto 2 time 3.5": ("all_reduce", 8, "RING", "SIMPLE", None, 3.5),
    "AllGather: 8 Bytes -> Algo NVLS_TREE proto LL channel{Lo..Hi}={0..15}": (
        ("all_gather", 8, "NVLS_TREE", "LL", 16, None)
    ),
    "AllReduce [Symmetric]: 64 Bytes -> Kernel AllReduce_LDMC nchannels 8 nthreads 512 nWorks 1": (
        ("all_reduce", 64, "AllReduce_LDMC", "SYMMETRIC", 8, None)
    ),
    "AlltoAll [Copy Engine]: 64 Bytes -> cudaMemcpy": (
        ("all_to_all", 64, "COPY_ENGINE", None, None, None)
    ),
    "AllGather [Hierarchical CE]: 64 Bytes -> RMA proxy + CE": (
        ("all_gather", 64, "HIERARCHICAL_CE", None, None, None)
    ),
}


@pytest.mark.parametrize("line", CHOICES)
def test_choices_in_all_spellings(line, tmp_path):
    [row] = ingest_text(tmp_path, P + line + "\n")["nccl_tuning"]
    names = ("op", "bytes", "algo", "proto", "channels", "model_us")
    assert tuple(row[name] for name in names) == CHOICES[line]
    assert row["count"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "AllReduce: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..",
        "AllReduce: 8 Bytes -> Algo 9 proto 2 time 3.5",
        "AllReduce: 8 Bytes -> Algo RINH proto LL channel{Lo..Hi}={0..1}",
        "AllReduce: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={5..1}",
        "AllRedxce: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..1}",
        "8 Bytes -> Algo 0 proto 1",
    ],
)
def test_choices_that_cannot_be_are_counted(line, tmp_path):
    tables = ingest_text(tmp_path, P + line + "\n")
    assert tables["nccl_tuning"] == []
    assert tables["collection"][0]["unreadable"] == 1


def test_the_cost_table_is_no_choice(tmp_path):
    line = "    AllReduce |    16.8/   0.5 |    31.0/   0.0 |"
    assert ingest_text(tmp_path, P + line + "\n")["nccl_tuning"] == []


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NCCL version 2.4.8+cuda10.1", "2.4.8"),
        ("Thu Jun 18 14:28:58 2020[1,0]<stdout>:NCCL version 2.4.8+cuda10.1", "2.4.8"),
        ("\x1b[36mNCCL version 2.4.8+cuda10.1\x1b[0m", "2.4.8"),
        (f"{P}NCCL version 2.30.7+cuda13.0", "2.30.7"),
        (f"{P}RCCL version : 2.27.7-HEAD:0d2c4fd", "2.27.7"),
        (f"{P}RCCL version 2.18.3+hip6.0 HEAD:abc", "2.18.3"),
        ("RuntimeError: NCCL error: unhandled system error, NCCL version 2.4.8", None),
        ("NCCL version 2.4.8+cud", None),
        ("NCCL version 12.28.9+cuda13.0", None),
    ],
)
def test_versions(line, version, tmp_path):
    tables = ingest_text(tmp_path, f"{line}\n{P}Using network IB\n")
    assert json.loads(tables["collection"][0]["detail"])["nccl_version"] == version


def test_processes_with_different_versions(tmp_path):
    text = (
        f"{P}NCCL version 2.20.5+cuda12.1\n{P.replace('70:', '80:')}NCCL version 2.21.5+cuda12.4\n"
    )
    tables = ingest_text(tmp_path, text)
    assert counted(tables["nccl_comms"], "pid", "nccl_version") == {
        (70, "2.20.5"): 1,
        (80, "2.21.5"): 1,
    }
    assert json.loads(tables["collection"][0]["detail"])["nccl_version"] is None


def test_a_communicator_has_one_version(tmp_path):
    text = ""
    for pid, version in ((70, "2.20.5"), (80, "2.21.5")):
        prefix = P.replace("70:", f"{pid}:")
        line = f"comm 0xa{pid} rank {pid // 80} nranks 2 cudaDev 1 commId 0x1 - Init COMPLETE"
        text += f"{prefix}NCCL version {version}+cuda12.1\n{prefix}{line}\n"
    assert counted(ingest_text(tmp_path, text)["nccl_comms"], "nccl_version") == {(None,): 2}


@pytest.mark.parametrize(
    "prefix",
    ["[1,2]<stdout>:", "[3] ", "(RayWorkerWrapper pid=70, ip=10.0.0.1) ", "(WorkerDict pid=9) ",
     "3: ", "2024-05-01T12:00:00.123456789Z ", "INFO 05-01 12:00:00 worker.py:12] ",
     "Thu Jun 18 14:28:58 2020[1,0]<stdout>:", "[2025-01-02 03:04:05] "],
)  # fmt: skip
def test_foreign_prefixes(prefix, tmp_path):
    body = [f"{INIT} busId 60 commId 0x1 - Init COMPLETE"]
    body += [CALL.format(count=count, comm="0xa1", nranks=4) for count in (16, 32)]
    text = "".join(f"{prefix}{P}{line}\n" for line in body)
    tables = ingest_text(tmp_path, text)
    assert [row["bytes"] for row in tables["collectives"]] == [64, 128]
    assert {row["rank"] for row in tables["collectives"]} == {1}
    assert (tables["nccl_comms"][0]["host"], tables["nccl_comms"][0]["pid"]) == ("node", 70)
    assert tables["collection"][0]["unreadable"] == 0


def test_coloured_output(tmp_path):
    """Ray colours what it merges."""
    body = [
        f"{INIT} busId 60 commId 0x1 - Init COMPLETE",
        CALL.format(count=4, comm="0xa1", nranks=4),
    ]
    body += ["8 Bytes -> Algo 0 proto 1 time 54.7", "Channel 00/0 : 1[1] -> 2[2] via P2P/CUMEM"]
    text = "".join(
        f"\x1b[36m(W pid=70)\x1b[0m {P}{line}\x1b[32m [repeated]\x1b[0m\n" for line in body[:2]
    )
    text += "".join(f"\x1b[36m(W pid=70)\x1b[0m {P}{line}\x1b[0m\n" for line in body)
    tables = ingest_text(tmp_path, text)
    assert [row["rank"] for row in tables["collectives"]] == [1, 1]
    assert tables["nccl_comms"][0]["state"] == "complete"
    assert tables["nccl_comms"][0]["transports"] == '{"P2P/CUMEM": 1}'
    assert [row["algo"] for row in tables["nccl_tuning"]] == ["TREE"]


@pytest.mark.parametrize(
    ("op", "bytes_"),
    [
        ("AllReduce", 4),
        ("AllGather", 16),
        ("ReduceScatter", 16),
        ("AlltoAll", 16),
        ("Broadcast", 4),
    ],
)
def test_sizes_follow_nccl_tests(op, bytes_, tmp_path):
    text = P + CALL.format(count=1, comm="0xa1", nranks=4).replace("AllReduce", op) + "\n"
    [call] = ingest_text(tmp_path, text)["collectives"]
    assert (call["bytes"], call["group_size"], call["rank"]) == (bytes_, 4, None)


def test_secrets_reach_nothing(tmp_path):
    text = (
        f"{P}NCCL_NET_PLUGIN_TOKEN set by environment to tops3cret\n"
        "node:70:71 [0] net.cc:1 NCCL WARN cannot log in with token=hf_abcdefghijklmnop\n"
    )
    tables = ingest_text(tmp_path, text)
    stored = json.dumps(dict(tables))
    assert "tops3cret" not in stored
    assert "hf_abcdefghijklmnop" not in stored
    assert "NCCL_NET_PLUGIN_TOKEN" in stored
    assert "cannot log in" in stored


def test_meta_calltrace_is_not_a_call(tmp_path):
    line = "COLLTRACE: opCount 5 AllReduce sendbuff 0x1 recvbuff 0x2 count 3 datatype float"
    tables = ingest_text(tmp_path, f"{P}{line}\n")
    assert tables["collectives"] == []
    assert tables["collection"][0]["unreadable"] == 0


def test_every_kind_of_line_that_may_matter_is_read_by_somebody():
    assert set(KINDS) == set(HANDLERS)


def test_what_gdr_is_for_is_told_apart_from_lists_of_devices(tmp_path):
    said = [
        "NET/IB: [0] mlx5_0:uverbs0:1/IB provider=Mlx5 speed=400000 context=0x7fc0",
        "NET/IB : GPU Direct RDMA Enabled for HCA 0 'mlx5_0'",
        "GPU Direct RDMA Disabled for HCA 1 'mlx5_1' (distance 8 > 5)",
    ]
    (row,) = ingest_text(tmp_path, "".join(f"{P}{text}\n" for text in said))["collection"]
    gdr = {"enabled": ["HCA 0 'mlx5_0'"], "disabled": ["HCA 1 'mlx5_1'"]}
    assert json.loads(row["detail"])["gdr"] == gdr
    assert (row["records"], row["unreadable"]) == (2, 0)
