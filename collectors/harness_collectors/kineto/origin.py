"""Whose trace a file is: rank, process, host and clock, as far as it and its name tell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.names.rank_names import rank_in_name
from harness_schemas.units import EARLIEST_WALL_NS

if TYPE_CHECKING:
    from harness_collectors.kineto.columns import TraceColumns

_PLACE_IN_NAME: Final = (
    re.compile(r"dp\d+_pp(?P<pp>\d{1,5})_tp(?P<tp>\d{1,5})_"),
    re.compile(r"-TP-(?P<tp>\d{1,5})(?:-DP-\d+)?(?:-PP-(?P<pp>\d{1,5}))?[-.]"),
)
"""File names of vLLM and of SGLang: pipeline stage and tensor-parallel rank."""
NUMBERED: Final = "its rank is not recorded: it is numbered in the order of the files"
DIVIDED: Final = (
    "the file merges the traces of several processes: each is a rank, numbered in their order"
)
NAMED: Final = "several files claim one rank: their names are believed"


@dataclass(frozen=True)
class Origin:
    """Where a file comes from and which clock it is on. None: not known.

    `numbered`: its rank is not recorded, and was given by the order of files.
    """

    name: str
    rank: int | None
    host: str | None
    offset_ns: int
    wall_clock: bool
    numbered: bool = False
    divided: bool = False
    """It is one of several processes of a file that merges their traces."""

    @property
    def clock_domain(self) -> str:
        """Files of one host are on one wall clock; without a host each has its own."""
        return f"wall:{self.host or self.name}"


def origin_of(
    path: Path,
    name: str,
    metadata: Mapping[str, Any],
    columns: TraceColumns,
    divided: bool = False,
) -> Origin:
    """What is known of a file, called `name`, that has been read; or of one of its processes."""
    offset = _base_of(metadata)
    earliest = columns.first_ns + offset
    host = metadata.get("host_name")
    return Origin(
        name=name,
        rank=None if divided else rank_of(metadata, path),
        host=_folder_host(path) or (host if isinstance(host, str) else None),
        offset_ns=offset,
        wall_clock=earliest >= EARLIEST_WALL_NS,
        divided=divided,
    )


def _base_of(metadata: Mapping[str, Any]) -> int:
    """The moment of the times' zero, also as a text or a float, as rewriting leaves it; 0: none."""
    base = metadata.get("baseTimeNanoseconds")
    if isinstance(base, str) and base.isdecimal():
        base = int(base[:20])
    elif isinstance(base, float) and base.is_integer():
        base = int(base)
    return base if type(base) is int and 0 <= base < 2**62 else 0


def info_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`distributedInfo`, which `add_metadata` leaves as a text; empty: there is none."""
    info = metadata.get("distributedInfo")
    if isinstance(info, str):
        try:
            info = json.loads(info)
        except (ValueError, RecursionError):
            return {}
    return info if isinstance(info, dict) else {}


def rank_of(metadata: Mapping[str, Any], path: Path) -> int | None:
    """Of `distributedInfo`, else of the file's or its folder's name, else None."""
    rank = info_of(metadata).get("rank")
    if isinstance(rank, str) and rank.isdecimal():
        rank = int(rank[:10])
    if type(rank) is int and 0 <= rank < 2**31:
        return rank
    return rank_in_name(path)


def without_claim(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A header without the rank and the number of ranks that it claims."""
    claims = ("rank", "world_size")
    kept = {key: value for key, value in info_of(metadata).items() if key not in claims}
    return {**metadata, "distributedInfo": kept}


def place_of(path: Path) -> dict[str, int | None]:
    """Tensor-parallel rank and pipeline stage, as engines put them into names."""
    for pattern in _PLACE_IN_NAME:
        found = pattern.search(path.name)
        if found is not None:
            stage = found["pp"]
            return {"tp_rank": int(found["tp"]), "stage": None if stage is None else int(stage)}
    return {"tp_rank": None, "stage": None}


def _folder_host(path: Path) -> str | None:
    """The host of a file in a run folder's `artifacts/<collector>/<host>/`."""
    parts = path.parts
    return parts[-2] if len(parts) > 3 and parts[-4] == "artifacts" else None


def relative(path: Path, root: Path) -> str:
    """How a file is called in what is said of it."""
    for place in (path, path.absolute(), path.resolve()):
        if place != root and place.is_relative_to(root) and ".." not in place.parts:
            return str(place.relative_to(root))
    return path.name


@dataclass
class Owners:
    """Which process is which rank, over files that are read one after the other.

    `alone`: no file of the ingest names its rank. Then processes are numbered in the order of
    their files, or nothing could be said of most people's traces, which are of one process.
    """

    alone: bool
    files: int
    beside: bool = False
    """These files did not name their rank at once, and others did."""
    divides: bool = False
    """What merges several processes may be divided: nobody else shows their ranks."""
    doubted: bool = False
    """Their heads claim a rank that others claim too, and their names tell another."""
    _by_rank: dict[int, tuple[int, str]] = field(default_factory=dict)
    _seen: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    _numbered: dict[tuple[str | None, int | str], int] = field(default_factory=dict)

    def settle(self, origin: Origin, columns: TraceColumns) -> Origin:
        """The file's origin, with a number for a rank where that is called for.

        Beside others a file without device work is a server's or a scheduler's: no rank.
        """
        work = len(columns.device) > 0 or (self.files == 1 and len(columns.host) > 0)
        if origin.rank is not None or not self.alone or not work:
            return origin
        known = columns.owners
        key = (origin.host, known[0] if len(known) == 1 and not origin.divided else origin.name)
        rank = self._numbered.setdefault(key, len(self._numbered))
        return replace(origin, rank=rank, numbered=True)

    def stranger(self, origin: Origin, columns: TraceColumns) -> str | None:
        """Why a file cannot be used beside those before it; None: it can.

        A profiler may write several files a rank, but all from one process.
        """
        from harness_collectors.kineto.merged import processes

        known = columns.owners
        if together := processes(columns):
            names = ", ".join(map(str, together[:4]))
            return (
                f"{origin.name}: it merges the traces of {len(together)} processes "
                f"({names}{' ...' if len(together) > 4 else ''}), whose work cannot be told "
                "apart again; not used: ingest the traces that it was made of"
            )
        if origin.rank is None:
            return None
        if len(known) == 1:
            pid, first = self._by_rank.setdefault(origin.rank, (known[0], origin.name))
            if pid != known[0]:
                return (
                    f"{origin.name}: rank {origin.rank} is process {known[0]} here and {pid} in "
                    f"{first}: a trace of another job or attempt, not used; ingest it by itself"
                )
        return self._again(origin.rank, origin, columns)

    def _again(self, rank: int, origin: Origin, columns: TraceColumns) -> str | None:
        """A process has one profiler at a time: what overlaps by half is a copy, or of another
        process with the same id, as in containers."""
        start, end = (at + origin.offset_ns for at in (columns.first_ns, columns.last_ns))
        if start > end:
            return None
        seen = self._seen.setdefault(rank, [])
        for first, last, name in seen:
            common = min(last, end) - max(first, start)
            if common >= 0 and 2 * common >= min(last - first, end - start):
                same = (first, last) == (start, end)
                what = (
                    "the same recording again, not used"
                    if same
                    else "a trace of another job or attempt, or the same recording exported "
                    "otherwise; not used; ingest it by itself"
                )
                return f"{origin.name}: it shows rank {rank} while {name} does: {what}"
        seen.append((start, end, origin.name))
        return None
