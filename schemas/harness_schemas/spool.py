"""The spool: what a rank writes while it runs, and what ingest reads.

The writer is `harness_probe`, which imports nothing of ours, so it holds its own copy of these
constants; `tests/contract/test_spool_format.py` keeps the two equal. Prose: docs/spool.md.

A rank owns four files under `spans/`:

`rank-00003.spans.gz`
    One gzip stream: a 16-byte header (`MAGIC`, the record size and the layout as uint32), then
    blocks of records of twelve little-endian int64, a byte plane after the other. All that was
    flushed can be inflated wherever the file ends.
`rank-00003.units.jsonl.gz`
    One gzip stream of JSON objects, one a line, `t` names its kind: `FREQUENT_KINDS`. A line that
    defines an id is written before any record that uses it.
`rank-00003.meta.jsonl`
    Lines of all other kinds, as they are and at once.
`rank-00003.live`
    4 KiB, mapped by the rank and rewritten in place: what the rank is doing now. The entry of
    a collective is stored here before the call is made, so that a rank that hangs or is killed
    inside it shows what was pending.

Recordings of before 2026-11-21 hold plain records in `rank-00003.spans` and all lines in
`rank-00003.meta.jsonl`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

META: Final = ".meta.jsonl"
RECORDS: Final = ".spans.gz"
PLAIN_RECORDS: Final = ".spans"
UNITS: Final = ".units.jsonl.gz"
LIVE: Final = ".live"

MAGIC: Final = b"HPSPAN01"
HEADER_BYTES: Final = 16
LAYOUT_PLAIN: Final = 0
LAYOUT_PLANES: Final = 1
BLOCK_HEAD: Final = "<2I"
"""Of a block of planes: how many records, and the CRC-32 of the planes."""
BLOCK_RECORDS: Final = 512
"""Records in a block at most."""
SYNC: Final = b"\0\0\xff\xff"
"""How what was flushed of a gzip stream ends, but for the stream's own end."""
RECORD_WORDS: Final = 12
RECORD_BYTES: Final = RECORD_WORDS * 8
RECORD_FIELDS: Final = (
    "head",  # marker (16 bits) | kind (8) | thread (8) | descriptor id (32)
    "span_id",  # counts from 1 in this rank
    "parent_id",  # 0: none
    "unit_id",  # 0: none; defined by a meta line of kind `unit`
    "start_ns",  # CLOCK_MONOTONIC; device timeline: the device's own clock (meta lines `clock`)
    "end_ns",
    "cpu_start_ns",  # CLOCK_THREAD_CPUTIME_ID of the recording thread; -1: not taken.
    "cpu_end_ns",  # Device timeline: begin and return of the host's call (CLOCK_MONOTONIC)
    "bytes",  # -1: not known
    "group_peer",  # group id (high 32 bits) | peer's global rank + 1 (low 32 bits)
    "ordinal",  # of this op in its group, or of this pair; -1: none
    "extra",  # attrs id, 0: none; collective and p2p: when the call was enqueued, 0: at start_ns
)
RECORD_MARKER: Final = 0x5A5A

KIND_SPAN: Final = 1
KIND_UNIT: Final = 2
KIND_COLLECTIVE: Final = 3
KIND_P2P: Final = 4
KIND_IO: Final = 5
KIND_DEVICE: Final = 6
KINDS: Final = {
    KIND_SPAN: "span",
    KIND_UNIT: "unit",
    KIND_COLLECTIVE: "collective",
    KIND_P2P: "p2p",
    KIND_IO: "io",
    KIND_DEVICE: "device",
}

LIVE_BYTES: Final = 4096
LIVE_MAGIC: Final = b"HPLIVE01"
LIVE_HEAD_FIELDS: Final = (
    "pid",
    "updated_ns",
    "unit_id",
    "pending_descriptor",  # 0: nothing pending
    "pending_group_peer",
    "pending_ordinal",
    "pending_start_ns",
    "pending_bytes",
    "entered",  # collectives and point-to-point calls entered so far
    "group_slots",
)
LIVE_GROUP_SLOTS: Final = 64
"""After the head: `group_slots` triples (slot, last ordinal entered, last ordinal left)."""
LIVE_UNIT_AT: Final = 2048
LIVE_UNIT: Final = "<7q16s72s"
LIVE_UNIT_FIELDS: Final = (
    *("unit_id", "start_ns", "step", "batch", "microbatch", "repeat", "warmup"),
    *("phase", "perturbed_by"),  # ASCII, filled up with zero bytes
)
LIVE_UNSET: Final = -(1 << 63)
"""In place of a part of the key of work that the unit does not have."""
LIVE_PREFILL_AT: Final = 2304
LIVE_RECORDED_AT: Final = 2312
SLOT_SEND: Final = 1 << 31
SLOT_RECV: Final = 1 << 30
PEER_MASK: Final = SLOT_RECV - 1
"""A slot is a group id (high 32 bits); of messages also the direction and the peer's rank + 1."""

META_KINDS: Final = (
    "start",
    "desc",
    "unit",
    "group",
    "attrs",
    "anchor",
    "fact",
    "batch",
    "request",
    "tokens",
    "step",
    "sample",
    "clock",
    "collection",
    "device",
    "device_end",
    "graph",
    "graph_clock",
    "stamps",
    "error",
    "end",
)
FREQUENT_KINDS: Final = ("unit", "attrs", "batch", "request", "tokens", "step", "sample")


def beside(file: Path, *kinds: str) -> Path:
    """The first file of these kinds (`META`, `RECORDS` ...) of the rank with this file that exists,
    else what the first would be called."""
    stem = _stem(file)
    named = [file.with_name(stem + kind) for kind in kinds]
    return next((path for path in named if path.exists()), named[0])


def rank_of(file: Path) -> int | None:
    """The rank with this file, `rank-00003.meta.jsonl` or any other of its files."""
    digits = file.name.removeprefix("rank-").split(".")[0]
    return int(digits) if digits.isdigit() else None


def records_size(file: Path) -> int:
    """Bytes of the records of the rank with this file, compressed or not; they only grow."""
    stem = _stem(file)
    for kind in (RECORDS, PLAIN_RECORDS):
        with contextlib.suppress(OSError):
            return file.with_name(stem + kind).stat().st_size
    return 0


def _stem(file: Path) -> str:
    kinds = (META, RECORDS, PLAIN_RECORDS, UNITS, LIVE)
    return next((file.name.removesuffix(k) for k in kinds if file.name.endswith(k)), file.name)
