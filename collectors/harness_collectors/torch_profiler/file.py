"""Reads the files of the torch_profiler hook (docs/formats-torch-profiler.md), whole or torn."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness_collectors.torch_profiler.capture import COLUMNS, FORMAT

Ints = NDArray[np.int64]

MAX_LINE_BYTES: Final = 16 << 20
"""The hook's longest lines are a megabyte; a longer one is somebody's bomb."""
MAX_NAMES: Final = 1 << 20
_INT64: Final = 1 << 63


@dataclass
class Window:
    """One opened-to-closed stretch: its line, its units and its events as columns."""

    head: dict[str, Any]
    units: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Ints] = field(default_factory=list)
    written_ns: int | None = None

    def columns(self) -> dict[str, Ints]:
        """Events by the names of `COLUMNS`."""
        empty = np.empty((len(COLUMNS), 0), np.int64)
        table = np.concatenate(self.parts, axis=1) if self.parts else empty
        return {name: table[place] for place, name in enumerate(COLUMNS)}


@dataclass
class RankFile:
    """What a file holds, as far as it could be read."""

    header: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    windows: dict[int, Window] = field(default_factory=dict)
    primes: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0
    torn: bool = False

    def place(self, line: dict[str, Any]) -> None:
        """Take one line in.

        Raises:
            ValueError, TypeError, KeyError, OverflowError: it is no line of the format.
        """
        kind = line["t"]
        if kind == "header":
            self.header = _header(line)
        elif kind == "names":
            self._place_names(line)
        elif kind == "window":
            self.windows[_integer(line["id"])] = Window(_window(line))
        elif kind == "unit":
            self.windows[line["window"]].units.append(_unit(line))
        elif kind == "events":
            self.windows[line["window"]].parts.append(_events(line, len(self.names)))
        elif kind == "written":
            self.windows[line["window"]].written_ns = _integer(line["at_ns"])
        elif kind == "prime":
            self.primes.append({name: _integer(line[name]) for name in _COST})

    def _place_names(self, line: dict[str, Any]) -> None:
        names = [_text(name) for name in line["names"]]
        if line["first"] != len(self.names) or len(self.names) + len(names) > MAX_NAMES:
            raise ValueError("names out of order")
        self.names += names


_COST: Final = ("opened_ns", "started_ns", "stopping_ns", "stopped_ns")
_KEY_TYPES: Final = {"batch": int, "microbatch": int, "repeat": int, "step": int, "warmup": bool}


def _integer(value: Any, limit: int = _INT64) -> int:
    if type(value) is not int or not -limit <= value < limit:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()  # a lone surrogate has no place in a database
    return value


def _header(line: dict[str, Any]) -> dict[str, Any]:
    if line["format"] != FORMAT:
        raise ValueError(line["format"])
    for name in ("host", "boot_id", "device"):
        _text(line[name])
    _integer(line["rank"], 1 << 31)
    _integer(line["pid"])
    return line


def _window(line: dict[str, Any]) -> dict[str, Any]:
    head = {name: _integer(line[name]) for name in (*_COST, "events", "dropped")}
    anchors = [tuple(_integer(value) for value in anchor) for anchor in line["anchors"]]
    if not anchors or any(len(anchor) != 3 for anchor in anchors):
        raise ValueError("anchors")
    return {**head, "anchors": anchors, "clock": line["clock"]}


def _unit(line: dict[str, Any]) -> dict[str, Any]:
    unit: dict[str, Any] = {"phase": _text(line["phase"])}
    for name, kind in _KEY_TYPES.items():
        value = unit[name] = line[name]
        if value is not None and type(value) is not kind:
            raise TypeError(name)
        if kind is int and value is not None:
            _integer(value, 1 << 31)
    return {**unit, "start_ns": _integer(line["start_ns"]), "end_ns": _integer(line["end_ns"])}


def _events(line: dict[str, Any], known: int) -> Ints:
    columns = [line[name] for name in COLUMNS]
    if not all(isinstance(column, list) for column in columns):
        raise TypeError("columns")
    table = np.array(columns)
    if table.ndim != 2 or (table.size and table.dtype != np.int64):
        raise ValueError("columns of whole numbers, equally long")
    table = table.astype(np.int64)
    named, times = table[:2], table[2:4]
    if named.size and not (named.min() >= 0 and named.max() < known):
        raise ValueError("names")
    if times.size and not (times.min() >= 0 and times.max() < _INT64 // 4):
        raise ValueError("times")
    table[2] += _integer(line["base_ns"], _INT64 // 4)
    return table


def read_file(path: Path) -> RankFile:
    """Read a file as far as it goes; a torn gzip gives the lines before the tear."""
    found = RankFile()
    try:
        with gzip.open(path) as stream:
            while text := stream.readline(MAX_LINE_BYTES):
                if len(text) == MAX_LINE_BYTES:
                    found.torn = True
                    break
                try:
                    found.place(json.loads(text))
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                    found.unreadable += 1
    except (OSError, EOFError, zlib.error):
        found.torn = True
    return found
