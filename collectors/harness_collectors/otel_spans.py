"""OpenTelemetry spans in OTLP's JSON encoding, one export request a line.

Format: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding, as the harness's own
ranks write it (`spans/*.otel.jsonl`) and as the Collector's file exporter does. Times are Unix
nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_collectors.options import no_options
from harness_collectors.reading.text_evidence import batch
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext

SOURCE = "otel"
MAX_LINE = 16 << 20
_END_OF_TIME = 1 << 63
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class OtelSpans:
    """Spans of the run, its phases and its requests; always written by the ranks."""

    name = "otel"
    title = "OpenTelemetry spans of run, phases and requests"
    sources = (SOURCE,)

    def check(self, device: str) -> Availability:
        """Always available: the SDK is a dependency."""
        return Availability(True)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """It has no options."""
        return no_options("otel", given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Nothing: the session passes TRACEPARENT on."""
        return CapturePlan()

    def recognise(self, path: Path, head: bytes) -> bool:
        """A line that is an ExportTraceServiceRequest."""
        return head.lstrip()[:64].startswith((b'{"resourceSpans"', b'{ "resourceSpans"'))

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of `spans` with source `otel`, and one of `collection` a file."""
        import pyarrow as pa

        for path in sorted(files):
            rows: list[dict[str, Any]] = []
            unreadable = 0
            with path.open("rb") as stream:
                while line := stream.readline(MAX_LINE):
                    try:
                        rows += list(_rows(json.loads(line)))
                    except _DAMAGE:
                        unreadable += 1
            if rows:
                yield batch("spans", rows)
            state = {
                "collector": [SOURCE],
                "state": ["degraded" if unreadable else "ok"],
                "reason": [f"{unreadable} lines could not be read" if unreadable else None],
                "bytes": [path.stat().st_size],
                "records": [len(rows)],
                "unreadable": [unreadable],
            }
            reason = pa.array(state.pop("reason"), pa.string())
            yield Batch("collection", pa.table({**state, "reason": reason}))


def _rows(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request["resourceSpans"]:
        facts = _attributes(resource.get("resource", {}).get("attributes", []))
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                yield _row(span, facts)


def _row(span: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    attributes = _attributes(span.get("attributes", []))
    request = attributes.get("request") or attributes.get("request_id")
    start, end = int(span["startTimeUnixNano"]), int(span.get("endTimeUnixNano") or 0)
    if not 0 <= start < _END_OF_TIME:
        raise ValueError("no time")
    end = end if start <= end < _END_OF_TIME else 0
    rank = facts.get("rank", attributes.get("rank"))
    kept = {name: span[name] for name in ("traceId", "spanId", "parentSpanId") if span.get(name)}
    return {
        "rank": rank if isinstance(rank, int) else None,
        "source": SOURCE,
        "timeline": "host",
        "name": str(span["name"]),
        "category": "request" if request else str(attributes.get("category") or "phase"),
        "request": None if request is None else str(request),
        "start_ns": start,
        "end_ns": end or None,
        "raw_start_ns": start,
        "complete": end > 0,
        "attrs": json.dumps({**kept, **attributes}, sort_keys=True),
    }


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        value = pair["value"]
        if "intValue" in value:
            found[pair["key"]] = int(value["intValue"])
        else:
            found[pair["key"]] = next(iter(value.values()), None)
    return found


COLLECTOR = OtelSpans()
