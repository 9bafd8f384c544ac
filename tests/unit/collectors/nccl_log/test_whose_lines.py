"""Whose lines they are: processes, hosts, communicators and ranks."""

from __future__ import annotations

import json
from pathlib import Path

from nccl_tables import counted, ingest_text
from unit.collectors.nccl_log.log_lines import CALL, INIT, P

from harness_collectors.nccl_log import COLLECTOR


def test_lines_glued_to_each_other_and_to_text(tmp_path):
    call = P + CALL.format(count=16, comm="0xa1", nranks=4)
    text = f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE\n 65536 float -1{call}\n{call}{call}\n"
    tables = ingest_text(tmp_path, text)
    assert counted(tables["collectives"], "rank", "bytes") == {(1, 64): 3}
    assert [row["seq"] for row in tables["collectives"]] == [0, 1, 2]
    assert {row["host"] for row in tables["nccl_comms"]} == {"node"}


def test_what_ray_says_of_repetitions_is_no_part_of_a_line(tmp_path):
    ends = (
        " [repeated 7x across cluster]",
        " [repeated 9x across cluster] (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0)",
    )
    said = (
        f"{INIT} busId 60 commId 0x1 - Init COMPLETE",
        "Channel 00/0 : 1[1] -> 2[2] via P2P/IPC",
    )
    text = "".join(f"(W pid=70) {P}{line}{end}\n" for line, end in zip(said, ends, strict=True))
    [comm] = ingest_text(tmp_path, text)["nccl_comms"]
    assert (comm["state"], comm["transports"]) == ("complete", '{"P2P/IPC": 1}')


def test_the_host_behind_a_progress_bar_and_behind_another_line(tmp_path):
    banner = P + "NCCL version 2.26.2+cuda12.2"
    text = f" 10%|#   | 1/10 [00:01<00:09]{banner}\n"
    other = P.replace("node:70", "node:80")
    text += f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE{other}comm 0xb2 rank 2 nranks 4 "
    text += "cudaDev 2 busId 60 commId 0x1 - Init COMPLETE\n"
    tables = ingest_text(tmp_path, text)
    assert {row["host"] for row in tables["nccl_comms"]} == {"node"}
    assert counted(tables["nccl_comms"], "pid", "state") == {
        (70, "complete"): 1,
        (80, "complete"): 1,
    }


def test_a_banner_that_names_no_version_of_cuda(tmp_path):
    text = "NCCL version 2.7.8+cudaCUDA_MAJOR.CUDA_MINOR\n"
    text += f"{P}{INIT} busId 60 - Init COMPLETE\n"
    tables = ingest_text(tmp_path, text)
    [comm] = tables["nccl_comms"]
    assert comm["nccl_version"] == "2.7.8"
    assert tables["collection"][0]["unreadable"] == 0


def test_a_call_of_another_process_communicator_is_not_believed(tmp_path):
    """As chunks of two files make it: one line's head, another's tail."""
    other = P.replace("node:70", "node:80")
    text = f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE\n"
    text += f"{other}comm 0xb2 rank 2 nranks 4 cudaDev 2 busId 60 commId 0x1 - Init COMPLETE\n"
    text += P + CALL.format(count=16, comm="0xb2", nranks=4) + "\n"
    text += P + CALL.format(count=16, comm="0xa1", nranks=8) + "\n"
    tables = ingest_text(tmp_path, text)
    assert tables["collectives"] == []
    assert tables["collection"][0]["unreadable"] == 2
    assert len(tables["nccl_comms"]) == 2


def test_an_address_used_again_is_another_communicator(tmp_path):
    def life(size, identity):
        head = f"comm 0xa1 rank 0 nranks {size} cudaDev 0 busId 6 commId {identity} - Init "
        call = CALL.format(count=1, comm="0xa1", nranks=size)
        return [head + "START", head + "COMPLETE", call, call]

    end = "comm 0xa1 rank 0 nranks 2 cudaDev 0 busId 6 - Destroy COMPLETE"
    body = [*life(2, "0x1"), end, *life(2, "0x2"), *life(2, "0x3")]
    tables = ingest_text(tmp_path, "".join(f"{P}{line}\n" for line in body))
    assert [row["state"] for row in tables["nccl_comms"]] == ["destroyed", "complete", "complete"]
    assert [row["seq"] for row in tables["collectives"]] == [0, 1, 0, 1, 0, 1]
    assert len({row["comm_group"] for row in tables["collectives"]}) == 3


def test_lines_that_contradict_each_other_make_a_rank_unknown(tmp_path):
    start = "comm 0xa1 rank {} nranks 4 cudaDev 1 busId 60 commId 0x1 - Init {}"
    text = f"{P}{start.format(1, 'START')}\n{P}{start.format(2, 'COMPLETE')}\n"
    [comm] = ingest_text(tmp_path, text)["nccl_comms"]
    assert (comm["comm_rank"], comm["rank"], comm["nranks"]) == (None, None, 4)


def test_two_that_claim_one_rank_have_none(tmp_path):
    line = "comm 0xa1 rank 1 nranks 4 cudaDev 1 busId 60 commId 0x1 - Init COMPLETE"
    text = f"{P}{line}\n{P.replace('70:', '80:')}{line}\n"
    assert counted(ingest_text(tmp_path, text)["nccl_comms"], "comm_rank") == {(None,): 2}


def test_lines_without_a_process_are_of_several_ranks(tmp_path):
    text = (
        "[1] NCCL INFO comm 0xa1 rank 1 nRanks 4 nNodes 1 localRanks 4 localRank 1 MNNVL 0\n"
        "[2] NCCL INFO comm 0xa2 rank 2 nRanks 4 nNodes 1 localRanks 4 localRank 2 MNNVL 0\n"
        "[2] NCCL INFO comm 0xa2 rank 2 nranks 4 cudaDev 2 busId 60 commId 0x1 - Init COMPLETE\n"
    )
    comms = ingest_text(tmp_path, text)["nccl_comms"]
    assert counted(comms, "rank", "comm_rank") == {(None, 1): 1, (2, 2): 1}


def test_what_docker_kept(tmp_path):
    said = [
        P + f"{INIT} busId 60 commId 0x1 - Init COMPLETE\n",
        P + "NCCL version 2.21.5+cuda12.4\n",
    ]
    kept = "".join(json.dumps({"log": line, "stream": "stdout"}) + "\n" for line in said)
    assert COLLECTOR.recognise(Path("x-json.log"), kept.encode())
    assert COLLECTOR.recognise(Path("x.log"), b"{'loss': 0.5}\n" + said[0].encode())
    [comm] = ingest_text(tmp_path, kept)["nccl_comms"]
    assert (comm["host"], comm["rank"], comm["nccl_version"]) == ("node", 1, "2.21.5")


def test_ranks_of_sub_groups_without_a_world_are_unknown(tmp_path):
    text = ""
    for pid, (rank, identity) in enumerate([(0, "0x1"), (1, "0x1"), (0, "0x2"), (1, "0x2")]):
        line = f"comm 0xa{pid} rank {rank} nranks 2 cudaDev 0 busId 6 commId {identity}"
        text += f"n:{pid + 10}:1 [0] NCCL INFO {line} - Init COMPLETE\n"
    comms = ingest_text(tmp_path, text)["nccl_comms"]
    assert counted(comms, "rank", "comm_rank") == {(None, 0): 2, (None, 1): 2}


def test_two_groups_of_all_ranks_agree_on_ranks(tmp_path):
    text = ""
    for pid, rank in ((10, 0), (11, 1)):
        for number in (1, 2):
            line = f"comm 0xa{pid}{number} rank {rank} nranks 2 cudaDev 0 busId 6 commId 0x{number}"
            text += f"n:{pid}:1 [0] NCCL INFO {line} - Init COMPLETE\n"
    comms = ingest_text(tmp_path, text)["nccl_comms"]
    assert counted(comms, "rank", "comm_rank") == {(0, 0): 2, (1, 1): 2}
    assert {json.loads(row["attrs"])["group"] for row in comms} == {"[0,1]#0", "[0,1]#1"}


def test_a_rooted_call_names_its_root(tmp_path):
    call = CALL.format(count=1, comm="0xa1", nranks=4).replace("root 0", "root 2")
    text = f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE\n"
    text += "".join(f"{P}{call.replace('AllReduce', op)}\n" for op in ("Broadcast", "Reduce"))
    calls = ingest_text(tmp_path, text)["collectives"]
    assert [(row["src_rank"], row["dst_rank"]) for row in calls] == [(2, None), (None, 2)]
    assert {row["unsplit_reason"] for row in calls} == {"the log prints calls, not intervals"}


def test_our_own_record_of_ranks_overrides(tmp_path):
    spans = tmp_path / "spans"
    spans.mkdir()
    start = {"t": "start", "rank": 5, "host": "node.cluster", "pid": 70}
    (spans / "rank-00005.meta.jsonl").write_text(json.dumps(start) + "\n")
    text = f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE\n"
    [comm] = ingest_text(tmp_path, text, root=tmp_path, run={"world_size": 8})["nccl_comms"]
    assert (comm["rank"], comm["comm_rank"]) == (5, 1)


def test_a_world_of_another_size_than_the_run_gives_no_ranks(tmp_path):
    text = f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE\n"
    [comm] = ingest_text(tmp_path, text, run={"world_size": 8})["nccl_comms"]
    assert (comm["rank"], comm["comm_rank"]) == (None, 1)
