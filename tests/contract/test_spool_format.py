"""The recorder's own copy of the spool's constants equals the declared format."""

from __future__ import annotations

import gzip
import re
import struct
import sys
import zlib
from pathlib import Path

import harness_probe as probe
from harness_probe import live
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
        "LAYOUT_PLANES",
        "BLOCK_RECORDS",
    ):
        assert getattr(written, name) == getattr(declared, name), name
    for name in (
        "LIVE_BYTES",
        "LIVE_MAGIC",
        "LIVE_GROUP_SLOTS",
        "LIVE_UNIT_AT",
        "LIVE_PREFILL_AT",
        "LIVE_RECORDED_AT",
        "SLOT_SEND",
        "SLOT_RECV",
    ):
        assert getattr(live, name) == getattr(declared, name), name
    assert live.UNSET == declared.LIVE_UNSET


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
    assert written.BLOCK_HEAD.format == declared.BLOCK_HEAD
    assert live.LIVE_HEAD.format == f"<8s{len(declared.LIVE_HEAD_FIELDS)}q"
    assert live.LIVE_UNIT.format == declared.LIVE_UNIT
    room = live.LIVE_HEAD.size + declared.LIVE_GROUP_SLOTS * live.LIVE_SLOT.size
    places = [room, declared.LIVE_UNIT_AT, declared.LIVE_UNIT_AT + live.LIVE_UNIT.size]
    places += [declared.LIVE_PREFILL_AT, declared.LIVE_RECORDED_AT, declared.LIVE_BYTES]
    assert places == sorted(places), "nothing overlaps"


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
    raw = gzip.decompress((tmp_path / "rank-00003.spans.gz").read_bytes())
    header, block = raw[: declared.HEADER_BYTES], raw[declared.HEADER_BYTES :]
    sizes = struct.pack("<II", declared.RECORD_BYTES, declared.LAYOUT_PLANES)
    assert header == declared.MAGIC + sizes
    size = struct.calcsize(declared.BLOCK_HEAD)
    count, crc = struct.unpack(declared.BLOCK_HEAD, block[:size])
    planes = block[size:]
    assert (count, crc) == (2, zlib.crc32(planes))
    records = b"".join(planes[number::count] for number in range(count))
    words = struct.iter_unpack(f"<{declared.RECORD_WORDS}q", records)
    received, unit = (dict(zip(declared.RECORD_FIELDS, record, strict=True)) for record in words)
    assert received["parent_id"] == unit["span_id"]
    assert received["group_peer"] & 0xFFFFFFFF == 2 + 1
    assert (received["bytes"], received["ordinal"], received["extra"]) == (64, 0, 0)
    assert (tmp_path / "rank-00003.live").stat().st_size == declared.LIVE_BYTES


def test_every_kind_of_meta_line_that_is_written_is_declared():
    source = "".join(path.read_text() for path in (ROOT / "runners/harness_probe").glob("*.py"))
    call = r"\b{}\.write\(\s*\"(\w+)\""
    kinds = {file: set(re.findall(call.format(file), source)) for file in ("meta", "units")}
    assert kinds["meta"] | kinds["units"] == set(declared.META_KINDS)
    assert kinds["units"] == set(declared.FREQUENT_KINDS) and not kinds["meta"] & kinds["units"]


def test_every_kind_of_meta_line_is_documented():
    page = (ROOT / "docs/spool.md").read_text()
    kinds = dict(re.findall(r"^\| `(\w+)` (\\\* )?\|", page, re.MULTILINE))
    assert set(declared.META_KINDS) <= set(kinds)
    assert {kind for kind, star in kinds.items() if star} == set(declared.FREQUENT_KINDS)
