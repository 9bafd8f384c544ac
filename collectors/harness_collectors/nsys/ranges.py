"""NVTX ranges of a report: their names, which of them only wrap operators, clock marks, payloads.

torch's `emit_nvtx` writes one range an operator, `aten::mm, op_id = 17`: millions of names that
differ in a number. The number is cut off in the bytes, before they become texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.nsys.export import Export
from harness_collectors.nsys.names import EVENT_TYPES, Enumeration, Names, Strings
from harness_collectors.nsys.pages import NULL, Ints, gather
from harness_collectors.nsys.work import ANNOTATION, OP, RANGES, Host

_INTS: Final = ("start", "end", "eventType", "textId", "globalTid", "domainId")
_RANGE_TYPES: Final = (
    "NvtxPushPopRange", "NvtxStartEndRange", "NvtxtPushPopRange", "NvtxtStartEndRange",
)  # fmt: skip
_WORDS: Final = (b"op_id ", b"seq = ")
_REACH: Final = 8
_SUFFIX: Final = re.compile(r", (?:op_id |seq = )")
CLOCK_MARK: Final = re.compile(
    r"harness:clock boot=(?P<boot>[\w-]{1,64}) mono=(?P<mono>\d{1,19}) wall=(?P<wall>\d{1,19})$"
)


@dataclass(frozen=True)
class ClockMark:
    """A moment of the report at which the program itself read its clocks."""

    start: int
    thread: int
    boot_id: str
    monotonic_ns: int
    wall_ns: int


@dataclass
class Ranges:
    """Ranges as host rows, `payload` (binary, NULL: none) beside them, and the clock marks."""

    host: Host
    payload: pa.Array
    clocks: list[ClockMark]


@dataclass
class RawRanges:
    """Events as stored; `text`: code of a text of their own, -1 where it is registered."""

    columns: dict[str, Ints]
    text: Ints
    is_op: np.ndarray
    payload: pa.Array


def read_raw(export: Export, names: Names) -> RawRanges:
    """The NVTX events of a report, a piece at a time: texts are many and mostly the same."""
    ints: dict[str, list[Ints]] = {name: [] for name in _INTS}
    codes, ops, payloads = [], [], []
    wanted = ("text", "binaryData") if "binaryData" in export.columns(RANGES) else ("text",)
    for chunk in export.chunks(RANGES, _INTS, wanted):
        for name in _INTS:
            ints[name].append(chunk.ints[name])
        texts, is_op = cut_suffixes(chunk.texts["text"])
        codes.append(names.codes(texts))
        ops.append(is_op)
        payloads.append(chunk.texts.get("binaryData", pa.nulls(chunk.size, pa.large_binary())))
    empty = np.zeros(0, np.int64)
    return RawRanges(
        {name: np.concatenate([*parts, empty]) for name, parts in ints.items()},
        np.concatenate([*codes, empty]),
        np.concatenate([*ops, empty.astype(np.bool_)]),
        pa.chunked_array(payloads, pa.large_binary()).combine_chunks(),
    )


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
    row, first = np.unique(row[inside], return_index=True)
    size = np.diff(begin)
    size[row] = comma[inside][first] - begin[row]
    is_op[row] = True
    known = texts.is_valid().to_numpy(zero_copy_only=False)
    return gather(bytes_, begin[:-1], np.where(known, size, 0), known), is_op


def resolve(raw: RawRanges, export: Export, strings: Strings, names: Names) -> Ranges:
    """Ranges with their names, and the moments at which programs of ours read their clocks."""
    codes, is_op = _registered(raw, strings, names)
    types = Enumeration(export, EVENT_TYPES)
    kinds = raw.columns["eventType"]
    ends = raw.columns["end"]
    ranges = np.flatnonzero(np.isin(kinds, types.numbers(*_RANGE_TYPES)))
    marks = np.flatnonzero(np.isin(kinds, types.numbers("NvtxMark")))
    # A range still open when the recording ended is given that end, to the nanosecond.
    closing = _capture_end(export)
    ends = np.where(ends == closing, NULL, ends) if closing is not None else ends
    host = Host(
        raw.columns["start"][ranges],
        ends[ranges],
        raw.columns["globalTid"][ranges],
        np.where(is_op[ranges], OP, ANNOTATION),
        np.where(codes[ranges] < 0, names.code("range"), codes[ranges]),
        np.full(len(ranges), NULL),
    )
    payload = raw.payload.take(pa.array(ranges))
    return Ranges(host, payload, _clock_marks(raw, codes, marks, names))


def _registered(raw: RawRanges, strings: Strings, names: Names) -> tuple[Ints, np.ndarray]:
    """Codes and operator flags, registered texts included."""
    rows = np.flatnonzero(raw.text < 0)
    distinct, place = np.unique(raw.columns["textId"][rows], return_inverse=True)
    found = [strings.get(key) for key in distinct.tolist()]
    cut = [None if text is None else _SUFFIX.split(text, 1)[0] for text in found]
    table = np.array([-1 if text is None else names.code(text) for text in cut] or [-1], np.int64)
    ops = np.array([a != b for a, b in zip(found, cut, strict=True)] or [False], np.bool_)
    codes, is_op = raw.text.copy(), raw.is_op.copy()
    codes[rows] = table[place.reshape(-1)]
    is_op[rows] = ops[place.reshape(-1)]
    return codes, is_op


def _capture_end(export: Export) -> int | None:
    for chunk in export.chunks("ANALYSIS_DETAILS", ("duration",)):
        known = chunk.ints["duration"][chunk.ints["duration"] > 0]
        if known.size:
            return int(known[0])
    return None


def _clock_marks(raw: RawRanges, codes: Ints, marks: Ints, names: Names) -> list[ClockMark]:
    matches = {
        code: match for text, code in names.items() if (match := CLOCK_MARK.match(text)) is not None
    }
    found = []
    for row in marks[np.isin(codes[marks], list(matches))].tolist():
        match = matches[int(codes[row])]
        start, thread = (int(raw.columns[name][row]) for name in ("start", "globalTid"))
        clocks = int(match["mono"]), int(match["wall"])
        if max(clocks) < 2**63:
            found.append(ClockMark(start, thread, match["boot"], *clocks))
    return found
