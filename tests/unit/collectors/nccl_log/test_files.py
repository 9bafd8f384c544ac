"""Logs as files: in blocks, packed, cut, full of holes, gone."""

from __future__ import annotations

import gzip
import json

import pytest
from nccl_tables import ingest, ingest_text
from unit.collectors.nccl_log.log_lines import CALL, INIT, P

from harness_collectors.nccl_log.evidence import state as nccl_state
from harness_collectors.nccl_log.pages import stream as nccl_stream
from harness_collectors.nccl_log.pages.stream import Intake


def many_calls(number):
    head = f"{P}{INIT} busId 60 commId 0x1 - Init COMPLETE\n"
    call = P + CALL.format(count="{0}", comm="0xa1", nranks=4) + "\n"
    return (head + "".join(call.format(1 + i % 7) for i in range(number))).encode()


@pytest.mark.parametrize("block", [64, 1000, 4096])
def test_blocks_do_not_show(block, tmp_path, monkeypatch):
    text = many_calls(200)
    whole = ingest_text(tmp_path, text)
    blocks = Intake.blocks
    monkeypatch.setattr(Intake, "blocks", lambda self: blocks(self, block))
    assert ingest_text(tmp_path, text) == whole


def test_calls_beyond_memory_go_to_a_file(tmp_path, monkeypatch):
    text = many_calls(500)
    whole = ingest_text(tmp_path, text)
    blocks, make = Intake.blocks, nccl_state.CallLog.__init__
    monkeypatch.setattr(Intake, "blocks", lambda self: blocks(self, 2000))
    monkeypatch.setattr(nccl_state.CallLog, "__init__", lambda self: make(self, 50))
    assert ingest_text(tmp_path, text) == whole
    assert [row["seq"] for row in whole["collectives"]] == list(range(500))


def test_gzip_in_members_and_cut(tmp_path):
    text = many_calls(400)
    packed = gzip.compress(text[:9000]) + gzip.compress(text[9000:])
    assert len(ingest_text(tmp_path, packed, "a.log.gz")["collectives"]) == 400
    tables = ingest_text(tmp_path, packed[:-50], "b.log.gz")
    assert 0 < len(tables["collectives"]) < 400
    assert tables["collection"][0]["state"] == "degraded"
    assert "gzip stream is cut" in tables["collection"][0]["reason"]


def test_a_gzip_bomb_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(nccl_stream, "FREE_BYTES", 1 << 20)
    bomb = gzip.compress(f"{P}Using network IB\n".encode() + b"\n" * (64 << 20))
    [state] = ingest_text(tmp_path, bomb, "bomb.gz")["collection"]
    assert (state["state"], "not a log" in state["reason"]) == ("degraded", True)
    assert 0 < json.loads(state["detail"])["lines"] < 64 << 20


def test_a_line_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(nccl_stream, "MAX_LINE_BYTES", 1 << 16)
    text = b"x" * (1 << 20) + b"\n" + many_calls(3)
    path = tmp_path / "long.log"
    path.write_bytes(text)
    intake = Intake(path)
    assert b"".join(intake.blocks(4096)) == many_calls(3)
    assert intake.overlong == 1
    assert len(ingest([path])["collectives"]) == 3


def test_a_file_that_is_gone(tmp_path):
    [state] = ingest([tmp_path / "none.log"])["collection"]
    assert (state["state"], state["records"]) == ("failed", 0)
    assert "No such file" in state["reason"]


def test_holes_of_a_file_that_ranks_overwrote(tmp_path):
    text = many_calls(3)
    tables = ingest_text(tmp_path, b"\0" * 5000 + text + b"\0" * 100 + b"\n" + text[:40])
    assert len(tables["collectives"]) == 3
