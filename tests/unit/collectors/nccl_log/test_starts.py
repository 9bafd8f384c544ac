"""Starts of many ranks, read in bulk: however they lie in files, the same comes out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nccl_tables import ingest, ingest_text

from harness_collectors.nccl_log.pages import scan
from harness_collectors.reading import text_evidence
from harness_collectors.reading.text_evidence import undocked

RANKS = 4
EDGE = {"old": "Ring {:02d} :", "new": "Channel {:02d}/0 :"}


def start(rank, edge=EDGE["new"]):
    """What a rank prints while it joins two communicators."""
    prefix = f"gpu-{rank // 2}:{70 + rank}:{70 + rank} [{rank % 2}] NCCL INFO "
    yield prefix + "NCCL version 2.28.9+cuda13.0"
    for number in (1, 2):
        comm = f"comm 0x{number}{rank} rank {rank} nranks {RANKS}"
        init = f"ncclCommInitRank {comm} cudaDev {rank % 2} commId 0x{number} - Init "
        peer = (rank + 1) % RANKS
        yield prefix + "NET/IB : GPU Direct RDMA Enabled for HCA 0 'mlx5_0'"
        yield prefix + "Using network IB"
        yield prefix + init + "START"
        yield prefix + f" 0 : NET/{rank}-0 GPU/{rank} NET/{rank}-0"
        yield prefix + f"Connected to proxy localRank {rank} -> connection 0x7f0{rank}{number}"
        yield prefix.replace(" NCCL INFO ", " 12.5 graph/search.cc:90 NCCL TRACE ") + "GPU 1 -> 3"
        for channel in range(8):
            nic = f"NET/IB/{channel % 2}" + "/GDRDMA" * (channel % 2)
            yield f"{prefix}{edge.format(channel)} {rank}[0] -> {peer}[1] [send] via {nic}"
        yield prefix + "8 coll channels, 8 p2p channels, 2 p2p channels per peer"
        yield prefix + init + "COMPLETE"


def job(edge=EDGE["new"]):
    """Lines of all ranks, by turns."""
    return [line for lines in zip(*(start(rank, edge) for rank in range(RANKS)), strict=True)
            for line in lines]  # fmt: skip


def known(tables):
    """What is learnt besides how long files are."""
    return {name: rows for name, rows in tables.items() if name != "collection"}


@pytest.mark.parametrize("edge", EDGE.values(), ids=EDGE)
def test_every_channel_counts_once(edge, tmp_path):
    rows = ingest_text(tmp_path, "\n".join(job(edge)) + "\n")["nccl_comms"]
    assert [json.loads(row["transports"]) for row in rows] == [
        {"NET/IB": 4, "NET/IB/GDRDMA": 4}
    ] * (2 * RANKS)
    assert [(row["comm_rank"], row["nranks"], row["coll_channels"]) for row in rows] == [
        (rank, RANKS, 8) for rank in range(RANKS) for _ in range(2)
    ]


BEFORE = {
    "kubernetes": "2026-03-07T10:00:00.{:09d}Z stdout F ",
    "ray, in colour": "\x1b[36m(Worker pid={}, ip=10.0.0.1)\x1b[0m ",
    "time and level": "10:00:{:06d} INFO ",
    "odd: a time apart from a word of NCCL's": "{} Using network set to ",
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_what_stands_before_each_line_changes_nothing(before, tmp_path):
    """A hundred different beginnings: NCCL's own prefix is told apart from them."""
    lines = [before.format(number) + line for number, line in enumerate(job())]
    assert known(ingest_text(tmp_path, "\n".join(lines) + "\n")) == known(
        ingest_text(tmp_path, "\n".join(job()) + "\n")
    )


def test_small_files_are_read_together_as_apart(tmp_path, monkeypatch):
    texts = ["\n".join(start(rank)) + "\n" for rank in range(RANKS)]
    texts[1:1] = ["", "no log\n", texts[0].replace("gpu-0", "gpu-9")[:-30]]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.log").write_text(text)
    together = ingest(sorted(tmp_path.iterdir()))
    monkeypatch.setattr(scan, "_TOGETHER_BYTES", 0)
    assert ingest(sorted(tmp_path.iterdir())) == together


def test_where_lines_of_a_channel_differ_the_later_sender_counts(tmp_path):
    p = "h:1:1 [0] NCCL INFO "
    lines = [
        "comm 0xa rank 0 nranks 2 cudaDev 0 commId 0x1 - Init START",
        "Channel 00/0 : 0[0] -> 1[1] [send] via NET/IB/0",
        "Channel 01/0 : 0[0] -> 1[1] [send] via NET/IB/0",
        "Channel 00/0 : 0[0] -> 1[1] via P2P/IPC",
    ]
    [row] = ingest_text(tmp_path, "".join(f"{p}{line}\n" for line in lines))["nccl_comms"]
    assert json.loads(row["transports"]) == {"NET/IB": 1, "P2P/IPC": 1}


PIECES = ("0[0] -> 1[1]", "<0>", "&", "\x1b[36m", "\t", "\\", '"', "\\u003c", "e\u0301", "\n", "")


@given(st.lists(st.tuples(st.lists(st.sampled_from(PIECES)), st.booleans()), min_size=1))
def test_docker_files_come_apart_without_json_as_with_it(texts):
    """Docker escapes what HTML would; most lines have no other escapes."""
    lines = []
    for pieces, is_gos in texts:
        line = json.dumps(
            {"log": "".join(pieces) + "\n", "stream": "stderr", "time": "2026-01-01T00:00:00Z"},
            separators=(",", ":"),
        )
        for sign in "<>&" if is_gos else "":
            line = line.replace(sign, f"\\u00{ord(sign):02x}")
        lines.append(line + "\n")
    said = "".join("".join(pieces) + "\n" for pieces, _ in texts).encode()
    assert text_evidence.DOCKER.match(lines[0].encode())
    assert undocked("".join(lines).encode()) == said
    assert b"".join(undocked(line.encode()) for line in lines) == said
