"""Text that log shippers keep as JSON: what a program said, out of each of their records.

A record a line: Docker (`log`), Loki (`line`), Elastic and journald (`message`, `MESSAGE`), Google
Cloud (`textPayload`), structlog (`event`). Or one document: a list of such records, events of
Kubernetes (`items`), an answer of Loki's API (`data.result`), the error file of torchrun
(torch.distributed.elastic.multiprocessing.errors, error.json). Or lines as Kubernetes' runtimes
keep them (`<time> stdout F ...`; design proposal kubelet-cri-logging).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness_collectors.reading.text_evidence import (
    DOCKER,
    MAX_TEXT_BYTES,
    Text,
    read_text,
    undocked,
)

SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson"})
_SAID: Final = ("log", "line", "message", "MESSAGE", "msg", "textPayload", "event")
_BESIDE: Final = (
    *("stream", "time", "timestamp", "@timestamp", "ts", "__REALTIME_TIMESTAMP"),
    *("lastTimestamp", "eventTime"),
)
"""A record of a shipper has a time or a stream; of other JSON, a `message` says nothing."""
_ERROR_FILE: Final = re.compile(
    rb'\s*\{\s*"message":\s*(?:\{.{0,65536}"extraInfo"|"Signal \d)', re.S
)
_ANSWER: Final = re.compile(rb'\s*\{.{0,200}"resultType"\s*:\s*"streams"', re.S)
_LIST: Final = re.compile(
    rb'\s*(?:\[\s*\{(?=.{0,8192}"(?:textPayload|jsonPayload|message|log|line|msg)"\s*:)'
    rb'|\{.{0,400}"items"\s*:\s*\[(?=.{0,8192}"message"\s*:))(?=.{0,8192}(?:[tT]ime|"ts"))',
    re.S,
)
_KUBERNETES: Final = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
    rb" (stdout|stderr) ([FP])(?: |$)"
)
"""P: the line goes on in the next one of its stream."""
_BEFORE_EACH: Final = (
    re.compile(rb"(?:> ?(?=> ))*> ?"),  # a quotation, in Markdown or a mail
    re.compile(rb"\[pod/[\w./-]{1,250}\] "),  # kubectl logs --prefix
    re.compile(rb"[A-Za-z][\w.-]{0,80}[-_]\d{1,6} *\| "),  # docker compose
)
"""What stands before each line, or before none."""
_FENCE: Final = re.compile(rb"^```[a-z]*[ \t]*\r?\n?", re.MULTILINE)
_HEAD_BYTES: Final = 65_536
_OF_PERF: Final = frozenset({"counter-value", "metric-value"})
"""Its rows have an `event`, which is nothing said."""
_RANK_NAMED: Final = re.compile(r"\s*\[rank\d+\]:")
_OWN: Final = frozenset({"completions", "spans", "job"})
"""Folders of a run with JSON of our own, where models and users may say anything."""


def is_wrapped(head: bytes) -> bool:
    """Whether a file, from its beginning, is JSON around what a program printed."""
    if any(form.match(head) for form in (DOCKER, _ANSWER, _ERROR_FILE, _LIST)):
        return True
    first = head.lstrip().partition(b"\n")[0]
    record = _record(first) if first.startswith(b"{") else None
    return record is not None and _text(record) is not None


def printed(data: bytes) -> bytes:
    """What a program printed, where a container's runtime or a shipper keeps it; data as it is
    where nobody put anything around it."""
    head = data[:_HEAD_BYTES].lstrip()
    if is_wrapped(head):
        return unwrapped(data)
    if _KUBERNETES.match(head):
        return _of_kubernetes(data)
    for form in _BEFORE_EACH:
        if form.match(head):
            lines = data.splitlines(keepends=True)
            whole = lines[:-1] if len(lines) > 1 and not data.endswith(b"\n") else lines
            if all(form.match(line) for line in whole if line.strip()):
                return printed(b"".join(form.sub(b"", line, count=1) for line in lines))
    return _FENCE.sub(b"", data) if head.startswith(b"```") else data


def read_printed(path: Path, limit: int = MAX_TEXT_BYTES) -> Text:
    """`read_text`, without what others put around what was printed.

    Raises:
        OSError: it cannot be read.
    """
    found = read_text(path, limit)
    head = found.text[:_HEAD_BYTES].encode()
    if printed(head) is head:
        return found
    return replace(found, text=printed(found.text.encode()).decode("utf-8", "replace"))


def _of_kubernetes(data: bytes) -> bytes:
    said: list[bytes] = []
    begun: dict[bytes, bytes] = {}
    for line in data.splitlines():
        match = _KUBERNETES.match(line)
        if match is None:
            said.append(line)
            continue
        text = begun.pop(match[1], b"") + line[match.end() :]
        if match[2] == b"P":
            begun[match[1]] = text
        else:
            said.append(text)
    return b"".join(line + b"\n" for line in (*said, *begun.values()))


def is_program_s(path: Path) -> bool:
    """Whether a file does not lie where a run keeps JSON of ours."""
    return not _OWN & set(path.parts[-3:-1])


def unwrapped(block: bytes) -> bytes:
    """The lines that records hold; a block that holds none as it is."""
    if not is_wrapped(block):
        return block
    if DOCKER.match(block):
        said = undocked(block)
        return said if said.count(b"\n") * 2 > block.count(b'"log"') else _joined(_records(block))
    if _ANSWER.match(block):
        return _joined(_streams(_record(block)))
    if _ERROR_FILE.match(block):
        return _joined([_record(block) or {}])
    if _LIST.match(block):
        return _joined(_listed(block)) or block
    return _joined(_records(block))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _records(block: bytes) -> list[dict[str, Any]]:
    """Records in the order of their times where Loki wrote them, which lists the newest first."""
    found = [record for line in block.split(b"\n") if line.strip() and (record := _record(line))]
    if found and all("line" in record and "timestamp" in record for record in found):
        found.sort(key=lambda record: str(record["timestamp"]))
    return found


def _listed(block: bytes) -> list[dict[str, Any]]:
    """Records of one document; none where it is cut."""
    try:
        found = json.loads(block)
    except (ValueError, RecursionError):
        return []
    items = found.get("items") if isinstance(found, dict) else found
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _streams(answer: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Lines of all streams of an answer, the earliest first."""
    try:
        values = [pair for item in (answer or {})["data"]["result"] for pair in item["values"]]
        for when, line in sorted((str(when), str(line)) for when, line in values):
            yield {"line": line, "timestamp": when}
    except (KeyError, TypeError, ValueError):
        return


def _joined(records: Any) -> bytes:
    texts = (_text(record) for record in records)
    return "".join(f"{text.rstrip()}\n" for text in texts if text).encode("utf-8", "replace")


def _text(record: Mapping[str, Any]) -> str | None:
    """What was said in a record, with the rank where only the record names it."""
    inner = record.get("message")
    if isinstance(inner, Mapping) and isinstance(inner.get("message"), str):
        stack = inner.get("extraInfo")
        frames = stack.get("py_callstack") if isinstance(stack, Mapping) else None
        return "\n".join([frames if isinstance(frames, str) else "", str(inner["message"])])
    payload = record.get("jsonPayload")
    if isinstance(payload, Mapping):
        return _text({"timestamp": 0, **payload})
    if not any(name in record for name in _BESIDE) and "Signal " not in str(inner):
        return None
    said = next((record[name] for name in _SAID if isinstance(record.get(name), str | list)), None)
    text = _bytes(said) if isinstance(said, list) else said
    within = _record(text.encode()) if text and text.startswith('{"') else None
    if within and not _OF_PERF & within.keys():
        text = _text({"time": 0, **within}) or text  # one shipper's record in another's
    text = "\n".join(part for part in (text, _error(record)) if part) or None
    rank = record.get("rank")
    if text and isinstance(rank, int) and rank >= 0 and not _RANK_NAMED.match(text):
        return "\n".join(f"[rank{rank}]: {line}" for line in text.splitlines())
    return text


def _error(record: Mapping[str, Any]) -> str | None:
    """The exception that stands beside a message, as Elastic's `error` or a logger's `exc_info`."""
    error = record.get("error", record.get("exception", record.get("exc_info")))
    if isinstance(error, Mapping):
        kind, message = error.get("type"), error.get("message")
        return f"{kind}: {message}" if isinstance(kind, str) and message else None
    return error if isinstance(error, str) else None


def _bytes(said: list[Any]) -> str | None:
    """journald writes a message that is no UTF-8 as the list of its bytes."""
    if not all(isinstance(byte, int) and 0 <= byte < 256 for byte in said):
        return None
    return bytes(said).decode("utf-8", "replace")
