"""A run as OpenTelemetry spans: the run, its requests, and every rank's units of work.

Format: harness_schemas.otlp; in a file an `ExportTraceServiceRequest` a line, over HTTP one a
POST. Requests carry the GenAI semantic conventions (`gen_ai.*`, opentelemetry-semantic-conventions
0.66b2); what they have no word for is under `harness.*`. Our own names are mapped here and nowhere
else, since the conventions move.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness_analysis.export.files import bounded, whole_text
from harness_analysis.store import rows_of
from harness_schemas.errors import EvidenceError, HarnessError, UsageError, said_by
from harness_schemas.otlp import SCOPE, attributes_of, export_request
from harness_schemas.vocabulary import PARTS

if TYPE_CHECKING:
    import duckdb

SPANS_A_LINE: Final = 500
TIMEOUT_S: Final = 10.0
INTERNAL = 1
STATUS_OK, STATUS_ERROR = 1, 2
HEADERS_ENV: Final = "OTEL_EXPORTER_OTLP_HEADERS"
KEYS: Final = ("batch", "microbatch", "repeat", "step", "warmup", "perturbed_by")


@dataclass(frozen=True)
class Trace:
    """The run as the root of one trace. Ids come from the run's id: exports of it agree."""

    run_id: str
    name: str
    status: str | None
    runner: str | None
    model: str | None
    start_ns: int
    end_ns: int

    @property
    def trace_id(self) -> str:
        """16 bytes in hexadecimal."""
        return hashlib.sha256(self.run_id.encode()).hexdigest()[:32]

    def span_id(self, *key: object) -> str:
        """8 bytes in hexadecimal, of a span that `key` names within the run."""
        text = "/".join(map(str, (self.run_id, *key)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_otlp(con: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Write a file of OTLP/JSON lines, gzip where `path` ends in .gz; returns the spans in it.

    Raises:
        EvidenceError: the run has no times.
        HarnessError: the file cannot be written.
    """
    count = 0
    with bounded(con), whole_text(path) as file:
        for request, spans in export_requests(con):
            file.write(request + "\n")
            count += spans
    return count


def send_otlp(con: duckdb.DuckDBPyConnection, endpoint: str) -> int:
    """POST the spans to `endpoint` (`http://host:4318`, or the whole address); returns how many.

    Headers are read from OTEL_EXPORTER_OTLP_HEADERS (`key=value,key=value`).

    Raises:
        UsageError: `endpoint` is no address of HTTP.
        HarnessError: the receiver refuses, or cannot be reached.
    """
    address = _address(endpoint)
    headers = {"Content-Type": "application/json", **_headers(os.environ.get(HEADERS_ENV, ""))}
    count = 0
    with bounded(con):
        for body, spans in export_requests(con):
            _post(address, body, headers)
            count += spans
    return count


def _address(endpoint: str) -> str:
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{endpoint!r} is no address of HTTP", "such as http://127.0.0.1:4318")
    return endpoint if parts.path.strip("/") else endpoint.rstrip("/") + "/v1/traces"


def _headers(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {urllib.parse.unquote(k.strip()): urllib.parse.unquote(v.strip()) for k, _, v in pairs}


def _post(address: str, body: str, headers: Mapping[str, str]) -> None:
    request = urllib.request.Request(address, body.encode(), dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        raise HarnessError(f"{address} refused the spans: {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        said = said_by(reason) if isinstance(reason, Exception) else reason
        raise HarnessError(f"{address} cannot be reached: {said}") from None


# -- requests of the protocol ----------------------------------------------------------------


def export_requests(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, int]]:
    """(JSON of one ExportTraceServiceRequest, spans in it), the run first."""
    trace = _load_trace(con)
    hosts = dict(con.execute("SELECT rank, host FROM ranks").fetchall())
    yield from _packed(trace, None, None, [_run_span(trace)])
    yield from _packed(trace, None, None, _request_spans(con, trace))
    ranks = con.execute("SELECT DISTINCT rank FROM step_breakdown ORDER BY rank").fetchall()
    for (rank,) in ranks:
        yield from _packed(trace, rank, hosts.get(rank), _unit_spans(con, trace, rank))


def _load_trace(con: duckdb.DuckDBPyConnection) -> Trace:
    row = con.execute(
        """
        SELECT r.run_id, coalesce(r.name, r.run_id), r.status, r.runner, r.spec,
          coalesce(r.started_ns, s.first), coalesce(r.ended_ns, s.last)
        FROM runs r, (SELECT min(start_ns) AS first, max(end_ns) AS last FROM spans) s
        ORDER BY r.run_id LIMIT 1
        """
    ).fetchone()
    if row is None or row[5] is None or row[6] is None:
        raise EvidenceError("the run has no times: there is nothing to export")
    run_id, name, status, runner, spec, start, end = row
    return Trace(run_id, name, status, runner, _model(spec), start, end)


def _model(spec: str | None) -> str | None:
    """Name of the model in a resolved specification; of a directory its last part."""
    try:
        model = json.loads(spec or "{}").get("model")
    except (ValueError, AttributeError):
        return None
    if isinstance(model, dict):
        given = model.get("name") or model.get("path") or model.get("synthetic")
        return str(given).rstrip("/").rpartition("/")[2] if given else None
    return model if isinstance(model, str) else None


def _packed(
    trace: Trace, rank: int | None, host: str | None, spans: Iterable[dict[str, Any]]
) -> Iterator[tuple[str, int]]:
    resource = {
        "service.name": SCOPE,
        "service.instance.id": None if rank is None else f"{trace.run_id}/{rank}",
        "host.name": host,
        "harness.run_id": trace.run_id,
        "harness.rank": rank,
    }
    pack: list[dict[str, Any]] = []
    for span in spans:
        pack.append(span)
        if len(pack) == SPANS_A_LINE:
            yield _line(resource, pack), len(pack)
            pack = []
    if pack:
        yield _line(resource, pack), len(pack)


def _line(resource: Mapping[str, Any], spans: list[dict[str, Any]]) -> str:
    whole = export_request(resource, spans)
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False)


# -- spans -----------------------------------------------------------------------------------


def _run_span(trace: Trace) -> dict[str, Any]:
    failed = trace.status == "failed"
    return {
        "traceId": trace.trace_id,
        "spanId": trace.span_id("run"),
        "name": f"run {trace.name}",
        "kind": INTERNAL,
        "startTimeUnixNano": str(trace.start_ns),
        "endTimeUnixNano": str(trace.end_ns),
        "attributes": attributes_of({"harness.status": trace.status, "harness.name": trace.name}),
        "status": {"code": STATUS_ERROR if failed else STATUS_OK},
    }


def _request_spans(con: duckdb.DuckDBPyConnection, trace: Trace) -> Iterator[dict[str, Any]]:
    rows = rows_of(
        con,
        """
        SELECT request_id, rank, batch, repeat, warmup, perturbed_by, prompt_tokens,
          output_tokens, start_ns, ttft_ns, tpot_ns, e2e_ns
        FROM requests WHERE start_ns IS NOT NULL AND e2e_ns IS NOT NULL
        ORDER BY start_ns, request_id, batch, repeat
        """,
    )
    for row in rows:
        yield _request_span(trace, row)


def _request_span(trace: Trace, row: Mapping[str, Any]) -> dict[str, Any]:
    ttft = row["ttft_ns"]
    attributes = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": trace.runner,
        "gen_ai.request.model": trace.model,
        "gen_ai.response.id": row["request_id"],
        "gen_ai.usage.input_tokens": row["prompt_tokens"],
        "gen_ai.usage.output_tokens": row["output_tokens"],
        "gen_ai.response.time_to_first_chunk": None if ttft is None else ttft / 1e9,
        "harness.ttft_ns": ttft,
        "harness.tpot_ns": row["tpot_ns"],
        **{f"harness.{key}": row[key] for key in ("rank", *KEYS) if key in row},
    }
    first = [] if ttft is None else [_event("first token", row["start_ns"] + ttft)]
    return {
        "traceId": trace.trace_id,
        "spanId": trace.span_id("request", row["repeat"], row["batch"], row["request_id"]),
        "parentSpanId": trace.span_id("run"),
        "name": f"text_completion {trace.model}" if trace.model else "text_completion",
        "kind": INTERNAL,
        "startTimeUnixNano": str(row["start_ns"]),
        "endTimeUnixNano": str(row["start_ns"] + row["e2e_ns"]),
        "attributes": attributes_of(attributes),
        "events": first,
    }


def _unit_spans(
    con: duckdb.DuckDBPyConnection, trace: Trace, rank: int
) -> Iterator[dict[str, Any]]:
    names = ["phase", "batch", "microbatch", "repeat", "step", "warmup", "perturbed_by"]
    names += ["timeline", "evidence", "start_ns", "window_ns", *PARTS]
    sql = f"SELECT {', '.join(names)} FROM step_breakdown WHERE rank = ? AND start_ns IS NOT NULL"
    for row in rows_of(con, f"{sql} ORDER BY start_ns", rank):
        key = [row[name] for name in ("phase", "repeat", "batch", "microbatch", "step")]
        facts = (*KEYS, "phase", "timeline", "evidence", *PARTS)
        yield {
            "traceId": trace.trace_id,
            "spanId": trace.span_id("unit", rank, *key),
            "parentSpanId": trace.span_id("run"),
            "name": str(row["phase"] or "unit"),
            "kind": INTERNAL,
            "startTimeUnixNano": str(row["start_ns"]),
            "endTimeUnixNano": str(row["start_ns"] + row["window_ns"]),
            "attributes": attributes_of({f"harness.{name}": row[name] for name in facts}),
        }


def _event(name: str, ts_ns: int) -> dict[str, str]:
    return {"name": name, "timeUnixNano": str(ts_ns)}
