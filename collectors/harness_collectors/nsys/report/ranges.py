"""NVTX ranges of a report: their names, which of them only wrap operators, clock marks, payloads.

torch's `emit_nvtx` writes one range an operator, `aten::mm, op_id = 17`: millions of names that
differ in a number. The number is cut off in the bytes, before they become texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.nsys.export.layouts import NULL, Ints
from harness_collectors.nsys.export.names import EVENT_TYPES, Enumeration, Names, Strings
from harness_collectors.nsys.export.pages import Chunk, gather
from harness_collectors.nsys.export.tables import Export, large_chunks
from harness_collectors.nsys.report.work import (
    ANNOTATION,
    OP,
    RANGES,
    Host,
    Raw,
    host_rows,
    process_of,
)

_INTS: Final = ("start", "end", "eventType", "textId", "globalTid", "domainId")
_RANGE_TYPES: Final = (
    "NvtxPushPopRange", "NvtxStartEndRange", "NvtxtPushPopRange", "NvtxtStartEndRange",
)  # fmt: skip
_WORDS: Final = (b"op_id ", b"seq = ")
_REACH: Final = 8
_MOST_MARKS: Final = 1 << 20
CLOCK_MARK: Final = re.compile(
    r"harness:clock boot=(?P<boot>[\w-]{1,64}) mono=(?P<mono>\d{1,19}) wall=(?P<wall>\d{1,19})$"
)


@dataclass(frozen=True)
class ClockMark:
    """A moment of the report at which the program itself read its clocks."""

    start: int
    boot_id: str
    monotonic_ns: int
    wall_ns: int


@dataclass
class Payloads:
    """What NCCL's calls carry: by process and place among its ranges the blob; and every call
    as (start, process, name, blob)."""

    rows: dict[int, dict[int, bytes]] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)
    calls: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def add(self, process: int, ranges: Host, blobs: pa.Array | None) -> None:
        """The next ranges of a process, and their blobs (NULL: none)."""
        first = self.counted.get(process, 0)
        self.counted[process] = first + len(ranges)
        if blobs is None or blobs.null_count == len(blobs):
            return
        kept = np.flatnonzero(blobs.is_valid().to_numpy(zero_copy_only=False))
        values = blobs.take(pa.array(kept)).to_pylist()
        places = (kept + first).tolist()
        self.rows.setdefault(process, {}).update(zip(places, values, strict=True))
        starts, names = ranges.start[kept].tolist(), ranges.name[kept].tolist()
        self.calls += zip(starts, [process] * len(kept), names, values, strict=True)


def read_ranges(
    raw: Raw, export: Export, strings: Strings, names: Names
) -> tuple[Payloads, list[tuple[int, int, int]]]:
    """Read the NVTX ranges of a report, a piece at a time: texts are many and mostly the same.

    Returns the payloads, and the marks as (start, process, name).
    """
    types = Enumeration(export, EVENT_TYPES)
    closing = _capture_end(export)
    wanted = ("text", "binaryData") if "binaryData" in export.columns(RANGES) else ("text",)
    payloads = Payloads()
    marks: list[tuple[int, int, int]] = []
    for chunk in large_chunks(export, RANGES, _INTS, wanted):
        texts, is_op = cut_suffixes(chunk.texts["text"])
        own = names.codes(texts)
        name = np.where(own >= 0, ~own, strings.note(chunk.ints["textId"]))
        _add_marks(marks, chunk, types, name)
        keep = np.isin(chunk.ints["eventType"], types.numbers(*_RANGE_TYPES))
        # A range still open when the recording ended is given that end, to the nanosecond.
        end = chunk.ints["end"]
        chunk.ints["end"] = np.where(end == closing, NULL, end) if closing else end
        rows = host_rows(chunk, np.where(is_op, OP, ANNOTATION).astype(np.int8), name)
        for process, mine in raw.split(chunk, "globalTid"):
            kept = np.flatnonzero(keep) if isinstance(mine, slice) else mine[keep[mine]]
            part = rows.take(kept)
            raw.host.setdefault(process, []).append(part)
            blobs = chunk.texts.get("binaryData")
            payloads.add(process, part, None if blobs is None else blobs.take(pa.array(kept)))
    return payloads, marks


def _add_marks(
    marks: list[tuple[int, int, int]], chunk: Chunk, types: Enumeration, name: Ints
) -> None:
    rows = np.flatnonzero(np.isin(chunk.ints["eventType"], types.numbers("NvtxMark")))
    rows = rows[: max(0, _MOST_MARKS - len(marks))]
    process = process_of(chunk.ints["globalTid"][rows]).tolist()
    columns = chunk.ints["start"][rows].tolist(), process, name[rows].tolist()
    marks += zip(*columns, strict=True)


def clock_marks(
    marks: list[tuple[int, int, int]], strings: Strings, names: Names
) -> list[ClockMark]:
    """The moments at which programs of ours read their clocks."""
    codes = strings.codes(np.array([name for _, _, name in marks], np.int64), "mark").tolist()
    listed = list(names)
    found = []
    for (start, _, _), code in zip(marks, codes, strict=True):
        match = CLOCK_MARK.match(listed[code])
        if match is not None and max(int(match["mono"]), int(match["wall"])) < 2**62:
            found.append(ClockMark(start, match["boot"], int(match["mono"]), int(match["wall"])))
    return found


def _capture_end(export: Export) -> int | None:
    for chunk in export.chunks("ANALYSIS_DETAILS", ("duration",)):
        known = chunk.ints["duration"][chunk.ints["duration"] > 0]
        if known.size:
            return int(known[0])
    return None


def cut_suffixes(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Texts without the numbers that `emit_nvtx` appends, and which of them had some."""
    _, offsets, data = texts.buffers()
    is_op = np.zeros(len(texts), np.bool_)
    if data is None or len(texts) == 0:
        return texts, is_op
    begin = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    bytes_ = np.frombuffer(data, np.uint8)
    # A comma and a blank first, then the word; the first one of each text counts.
    comma = np.flatnonzero((bytes_[:-_REACH] == 0x2C) & (bytes_[1 : 1 - _REACH] == 0x20))
    word = bytes_[comma[:, None] + np.arange(2, _REACH)]
    comma = comma[np.any([(word == np.frombuffer(w, np.uint8)).all(1) for w in _WORDS], axis=0)]
    row = np.searchsorted(begin, comma, side="right") - 1
    inside = (row >= 0) & (row < len(texts))
    inside &= comma + _REACH <= begin[np.minimum(row, len(texts) - 1) + 1]
    row, first = np.unique(row[inside], return_index=True)
    size = np.diff(begin)
    size[row] = comma[inside][first] - begin[row]
    is_op[row] = True
    known = texts.is_valid().to_numpy(zero_copy_only=False)
    return gather(bytes_, begin[:-1], np.where(known, size, 0), known), is_op
