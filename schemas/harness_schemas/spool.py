"""The spool: what a rank writes while it runs, and what ingest reads.

The writer is `harness_probe`, which imports nothing of ours, so it holds its own copy of these
constants; `tests/contract/test_spool_format.py` keeps the two equal. Prose: docs/spool.md.

A rank owns three files under `spans/`:

`rank-00003.spans`
    A 16-byte header (`MAGIC`, then the record size as uint32 and four zero bytes), then
    fixed-width records of twelve little-endian int64. A record is complete or, at the very end
    of a killed rank's file, cut: the rest after the last whole record is dropped and counted.
`rank-00003.meta.jsonl`
    One JSON object a line, `t` names its kind: everything that is rare or made of text. A line
    that defines an id is written before any record that uses it.
`rank-00003.live`
    4 KiB, mapped by the rank and rewritten in place: what the rank is doing now. The entry of
    a collective is stored here before the call is made, so that a rank that hangs or is killed
    inside it shows what was pending.
"""

from __future__ import annotations

from typing import Final

MAGIC: Final = b"HPSPAN01"
HEADER_BYTES: Final = 16
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
