"""Names of one report: texts by id, enumerations, and codes for columns of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.nsys.export import Export
from harness_collectors.nsys.pages import NULL, Ints
from harness_schemas.redact import redact

LONGEST_NAME: Final = 4096

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

    def code(self, text: str) -> int:
        """The code of a text as it is stored: masked, and no longer than names are."""
        return self[redact(text[:LONGEST_NAME])]

    def codes(self, texts: pa.Array) -> Ints:
        """Codes of a binary array; -1 for NULL."""
        encoded = texts.dictionary_encode()
        known = [self.code(v.decode("utf-8", "replace")) for v in encoded.dictionary.to_pylist()]
        table = np.array([*known, -1], np.int64)
        index: Ints = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        return table[index]


class Strings:
    """Texts of a report that were asked for, by id: one pass over the table for all of them."""

    def __init__(self, export: Export, ids: Ints) -> None:
        self._texts: dict[int, str] = {}
        wanted = np.unique(ids[ids != NULL])
        if not wanted.size:
            return
        for chunk in export.chunks("StringIds", ("id",), ("value",)):
            rows = np.flatnonzero(np.isin(chunk.ints["id"], wanted))
            if rows.size:
                texts = chunk.texts["value"].take(pa.array(rows)).to_pylist()
                found = zip(chunk.ints["id"][rows].tolist(), texts, strict=True)
                self._texts.update(
                    (key, text.decode("utf-8", "replace")) for key, text in found if text
                )

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: int) -> str | None:
        """One text; None: not asked for, not there, or empty."""
        return self._texts.get(key)

    def codes(self, ids: Ints, names: Names, absent: str) -> Ints:
        """Codes of the texts of ids; an unknown id is named after `absent`, NULL is -1."""
        distinct, place = np.unique(ids, return_inverse=True)
        codes = [
            -1 if key == NULL else names.code(self._texts.get(key) or f"{absent} {key}")
            for key in distinct.tolist()
        ]
        return np.array(codes or [-1], np.int64)[place.reshape(-1)]


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
