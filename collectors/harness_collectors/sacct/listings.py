"""What `seff` and `squeue` print for people: the end of a job, or that it has not ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from harness_collectors.sacct.fields import (
    ENDED_STATES,
    Reading,
    State,
    Step,
    parse_job_id,
    parse_seconds,
    parse_state,
    parse_text,
)

_SEFF: Final = re.compile(r"^Job ID: (?=\d)", re.MULTILINE)
_SEFF_STATE: Final = re.compile(r"([A-Z_]+(?: by \d+)?)(?: \(exit code (\d{1,3})\))?")
_SIZE: Final = re.compile(r"(\d{1,9}\.\d\d) (KB|MB|GB|TB)")
_UNITS: Final = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_SHORT: Final = {
    "BF": "BOOT_FAIL",
    "CA": "CANCELLED",
    "CD": "COMPLETED",
    "CF": "CONFIGURING",
    "CG": "COMPLETING",
    "DL": "DEADLINE",
    "F": "FAILED",
    "NF": "NODE_FAIL",
    "OOM": "OUT_OF_MEMORY",
    "PD": "PENDING",
    "PR": "PREEMPTED",
    "R": "RUNNING",
    "RD": "RESV_DEL_HOLD",
    "RF": "REQUEUE_FED",
    "RH": "REQUEUE_HOLD",
    "RQ": "REQUEUED",
    "RS": "RESIZING",
    "RV": "REVOKED",
    "S": "SUSPENDED",
    "SI": "SIGNALING",
    "SE": "SPECIAL_EXIT",
    "SO": "STAGE_OUT",
    "ST": "STOPPED",
    "TO": "TIMEOUT",
}
"""squeue(1), job state codes."""


def is_seff(head: str) -> bool:
    """Whether a text begins as seff's report."""
    match = _SEFF.search(head[:4096])
    return match is not None and "\nState: " in head[match.start() : match.start() + 1024]


def read_seff(text: str) -> Reading:
    """One row a report. Memory is kept where it is not seff's estimate over several tasks."""
    reading = Reading("seff")
    for part in _SEFF.split(text)[1:]:
        lines = ("Job ID: " + part).split("\n")
        said = dict(line.split(": ", 1) for line in lines[:-1] if ": " in line)
        step = _seff_step({name.strip(): value.strip() for name, value in said.items()}, reading)
        if step is None:
            reading.unreadable += 1
        else:
            reading.steps.append(step)
    return reading


def _seff_step(said: Mapping[str, str], reading: Reading) -> Step | None:
    state = _SEFF_STATE.fullmatch(said.get("State", ""))
    try:
        raw = parse_job_id(said["Job ID"]).job
        job = parse_job_id(said.get("Array Job ID", raw)).job
        word = parse_state(state[1]) if state else None
        elapsed = parse_seconds(said.get("Job Wall-clock time", ""))
        cpu = parse_seconds(said.get("CPU Utilized", ""))
    except ValueError:
        return None
    if state is None or word is None:
        return None
    over = word.word in ENDED_STATES
    size = _SIZE.fullmatch(said.get("Memory Utilized", ""))
    return Step(
        source=reading.source,
        job_id=job,
        raw_job_id=raw,
        state=word.word,
        cancelled_by=word.cancelled_by,
        exit_code=int(state[2]) if state[2] and over else None,
        elapsed_s=None if elapsed is None else int(elapsed),
        cpu_s=cpu if over else None,
        max_rss_bytes=(round(float(size[1]) * _UNITS[size[2]]) or None) if size and over else None,
    )


def squeue_columns(line: str) -> list[str] | None:
    """The words of squeue's header line; None if it is none."""
    names = _cells(line, _delimiter(line))  # in capitals, unlike sacct's
    return names if names[:1] == ["JOBID"] and {"ST", "STATE"} & set(names) else None


def _delimiter(header: str) -> str | None:
    """What `squeue -o` was told to put between its columns; None: blanks."""
    match = re.match(r"JOBID([|,;:\t])", header)
    return match[1] if match else None


def _cells(line: str, delimiter: str | None) -> list[str]:
    return [cell.strip() for cell in line.split(delimiter)] if delimiter else line.split()


def read_squeue(text: str) -> Reading:
    """One row a job or step. A row in which two words could be its state is left out."""
    reading = Reading("squeue")
    lines = text.split("\n")
    head = next((place for place, line in enumerate(lines) if squeue_columns(line)), None)
    names = [] if head is None else squeue_columns(lines[head]) or []
    delimiter = None if head is None else _delimiter(lines[head])
    for line in [] if head is None else lines[head + 1 : -1]:  # what follows the last is cut
        step = _squeue_step(line, names, delimiter) if line.strip() else None
        if step is not None:
            reading.steps.append(step)
        elif line.strip():
            reading.unreadable += 1
    if head is None:
        reading.problem = "no header line of squeue"
    return reading


def _squeue_step(line: str, names: list[str], delimiter: str | None) -> Step | None:
    words = _cells(line, delimiter)
    short = "ST" in names
    where = names.index("ST" if short else "STATE") if delimiter else None
    if delimiter and len(words) != len(names):
        return None
    states = [
        (place, state)
        for place, word in enumerate(words[1:], start=1)
        if where in (None, place) and (state := _queue_state(word, short)) is not None
    ]
    try:
        job = parse_job_id(words[0])
    except ValueError:
        return None
    if len(states) != 1:
        return None
    place, state = states[0]
    timed = names[names.index("ST" if short else "STATE") + 1 :][:1] == ["TIME"]
    reason = re.search(r"\(([^()]*)\)\s*$", line)
    nodes = words[-1] if names[-1] == "NODELIST(REASON)" and reason is None else None
    return Step(
        source="squeue",
        job_id=job.job,
        step_id=job.step,
        state=state.word,
        reason=parse_text(reason[1]) if reason else None,
        nodes=None if nodes is None else parse_text(nodes),
        elapsed_s=_elapsed(words[place + 1]) if timed and place + 1 < len(words) else None,
    )


def _queue_state(word: str, short: bool) -> State | None:
    if short:
        return State(_SHORT[word]) if word in _SHORT else None
    try:
        cut = parse_state(word + "+") if len(word) == _CUT else None
        return cut or parse_state(word)
    except ValueError:
        return None


_CUT: Final = 8
"""squeue cuts a state to its column's width, `CONFIGURI` and `CONFIGUR` among others."""


def _elapsed(word: str) -> int | None:
    try:
        seconds = parse_seconds(word)
    except ValueError:
        return None
    return None if seconds is None else int(seconds)
