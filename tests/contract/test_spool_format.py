"""The recorder's own copy of the spool's constants equals the declared format."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import harness_probe as probe
from harness_probe import spool as written
from harness_probe.recorder import head
from harness_probe.spans import FOREIGN_THREAD
from harness_schemas import spool as declared

ROOT = Path(__file__).parents[2]


def test_constants_are_equal():
    for name in (
        "MAGIC",
        "RECORD_BYTES",
        "RECORD_MARKER",
        "LIVE_BYTES",
        "LIVE_MAGIC",
        "LIVE_GROUP_SLOTS",
        "SLOT_SEND",
        "SLOT_RECV",
    ):
        assert getattr(written, name) == getattr(declared, name), name


def test_kinds_are_equal():
    kinds = {
        name: value
        for name, value in vars(sys.modules["harness_probe.recorder"]).items()
        if name.startswith("KIND_")
    }
    assert kinds == {n: v for n, v in vars(declared).items() if re.fullmatch(r"KIND_[A-Z0-9]+", n)}
    assert set(kinds.values()) == set(declared.KINDS)


def test_layouts_are_equal():
    assert written.RECORD.format == f"<{declared.RECORD_WORDS}q"
    assert len(declared.RECORD_FIELDS) == declared.RECORD_WORDS
    assert written.LIVE_HEAD.format == f"<8s{len(declared.LIVE_HEAD_FIELDS)}q"
    room = written.LIVE_HEAD.size + declared.LIVE_GROUP_SLOTS * written.LIVE_SLOT.size
    assert room <= declared.LIVE_BYTES


def test_head_word_is_packed_as_declared():
    word = head(declared.KIND_IO, 77) | FOREIGN_THREAD
    assert word.bit_length() < 64  # never a negative int64
    assert word >> 48 == declared.RECORD_MARKER
    assert (word >> 40 & 0xFF, word >> 32 & 0xFF, word & 0xFFFFFFFF) == (declared.KIND_IO, 1, 77)


def test_a_file_on_disk_is_what_is_declared(tmp_path):
    probe.start(tmp_path, rank=3, world_size=4)
    with probe.unit("decode", step=1), probe.p2p("recv", 2, 64):
        pass
    probe.stop()
    raw = (tmp_path / "rank-00003.spans").read_bytes()
    assert raw[:8] == declared.MAGIC
    assert struct.unpack("<II", raw[8 : declared.HEADER_BYTES]) == (declared.RECORD_BYTES, 0)
    words = struct.iter_unpack(f"<{declared.RECORD_WORDS}q", raw[declared.HEADER_BYTES :])
    received, unit = (dict(zip(declared.RECORD_FIELDS, record, strict=True)) for record in words)
    assert received["parent_id"] == unit["span_id"]
    assert received["group_peer"] & 0xFFFFFFFF == 2 + 1
    assert (received["bytes"], received["ordinal"], received["extra"]) == (64, 0, 0)
    assert (tmp_path / "rank-00003.live").stat().st_size == declared.LIVE_BYTES


def test_every_kind_of_meta_line_that_is_written_is_declared():
    source = "".join(path.read_text() for path in (ROOT / "runners/harness_probe").glob("*.py"))
    kinds = set(re.findall(r"meta\.write\(\s*\"(\w+)\"", source))
    assert kinds == set(declared.META_KINDS)


def test_every_kind_of_meta_line_is_documented():
    page = (ROOT / "docs/spool.md").read_text()
    assert set(declared.META_KINDS) <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
