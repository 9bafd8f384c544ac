"""Spans as OpenTelemetry's protocol has them in JSON, as ranks leave them and exports write them.

Format: OTLP/JSON of opentelemetry-proto 1.x (ids in hexadecimal, 64-bit numbers as text):
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

SCOPE: Final = "harness"
"""Name of the instrumentation scope, and of the service where it has no other."""


def export_request(resource: Mapping[str, Any], spans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An ExportTraceServiceRequest with spans of one resource, which has these attributes."""
    scope = {"scope": {"name": SCOPE}, "spans": list(spans)}
    described = {"attributes": attributes_of(resource)}
    return {"resourceSpans": [{"resource": described, "scopeSpans": [scope]}]}


def attributes_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Key-value pairs of the protocol; what is unknown has none."""
    return [{"key": k, "value": _value(v)} for k, v in values.items() if v is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}
