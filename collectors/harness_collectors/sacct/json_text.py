"""`sacct --json` and `squeue --json`, of every form between dbv0.0.36 and data_parser 0.0.45.

What differs by version: `state.current` is a word or a list of words; a number is a number or
`{set, infinite, number}`; a step's id is a word, a number, `JOB.STEP` or an object; an exit
code's status is a word or a list. Oddities of real files: microseconds above a million, and CPU
times of 0 on the job while its steps have some, and an exit code of 0 on what FAILED.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from harness_collectors.sacct.fields import STATES, UNKNOWN, Reading, Step, dump_tres
from harness_collectors.sacct.table import number_attempts

_MIB: Final = 1 << 20
_LARGEST: Final = (1 << 63) - 1
_NO_VALUE: Final = 0xFFFFFFFE
"""Old versions print this for what is not set (NO_VAL of slurm.h)."""
_JOBS = re.compile(r'"jobs"\s*:\s*\[')
_SEPARATORS = re.compile(r"[\s,]*")
_DOCUMENT = re.compile(r"(?:^[^{\n]{0,400}\n){0,8}^\s*\{", re.MULTILINE)
"""Its beginning: a prompt or warnings may stand before it."""
_STEP_WORD = re.compile(r"(?:\d+\.)?([A-Za-z]+|\d+(?:\+\d+)?)")


def is_json(head: str) -> bool:
    """Whether a file begins, but for some lines, with jobs of Slurm."""
    names_job = '"job_id"' in head or '"meta"' in head
    return '"jobs"' in head and names_job and _DOCUMENT.match(head) is not None


def read_json(text: str) -> Reading:
    """Jobs and steps, one whole job after the other, up to the end or the tear."""
    reading = Reading("sacct_json")
    steps: list[Step] = []
    for job in _jobs(text, reading):
        try:
            steps += _read_job(job)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            reading.unreadable += 1
    reading.steps = number_attempts(steps)
    if steps:
        reading.source = steps[0].source
    elif not reading.problem:
        reading.problem = "the file names no job"
    return reading


def _jobs(text: str, reading: Reading) -> Iterator[Any]:
    match = _JOBS.search(text)
    if match is None:
        reading.problem = "the file holds no list of jobs"
        return
    decoder = json.JSONDecoder()
    place = match.end()
    while True:
        found = _SEPARATORS.match(text, place)
        place = found.end() if found else place
        if place < len(text) and text[place] == "]":
            return
        try:
            job, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            reading.unreadable += 1
            reading.problem = "" if place > match.end() else "the first job is torn"
            return
        yield job


def _read_job(job: Mapping[str, Any]) -> list[Step]:
    number = _number(job["job_id"])
    if not number:
        raise ValueError("no job id")
    raw = str(number)
    own = _queue_row(job, raw) if "job_state" in job else _job_row(job, raw)
    steps = [_step_row(step, own) for step in job.get("steps") or () if isinstance(step, Mapping)]
    if not own.cpu_s:  # sacct gives the job itself 0
        known = [step.cpu_s for step in steps if step.cpu_s is not None]
        own = replace(own, cpu_s=round(sum(known), 6) if known else None)
    return [own, *steps]


def _job_row(job: Mapping[str, Any], raw: str) -> Step:
    state = _object(job.get("state"))
    word = _state(state.get("current"))
    code, signal = _believed(word, _exit(job.get("exit_code")))
    times = _object(job.get("time"))
    derived = _exit(job.get("derived_exit_code"))
    return Step(
        source="sacct_json",
        job_id=_shown_id(job, raw),
        raw_job_id=raw,
        attempt=_number(job.get("restart_cnt")),
        name=_text(job.get("name")),
        state=word,
        reason=_text(state.get("reason")),
        exit_code=code,
        signal=signal,
        derived_exit=None if derived[0] is None else f"{derived[0]}:{derived[1] or 0}",
        nodes=_text(job.get("nodes")),
        started_ns=_moment(times.get("start")),
        ended_ns=_moment(times.get("end")),
        elapsed_s=_number(times.get("elapsed")),
        cpu_s=_cpu(times.get("total")),
        tres=dump_tres({"alloc": _tres(_object(job.get("tres")).get("allocated"), _MIB)}),
    )


def _queue_row(job: Mapping[str, Any], raw: str) -> Step:
    """A job of `squeue --json`: no steps, no usage."""
    code, signal = _exit(job.get("exit_code"))
    started, ended = _moment(job.get("start_time")), _moment(job.get("end_time"))
    state = _state(job.get("job_state"))
    over = state not in (None, "RUNNING", "PENDING", "COMPLETING", "CONFIGURING", "SUSPENDED")
    return Step(
        source="squeue_json",
        job_id=_shown_id(job, raw),
        raw_job_id=raw,
        attempt=_number(job.get("restart_cnt")),
        name=_text(job.get("name")),
        state=state,
        reason=_text(job.get("state_reason")),
        exit_code=code if over else None,
        signal=signal if over else None,
        nodes=_text(job.get("nodes")),
        started_ns=started,
        ended_ns=ended if over else None,  # of a running job it is the time limit
        elapsed_s=(ended - started) // 1_000_000_000 if over and started and ended else None,
    )


def _step_row(step: Mapping[str, Any], job: Step) -> Step:
    about, times = _object(step.get("step")), _object(step.get("time"))
    tres = _object(step.get("tres"))
    requested, consumed = _object(tres.get("requested")), _object(tres.get("consumed"))
    used, written = _tres(requested.get("max")), _tres(consumed.get("max"))
    state = _state(step.get("state"))
    code, signal = _believed(state, _exit(step.get("exit_code")))
    nodes = _object(step.get("nodes"))
    energy = _number(_object(_object(step.get("statistics")).get("energy")).get("consumed"))
    return Step(
        source=job.source,
        job_id=job.job_id,
        step_id=_step_id(about.get("id")),
        raw_job_id=job.raw_job_id,
        attempt=job.attempt,
        name=_text(about.get("name")),
        state=state,
        exit_code=code,
        signal=signal,
        nodes=_text(nodes.get("range")),
        ntasks=_number(_object(step.get("tasks")).get("count")),
        started_ns=_moment(times.get("start")),
        ended_ns=_moment(times.get("end")),
        elapsed_s=_number(times.get("elapsed")),
        cpu_s=_cpu(times.get("total")),
        max_rss_bytes=_whole((used or {}).get("mem")),
        max_rss_node=_node(requested.get("max"), "mem"),
        max_disk_read_bytes=_whole((used or {}).get("fs/disk")),
        max_disk_write_bytes=_whole((written or {}).get("fs/disk")),
        energy_j=energy or None,
        tres=dump_tres(
            {
                "alloc": _tres(tres.get("allocated"), _MIB),
                "in_max": used,
                "in_total": _tres(requested.get("total")),
                "out_max": written,
                "out_total": _tres(consumed.get("total")),
            }
        ),
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip().lower() not in UNKNOWN else None


def _number(value: Any) -> int | None:
    """A number, or one that says whether it is set."""
    if isinstance(value, Mapping):
        unset = value.get("set") is False or value.get("infinite") is True
        return None if unset else _number(value.get("number"))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        return None
    return value


def _whole(value: int | float | None) -> int | None:
    return None if value is None else int(value)


def _moment(value: Any) -> int | None:
    seconds = _number(value)
    return seconds * 1_000_000_000 if seconds and seconds < 1 << 33 else None


def _state(value: Any) -> str | None:
    """The state; in a list the flags (as COMPLETING) follow it."""
    words = value if isinstance(value, list) else [value]
    return next((word for word in words if isinstance(word, str) and word in STATES), None)


def _exit(value: Any) -> tuple[int | None, int | None]:
    """Exit code and signal as in sacct's text form; squeue of old versions has a bare status."""
    if not isinstance(value, Mapping) or "return_code" not in value:
        status = _number(value)
        return (None, None) if status is None else (status >> 8, status & 0x7F or None)
    about = _object(value.get("signal"))
    signal = _number(about["signal_id"] if "signal_id" in about else about.get("id"))
    code = _number(value.get("return_code"))
    return (0 if code is None and signal else code), signal or None


def _believed(
    state: str | None, ended: tuple[int | None, int | None]
) -> tuple[int | None, int | None]:
    """The exit, unless it says success of what failed: 22.05 does, where its text form has 5:0."""
    return (None, None) if state == "FAILED" and ended == (0, None) else ended


def _cpu(value: Any) -> float | None:
    """Seconds; the microseconds of real files may exceed a million, and then they add up."""
    about = _object(value)
    seconds, micro = _number(about.get("seconds")), _number(about.get("microseconds"))
    if seconds is None and micro is None:
        return None
    return round((seconds or 0) + (micro or 0) / 1e6, 6)


def _shown_id(job: Mapping[str, Any], raw: str) -> str:
    array = _object(job.get("array"))
    parent = _number(array.get("job_id", job.get("array_job_id")))
    task = _number(array.get("task_id", job.get("array_task_id")))
    het = _object(job.get("het"))
    leader = _number(het.get("job_id", job.get("het_job_id")))
    part = _number(het.get("job_offset", job.get("het_job_offset")))
    if leader and part is not None and part < _NO_VALUE:
        return f"{leader}+{part}"
    return f"{parent}_{task}" if parent and task is not None else raw


def _step_id(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("step_id")
    match = _STEP_WORD.fullmatch(str(value))
    if match is None or value is None:
        raise ValueError(f"{value!r} is no step")
    return match[1].lower()


def _tres(entries: Any, mem_unit: int = 1) -> dict[str, int | float] | None:
    """Resources by Slurm's names. CPU time comes in ms (as a total), memory in `mem_unit` bytes."""
    amounts: dict[str, int | float] = {}
    for entry in entries if isinstance(entries, Sequence) else ():
        count = _number(_object(entry).get("count"))
        kind, name = _object(entry).get("type"), _object(entry).get("name")
        if count is None or not isinstance(kind, str) or (kind == "energy" and not count):
            continue
        key = f"{kind}/{name}" if name else kind
        if kind == "cpu" and mem_unit == 1:
            amounts[key] = count / 1000
        else:
            amounts[key] = count * mem_unit if kind == "mem" else count
    return amounts or None


def _node(entries: Any, kind: str) -> str | None:
    for entry in entries if isinstance(entries, Sequence) else ():
        if _object(entry).get("type") == kind:
            return _text(_object(entry).get("node"))
    return None
