"""The matrix that `nvidia-smi topo -m` (and `-p2p`) prints.

A header of device names, a row a device, cells separated by blanks; newer versions underline the
header by escape sequences and add affinities, and some forget a tab behind every eighth column
(nvidia-smi 450 to 580).
"""

from __future__ import annotations

import re
from typing import Any, Final

from harness_schemas.log_prefix import without_prefixes

_DEVICE = re.compile(r"(?:GPU|NIC)\d{1,3}|(?:mlx|bnxt_re|efa|irdma|hfi|rdma)\w{1,20}")
_LINK = re.compile(r"NV(\d{1,3})|SYS|NODE|PHB|PXB|PIX|PSB|SOC")
_ACCESS: Final = {
    "OK": "ok",
    "CNS": "chipset not supported",
    "GNS": "GPU not supported",
    "TNS": "topology not supported",
    "NS": "not supported",
    "DR": "disabled by regkey",
    "U": "unknown",
}
_GLUED = re.compile(r"(?:GPU|NIC)\d{1,3}|CPU|" + _LINK.pattern)
_CPUS = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*")
_NIC_NAME = re.compile(r"^\s*(NIC\d+): (\S+)\s*$", re.MULTILINE)
_FIRST_ROW = re.compile(r"^\s*GPU0[ \t]+X[ \t\r\n]", re.MULTILINE)


def is_matrix(text: str) -> bool:
    """Whether text begins with such a matrix."""
    return _FIRST_ROW.search(without_prefixes(text[:8192])) is not None


def read_matrix(text: str) -> tuple[list[dict[str, Any]], int]:
    """Rows of `topology`, and the number of lines that are no whole row of the matrix."""
    plain = without_prefixes(text)
    adapters = dict(_NIC_NAME.findall(plain))
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for line in plain.splitlines():
        words = [part for word in line.split() for part in _parts(word)]
        if not words or not _DEVICE.fullmatch(words[0]):
            if columns and rows and not words:
                break  # what follows is the legend
            continue
        if len(words) > 1 and (_DEVICE.fullmatch(words[1]) or words[1] == "CPU"):
            columns = [word for word in words if _DEVICE.fullmatch(word)]
            continue
        found, whole = _row(words, columns, adapters)
        rows += found
        unreadable += not whole
    return rows, unreadable


def _parts(word: str) -> list[str]:
    """A word, or the names or links that lack the tab between them."""
    parts = [match[0] for match in _GLUED.finditer(word)]
    return parts if len(parts) > 1 and "".join(parts) == word else [word]


def _row(
    words: list[str], columns: list[str], adapters: dict[str, str]
) -> tuple[list[dict[str, Any]], bool]:
    """The links of one device. A row whose own place does not hold the X is not believed."""
    name, cells = words[0], words[1 : 1 + len(columns)]
    own = columns.index(name) if name in columns else -1
    if own < 0 or len(cells) < len(columns) or cells[own] != "X":
        return [], False
    cpus, numa = _affinity(words[1 + len(columns) :])
    rows = []
    for other, cell in zip(columns, cells, strict=True):
        link = _LINK.fullmatch(cell)
        if other == name or not (link or cell in _ACCESS):
            continue
        row: dict[str, Any] = {"a": adapters.get(name, name), "b": adapters.get(other, other)}
        if link:
            row |= {"link": cell, "lanes": int(link[1]) if link[1] else None}
        else:
            row["state"] = _ACCESS[cell]
        rows.append({**row, "cpus": cpus, "numa": numa})
    known = all(cell == "X" or _LINK.fullmatch(cell) or cell in _ACCESS for cell in cells)
    return rows, known


def _affinity(rest: list[str]) -> tuple[str | None, str | None]:
    cpus = rest[0] if rest and _CPUS.fullmatch(rest[0]) else None
    numa = rest[1] if cpus and len(rest) > 1 and _CPUS.fullmatch(rest[1]) else None
    return cpus, numa
