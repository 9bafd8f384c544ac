"""Rows of `samples`, `clock_anchors` and `collection` from what samplers wrote."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness_collectors import sampling
from harness_collectors.reading import arrow
from harness_schemas.spi import Batch
from harness_schemas.vocabulary import COLLECTION_STATES

ROWS_PER_BATCH: Final = 100_000
_UNREADABLE: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_INT64: Final = 1 << 63
_INT32: Final = 1 << 31


@dataclass
class HostSamples:
    """What one sampler's folder holds, as it is read line by line."""

    collector: str
    host: str
    clock_domain: str | None = None
    header: dict[str, Any] = field(default_factory=dict)
    series: dict[int, tuple[str, str, int | None, int | None]] = field(default_factory=dict)
    anchors: list[tuple[int, int, int]] = field(default_factory=list)
    rows: list[tuple[int, int, float]] = field(default_factory=list)
    samples: int = 0
    values: int = 0
    unreadable: int = 0
    bytes: int = 0

    def place(self, line: dict[str, Any]) -> None:
        """Take one line in.

        Raises:
            ValueError, TypeError, KeyError: it is none of the lines of the format.
        """
        if "m" in line:
            now = _bounded(line["m"], _INT64)
            taken = [(now, _known(self.series, key), _number(value)) for key, value in line["v"]]
            self.rows.extend(taken)
            self.samples += 1
            self.values += len(taken)
        elif "series" in line:
            key, metric, unit, rank, device = line["series"]
            self.series[_bounded(key, _INT64)] = (
                _text(metric),
                _text(unit),
                None if rank is None else _bounded(rank, _INT32),
                None if device is None else _bounded(device, _INT32),
            )
        else:
            self.place_clock(line)

    def place_clock(self, line: dict[str, Any]) -> None:
        """Take in what says which clock times are on: the header and the anchors.

        Raises:
            ValueError, TypeError, KeyError: it is not what it seems.
        """
        if "anchor" in line:
            mono, wall, width = (_bounded(value, _INT64) for value in line["anchor"])
            self.anchors.append((mono, wall, width))
        elif line["format"] == sampling.SAMPLES_FORMAT:
            self.host = _text(line["host"])
            self.clock_domain = _text(line["boot_id"])
            self.header = line


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()  # a lone surrogate has no place in a database
    return value


def _bounded(value: Any, limit: int) -> int:
    if type(value) is not int or not -limit <= value < limit:
        raise ValueError(value)
    return value


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _known(series: dict[int, Any], key: Any) -> int:
    if key not in series:
        raise KeyError(key)
    return int(key)


def ingest_samples(collector: str, files: Sequence[Path]) -> Iterator[Batch]:
    """Rows of every host's folder, in the order of their paths."""
    for folder in sorted({path.parent for path in files}):
        yield from _ingest_folder(collector, folder)


def _ingest_folder(collector: str, folder: Path) -> Iterator[Batch]:
    state = _read_state(folder / sampling.STATE_FILE)
    host = HostSamples(collector, folder.name)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        host.host = _text(state["host"])
    samples = folder / sampling.SAMPLES_FILE
    _read_clocks(host, samples)
    if host.anchors:
        yield _anchors(host)  # before the times that rest on them
    yield from _sample_batches(host, samples)
    yield _collection(host, state)


def _read_clocks(host: HostSamples, path: Path) -> None:
    """A first look at the file, for the few lines that samples are not."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        for text in stream:
            if b'"anchor"' not in text and b'"format"' not in text:
                continue
            with contextlib.suppress(*_UNREADABLE):  # counted when the samples are read
                host.place_clock(json.loads(text))


def _sample_batches(host: HostSamples, path: Path) -> Iterator[Batch]:
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        for text in stream:
            host.bytes += len(text)
            try:
                host.place(json.loads(text))
            except _UNREADABLE:
                host.unreadable += 1
            if len(host.rows) >= ROWS_PER_BATCH:
                yield _take(host)
    if host.rows:
        yield _take(host)


def _take(host: HostSamples) -> Batch:
    rows, host.rows = host.rows, []
    kinds = [host.series[key] for _, key, _ in rows]
    return arrow.batch(
        "samples",
        {
            "host": [host.host] * len(rows),
            "rank": [kind[2] for kind in kinds],
            "device": [kind[3] for kind in kinds],
            "metric": [kind[0] for kind in kinds],
            "unit": [kind[1] for kind in kinds],
            "ts_ns": [now for now, _, _ in rows],
            "value": [value for _, _, value in rows],
            "source": [host.collector] * len(rows),
        },
    )


def _anchors(host: HostSamples) -> Batch:
    count = len(host.anchors)
    return arrow.batch(
        "clock_anchors",
        {
            "source": [host.collector] * count,
            "host": [host.host] * count,
            "clock_domain": [host.clock_domain] * count,
            "raw_ns": [anchor[0] for anchor in host.anchors],
            "wall_ns": [anchor[1] for anchor in host.anchors],
            "width_ns": [anchor[2] for anchor in host.anchors],
        },
    )


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(state, dict) and state.get("state") in COLLECTION_STATES
    return state if known else {}


def _collection(host: HostSamples, state: dict[str, Any]) -> Batch:
    if state:
        verdict = state["state"]
        reason = str(state.get("reason") or "").encode(errors="replace").decode()
    else:
        verdict = "degraded" if host.samples else "failed"
        reason = "the sampler did not end properly: its last samples are missing"
    detail = state.get("detail") or host.header.get("detail")
    dropped = state.get("dropped", 0)
    return arrow.row(
        "collection",
        collector=host.collector,
        host=host.host,
        state=verdict,
        reason=reason or None,
        bytes=host.bytes,
        records=host.values,
        dropped=dropped if type(dropped) is int and 0 <= dropped < _INT64 else None,
        unreadable=host.unreadable,
        detail=json.dumps(detail, sort_keys=True) if detail else None,
    )
