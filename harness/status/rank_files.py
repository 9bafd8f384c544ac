"""A rank's page and rare lines: what it is doing, and when it last did something.

However long the run, a rank costs one page, the ends of one file and, where a definition is in
neither end, one search. Torn files are read as far as they go. The compressed files are not read;
of older recordings, whose pages say less, the ends of the plain ones are.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness_schemas import spool
from harness_schemas.live import LivePage, read_page

HEAD_BYTES = 48 << 10
TAIL_BYTES = 16 << 10
MOST_BYTES = 64 << 20
"""Of a meta file that is larger, definitions beyond both ends stay unknown."""
TAIL_RECORDS = 64
_RECORD = struct.Struct(f"<{spool.RECORD_WORDS}q")
_HOST_KINDS = (spool.KIND_SPAN, spool.KIND_UNIT, spool.KIND_IO)
"""Records whose times are the host's; those of calls may be the device's, and the page has them."""


@dataclass(frozen=True)
class RankFiles:
    """What a rank's files say. Times are CLOCK_MONOTONIC of its host; None: not known.

    `to_wall_ns` added to such a time gives Unix time. `groups` and `descriptors` hold what the
    page refers to. `last_record_ns`: end of the newest host span. `collection`: what it said of the
    collectors inside it. `end`: it closed its spool; `error`: it said why it is about to end.
    `first_step_ns`: begin of its first prefill.
    """

    rank: int
    start: dict[str, Any] = field(default_factory=dict)
    began_ns: int | None = None
    page: LivePage | None = None
    unit: dict[str, Any] = field(default_factory=dict)
    groups: dict[int, dict[str, Any]] = field(default_factory=dict)
    descriptors: dict[int, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    collection: tuple[dict[str, Any], ...] = ()
    to_wall_ns: int | None = None
    last_record_ns: int | None = None
    first_step_ns: int | None = None
    end: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def moved_ns(self) -> int | None:
        """When it last recorded something: its page, or a span that has ended since."""
        known = (self.page.updated_ns if self.page else None, self.last_record_ns)
        return max((value for value in known if value), default=self.began_ns)


def read_rank(spans: Path, rank: int) -> RankFiles:
    """Everything that status needs of a rank. Never raises on what the files hold."""
    stem = f"rank-{rank:05d}"
    page = read_page(spans / f"{stem}.live")
    recorded = page.recorded_ns if page else None
    if recorded is None:
        recorded = last_host_record(spans / (stem + spool.PLAIN_RECORDS))
    with contextlib.suppress(OSError), MetaEnds(spans / (stem + spool.META)) as meta:
        return _joined(rank, page, meta, recorded)
    return RankFiles(rank, page=page)


def _joined(rank: int, page: LivePage | None, meta: MetaEnds, record_ns: int | None) -> RankFiles:
    anchor = meta.last("anchor") or {}
    mono, wall = anchor.get("mono_ns"), anchor.get("wall_ns")
    began = (meta.first("anchor") or {}).get("mono_ns")
    groups: dict[int, dict[str, Any]] = {}
    descriptors: dict[int, dict[str, Any]] = {}
    unit: dict[str, Any] = {}
    if page is not None:
        wanted = {slot.group for slot in page.slots}
        if page.pending is not None:
            wanted.add(page.pending.group)
            descriptors = meta.defined("desc", {page.pending.descriptor})
        groups = meta.defined("group", wanted - {0})
        unit = _unit_now(page, meta)
    return RankFiles(
        rank=rank,
        start=meta.first("start") or {},
        began_ns=began,
        page=page,
        unit=unit,
        groups=groups,
        descriptors=descriptors,
        facts=meta.facts(),
        collection=tuple(meta.every("collection")),
        to_wall_ns=None if mono is None or wall is None else wall - mono,
        last_record_ns=record_ns,
        first_step_ns=(page.prefill_ns if page else None) or meta.first_prefill_ns(),
        end=meta.last("end"),
        error=meta.last("error"),
    )


def _unit_now(page: LivePage, meta: MetaEnds) -> dict[str, Any]:
    if page.now is not None:
        return sound(asdict(page.now))
    return meta.defined("unit", {page.unit} - {0}, from_end=True).get(page.unit, {})


def last_host_record(path: Path) -> int | None:
    """End of the newest host span among the last plain records (CLOCK_MONOTONIC ns)."""
    try:
        with path.open("rb") as stream:
            records = (os.fstat(stream.fileno()).st_size - spool.HEADER_BYTES) // _RECORD.size
            first = max(0, records - TAIL_RECORDS)
            stream.seek(spool.HEADER_BYTES + first * _RECORD.size)
            data = stream.read((records - first) * _RECORD.size) if records > 0 else b""
    except OSError:
        return None
    newest = 0
    for words in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
        is_record = words[0] >> 48 == spool.RECORD_MARKER
        if is_record and words[0] >> 40 & 0xFF in _HOST_KINDS:
            newest = max(newest, words[5])
    return newest or None


class MetaEnds:
    """Both ends of a meta file, and the rest only when a definition is in neither."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        size = os.fstat(self._stream.fileno()).st_size
        self._head = self._stream.read(HEAD_BYTES)
        self._tail = b""
        if size > len(self._head):
            self._stream.seek(max(len(self._head), size - TAIL_BYTES))
            self._tail = self._stream.read(TAIL_BYTES)
        self._size = size
        self._whole: bytes | None = None

    def __enter__(self) -> MetaEnds:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def first(self, kind: str) -> dict[str, Any] | None:
        """The first line of a kind at the head."""
        return next(_lines(self._head, _prefix(kind)), None)

    def last(self, kind: str) -> dict[str, Any] | None:
        """The last line of a kind, at the tail or, in a short file, the head."""
        found = list(_lines(self._tail, _prefix(kind))) or list(_lines(self._head, _prefix(kind)))
        return found[-1] if found else None

    def every(self, kind: str) -> Iterator[dict[str, Any]]:
        """The lines of a kind at both ends."""
        yield from _lines(self._head, _prefix(kind))
        yield from _lines(self._tail, _prefix(kind))

    def first_prefill_ns(self) -> int | None:
        """When the first prefill began; None where the head has none."""
        where = self._head.find(b'"phase":"prefill"')
        line = self._head[self._head.rfind(b"\n", 0, max(where, 0)) + 1 :]
        row = next(_lines(line, _prefix("unit")), {}) if where >= 0 else {}
        return row.get("start_ns")

    def facts(self) -> dict[str, Any]:
        """What the rank says that it is."""
        return {name: value for row in self.every("fact") for name, value in row.items()}

    def defined(
        self, kind: str, ids: set[int], from_end: bool = False
    ) -> dict[int, dict[str, Any]]:
        """Definitions by id, as far as they can be found."""
        found: dict[int, dict[str, Any]] = {}
        for number in ids:
            prefix = _prefix(kind) + b',"id":%d,' % number
            parts = (self._tail, self._head) if from_end else (self._head, self._tail)
            rows = (next(_lines(part, prefix), None) for part in parts)
            row = next((row for row in rows if row is not None), None)
            if row is None and self._size > len(self._head) + len(self._tail):
                row = next(_lines(self._everything(), prefix), None)
            if row is not None:
                found[number] = row
        return found

    def _everything(self) -> bytes:
        if self._whole is None:
            self._stream.seek(0)
            self._whole = self._stream.read(MOST_BYTES)
        return self._whole


TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("host", "boot_id", "phase", "op", "name", "kind", "message"), (str,)),
    **dict.fromkeys(("collector", "state", "reason"), (str,)),
    **dict.fromkeys(("rank", "world_size", "local_rank", "pid", "mono_ns", "wall_ns"), (int,)),
    **dict.fromkeys(("start_ns", "step", "batch", "microbatch", "repeat", "ordinal"), (int,)),
    "planned_requests": (int,),
    "live": (bool,),
    "warmup": (bool,),
    "ranks": (list,),
}
"""What status uses of a line, and of which type it has to be: a damaged line may hold anything."""
LARGEST = 1 << 62


def sound(row: dict[str, Any]) -> dict[str, Any]:
    """A row without values that cannot be what their names say."""
    return {name: value for name, value in row.items() if _is_sound(name, value)}


def _is_sound(name: str, value: Any) -> bool:
    types = TYPES.get(name)
    if types is None or not isinstance(value, types):
        return False
    if isinstance(value, str):
        return value.encode(errors="replace").decode() == value  # half a character is not
    if isinstance(value, list):
        # Ranks: in every line that defines a group, and then all of them.
        return set(map(type, value)) == {int} and min(value) >= 0 and max(value) < 1 << 31
    return not isinstance(value, int) or isinstance(value, bool) or abs(value) < LARGEST


def _prefix(kind: str) -> bytes:
    return b'{"t":"%s"' % kind.encode()


def _lines(data: bytes, prefix: bytes) -> Iterator[dict[str, Any]]:
    """Rows of the whole lines that begin so."""
    position = 0 if data.startswith(prefix) else data.find(b"\n" + prefix) + 1
    while data.startswith(prefix, position):
        end = data.find(b"\n", position)
        if end < 0:
            return  # cut, or being written
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(data[position:end])
            if isinstance(row, dict):
                yield sound(row)
        position = data.find(b"\n" + prefix, end) + 1
        if not position:
            return
