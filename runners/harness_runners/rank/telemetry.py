"""OpenTelemetry spans of the run, its phases and its requests, as lines of OTLP JSON.

Only what is rare: an SDK span costs 15 to 25 us, so steps and collectives are the recorder's.
Each line is one `ExportTraceServiceRequest` (harness_schemas.otlp), which any OpenTelemetry
collector reads (`otlpjsonfile` receiver). Trace context goes from process to process in the
variable TRACEPARENT (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from harness_schemas.otlp import SCOPE, attributes_of, export_request


class JsonLinesExporter(SpanExporter):
    """Appends finished spans to a file. What cannot be written is lost, never raised."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append one line for these spans."""
        if not spans:
            return SpanExportResult.SUCCESS
        resource = spans[0].resource.attributes
        line = json.dumps(export_request(resource, [otlp_span(span) for span in spans]))
        try:
            with self._path.open("a") as stream:
                stream.write(line + "\n")
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def otlp_span(span: ReadableSpan) -> dict[str, Any]:
    """A span in OTLP's JSON encoding: ids in hex, times as strings of Unix nanoseconds."""
    context = span.get_span_context()
    assert context is not None
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": attributes_of(span.attributes or {}),
        "status": {"code": span.status.status_code.value},
    }


class Telemetry:
    """The spans of one process, below the span that TRACEPARENT names (if it is set).

    Times are given on CLOCK_MONOTONIC, as everywhere in the ranks, and mapped to the wall clock
    by one offset taken at the start.
    """

    def __init__(self, path: Path, name: str, start_ns: int, **attributes: Any) -> None:
        self._wall_minus_mono = time.time_ns() - time.monotonic_ns()
        resource = Resource({"service.name": SCOPE, **attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(path)))
        self._tracer = self._provider.get_tracer(SCOPE)
        carrier = {"traceparent": os.environ.get("TRACEPARENT", "")}
        parent = TraceContextTextMapPropagator().extract(carrier)
        self._run: Span = self._tracer.start_span(
            name, context=parent, start_time=start_ns + self._wall_minus_mono
        )
        self._context = set_span_in_context(self._run)

    @property
    def traceparent(self) -> str:
        """What a child process is given in TRACEPARENT."""
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, self._context)
        return carrier["traceparent"]

    def add(self, name: str, start_ns: int, end_ns: int, **attributes: Any) -> None:
        """A finished phase or request; None attributes are left out."""
        known = {key: value for key, value in attributes.items() if value is not None}
        shift = self._wall_minus_mono
        span = self._tracer.start_span(
            name, context=self._context, start_time=start_ns + shift, attributes=known
        )
        span.end(end_ns + shift)

    def close(self) -> None:
        """End the run's span; idempotent."""
        if self._run.is_recording():
            self._run.end(time.monotonic_ns() + self._wall_minus_mono)
            self._provider.shutdown()


@contextlib.contextmanager
def run_span(path: Path, name: str, run_id: str) -> Iterator[str]:
    """The span of a whole run around the launch of its ranks; yields their TRACEPARENT."""
    telemetry = Telemetry(path, f"run {name}", time.monotonic_ns(), **{"harness.run_id": run_id})
    try:
        yield telemetry.traceparent
    finally:
        telemetry.close()
