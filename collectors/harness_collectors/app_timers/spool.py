"""A rank's files, read as far as they go (docs/spool.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_collectors.app_timers.meta_lines import is_plausible_id, is_sound
from harness_schemas import spool

if TYPE_CHECKING:
    import numpy as np

SOURCE = "app_timers"
GRAPH_SOURCE = "graph_events"
"""Evidence of external events inside CUDA graphs."""
CHUNK_RECORDS = 1 << 18
"""Records decoded at once: about 100 MB of Arrow columns, whatever the file's size."""


@dataclass
class RankMeta:
    """What a rank's meta file says, by kind of line. Ids index the definitions."""

    rank: int
    start: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    descriptors: dict[int, dict[str, Any]] = field(default_factory=dict)
    units: dict[int, dict[str, Any]] = field(default_factory=dict)
    groups: dict[int, dict[str, Any]] = field(default_factory=dict)
    attrs: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    unreadable: int = 0

    @property
    def host(self) -> str | None:
        """Host name."""
        return self.start.get("host")

    def group_name(self, group_id: int) -> str | None:
        """`[0,1]#0`: ordered global ranks and creation ordinal; None where undefined."""
        group = self.groups.get(group_id)
        if group is None:
            return None
        return f"[{','.join(map(str, group['ranks']))}]#{group['ordinal']}"

    def group_ranks(self, group_id: int) -> list[int]:
        """Global ranks of a group."""
        return list(self.groups.get(group_id, {}).get("ranks", ()))


_DEFINITIONS = {"desc": "descriptors", "unit": "units", "group": "groups", "attrs": "attrs"}


CLOCK_KINDS = tuple(b'{"t":"%s"' % kind for kind in (b"start", b"anchor", b"clock", b"device"))


def read_meta(path: Path, only: tuple[bytes, ...] = ()) -> RankMeta:
    """Read a meta file as far as it goes; lines that are no JSON objects are counted.

    `only`: beginnings of the lines wanted; all others are passed over.
    """
    meta = RankMeta(rank=_rank_of(path))
    with path.open("rb") as stream:
        for line in stream:
            if not line.strip() or (only and not line.startswith(only)):
                continue
            try:
                row = json.loads(line)
                if b"\\ud" in line:  # half a character, which no table can hold
                    json.dumps(row, ensure_ascii=False).encode()
                _place(meta, row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                meta.unreadable += 1
    return meta


def _place(meta: RankMeta, row: dict[str, Any]) -> None:
    kind = row.pop("t")
    if not is_sound(kind, row):
        raise ValueError(kind)
    if kind in _DEFINITIONS:
        known = getattr(meta, _DEFINITIONS[kind])
        if not is_plausible_id(row["id"], len(known)):
            raise ValueError(kind)
        known[row["id"]] = row
    elif kind == "start":
        meta.start = row
        meta.rank = int(row["rank"])
    elif kind == "fact":
        meta.facts.update(row)
    elif kind == "end":
        meta.end = row
    else:
        meta.rows.setdefault(kind, []).append(row)


def _rank_of(path: Path) -> int:
    digits = path.name.removeprefix("rank-").split(".")[0]
    return int(digits) if digits.isdigit() else -1


@dataclass(frozen=True)
class SpoolFile:
    """Where a rank's records are, and what of the file could not be used."""

    path: Path
    records: int
    torn_bytes: int
    readable: bool


def survey_spans(path: Path) -> SpoolFile:
    """Size up a span file without reading it: header, whole records, bytes after the last."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = stream.read(spool.HEADER_BYTES)
    except OSError:
        return SpoolFile(path, 0, 0, readable=False)
    if len(header) < spool.HEADER_BYTES or not header.startswith(spool.MAGIC):
        return SpoolFile(path, 0, size, readable=False)
    body = size - spool.HEADER_BYTES
    return SpoolFile(path, body // spool.RECORD_BYTES, body % spool.RECORD_BYTES, readable=True)


def read_records(file: SpoolFile) -> Iterator[np.ndarray]:
    """Records in chunks, shape (n, RECORD_WORDS) int64; those without the marker are dropped."""
    import numpy as np

    with file.path.open("rb") as stream:
        stream.seek(spool.HEADER_BYTES)
        left = file.records
        while left > 0:
            count = min(left, CHUNK_RECORDS)
            data = np.fromfile(stream, dtype="<i8", count=count * spool.RECORD_WORDS)
            left -= count
            table = data[: len(data) // spool.RECORD_WORDS * spool.RECORD_WORDS]
            table = table.reshape(-1, spool.RECORD_WORDS)
            sound = (table[:, 0] >> 48) == spool.RECORD_MARKER
            sound &= table[:, 5] >= table[:, 4]
            yield table[sound]
