"""Measured floors of collectives: the file that `harness bench collectives` writes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.options import no_options
from harness_collectors.reading.text_evidence import Tally, batch, read_text
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext

NAME: Final = "floors"
FORMAT: Final = "harness.floors"
VERSION: Final = 1
_MAX_NS: Final = 1 << 62


class Floors:
    """Times of collectives on these devices, to compare a run's with."""

    name = NAME
    title = "measured floors of collectives (bench collectives)"
    sources = (NAME,)

    def check(self, device: str) -> Availability:
        """They are measured apart from runs."""
        return Availability(
            False, "measured apart from runs", "`harness bench collectives --run RUN`"
        )

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """It has no options."""
        return no_options(NAME, given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Nothing to do to the run."""
        return CapturePlan()

    def recognise(self, path: Path, head: bytes) -> bool:
        """JSON that names its format, first of all."""
        start = head[:512].lstrip()
        return start.startswith(b"{") and f'"format": "{FORMAT}"'.encode() in start

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of `floors`, and a row of `collection`."""
        tally = Tally(NAME)
        rows: list[dict[str, Any]] = []
        about: dict[str, Any] = {}
        for path in sorted(set(files)):
            document = _read(path, tally)
            found = _list(document.get("rows"))
            kept = [row for item in found if (row := _row(item, document)) is not None]
            tally.unreadable += len(found) - len(kept)
            tally.records += len(kept)
            rows += kept
            about[path.name] = _about(document)
        if rows:
            yield batch("floors", rows)
        yield batch("collection", [tally.row({"files": about})])


def _read(path: Path, tally: Tally) -> dict[str, Any]:
    """The document; an empty one, counted as unreadable, where there is none."""
    try:
        text = read_text(path)
        tally.bytes += text.size
        document = json.loads(text.text)
    except (OSError, ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and document.get("version") == VERSION:
        return document
    tally.unreadable += 1
    return {}


def _about(document: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, and what could not be measured and why."""
    facts = {name: document.get(name) for name in ("device", "world_size", "torch", "nccl", "cuda")}
    reasons = (item.get("reason") for item in _list(document.get("skipped")))
    skipped = sorted({reason for reason in reasons if isinstance(reason, str)})
    return facts | ({"skipped": skipped} if skipped else {})


def _row(item: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of `floors`; None where it names no operation, size or time."""
    texts = {name: _text(item.get(name)) for name in ("op", "implementation", "dtype")}
    counts = {name: _count(item.get(name)) for name in ("bytes", "group_size", "calls")}
    times = {f"p{share}_ns": _ns(item.get(f"p{share}_us")) for share in (10, 50, 90)}
    needed = (texts["op"], texts["implementation"], counts["bytes"], counts["group_size"])
    if None in needed or None in times.values():
        return None
    rates = {name: _number(item.get(name)) for name in ("algbw_gb_s", "busbw_gb_s")}
    device = _text(document.get("device"))
    others = {
        f"{name}_ns": _ns(item.get(f"{name}_us"))
        for name in ("stamps", "warm", "warm_stamps", "chain")
    }
    return {"source": NAME, "device": device, **texts, **counts, **times, **others, **rates}


def _list(value: Any) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _number(value: Any) -> float | None:
    """A finite number from 0 on."""
    if type(value) not in (int, float) or not 0 <= value < _MAX_NS:
        return None
    return float(value)


def _ns(value: Any) -> int | None:
    number = _number(value)
    if number is None or math.isnan(number) or not 0 < number * 1e3 < _MAX_NS:
        return None
    return round(number * 1e3)


COLLECTOR = Floors()
