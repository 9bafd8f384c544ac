"""Reads a rank's spool as plainly as possible: the tests' own reader."""

from __future__ import annotations

import json
import struct
import zlib
from types import SimpleNamespace

FIELDS = [
    "head",
    "span_id",
    "parent_id",
    "unit_id",
    "start_ns",
    "end_ns",
    "cpu_start_ns",
    "cpu_end_ns",
    "bytes",
    "group_peer",
    "ordinal",
    "extra",
]


def read(folder, rank=0):
    """Records, meta lines by kind, and descriptors by id of one rank."""
    stem = folder / f"rank-{rank:05d}"
    records = [
        SimpleNamespace(**dict(zip(FIELDS, words, strict=True)))
        for words in struct.iter_unpack("<12q", records_in(inflated(stem, ".spans.gz")))
    ]
    meta, torn = read_lines(stem)
    names = {line["id"]: line["name"] for line in meta if line["t"] == "desc"}
    for record in records:
        assert record.head >> 48 == 0x5A5A
        record.kind = record.head >> 40 & 0xFF
        record.thread = record.head >> 32 & 0xFF
        record.name = names.get(record.head & 0xFFFFFFFF)
    return SimpleNamespace(records=records, meta=meta, torn=torn, live=read_live(stem))


def inflated(stem, suffix):
    """What a gzip stream holds so far."""
    return zlib.decompressobj(wbits=31).decompress(stem.with_suffix(suffix).read_bytes())


def records_in(raw):
    """Records out of their blocks of byte planes; the last block may be cut."""
    assert raw[:16] == b"HPSPAN01" + struct.pack("<II", 96, 1)
    place, records = 16, bytearray()
    while place + 8 <= len(raw):
        count, crc = struct.unpack_from("<II", raw, place)
        planes = raw[place + 8 : place + 8 + 96 * count]
        if len(planes) < 96 * count:
            break
        assert zlib.crc32(planes) == crc
        for number in range(count):
            records += planes[number::count]
        place += 8 + 96 * count
    return bytes(records)


def read_lines(stem):
    """Meta lines, rare ones first, and how many are none."""
    meta, torn = [], 0
    rare = stem.with_suffix(".meta.jsonl").read_bytes()
    for line in rare.split(b"\n") + inflated(stem, ".units.jsonl.gz").split(b"\n"):
        try:
            meta += [json.loads(line)] if line else []
        except ValueError:
            torn += 1
    return meta, torn


def rows(folder, kind, rank=0):
    """Meta lines of one kind."""
    return [row for row in read_lines(folder / f"rank-{rank:05d}")[0] if row["t"] == kind]


def read_live(stem):
    """The head of the live page, and its group slots."""
    page = stem.with_suffix(".live").read_bytes()
    names = [
        "pid",
        "updated_ns",
        "unit_id",
        "pending",
        "group_peer",
        "ordinal",
        "start_ns",
        "bytes",
        "entered",
        "slots",
    ]
    magic, *words = struct.unpack_from("<8s10q", page)
    assert magic == b"HPLIVE01"
    live = SimpleNamespace(**dict(zip(names, words, strict=True)))
    key = struct.unpack_from("<7q16s72s", page, 2048)
    names = [
        "unit_id",
        "start_ns",
        "step",
        "batch",
        "microbatch",
        "repeat",
        "warmup",
        "phase",
        "by",
    ]
    live.unit = SimpleNamespace(**dict(zip(names, key, strict=True)))
    live.prefill_ns, live.recorded_ns = struct.unpack_from("<2q", page, 2304)
    live.groups = [struct.unpack_from("<3q", page, 88 + 24 * i) for i in range(live.slots)]
    return live


def lines(spool, kind):
    """Meta lines of one kind."""
    return [line for line in spool.meta if line["t"] == kind]
