"""What a rank's lines say, read as far as they go (docs/spool.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness_collectors.app_timers.meta_lines import is_plausible_id, is_sound
from harness_collectors.app_timers.streams import LinesFile
from harness_schemas import spool
from harness_schemas.vocabulary import group_name

SOURCE = "app_timers"
GRAPH_SOURCE = "graph_events"
"""Evidence of external events inside CUDA graphs."""


@dataclass
class RankMeta:
    """What a rank's lines say, by their kind. Ids index the definitions.

    `cut`: why its frequent lines could not be read to their end.
    """

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
    cut: str = ""

    @property
    def host(self) -> str | None:
        """Host name."""
        return self.start.get("host")

    def group_name(self, group_id: int) -> str | None:
        """`[0,1]#0`: ordered global ranks and creation ordinal; None where undefined."""
        group = self.groups.get(group_id)
        if group is None:
            return None
        return group_name(group["ranks"], group["ordinal"])

    def group_ranks(self, group_id: int) -> list[int]:
        """Global ranks of a group."""
        return list(self.groups.get(group_id, {}).get("ranks", ()))


_DEFINITIONS = {"desc": "descriptors", "unit": "units", "group": "groups", "attrs": "attrs"}


CLOCK_KINDS = tuple(b'{"t":"%s"' % kind for kind in (b"start", b"anchor", b"clock", b"device"))


def read_meta(path: Path, only: tuple[bytes, ...] = ()) -> RankMeta:
    """Read a meta file and the frequent lines beside it as far as they go; lines that are no JSON
    objects are counted.

    `only`: beginnings of the rare lines wanted; all others are passed over.
    """
    rank = spool.rank_of(path)
    meta = RankMeta(rank=-1 if rank is None else rank)
    with path.open("rb") as stream:
        _read_lines(meta, (line for line in stream if not only or line.startswith(only)))
    if not only:
        frequent = LinesFile(spool.beside(path, spool.UNITS))
        _read_lines(meta, frequent.read())
        meta.cut = frequent.cut
    return meta


def _read_lines(meta: RankMeta, lines: Iterable[bytes]) -> None:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if b"\\ud" in line:  # half a character, which no table can hold
                json.dumps(row, ensure_ascii=False).encode()
            _place(meta, row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            meta.unreadable += 1


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
