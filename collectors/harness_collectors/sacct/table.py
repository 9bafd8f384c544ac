"""Text tables of sacct and sstat: `-P` and `-p` with any delimiter, and the columns for people.

What real files force: the delimiter is found, not known; a field may hold line breaks, so lines
are joined until the fields are as many as the header's; a line without a valid job id or with
another number of fields is counted and left out, never guessed at.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from harness_collectors.sacct.fields import (
    ENDED_STATES,
    PARSERS,
    STATES,
    JobId,
    Reading,
    Step,
    dump_tres,
    is_zoneless,
    parse_job_id,
)
from harness_collectors.sacct.headless import (
    PLAIN_FIELDS,
    infer_fields,
    is_plain,
    is_usage,
    plain_row,
)

MAX_JOINED_LINES: Final = 64
"""More line breaks than this in one field are taken for damage."""
MAX_PREFACE: Final = 16
"""Lines among which a header is looked for."""
# No \s here: to Python our own delimiter, \x1f, is white space.
_HEADER = re.compile(
    r"[A-Za-z]{2,}(?P<delimiter>[^A-Za-z0-9 \r\n][^A-Za-z0-9\r\n]{0,7})[A-Za-z]{2,}"
)
_FIRST_FIELD = re.compile(
    r"\d+(?:_\d+|_\[[^\]]*\]|\+\d+)?(?:\.\w+(?:\+\d+)?)?"
    r"(?P<delimiter>[^\w.+,: \r\n-][^\w \r\n-]{0,7}?)(?=[\w./(]|$)"
)
_FIELD_LIST = re.compile(r"[A-Za-z]+(?:%-?\d+)?(?:,[A-Za-z]+(?:%-?\d+)?)+")


_ID_FIELDS: Final = frozenset({"jobid", "jobidraw"})
_ENDS: Final = frozenset({"state", "exitcode"})
_TELLING: Final = 3
"""Names of fields that together are Slurm's and nobody else's."""
NO_JOB_ID: Final = (
    "a table of sacct without a JobID column, so nobody can tell whose its rows are: "
    "ask sacct again with `-o JobID,JobName,State,ExitCode,...`"
)
NAMELESS: Final = "the rows have no header line, and no file with the list of fields lies beside"
NAMELESS_USE: Final = (
    "rows of sstat without their header line, so nobody can tell which size is of what: "
    "ask sstat again without -n"
)


@dataclass(frozen=True)
class Layout:
    """The names of the fields in order, in lower case, and what stands between them."""

    fields: tuple[str, ...]
    delimiter: str


def find_header(line: str) -> Layout | None:
    """The layout that a header line names; None if it is no header of sacct or sstat."""
    match = _HEADER.match(line)
    if match is None:
        return None
    fields = tuple(name.lower() for name in line.rstrip("\r\n").split(match["delimiter"]))
    named = [name for name in fields if name]
    if not _ID_FIELDS & set(named) or not all(x.isascii() and x.isalpha() for x in named):
        return None
    return Layout(fields, match["delimiter"])


def lacks_job_id(lines: Sequence[str]) -> bool:
    """Whether a table of sacct without a column of job ids begins in these lines."""
    for line, following in pairwise([*lines[:MAX_PREFACE], ""]):
        match = _HEADER.match(line)
        parts = line.split(match["delimiter"]) if match else line.split()
        ruled = _is_ruler([following])
        names = {part.strip().lower() for part in parts} - {""}
        if (match or ruled) and _ENDS & names and not _ID_FIELDS & names:
            return len(names & set(PARSERS)) >= _TELLING
    return False


def field_list(text: str) -> tuple[str, ...] | None:
    """The fields of a saved `-o` list (`JobID,State%20,...`), in lower case; None if it is none."""
    stripped = text.strip()
    if len(stripped) > 8192 or not _FIELD_LIST.fullmatch(stripped):
        return None
    fields = tuple(item.partition("%")[0].lower() for item in stripped.split(","))
    return fields if "jobid" in fields else None


def headerless_delimiter(line: str) -> str | None:
    """What separates the fields of a `-n` row; None if the line is no such row."""
    match = _FIRST_FIELD.match(line)
    if match is None:
        return None
    delimiter = match["delimiter"]
    # An empty second field makes two delimiters look like one of twice the length.
    half = delimiter[: len(delimiter) // 2]
    if half and half * 2 == delimiter:
        delimiter = half
    parts = line.strip().split(delimiter)
    words = {part.split(" ")[0] for part in parts}
    return delimiter if words & STATES or is_usage(parts) else None


def read_table(text: str, fields: Sequence[str] | None = None) -> Reading:
    """Rows of a table; `fields` is the saved field list of one without a header line."""
    lines = text.replace("\r\n", "\n").split("\n")
    first = first_row(lines)
    if first is None:
        return Reading("sacct", problem="the file is empty")
    layout = find_header(lines[first])
    if layout is None and lacks_job_id(lines):
        return Reading("sacct", problem=NO_JOB_ID, unreadable=len([x for x in lines if x.strip()]))
    if layout is not None:
        return _read_rows(_records(lines[first + 1 :], layout), layout.fields, torn=lines[-1] != "")
    if _is_ruler(lines[first + 1 : first + 2]):
        return _read_columns(lines[first], lines[first + 1], lines[first + 2 :])
    delimiter = headerless_delimiter(lines[first])
    torn = lines[-1] != ""
    if delimiter is None:
        return _read_plain(lines[first:], torn)
    of_steps = is_usage(lines[first].strip().split(delimiter))
    if of_steps and "state" in (fields or ()):
        fields = None  # a list of sacct's fields, and this is sstat's
    if fields is None:
        rows = [line.split(delimiter) for line in lines[first:] if line.strip()]
        fields = infer_fields(rows[:-1] if torn and len(rows) > 1 else rows)
    if fields is None:
        problem = NAMELESS_USE if of_steps else NAMELESS
        unread = len([x for x in lines if x.strip()])
        return Reading("sstat" if of_steps else "sacct", problem=problem, unreadable=unread)
    names = tuple(fields)
    if any(line.count(delimiter) == len(names) for line in lines[first : first + 64]):
        names = (*names, "")  # `-p` ends each row with a delimiter, unlike `-P`
    return _read_rows(_records(lines[first:], Layout(names, delimiter)), names, torn)


def _read_plain(lines: Sequence[str], torn: bool) -> Reading:
    """Rows of the columns for people, without a header line."""
    if not is_plain(lines):
        return Reading("sacct", problem="no table of sacct")
    rows = [plain_row(line) for line in lines if line.strip()]
    return _read_rows([*rows[:-1], None] if torn and rows else rows, PLAIN_FIELDS, torn=False)


def first_row(lines: Sequence[str]) -> int | None:
    """Where the table begins: at its header, which a prompt or a shell's words may precede.

    Without a header at the first line that says anything; None: no line does.
    """
    said = [index for index, line in enumerate(lines) if line.strip()][:MAX_PREFACE]
    for index in said:
        if find_header(lines[index]) is not None or (
            "JobID" in lines[index] and _is_ruler(lines[index + 1 : index + 2])
        ):
            return index
    return said[0] if said else None


def _records(lines: Iterable[str], layout: Layout) -> Iterator[list[str] | None]:
    """Rows as lists of fields; None for each line that belongs to no whole row."""
    wanted = len(layout.fields) - 1
    held: deque[tuple[str, int]] = deque()
    total = 0
    for line in lines:
        if not held and not line.strip():
            continue
        count = line.count(layout.delimiter)
        if count == wanted:  # whole by itself: what was held is damage
            yield from [None] * len(held)
            held.clear()
            total = 0
            yield line.split(layout.delimiter)
            continue
        held.append((line, count))
        total += count
        while held and (total > wanted or len(held) > MAX_JOINED_LINES):
            yield None
            total -= held.popleft()[1]
        if held and total == wanted:
            yield "\n".join(part for part, _ in held).split(layout.delimiter)
            held.clear()
            total = 0
    yield from [None for part, _ in held if part.strip()]


def _is_ruler(lines: Sequence[str]) -> bool:
    return bool(lines) and re.fullmatch(r"\s*-+(\s+-+)+\s*", lines[0]) is not None


def _read_columns(header: str, ruler: str, lines: Iterable[str]) -> Reading:
    """The columns that sacct prints for people; what a column cut off is not guessed.

    A copy may have lost the blanks before the header, so that its words tell the columns; where
    a row's text runs from one column into the next, only what its words show is taken.
    """
    spans = [match.span() for match in re.finditer(r"-+", ruler)]
    names = header.lower().split()
    if len(names) != len(spans):
        names = [header[start:end].strip().lower() for start, end in spans]
    rows = (_cells(line, spans, names) for line in lines if line.strip())
    return _read_rows(rows, tuple(names), torn=False)


def _cells(line: str, spans: Sequence[tuple[int, int]], names: Sequence[str]) -> list[str] | None:
    """What stands in each column; None: the row is not of these, and shows no state."""
    ends = [*(start for start, _ in spans[1:]), len(line)]
    cells = [line[start:end].strip() for start, end in spans]
    between = (line[end:start] for (_, end), start in zip(spans, ends, strict=True))
    whole = " " not in cells[0] or names[0] not in _ID_FIELDS
    if whole and not any(map(str.strip, between)):
        return cells
    plain = plain_row(line)
    told = dict(zip(PLAIN_FIELDS, plain or (), strict=False))
    return [told.get(name, "") for name in names] if plain else None


def _read_rows(rows: Iterable[list[str] | None], fields: tuple[str, ...], torn: bool) -> Reading:
    """Steps of the rows; `torn`: no line break ends the last one, so its last field may be cut."""
    reading = Reading("sacct" if "state" in fields else "sstat")
    listed = list(rows)
    if torn and listed and listed[-1] is not None:
        # A cut state is no state, so it cannot mislead; but a user id or a size could.
        whole = listed[-1][-1].partition(" by ")[0] if fields[-1] == "state" else ""
        listed[-1] = [*listed[-1][:-1], whole]
    for row in listed:
        step = None if row is None else _step(row, fields, reading)
        if step is None:
            reading.unreadable += 1
        else:
            reading.steps.append(step)
    reading.steps = number_attempts(reading.steps)
    return reading


def _step(row: list[str], fields: tuple[str, ...], reading: Reading) -> Step | None:
    texts: dict[str, str] = {}
    for name, text in zip(fields, row, strict=False):
        texts.setdefault(name, text)
    try:
        job = parse_job_id(texts["jobid"] if "jobid" in texts else texts.get("jobidraw", ""))
    except ValueError:
        return None
    values = {name: _value(name, text, reading) for name, text in texts.items() if name in PARSERS}
    raw = values.get("jobidraw")
    if isinstance(raw, JobId) and not _same_row(job, raw):
        return None  # two rows run into one, or a digit is damaged
    return _build(reading.source, job, values)


def _same_row(job: JobId, raw: JobId) -> bool:
    """Whether JobID and JobIDRaw can be of one row: they differ only in a task's or part's job."""
    return raw.step == job.step and (raw.job == job.job or not job.job.isdecimal())


def _value(name: str, text: str, reading: Reading) -> Any:
    if name in ("start", "end") and is_zoneless(text):
        reading.zoneless = True
    try:
        return PARSERS[name](text)
    except ValueError:
        reading.doubtful += 1
        return None


def _build(source: str, job: JobId, values: Mapping[str, Any]) -> Step:
    state = values.get("state")
    code, signal = values.get("exitcode") or (None, None)
    elapsed = _first(values, "elapsedraw", "elapsed")
    used, written = values.get("tresusageinmax") or {}, values.get("tresusageoutmax") or {}
    raw = values.get("jobidraw")
    running = state is not None and state.word == "RUNNING"
    return Step(
        source=source,
        job_id=job.job,
        step_id=job.step,
        raw_job_id=raw.job if raw is not None else None,
        attempt=values.get("restarts"),
        name=values.get("jobname"),
        state=state.word if state else None,
        reason=values.get("reason"),
        cancelled_by=state.cancelled_by if state else None,
        exit_code=code,
        signal=signal or None,
        derived_exit=_colon(values.get("derivedexitcode")),
        nodes=values.get("nodelist"),
        ntasks=values.get("ntasks"),
        started_ns=values.get("start"),
        ended_ns=values.get("end"),
        elapsed_s=None if elapsed is None else int(elapsed),
        # Slurm writes usage when a step ends: of a running one its 0 says nothing.
        cpu_s=values.get("totalcpu") or (None if running else values.get("totalcpu")),
        max_rss_bytes=values.get("maxrss", used.get("mem")),
        max_rss_node=values.get("maxrssnode"),
        max_disk_read_bytes=used.get("fs/disk", values.get("maxdiskread")),
        max_disk_write_bytes=written.get("fs/disk", values.get("maxdiskwrite")),
        energy_j=_first(values, "consumedenergyraw", "consumedenergy"),
        tres=dump_tres(
            {
                "alloc": values.get("alloctres"),
                "in_max": values.get("tresusageinmax"),
                "in_total": values.get("tresusageintot"),
                "out_max": values.get("tresusageoutmax"),
                "out_total": values.get("tresusageouttot"),
            }
        ),
    )


def _colon(pair: tuple[int, int] | None) -> str | None:
    return None if pair is None else f"{pair[0]}:{pair[1]}"


def _first(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def number_attempts(steps: Sequence[Step]) -> list[Step]:
    """Number the runs of a requeued job, which `sacct -D` lists one after the other.

    Only where a job has several own rows with different starts: without `-D` Slurm hides the
    earlier runs, and then the number is not known. Where no row tells a start, a row with another
    state below that of an end is another run: a job that is only asked for again ends once.
    """
    of_row = _runs(steps)
    runs: dict[str, list[int | None]] = {}
    for step, run in zip(steps, of_row, strict=True):
        if step.step_id is None and run not in runs.setdefault(step.job_id, []):
            runs[step.job_id].append(run)
    current: dict[str, int] = {}
    numbered = []
    for step, run in zip(steps, of_row, strict=True):
        own = runs.get(step.job_id, [])
        if step.step_id is None:
            current[step.job_id] = own.index(run)
        known = step.attempt is None and len(own) > 1 and step.job_id in current
        numbered.append(replace(step, attempt=current[step.job_id]) if known else step)
    return numbered


def _runs(steps: Sequence[Step]) -> list[int | None]:
    """What tells the runs of a job apart, of each row: its start, else how often it had ended."""
    timed = {step.job_id for step in steps if step.step_id is None and step.started_ns is not None}
    last: dict[str, str | None] = {}
    ended: dict[str, int] = {}
    found = []
    for step in steps:
        if step.step_id is not None or step.job_id in timed:
            found.append(step.started_ns)
            continue
        before = last.get(step.job_id)
        over = before in ENDED_STATES or before == "REQUEUED"
        again = over and step.state not in (None, before)
        ended[step.job_id] = ended.get(step.job_id, 0) + again
        last[step.job_id] = step.state or before
        found.append(ended[step.job_id])
    return found
