"""`scontrol show job`, in lines or with `-o`: what is left where Slurm keeps no accounts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

from harness_collectors.sacct.fields import (
    Reading,
    Step,
    dump_tres,
    is_zoneless,
    parse_count,
    parse_exit,
    parse_job_id,
    parse_seconds,
    parse_state,
    parse_text,
    parse_time_ns,
    parse_tres,
)

_Value = TypeVar("_Value")
_BLOCK = re.compile(r"^JobId=(?=\d)", re.MULTILINE)
_TOKEN = re.compile(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)")
_MARK = "MCS_label="
"""Names of jobs may hold anything, also `JobState=COMPLETED`; they stand before this field."""
_FREE_TEXT = re.compile(r"\s(?:Command|Comment|AdminComment|WorkDir)=")
"""Where text that users choose begins again."""
_NOT_OVER = frozenset({"RUNNING", "PENDING", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING"})


def is_scontrol(head: str) -> bool:
    """Whether a text begins as the description of a job."""
    return _BLOCK.search(head[:4096]) is not None and "JobState=" in head


def read_scontrol(text: str) -> Reading:
    """The job's own rows; a block without a state of Slurm's is counted and left out."""
    reading = Reading("scontrol")
    starts = [match.start() for match in _BLOCK.finditer(text)]
    end_of_all = len(text)
    if text and not text[-1].isspace():  # the last word may be cut: a shorter number is another
        end_of_all = max(text.rfind(" "), text.rfind("\n")) + 1
    bounds = [*(start for start in starts if start < end_of_all), end_of_all]
    for start, end in pairwise(bounds):
        step = _read_block(text[start:end], reading)
        if step is None:
            reading.unreadable += 1
        else:
            reading.steps.append(step)
    if not starts:
        reading.problem = "no job in the output of scontrol"
    return reading


def _read_block(block: str, reading: Reading) -> Step | None:
    head, body = _name_apart(block)
    if "JobState=" not in body:
        return None
    ids, _, name = head.partition(" JobName=")
    free = _FREE_TEXT.search(body)
    fields: dict[str, str] = {}
    for key, value in _TOKEN.findall(ids) + _TOKEN.findall(body[: free.start()] if free else body):
        fields.setdefault(key, value)
    fields["JobName"] = re.split(r"\s+UserId=", name)[0].strip()
    state = _get(fields, "JobState", parse_state, reading)
    try:
        raw = parse_job_id(fields.get("JobId", "")).job
    except ValueError:
        return None
    return None if state is None else _build(fields, raw, state, reading)


def _name_apart(block: str) -> tuple[str, str]:
    """What stands before the fields in which nobody's text is, and they; "" where none are safe."""
    head, mark, body = block.partition(_MARK)
    if mark:
        return head, body
    head, _, body = block.partition("\n")  # Slurm before 16.05: a name holds no line break
    if "JobState=" in body:
        return head, body
    return ("", "") if "Name=" in head.partition("JobState=")[0] else (head.split(" ")[0], block)


def _build(fields: Mapping[str, str], raw: str, state: Any, reading: Reading) -> Step:
    over = state.word not in _NOT_OVER
    code, signal = _get(fields, "ExitCode", parse_exit, reading) or (None, None)
    elapsed = _get(fields, "RunTime", parse_seconds, reading)
    for name in ("StartTime", "EndTime"):
        reading.zoneless = reading.zoneless or is_zoneless(fields.get(name, ""))
    array, task = fields.get("ArrayJobId", ""), fields.get("ArrayTaskId", "")
    return Step(
        source="scontrol",
        job_id=f"{array}_{task}" if array.isdecimal() and task.isdecimal() else raw,
        raw_job_id=raw,
        attempt=_get(fields, "Restarts", parse_count, reading),
        name=_get(fields, "JobName", parse_text, reading),
        state=state.word,
        reason=_get(fields, "Reason", parse_text, reading),
        exit_code=code if over else None,
        signal=signal or None if over else None,
        nodes=_get(fields, "NodeList", parse_text, reading),
        ntasks=_get(fields, "NumTasks", parse_count, reading),
        started_ns=_get(fields, "StartTime", parse_time_ns, reading),
        # Of a job that is not over it is the time limit.
        ended_ns=_get(fields, "EndTime", parse_time_ns, reading) if over else None,
        elapsed_s=None if elapsed is None else int(elapsed),
        tres=dump_tres({"alloc": _get(fields, "TRES", parse_tres, reading)}),
    )


def _get(
    fields: Mapping[str, str], name: str, parse: Callable[[str], _Value], reading: Reading
) -> _Value | None:
    try:
        return parse(fields.get(name, ""))
    except ValueError:
        reading.doubtful += 1
        return None
