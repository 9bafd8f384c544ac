"""What others recorded with nvidia-smi: `--query-gpu=... --format=csv` and `dmon` (430 to 580).

Their readings are NVML's, so they get the names and units of our own samples. Columns that have no
such name are left out and listed. Times are the host's, without a zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

SOURCE: Final = "nvidia_smi"
_MIB: Final = float(1 << 20)
_QUERIED: Final[Mapping[str, tuple[str, str, str, float]]] = {
    "utilization.gpu": ("busy", "1", "%", 0.01),
    "memory.used": ("memory_used", "bytes", "MiB", _MIB),
    "power.draw": ("power_usage", "W", "W", 1.0),
    "power.draw.average": ("power_average", "W", "W", 1.0),
    "power.draw.instant": ("power_instant", "W", "W", 1.0),
    "temperature.gpu": ("temperature_gpu", "C", "", 1.0),
    "temperature.memory": ("temperature_memory", "C", "", 1.0),
    "clocks.sm": ("clock_sm", "MHz", "MHz", 1.0),
    "clocks.current.sm": ("clock_sm", "MHz", "MHz", 1.0),
    "clocks.mem": ("clock_memory", "MHz", "MHz", 1.0),
    "clocks.current.memory": ("clock_memory", "MHz", "MHz", 1.0),
}
"""Metric, its unit, the unit in nvidia-smi's header, and the factor between them."""
_MONITORED: Final[Mapping[str, tuple[str, str, str, float]]] = {
    "pwr": ("power_usage", "W", "W", 1.0),
    "gtemp": ("temperature_gpu", "C", "C", 1.0),
    "temp": ("temperature_gpu", "C", "C", 1.0),
    "mtemp": ("temperature_memory", "C", "C", 1.0),
    "sm": ("busy", "1", "%", 0.01),
    "mclk": ("clock_memory", "MHz", "MHz", 1.0),
    "pclk": ("clock_sm", "MHz", "MHz", 1.0),
    "fb": ("memory_used", "bytes", "MB", _MIB),
}
_PLACE: Final = frozenset({"timestamp", "index", "date", "time", "gpu"})
_COLUMN = re.compile(r"([a-z][a-z0-9_.]+)(?: \[(\S{1,5})\])?")
_DMON = re.compile(
    r"#\s?(?:Date\s+)?(?:Time\s+)?gpu\s+(?:pwr|gtemp|temp|sm|mclk|fb|pviol|sbecc|rxpci)\s",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?: ?[%A-Za-z]{1,4})?")
_STAMPS: Final = ("%Y/%m/%d %H:%M:%S.%f", "%Y%m%d %H:%M:%S")
_ABSENT: Final = ("-", "[", "N/A")
NO_INDEX: Final = "nvidia-smi was not asked for `index`, so whose its values are is not known"


@dataclass
class Listing:
    """Rows of `samples` of one file, what of it could not be read, and columns without a name."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0
    left_out: list[str] = field(default_factory=list)
    problem: str = ""


def is_listing(head: str) -> bool:
    """Whether a text begins as one of the two."""
    first = head.lstrip().partition("\n")[0]
    return bool(_DMON.match(first)) or bool(_queried(first))


def read_listing(text: str) -> Listing:
    """Values by GPU and moment; a last line without a break may be cut and is left out."""
    lines = text.split("\n")
    found = Listing(unreadable=int(bool(lines[-1].strip())))
    first = next((line for line in lines if line.strip()), "")
    if _DMON.match(first):
        _read_monitor(lines[:-1], found)
    else:
        _read_query(first, lines[:-1], found)
    return found


def _queried(line: str) -> list[tuple[str, str]]:
    """(name, unit) of the columns that a header of `--query-gpu` names; empty: it is none."""
    matches = [_COLUMN.fullmatch(cell.strip()) for cell in line.split(",")]
    columns = [(match[1], match[2] or "") for match in matches if match]
    known = sum(name in _QUERIED for name, _ in columns)
    return columns if len(columns) == len(matches) and known else []


def _read_query(header: str, lines: Iterable[str], found: Listing) -> None:
    columns = _queried(header)
    names = [name for name, _ in columns]
    if "index" not in names:
        found.problem = NO_INDEX
        return
    units = dict(columns)
    known = {n: spec for n in names if (spec := _QUERIED.get(n)) and units[n] == spec[2]}
    found.left_out = [name for name in names if name not in known and name not in _PLACE]
    for line in lines:
        if not line.strip() or line == header:
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(names):
            found.unreadable += 1
            continue
        given = dict(zip(names, cells, strict=True))
        _take(given, known, given["index"], given.get("timestamp", ""), found)


def _read_monitor(lines: Sequence[str], found: Listing) -> None:
    names: list[str] = []
    known: Mapping[str, tuple[str, str, str, float]] = {}
    for line in lines:
        words = line.replace("#", " ", 1).split() if line.startswith("#") else line.split()
        if line.startswith("#") and "gpu" in [word.lower() for word in words]:
            names = [word.lower() for word in words]
        elif line.startswith("#"):
            units = dict(zip(names, words, strict=False)) if len(names) == len(words) else {}
            known = {
                name: spec
                for name, unit in units.items()
                if (spec := _MONITORED.get(name)) and unit == spec[2]
            }
            found.left_out = [name for name in names if name not in known and name not in _PLACE]
        elif words and len(words) != len(names):
            found.unreadable += 1
        elif words:
            given = dict(zip(names, words, strict=True))
            when = f"{given.get('date', '')} {given.get('time', '')}"
            _take(given, known, given["gpu"], when, found)


def _take(
    given: Mapping[str, str],
    known: Mapping[str, tuple[str, str, str, float]],
    index: str,
    when: str,
    found: Listing,
) -> None:
    if not re.fullmatch(r"\d{1,3}", index):
        found.unreadable += 1
        return
    moment = _moment(when)
    for name, (metric, unit, _, factor) in known.items():
        match = _NUMBER.fullmatch(given[name])
        if match is None:
            found.unreadable += not given[name].startswith(_ABSENT)
            continue
        value = round(float(match[1]) * factor, 6)
        found.rows.append(
            {"device": int(index), "metric": metric, "unit": unit, "ts_ns": moment, "value": value}
        )


def _moment(text: str) -> int | None:
    """Unix nanoseconds of a time without a zone, taken for UTC; None: there is none."""
    for form in _STAMPS:
        try:
            moment = datetime.strptime(text.strip(), form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
    return None


def anchors(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The clock of the times: Unix time already."""
    first = next((row["ts_ns"] for row in rows if row["ts_ns"] is not None), None)
    if first is not None:
        yield {"source": SOURCE, "raw_ns": first, "wall_ns": first, "width_ns": 1_000_000_000}
