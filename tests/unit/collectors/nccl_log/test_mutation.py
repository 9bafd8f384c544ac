"""Damaged logs: no exception, no more than the text holds, no version, rank or size made up.

What damage cannot be told from an honest line (a digit of a size that is printed once) is held
against what stands in the damaged text; ranks and versions, which lines repeat, against the truth.
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutations import cuts, doubled, flipped, interleaved_chunks, interleaved_lines, woven
from nccl_tables import ingest_text
from support import ROOT

from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.pages.block import encode
from harness_collectors.nccl_log.pages.stream import Intake

FIXTURES = ROOT / "tests" / "fixtures" / "nccl_log"
ONE = (FIXTURES / "nccl.node-a.4100.log").read_bytes()
TWO = (FIXTURES / "nccl.node-b.5200.log").read_bytes()
PLAIN = re.sub(rb"(?m)^\[[\d.]+\] ", b"", ONE)
OLD = b"".join(
    b"hostA:%d:%d [%d] NCCL INFO %s\n" % (100 + rank, 900 + rank, rank, text)
    for rank in (0, 1)
    for text in (
        b"NCCL version 2.10.3+cuda11.3",
        b"Channel 00 : %d[1000] -> %d[2000] via P2P/IPC/read" % (rank, 1 - rank),
        b"8 coll channels, 8 p2p channels, 1 p2p channels per peer",
        b"comm 0x7f%d0 rank %d nranks 2 cudaDev %d busId %d000 - Init COMPLETE"
        % (rank, rank, rank, rank + 1),
        b"AllReduce: opCount 2 sendbuff 0x1 recvbuff 0x2 count 77 datatype 7 op 0 root 0 "
        b"comm 0x7f%d0 [nranks=2] stream 0x9" % rank,
        b"262144 Bytes -> Algo 0 proto 1 time 54.707825",
    )
)

patient = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SOURCES = pytest.mark.parametrize("source", [ONE, PLAIN, OLD], ids=["stamped", "plain", "old"])


def read(tmp_path, text):
    tables = ingest_text(tmp_path, text)
    bounded_by_the_text(tables, text)
    return tables


def bounded_by_the_text(tables, text):
    """Nothing more than is there."""
    calls = tables["collectives"]
    assert len(calls) <= text.count(b" opCount ")
    assert sum(row["count"] for row in tables["nccl_tuning"]) <= text.count(b" Bytes -> ")
    # Flipped bytes may make a line of a tool that this text had not: an upper bound all the same.
    assert len(tables["nccl_events"]) <= text.count(b"NCCL WARN ") + text.count(b"ProcessGroup")
    detail = json.loads(tables["collection"][0]["detail"])
    assert detail["init_complete"] <= text.count(b"Init COMPLETE")
    numbers = set(map(int, re.findall(rb"\d{1,18}", text)))
    for row in tables["nccl_comms"]:
        assert {row.get("comm_rank"), row.get("nranks")} - {None} <= numbers
        rank, size = row.get("comm_rank"), row.get("nranks")
        assert None in (rank, size) or rank < size
        version = row.get("nccl_version")
        assert version is None or version.encode() in text
    for row in calls:
        assert row["bytes"] is None or any(row["bytes"] % size == 0 for size in (1, 2, 4))


VERSIONS = {"0x7f": "2.10.3", "0x55": "2.28.9"}
"""By how the addresses of their communicators begin."""


def truths(*sources):
    """Ranks, sizes and versions that the undamaged texts hold, by communicator."""
    ranks, versions = {}, set()
    for source in sources:
        for match in re.finditer(rb"comm (0x\w+) rank (\d+) nranks (\d+)", source):
            ranks[match[1].decode()] = (int(match[2]), int(match[3]))
        versions |= {v.decode() for v in re.findall(rb"NCCL version ([\d.]+)\+", source)}
    return ranks, versions


def check_truth(tables, *sources):
    """A rank, a size or a version is the true one, or unknown."""
    ranks, versions = truths(*sources)
    for row in tables["nccl_comms"]:
        if row.get("comm") in ranks:
            rank, size = ranks[row["comm"]]
            assert row["comm_rank"] in (None, rank)
            assert row["nranks"] in (None, size)
        assert row.get("nccl_version") in {None, *versions}
        # Without a rank the address may be another's, and the version the process's own.
        if row.get("comm") in ranks and row["comm_rank"] is not None:
            assert row.get("nccl_version") in (None, VERSIONS[row["comm"][:4]])


def sizes(source):
    return {int(count) for count in re.findall(rb" count (\d+) ", source)}


@SOURCES
@patient
@given(data=st.data())
def test_cut_at_any_byte(source, tmp_path, data):
    text = data.draw(cuts(source))
    tables = read(tmp_path, text)
    check_truth(tables, source)
    whole = text[: text.rfind(b"\n") + 1]
    assert len(tables["collectives"]) >= whole.count(b" stream ")
    elements = {size * width for size in sizes(source) for width in (1, 2, 4, 8)}
    assert {row["bytes"] for row in tables["collectives"]} <= elements


@SOURCES
@patient
@given(data=st.data())
def test_lines_twice(source, tmp_path, data):
    text = data.draw(doubled(source))
    tables = read(tmp_path, text)
    check_truth(tables, source)
    assert len(tables["collectives"]) == text.count(b" stream ")
    assert {row["comm"] for row in tables["nccl_comms"]} - {None} == set(truths(source)[0])
    assert len([row for row in tables["nccl_comms"] if row["comm"]]) == len(truths(source)[0])


@patient
@given(text=interleaved_lines(ONE, TWO))
@example(text=ONE + TWO)
def test_two_logs_line_by_line(tmp_path, text):
    """The order of lines of each process is all that matters."""
    tables = read(tmp_path, text)
    check_truth(tables, ONE, TWO)
    calls = {(r["rank"], r["op"], r["seq"], r["comm_group"]) for r in tables["collectives"]}
    apart = ingest_text(tmp_path, ONE + TWO)
    assert calls == {(r["rank"], r["op"], r["seq"], r["comm_group"]) for r in apart["collectives"]}
    counts = {(r["rank"], r["op"], r["bytes"], r["count"]) for r in tables["nccl_tuning"]}
    assert counts == {(r["rank"], r["op"], r["bytes"], r["count"]) for r in apart["nccl_tuning"]}


@patient
@given(text=interleaved_chunks(ONE, TWO))
def test_two_logs_chunk_by_chunk(tmp_path, text):
    tables = read(tmp_path, text)
    check_truth(tables, ONE, TWO)
    for row in tables["collectives"]:
        assert row["rank"] in (None, 0, 1)


@patient
@given(text=interleaved_chunks(OLD, PLAIN))
@example(text=woven(OLD, PLAIN, [63, 145, 115, 1, 1, 347, 2, 68]))  # tears a prefix off an init
def test_logs_of_two_versions_chunk_by_chunk(tmp_path, text):
    check_truth(read(tmp_path, text), OLD, PLAIN)


def old(text):
    return b"hostA:100:900 [0] NCCL INFO " + text + b"\n"


TORN = (
    # Two lines of one size glued to one of another, beside the pieces that are left of them.
    old(b"comm 0x7f00 rank 0 nranks 16 cudaDev 0 busId 1000 - Init COMPLETE")
    + old(b"comm 0x7f10 rank 1 nranks ")
    + b" cudaDev 1 busId 2000 - Init COMPLETE\n",
    old(b"comm 0x7f00 rank 0 nranks 22 cudaDev 0 busId 1 cudaDev 1 busId 2000 - Init COMPLETE"),
    old(b"comm 0x7f10 raommInit comm 0x7f00 rank 0 nranks 8 cudaDev 0 busId 1 - Init COMPLETE"),
    old(b"comm 0x7f00 rank 0 nranks 20000 count 16 datatype 1 op 0 - Init COMPLETE"),
)


@pytest.mark.parametrize("text", TORN)
def test_what_pieces_of_two_lines_say_is_unknown(text, tmp_path):
    rows = ingest_text(tmp_path, text)["nccl_comms"]
    assert {(row.get("comm_rank"), row.get("nranks")) for row in rows} <= {(None, None)}


def test_a_second_line_of_any_kind_confirms_a_torn_log(tmp_path):
    known = {(0, 16)}
    for more in (
        old(b"Channel 00/02 : 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"),
        old(
            b"AllReduce: opCount 0 sendbuff 0x1 recvbuff 0x2 count 1 datatype 7 op 0 root 0 "
            b"comm 0x7f00 [nranks=16] stream 0x9"
        )
        + old(b"Channel 00/0 : 0[0] -> 1[1] via P2P/IPC"),
    ):
        rows = ingest_text(tmp_path, TORN[0] + more)["nccl_comms"]
        assert {(row["comm_rank"], row["nranks"]) for row in rows if row["comm"]} == known


def test_a_version_that_prints_no_such_lines_is_not_believed(tmp_path):
    """A digit lost from a banner that stands alone."""
    for said in (b"2.8.9+cuda13.0", b"2.1.9+cuda12.0", b"2.2.9+cuda11.0"):
        text = ONE.replace(b"2.28.9+cuda13.0", said)
        versions = {row["nccl_version"] for row in ingest_text(tmp_path, text)["nccl_comms"]}
        assert versions == {None}


@SOURCES
@patient
@given(data=st.data())
def test_flipped_bytes(source, tmp_path, data):
    text = data.draw(flipped(source))
    tables = read(tmp_path, text)
    named = [row["comm"] for row in tables["nccl_comms"] if row["comm"]]
    assert len(named) <= text.count(b"comm 0x")
    assert all(f"comm {pointer} ".encode() in text for pointer in named)


@patient
@given(text=st.binary(max_size=3000))
def test_any_bytes(tmp_path, text):
    read(tmp_path, text)


WORDS = st.sampled_from(
    [
        b"h:1:2 [0] NCCL INFO ",
        b"NCCL WARN ",
        b"AllReduce: opCount 0 sendbuff 0x1 recvbuff 0x2",
        b" count 12 ",
        b"datatype 7 op 0 root 0 comm 0xa [nranks=2] stream 0x1",
        b" Bytes -> Algo RING",
        b" proto LL channel{Lo..Hi}={0..1}",
        b"comm 0xa rank 0 nranks 2 cudaDev 0",
        b" - Init START",
        b" - Init COMPLETE",
        b"parent 0xa color 1 key 0",
        b"commId 0x1 ",
        b"Channel 00/0 : 0[0] -> 1[1] via P2P/IPC",
        b"8 coll channels, 8 p2p channels, 1 p2p channels per peer",
        b"Init timings: rank 0 nranks 2 total 1.00 (",
        b"NCCL version 2.1.2+cuda1.1",
        b"ProcessGroupNCCL.cpp:7] ",
        b"[1700000000.123456] ",
        b"\n",
        b"\r",
        b"\0",
    ]
)


@patient
@given(words=st.lists(WORDS, max_size=60))
def test_any_mixture_of_its_words(tmp_path, words):
    read(tmp_path, b"".join(words))


@patient
@given(text=st.binary(max_size=600), ends=st.lists(st.integers(0, 600), max_size=8))
def test_a_block_comes_apart_and_together(text, ends):
    """Distinct lines and codes are the lines, whatever the bytes."""
    for end in ends:
        text = text[:end] + b"\n" + text[end:]
    block = encode(text)
    expected = text.replace(b"\0", b"\x7f").split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [block.line(place) for place in range(len(block))] == [
        e.rstrip(b"\r\n") for e in expected
    ]


@patient
@given(words=st.lists(WORDS, max_size=30))
def test_records_lie_one_behind_the_other(words):
    line = b"".join(words).replace(b"\n", b"")
    starts = [record.start for record in lines.records(line)]
    assert starts == sorted(set(starts))
    assert len(starts) == len(re.findall(rb"NCCL (?:INFO|WARN) ", line))


def starting(rank):
    """What one of two processes prints while it joins two communicators."""
    prefix = b"hostB:%d:%d [%d] NCCL INFO " % (70 + rank, 70 + rank, rank)
    lines = []
    for number in (1, 2):
        init = b"ncclCommInitRank comm 0x%d%d rank %d nranks 2 cudaDev %d commId 0x%d - Init " % (
            *(number, rank, rank, rank, number),
        )
        lines += [
            b"Using network IB",
            init + b"START",
            b"NET/IB : GPU Direct RDMA Enabled for HCA 0",
        ]
        lines += [b"Channel %02d/02 : 0 1" % channel for channel in range(2)]
        lines += [
            b"Channel %02d/0 : %d[0] -> %d[1] [send] via NET/IB/%d" % (c, rank, 1 - rank, c % 2)
            for c in range(3)
        ]
        lines += [b"Channel 70/1 : %d[0] -> %d[1] via P2P/IPC" % (rank, 1 - rank)]
        lines += [b"2 coll channels, 2 p2p channels, 1 p2p channels per peer", init + b"COMPLETE"]
    return b"".join(prefix + line + b"\n" for line in lines)


@settings(patient, max_examples=30)
@given(text=interleaved_lines(starting(0), starting(1)), stamped=st.booleans())
def test_like_lines_say_the_same_at_once_and_one_by_one(tmp_path, text, stamped):
    """However the lines of processes lie between each other: in a small block none is like it."""
    if stamped:
        text = re.sub(rb"(?m)^(?=.*Channel)", b"[1700000000.123456] ", text)
    at_once = ingest_text(tmp_path, text)
    with pytest.MonkeyPatch.context() as patch:
        blocks = Intake.blocks
        patch.setattr(Intake, "blocks", lambda self: blocks(self, 100))
        assert ingest_text(tmp_path, text) == at_once
    edges = [json.loads(row["transports"]) for row in at_once["nccl_comms"]]
    assert edges == [{"NET/IB": 3, "P2P/IPC": 1}] * 4
