"""Slurm's accounting: what became of a job and of each of its steps.

Capture happens after the job, by its id (`fetch`); ingest reads what that left, and the outputs of
sacct, sstat, seff, `scontrol show job` and squeue from anybody's machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Final

from harness_collectors.options import unknown_options
from harness_collectors.reading.text_evidence import Tally, batch, by_host, read_text
from harness_collectors.reading.wrapped import printed, read_printed
from harness_collectors.sacct.bare import bare
from harness_collectors.sacct.fields import ENDED_STATES, Reading, Step
from harness_collectors.sacct.headless import is_plain
from harness_collectors.sacct.json_text import is_json, read_json
from harness_collectors.sacct.listings import is_seff, read_seff, read_squeue, squeue_columns
from harness_collectors.sacct.query import DISABLED, FETCH_FORMAT, fetch
from harness_collectors.sacct.scontrol import is_scontrol, read_scontrol
from harness_collectors.sacct.table import (
    MAX_PREFACE,
    field_list,
    find_header,
    first_row,
    headerless_delimiter,
    lacks_job_id,
    read_table,
)
from harness_schemas.redact import redact
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext

__all__ = ["COLLECTOR", "Sacct", "fetch"]

NAME: Final = "sacct"
SOURCES: Final = ("sacct", "sacct_json", "sstat", "scontrol", "squeue_json", "seff", "squeue")
DISABLED_REASON: Final = (
    "Slurm accounting storage is disabled, so the steps of the job are not known; "
    "ask the cluster's administrators for slurmdbd, or read `scontrol show job` within minutes"
)
_PREFACE_TEXT: Final = 8192
_FALLBACKS: Final = ("scontrol", "squeue_json", "seff", "squeue")
_COMPARED: Final = ("state", "exit_code", "signal", "elapsed_s", "name")


@dataclass(frozen=True)
class _File:
    """A file's text by kind: table, json, scontrol, seff, squeue, fields, fetch, disabled, none."""

    path: Path
    kind: str
    text: str
    size: int
    cut: bool


class Sacct:
    """Slurm's accounting, fetched after the job by its id, or read from files."""

    name = NAME
    title = "Slurm accounting of the job and its steps"
    sources = SOURCES

    def check(self, device: str) -> Availability:
        """Whether sacct is here and the cluster keeps accounts (one question to the controller)."""
        path = shutil.which("sacct")
        if path is None:
            hint = "run where Slurm's commands are, or ingest a saved `sacct -P` output"
            return Availability(False, "sacct is not on PATH", hint)
        storage = _accounting_storage()
        facts = {"sacct": path, "accounting_storage": storage}
        if storage is not None and storage.endswith("/none"):
            return Availability(False, "the cluster keeps no accounts", DISABLED_REASON, facts)
        return Availability(True, facts=facts)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`calls` (1 to 10): how often sacct is asked at most, 60 s apart."""
        wrong = unknown_options(NAME, given, {"calls"})
        calls = given.get("calls", 3)
        if isinstance(calls, bool) or not isinstance(calls, int) or not 1 <= calls <= 10:
            wrong.append(f"calls is {calls!r}, but must be a number from 1 to 10")
        if wrong:
            raise ValueError("\n".join(wrong))
        return {"calls": calls}

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Nothing: the run is not touched, the question is asked after it (`fetch`)."""
        return CapturePlan()

    def recognise(self, path: Path, head: bytes) -> bool:
        """By a header line, a row of a known shape, or the shape of Slurm's JSON."""
        return _kind(bare(printed(head).decode("utf-8", "replace"))) != "none"

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of `slurm_steps`, and one row of `collection` a host."""
        for host, paths in by_host(files, NAME):
            yield from _ingest_host(host, paths, context.root)


def _accounting_storage() -> str | None:
    """`AccountingStorageType` of the cluster; None where the controller does not answer."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, timeout=2, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "AccountingStorageType":
            return value.strip()
    return None


def _kind(head: str) -> str:
    """What a file is, from its beginning."""
    stripped = head.lstrip()
    first = stripped.partition("\n")[0]
    if FETCH_FORMAT in head[:200]:
        return "fetch"
    if not stripped:
        return "none"
    if is_json(stripped):
        return "json"
    if stripped.startswith("{"):
        return "none"
    if DISABLED in first:
        return "disabled"
    if is_scontrol(stripped):
        return "scontrol"
    if is_seff(stripped):
        return "seff"
    if field_list(head) is not None:
        return "fields"
    if headerless_delimiter(first) is not None:
        return "table"
    lines = stripped[:_PREFACE_TEXT].splitlines()
    if any(squeue_columns(line) for line in lines[:MAX_PREFACE]):
        return "squeue"
    if is_plain(lines) or lacks_job_id(lines):
        return "table"
    place = first_row(lines) or 0
    ruled = "JobID" in lines[place] and "".join(lines[place + 1 : place + 2]).startswith("----")
    return "table" if ruled or find_header(lines[place]) is not None else "none"


def _ingest_host(host: str | None, paths: Sequence[Path], root: Path) -> Iterator[Batch]:
    tally = Tally(NAME, host)
    readings: list[Reading] = []
    about: dict[str, Any] = {}
    fetched: Mapping[str, Any] = {}
    disabled = False
    for path in paths:
        try:
            read = read_printed(path)
        except OSError as error:
            tally.unreadable += 1
            about[_name(path, root)] = {"problem": error.strerror or str(error)}
            continue
        tally.bytes += read.size
        text = bare(read.text)
        file = _File(path, _kind(text[:65536]), text, read.size, read.cut)
        disabled = disabled or file.kind == "disabled"
        if file.kind == "fetch":
            fetched = _fetch_note(file.text)
        reading = _read(file)
        if reading is not None:
            readings.append(reading)
            about[_name(path, root)] = _describe(reading, file)
    steps = merge(readings)
    tally.records = len(steps)
    tally.unreadable += sum(reading.unreadable for reading in readings)
    _judge(tally, steps, fetched, disabled, readings)
    if steps:
        yield batch("slurm_steps", map(_row, steps))
    detail: dict[str, Any] = {"files": about}
    if any(reading.zoneless for reading in readings):
        detail["time_zone"] = "assumed UTC: the times do not say theirs"
    yield batch("collection", [tally.row(detail)])


def _row(step: Step) -> dict[str, Any]:
    """The row to store: names of jobs are what users typed, and some type secrets."""
    row = asdict(step)
    for column in ("name", "reason"):
        row[column] = redact(row[column]) if row[column] else None
    return row


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _read(file: _File) -> Reading | None:
    if file.kind == "json":
        return read_json(file.text)
    if file.kind == "scontrol":
        return read_scontrol(file.text)
    if file.kind == "seff":
        return read_seff(file.text)
    if file.kind == "squeue":
        return read_squeue(file.text)
    if file.kind in ("fields", "fetch", "disabled"):
        return None
    return read_table(file.text, _fields_beside(file.path) if file.kind == "table" else None)


def _fields_beside(path: Path) -> tuple[str, ...] | None:
    """The saved `-o` list in the same folder, where exactly one field list lies there."""
    lists = set()
    for other in sorted(path.parent.glob("*FIELDS*"))[:16]:
        try:
            fields_named = field_list(read_text(other, 1 << 16).text)
        except OSError:
            continue
        if fields_named is not None:
            lists.add(fields_named)
    return lists.pop() if len(lists) == 1 else None


def _fetch_note(text: str) -> Mapping[str, Any]:
    try:
        note = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _describe(reading: Reading, file: _File) -> dict[str, Any]:
    about: dict[str, Any] = {"source": reading.source, "rows": len(reading.steps)}
    extra = {
        "unreadable": reading.unreadable,
        "doubtful_values": reading.doubtful,
        "cut": file.cut,
        "problem": reading.problem,
    }
    return about | {name: value for name, value in extra.items() if value}


def _judge(
    tally: Tally,
    steps: Sequence[Step],
    fetched: Mapping[str, Any],
    disabled: bool,
    readings: Sequence[Reading],
) -> None:
    """Set the state, where it is not simply what the counts say."""
    reason = fetched.get("reason")
    reason = reason if isinstance(reason, str) else ""
    disabled = disabled or DISABLED in reason
    from_accounts = any(step.source in ("sacct", "sacct_json") for step in steps)
    if disabled and not from_accounts:
        tally.state = "degraded" if steps else "skipped"
        tally.reason = DISABLED_REASON
    elif fetched.get("state") in ("degraded", "skipped") and reason:
        tally.state, tally.reason = str(fetched["state"]), reason
    elif steps and not from_accounts:
        tally.state = "degraded"
        tally.reason = f"no accounting: the rows are from {steps[0].source}"
    elif not readings:
        tally.state, tally.reason = "skipped", "no rows of accounting among the files"
    elif not steps:
        tally.reason = next((reading.problem for reading in readings if reading.problem), "")


def merge(readings: Sequence[Reading]) -> list[Step]:
    """Rows of all files: a row that several files tell is one, with what each of them knows.

    Within a file every row stays. Where accounts have a job's end, what scontrol and squeue say
    of it is dropped.
    """
    merged: list[Step] = []
    for reading in sorted(readings, key=_preference):
        places: dict[tuple[str, str | None], list[int]] = {}
        for place, step in enumerate(merged):
            places.setdefault((step.job_id, step.step_id), []).append(place)
        for step in reading.steps:
            free = places.get((step.job_id, step.step_id), [])
            same = next((place for place in free if _agree(merged[place], step)), None)
            if same is None:
                merged.append(step)
            else:
                free.remove(same)
                merged[same] = _fill(merged[same], step)
    over = {step.raw_job_id or step.job_id for step in merged if _from_accounts(step)}
    return [
        step
        for step in merged
        if step.source not in _FALLBACKS or (step.raw_job_id or step.job_id) not in over
    ]


def _preference(reading: Reading) -> tuple[bool, bool, int]:
    """Accounts first, then exact times, then the fuller file."""
    fallback = reading.source in _FALLBACKS
    return fallback, reading.zoneless, -len(reading.steps)


def _from_accounts(step: Step) -> bool:
    return step.source not in _FALLBACKS and step.step_id is None and step.state in ENDED_STATES


def _agree(one: Step, other: Step) -> bool:
    if one.source in _FALLBACKS or other.source in _FALLBACKS:
        return False
    pairs = [(getattr(one, name), getattr(other, name)) for name in _COMPARED]
    if None not in (one.attempt, other.attempt):
        pairs.append((one.attempt, other.attempt))
    return all(a is None or b is None or a == b for a, b in pairs)


def _fill(one: Step, other: Step) -> Step:
    missing = {
        item.name: getattr(other, item.name)
        for item in dataclass_fields(Step)
        if getattr(one, item.name) is None
    }
    return replace(one, **missing)


COLLECTOR = Sacct()
