"""Names of one report: texts by id, enumerations, and codes for columns of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness_collectors.nsys.export.layouts import NULL, Ints
from harness_collectors.nsys.export.tables import Export
from harness_schemas.redact import HINT, redact

LONGEST_NAME: Final = 4096
UNNAMED_KERNEL: Final = "unnamed kernel"
_MOST_IDS: Final = 1 << 28
SUFFIX: Final = re.compile(r", (?:op_id |seq = )")
"""Where the numbers begin that torch's `emit_nvtx` appends to the name of an operator."""

COPY_KINDS: Final = "ENUM_CUDA_MEMCPY_OPER"
MEMORY_KINDS: Final = "ENUM_CUDA_MEM_KIND"
EVENT_TYPES: Final = "ENUM_NSYS_EVENT_TYPE"
SEVERITIES: Final = "ENUM_DIAGNOSTIC_SEVERITY_LEVEL"

_DOCUMENTED: Final[Mapping[str, Mapping[int, tuple[str, str]]]] = {
    COPY_KINDS: {
        1: ("CUDA_MEMCPY_KIND_HTOD", "Host-to-Device"),
        2: ("CUDA_MEMCPY_KIND_DTOH", "Device-to-Host"),
        8: ("CUDA_MEMCPY_KIND_DTOD", "Device-to-Device"),
        9: ("CUDA_MEMCPY_KIND_HTOH", "Host-to-Host"),
        10: ("CUDA_MEMCPY_KIND_PTOP", "Peer-to-Peer"),
    },
    MEMORY_KINDS: {
        0: ("CUDA_MEMOPR_MEMORY_KIND_PAGEABLE", "Pageable"),
        1: ("CUDA_MEMOPR_MEMORY_KIND_PINNED", "Pinned"),
        2: ("CUDA_MEMOPR_MEMORY_KIND_DEVICE", "Device"),
    },
    EVENT_TYPES: {
        34: ("NvtxMark", "NvtxMark"),
        59: ("NvtxPushPopRange", "NvtxPushPopRange"),
        60: ("NvtxStartEndRange", "NvtxStartEndRange"),
        70: ("NvtxtPushPopRange", "NvtxtPushPopRange"),
        71: ("NvtxtStartEndRange", "NvtxtStartEndRange"),
        75: ("NvtxDomainCreate", "NvtxDomainCreate"),
    },
}
"""For exports before schema 3, which hold no enumerations: values of NVIDIA's documentation."""


class Names(dict[str, int]):
    """Text to code; codes count up in the order of first appearance. Secrets are masked."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code

    def code(self, text: str, looked_at: bool = False) -> int:
        """The code of a text as it is stored: masked, unless it was `looked_at` and has nothing to
        mask, and no longer than names are."""
        text = text[:LONGEST_NAME]
        return self[text if looked_at else redact(text)]

    def codes(self, texts: pa.Array) -> Ints:
        """Codes of a binary array; -1 for NULL, and for the empty text that stands for it in
        exports whose columns cannot be NULL."""
        encoded = texts.dictionary_encode()
        distinct = encoded.dictionary
        known = [
            self.code(text.decode("utf-8", "replace"), not hit) if text else -1
            for text, hit in zip(distinct.to_pylist(), suspects(distinct), strict=True)
        ]
        table = np.array([*known, -1], np.int64)
        index: Ints = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        return table[index]


def suspects(texts: pa.Array) -> list[bool]:
    """Which texts may hold what `redact` hides: a report may have a name for every request, and
    this asks of a million in the time that redacting takes for some thousands."""
    hits: list[bool] = pc.fill_null(pc.match_substring_regex(texts, HINT), False).to_pylist()
    return hits


class Strings:
    """Texts of a report by id: ids are noted while tables are read, then all texts are fetched
    in one pass, since a report may hold millions of texts that nobody asks for.

    A column of names holds ids (0 and more), or codes that are known already, as `~code`.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._noted: list[Ints] = []
        self._codes = np.zeros(0, np.int32)
        self._operators = np.zeros(0, np.bool_)
        self.texts: dict[int, str] = {}

    def note(self, ids: Ints) -> Ints:
        """Keep in mind which texts are wanted; ids that cannot be any become NULL."""
        sound = (ids >= 0) & (ids < _MOST_IDS)
        kept = ids if sound.all() else np.where(sound, ids, NULL)
        size = int(kept.max(initial=-1)) + 1
        used = np.zeros(size, np.bool_)
        used[kept[kept >= 0]] = True
        self._noted.append(np.flatnonzero(used))
        return kept

    def fetch(self, export: Export) -> None:
        """Get the texts that were noted."""
        wanted = np.unique(np.concatenate([*self._noted, np.zeros(0, np.int64)]))
        if not wanted.size:
            return
        doubtful: set[int] = set()
        for chunk in export.chunks("StringIds", ("id",), ("value",)):
            ids = chunk.ints["id"]
            place = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            rows = np.flatnonzero(wanted[place] == ids)
            if rows.size:
                texts = chunk.texts["value"].take(pa.array(rows))
                for key, text in zip(ids[rows].tolist(), texts.to_pylist(), strict=True):
                    if text:
                        self.texts[key] = text.decode("utf-8", "replace")
                hits = zip(ids[rows].tolist(), suspects(texts), strict=True)
                doubtful.update(key for key, hit in hits if hit)
        self._codes = np.full(int(wanted[-1]) + 1, -1, np.int32)
        self._operators = np.zeros(len(self._codes), np.bool_)
        for key, text in self.texts.items():
            plain = SUFFIX.split(text, 1)[0]
            self._codes[key] = self._names.code(plain, key not in doubtful)
            self._operators[key] = plain != text

    def codes(self, column: Ints, absent: str) -> np.ndarray:
        """Codes of a column of names; what no text is known of is called so."""
        codes = (~column).astype(np.int32)
        asked = np.flatnonzero(column >= 0)
        if asked.size:
            codes[asked] = self._codes[column[asked]]
        if (codes < 0).any():
            codes[codes < 0] = self._names.code(f"unnamed {absent}")
        return codes

    def operators(self, column: Ints) -> np.ndarray:
        """Which of a column's texts are operators that `emit_nvtx` wrote (boolean)."""
        result = np.zeros(len(column), np.bool_)
        asked = np.flatnonzero(column >= 0)
        if asked.size:
            result[asked] = self._operators[column[asked]]
        return result


class Enumeration:
    """One of the export's own ENUM_ tables: symbols and labels by number."""

    def __init__(self, export: Export, table: str) -> None:
        self._entries = dict(_DOCUMENTED.get(table, {}))
        for chunk in export.chunks(table, ("id",), ("name", "label")):
            names, labels = (chunk.texts[n].to_pylist() for n in ("name", "label"))
            for key, name, label in zip(chunk.ints["id"].tolist(), names, labels, strict=True):
                text = (name or b"").decode("utf-8", "replace")
                self._entries[key] = (text, (label or b"").decode("utf-8", "replace") or text)

    def label(self, number: int) -> str | None:
        """What people call it; None: not an entry."""
        entry = self._entries.get(number)
        return entry[1] if entry else None

    def numbers(self, *symbols: str) -> Ints:
        """The numbers of entries whose symbol is one of these."""
        found = [number for number, (name, _) in self._entries.items() if name in symbols]
        return np.array(found, np.int64)


def copy_name(copies: Enumeration, memory: Enumeration, kind: int, src: int, dst: int) -> str:
    """`Memcpy Host-to-Device (Pinned -> Device)`, as far as the numbers are known."""
    name = f"Memcpy {copies.label(kind) or f'kind {kind}'}"
    ends = [memory.label(each) for each in (src, dst)]
    return f"{name} ({ends[0]} -> {ends[1]})" if all(ends) else name
