"""Warnings of NCCL and messages of PyTorch's NCCL watchdog, as events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from harness_collectors.nccl_log.evidence.state import Event, Process
from harness_collectors.nccl_log.grammar.lines import Record
from harness_schemas.redact import redact

MAX_TEXT: Final = 400

_HARMLESS: Final = (
    b"Failed to open libibverbs",  # a host without InfiniBand
    b"Could not find: libnccl",
    b'Missing "iommu=pt"',
)
_CONSEQUENCE: Final = re.compile(rb"error 5\b.{0,40}opcode|status=5\b|IBV_WC_WR_FLUSH_ERR")
"""A flushed work request: some other request failed first."""

_FROM_TORCH: Final = b"ProcessGroupNCCL.cpp:"
_MESSAGE: Final = re.compile(
    rb"(?:\[rank(?P<rank>\d{1,7})\]:)?\[(?P<level>[EFWI])[\w :.]{0,40}?"
    rb"ProcessGroupNCCL\.cpp:\d+\] (?P<text>[^\r\n]*)"
)
_GROUP: Final = re.compile(
    rb"\[(?:PG (?:ID )?(?P<pg>[\w.-]+) )?(?:PG GUID (?P<guid>[\w.-]+)(?:\((?P<name>[^)]*)\))? )?"
    rb"Rank (?P<group_rank>\d{1,7})\]"
)
_TIMEOUT: Final = re.compile(
    rb"Watchdog caught collective operation timeout: WorkNCCL\(SeqNum=(?P<seq>\d{1,18}), "
    rb"OpType=(?P<op>\w{1,40}), (?:NumelIn=(?P<numel_in>\d{1,18}), "
    rb"NumelOut=(?P<numel_out>\d{1,18}), )?Timeout\(ms\)=(?P<timeout_ms>\d{1,18})\) "
    rb"ran for (?P<ran_ms>\d{1,18}) milliseconds"
)
_STATE: Final = re.compile(
    rb"detected by watchdog at work(?: sequence id)?: (?P<seq>\d{1,18})[ ,]+(?:PG status: )?"
    rb"last enqueued (?:NCCL )?work: (?P<last_enqueued>-?\d{1,18}), "
    rb"last completed (?:NCCL )?work: (?P<last_completed>-?\d{1,18})"
)
_DEFAULT_GROUP: Final = (b"default_pg",)


def readable(text: bytes) -> str:
    """Text for people: one line, printable, bounded, without secrets."""
    return _readable(text[: 4 * MAX_TEXT])


@lru_cache(maxsize=1024)  # a network that flaps says the same a million times
def _readable(text: bytes) -> str:
    decoded = text.decode("utf-8", "replace")
    printable = "".join(sign if sign.isprintable() else " " for sign in decoded)
    return redact(" ".join(printable.split()))[:MAX_TEXT]


def warning(record: Record, process: Process | None, ts_ns: int | None) -> Event:
    """A line of level WARN."""
    text = record.text
    severity = "problem"
    if any(known in text for known in _HARMLESS):
        severity = "info"
    elif _CONSEQUENCE.search(text):
        severity = "notice"
    return Event(process, None, ts_ns, severity, "nccl_warn", readable(text), {})


def watchdog(line: bytes) -> Iterator[Event]:
    """The messages of PyTorch's process group in a line; of the chatty levels none."""
    if _FROM_TORCH not in line:
        return
    for piece in re.split(rb"(?=\[rank\d{1,7}\]:\[)", line):
        match = _MESSAGE.search(piece)
        if match is not None and match["level"] in b"EF":
            yield _event(match)


def _event(match: re.Match[bytes]) -> Event:
    text = match["text"]
    group = _GROUP.search(text[:200])
    attrs: dict[str, Any] = {}
    rank = int(match["rank"]) if match["rank"] else None
    if group is not None:
        attrs["group_rank"] = int(group["group_rank"])
        if group["pg"]:
            attrs["pg"] = group["pg"].decode("ascii", "replace")
        if group["name"]:
            attrs["pg_name"] = group["name"].decode("ascii", "replace")
        if rank is None and group["name"] in _DEFAULT_GROUP:
            rank = attrs["group_rank"]
    kind, severity = "process_group", "notice"
    if found := _TIMEOUT.search(text):
        kind, severity = "watchdog_timeout", "problem"
        attrs |= _numbers(found, ("seq", "numel_in", "numel_out", "timeout_ms", "ran_ms"))
        attrs["op"] = found["op"].decode("ascii").lower()
    elif found := _STATE.search(text):
        kind, severity = "watchdog_state", "problem"
        attrs |= _numbers(found, ("seq", "last_enqueued", "last_completed"))
    return Event(None, rank, None, severity, kind, readable(text), attrs)


def _numbers(match: re.Match[bytes], names: tuple[str, ...]) -> dict[str, int]:
    return {name: int(match[name]) for name in names if match[name] is not None}
