"""`perf stat --metric-only`: metrics without the counts they came from, in all of perf's forms.

In columns under their names, for people and with `-x`; with `-j` an object a row whose keys are
the metrics' names (perf 6.2 on), or values in the order of an earlier list of names (perf 6.1).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

KNOWN = re.compile(
    r"GHz|insn per cycle|stalled cycles per insn|(?:front|back)end cycles idle|CPUs utilized"
    r"|of all .{1,30}|.{0,12}/sec|(?:%  ?)?tma_\w+|retiring|bad speculation|(?:front|back)end bound"
)
"""Metrics that perf itself computes; names of `-M` groups stand beside one of them or `tma_`."""
_KEYS: Final = ("cpu", "core", "die", "socket", "node", "cluster", "cache", "thread", "cgroup")
_BESIDE: Final = frozenset({*_KEYS, "interval", "aggregate-number", "counters"})
_NONE: Final = frozenset({"", "none", "nan", "-nan"})
_LONGEST: Final = 4096
_OLD_NAMES = re.compile(r'"unit" : "([^"]{0,120})"')
_OLD_VALUES = re.compile(r'\{"metric-value" : "([^"]{0,40})"\}')
_ROW = re.compile(
    r"\s*(?:(?P<time>\d+[.,]\d{9})\s+)?(?:(?P<scope>CPU\d+|[SND]\d+(?:-[A-Z]+\d+)*)\s+(?:\d+\s+)?)?"
)
_CELL = re.compile(r"(-?\d+(?:[.,]\d+)?|-?nan)(?: ?%)?$")
_PLAIN = re.compile(r"[\w \t%#/.-]+")
_HEAD = re.compile(r"#?\s*(?:time\s+)?(?:(?:cpu|cpus|core|die|socket|node)\s+)*")
_FARTHEST: Final = 6
"""Columns between the end of a value and that of its name: perf pads them by different widths."""

Row = tuple[Mapping[str, str | None], str | None, str | None]
"""(values as text by metric, None where perf had none; end of the interval; CPU or core)."""


def is_metric_only(line: str) -> bool:
    """Whether a line begins such output: an object of metrics, or a line of their names."""
    if line.lstrip().startswith("{"):
        return _object(line) is not None or len(_OLD_NAMES.findall(line)) > line.count("{")
    return bool(_names(line, ",") or _in_columns(line))


def json_rows(lines: Sequence[str]) -> Iterator[Row | None]:
    """Rows of `-j`; None for a line that is none."""
    names: list[str] = []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        old = _OLD_NAMES.findall(line)
        if old and '"metric-value"' not in line:
            names = old
            continue
        values = _OLD_VALUES.findall(line)
        row = _object(line.partition("}")[0].rstrip(" ,") + "}" if values else line, bool(values))
        if row is None or (values and len(values) != len(names)):
            yield None if values or len(line.strip()) > 2 else ({}, None, None)
            continue
        found = dict(zip(names, values, strict=True)) if values else _metrics(row)
        when = row.get("interval")
        scope = next((_scope(key, row[key]) for key in _KEYS if row.get(key) is not None), None)
        yield found, None if when is None else f"{float(when):.9f}", scope


def _object(line: str, any_keys: bool = False) -> dict[str, Any] | None:
    """The object in a line, if its keys are metrics."""
    try:
        found = json.loads(line) if len(line) <= _LONGEST else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    when = found.get("interval", 0.0)
    if isinstance(when, bool) or not isinstance(when, int | float) or not math.isfinite(when):
        return None
    metrics = _metrics(found)
    plain = all(isinstance(value, str) for value in metrics.values())
    known = any_keys or any(KNOWN.search(name) for name in metrics)
    return found if plain and known else None


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _BESIDE}


def _scope(key: str, value: Any) -> str:
    return f"CPU{value}" if key == "cpu" else str(value)


def separated_rows(lines: Sequence[str], delimiter: str) -> Iterator[Row | None]:
    """Rows of `-x`, whose first line names the columns."""
    names: list[str] = []
    for line in lines:
        if not line.strip() or line.startswith("# started"):
            continue
        named = _names(line, delimiter)
        if named:
            names = named
            continue
        cells = [cell.strip() for cell in line.rstrip("\r").split(delimiter)]
        given = dict(zip(names, cells, strict=False))
        when, scope = given.pop("time", None), given.pop("cpu", None)
        whole = bool(names) and len(cells) in (len(names), len(names) + 1)
        if not whole or not all(_is_value(cell) for cell in given.values()):
            yield None
        else:
            yield given, when, scope


def _names(line: str, delimiter: str) -> list[str]:
    """The names in a header of `-x`; empty where it is none."""
    cells = [cell.strip() for cell in line.strip().split(delimiter)]
    named = cells[:-1] if cells and not cells[-1] else cells
    if len(named) < 2 and len(cells) < 2:
        return []
    plain = all(cell and not _CELL.match(cell) and "#" not in cell for cell in named)
    return named if plain and any(KNOWN.fullmatch(cell) for cell in named) else []


def column_rows(lines: Iterable[str]) -> Iterator[Row | None]:
    """Rows of the form for people; names stand above their values, flush right."""
    header = ""
    for line in lines:
        if _in_columns(line):
            header = line.rstrip()
        elif line.strip() and header:
            yield _column_row(line.rstrip(), header)


def _in_columns(line: str) -> bool:
    if len(line) > _LONGEST or "elapsed" in line or not _PLAIN.fullmatch(line):
        return False
    names = re.split(r"\s{2,}", line[_end(_HEAD, line) :].strip())
    numbers = any(re.fullmatch(r"[\d.,%]+", word) for word in line.split())
    return not numbers and any(KNOWN.search(name) for name in names)


def _end(pattern: re.Pattern[str], line: str) -> int:
    match = pattern.match(line)
    return match.end() if match else 0


def _column_row(line: str, header: str) -> Row | None:
    lead = _ROW.match(line)
    start = lead.end() if lead else 0
    cells = list(re.finditer(r"\S+", line[start:]))
    begin, drift = _end(_HEAD, header), 0
    found: dict[str, str | None] = {}
    for cell in cells:
        end = start + cell.end()
        at = _gap(header, end + drift)
        name = header[begin:at].strip(" %") if at is not None and at > begin else ""
        if not name or at is None or name in found or not _is_value(cell[0]):
            return None
        found[name] = cell[0]
        begin, drift = at, at - end
    whole = found and not header[begin:].strip() and lead is not None
    return (found, lead["time"], lead["scope"]) if whole and lead else None


def _gap(header: str, place: int) -> int | None:
    """The end of a name nearest to a place."""
    ends = [at for at in range(place - _FARTHEST, place + _FARTHEST + 1) if _is_end(header, at)]
    return min(ends, key=lambda at: abs(at - place), default=None)


def _is_end(header: str, at: int) -> bool:
    inside = 0 < at <= len(header) and not header[at - 1].isspace()
    return inside and (at == len(header) or header[at].isspace())


def _is_value(cell: str) -> bool:
    return cell in _NONE or _CELL.match(cell) is not None


def number_of(cell: str | None) -> float | None:
    """The number of a cell; None where perf had none."""
    match = _CELL.match(cell or "")
    number = float(match[1].replace(",", ".")) if match else math.nan
    return number if math.isfinite(number) else None
