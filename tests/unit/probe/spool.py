"""Reads a rank's spool as plainly as possible: the tests' own reader."""

from __future__ import annotations

import json
import struct
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
    raw = stem.with_suffix(".spans").read_bytes()
    assert raw[:8] == b"HPSPAN01"
    assert struct.unpack("<II", raw[8:16]) == (96, 0)
    body = raw[16 : len(raw) - (len(raw) - 16) % 96]
    records = [
        SimpleNamespace(**dict(zip(FIELDS, words, strict=True)))
        for words in struct.iter_unpack("<12q", body)
    ]
    meta, torn = [], 0
    for line in stem.with_suffix(".meta.jsonl").read_bytes().split(b"\n"):
        try:
            meta.append(json.loads(line) if line else None)
        except ValueError:
            torn += 1
    meta = [line for line in meta if line]
    names = {line["id"]: line["name"] for line in meta if line["t"] == "desc"}
    for record in records:
        assert record.head >> 48 == 0x5A5A
        record.kind = record.head >> 40 & 0xFF
        record.thread = record.head >> 32 & 0xFF
        record.name = names.get(record.head & 0xFFFFFFFF)
    return SimpleNamespace(records=records, meta=meta, torn=torn, live=read_live(stem))


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
    live.groups = [struct.unpack_from("<3q", page, 88 + 24 * i) for i in range(live.slots)]
    return live


def lines(spool, kind):
    """Meta lines of one kind."""
    return [line for line in spool.meta if line["t"] == kind]
