"""The fields of Slurm's accounting: one parser each, from Slurm's spelling to ours.

A parser gives None where Slurm says that it does not know ("Unknown", "None assigned", an empty
field), and raises ValueError for text that is no such value. Spellings from sacct(1) of Slurm 20
to 26 and from real output of 18 to 25.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

STATES: Final = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "COMPLETING",
        "CONFIGURING",
        "DEADLINE",
        "EXPEDITING",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PENDING",
        "POWER_UP_NODE",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "REVOKED",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "TIMEOUT",
    ]
)
ENDED_STATES: Final = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
"""The job is over and its row will not change, except for a requeue."""

UNKNOWN: Final = frozenset(
    {
        "",
        "(null)",
        "invalid",
        "n/a",
        "none",
        "none assigned",
        "not_set",
        "partition_limit",
        "unknown",
        "unlimited",
    }
)
"""Slurm's ways to say nothing, in lower case."""
_UNSET_NUMBERS: Final = (0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF)
"""Slurm's NO_VAL, INFINITE and their 64-bit forms, which old versions print as numbers."""
_BINARY: Final = {"": 1, **{unit: 1024 ** (power + 1) for power, unit in enumerate("KMGTPE")}}
_DECIMAL: Final = {"": 1, **{unit: 1000 ** (power + 1) for power, unit in enumerate("KMGTPE")}}
_SCALED = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)(?:[cn]|B)?")
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_JOB = re.compile(
    r"(?P<job>\d+(?:_(?:\d+|\[[\d,\-:%.]*\])|\+\d+)?)(?:\.(?P<step>[A-Za-z]+|\d+(?:\+\d+)?))?"
)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_STATE = re.compile(r"([A-Z_]+)(\+|\s+by\s+(\d+))?")


@dataclass(frozen=True)
class JobId:
    """`8_2.batch` is job `8_2`, step `batch`. `step` is None on the job's own row."""

    job: str
    step: str | None

    @property
    def array(self) -> tuple[int, int] | None:
        """Array job and task, where it is a task of an array."""
        job, _, task = self.job.partition("_")
        return (int(job), int(task)) if task.isdigit() else None


_NAMED_STEPS: Final = ("batch", "extern", "interactive")
"""No two begin alike; of a number that is cut, nothing is known."""


@dataclass(frozen=True)
class State:
    """A word of `STATES`, and the user id in `CANCELLED by 1000`."""

    word: str
    cancelled_by: int | None = None


def parse_text(text: str) -> str | None:
    """Text as it is."""
    return None if text.strip().lower() in UNKNOWN else text


def parse_job_id(text: str) -> JobId:
    """`12`, `12.0`, `12.batch`, `8_2.extern`, `8_[3-5%1]`, `30+1.0`; cut by a column, `12.ext+`."""
    whole, dot, cut = text.strip().partition(".")
    if dot and cut.endswith("+") and len(cut) > 1:
        steps = [name for name in _NAMED_STEPS if name.startswith(cut[:-1])]
        text = f"{whole}.{steps[0]}" if steps else text
    match = _JOB.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no job id")
    return JobId(match["job"], match["step"])


def parse_state(text: str) -> State | None:
    """A state; one cut by a column (`CANCELLED+`, `OUT_OF_ME+`) only if one state begins so."""
    if text.strip().lower() in UNKNOWN:
        return None
    match = _STATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no state")
    word = match[1]
    if match[2] == "+" and word not in STATES:
        whole = [state for state in STATES if state.startswith(word)]
        word = whole[0] if len(whole) == 1 and len(word) >= 3 else word
    if word not in STATES:
        raise ValueError(f"{text!r} is no state")
    return State(word, int(match[3]) if match[3] else None)


def parse_exit(text: str) -> tuple[int, int] | None:
    """`3:0` is exit code 3, `0:125` signal 125."""
    if text.strip().lower() in UNKNOWN:
        return None
    code, colon, signal = text.strip().partition(":")
    if not colon or not code.isdecimal() or not signal.isdecimal() or len(code + signal) > 8:
        raise ValueError(f"{text!r} is no exit code")
    return int(code), int(signal)


def parse_seconds(text: str) -> float | None:
    """`[D-][HH:]MM:SS[.mmm]` in seconds; a bare number is seconds already."""
    text = text.strip()
    if text.lower() in UNKNOWN:
        return None
    if text.isdecimal():
        seconds = _known(int(text))
        return None if seconds is None else float(seconds)
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    days, hours, minutes, rest = (float(part or 0) for part in match.groups())
    return round(days * 86400 + hours * 3600 + minutes * 60 + rest, 6)


def parse_time_ns(text: str) -> int | None:
    """A moment in Unix nanoseconds: seconds (our SLURM_TIME_FORMAT) or Slurm's own format.

    Slurm's own format has no time zone: it is read as UTC, and `is_zoneless` says so.
    """
    text = text.strip()
    if text.lower() in UNKNOWN:
        return None
    if text.isdecimal():
        seconds = _known(int(text))
        if not seconds:  # 0: never happened
            return None
        if seconds > 1 << 33:
            raise ValueError(f"{text!r} is no time")
        return seconds * 1_000_000_000
    if not _DATE.fullmatch(text):
        raise ValueError(f"{text!r} is no time")
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def is_zoneless(text: str) -> bool:
    """Whether it is a time that does not say its zone."""
    return _DATE.fullmatch(text.strip()) is not None


def parse_bytes(text: str) -> int | None:
    """`12500K`, `4.50K`, `245M`, `0`, `64Gn` (old: a node); units are powers of 1024."""
    return _scaled(text, _BINARY)


def parse_joules(text: str) -> int | None:
    """Joules, `1.52K` being 1520; 0 means that no plugin measured, so it is None."""
    return _scaled(text, _DECIMAL) or None


def parse_count(text: str) -> int | None:
    """A whole number."""
    text = text.strip()
    if text.lower() in UNKNOWN:
        return None
    if not text.isdecimal() or len(text) > 20:
        raise ValueError(f"{text!r} is no count")
    return _known(int(text))


def _scaled(text: str, units: Mapping[str, int]) -> int | None:
    text = text.strip()
    if text.lower() in UNKNOWN:
        return None
    match = _SCALED.fullmatch(text)
    if match is None or len(text) > 32:
        raise ValueError(f"{text!r} is no amount")
    if text.isdecimal():
        return _known(int(text))
    value = round(float(match[1]) * units[match[2]])
    if value >= 1 << 63:
        raise ValueError(f"{text!r} is too much")
    return value


def _known(value: int) -> int | None:
    if value in _UNSET_NUMBERS:
        return None
    if value >= 1 << 63:
        raise ValueError(f"{value} is too much")
    return value


TRES_BYTES: Final = frozenset({"mem", "vmem", "fs/disk", "gres/gpumem"})


def parse_tres(text: str) -> dict[str, int | float] | None:
    """`cpu=00:01:02,mem=5896K,gres/gpu:a100=2`: sizes in bytes, CPU time in seconds.

    Energy 0 is left out (not measured), as is what has no number (a node's name).
    """
    if text.strip().lower() in UNKNOWN:
        return None
    amounts: dict[str, int | float] = {}
    for item in text.strip().split(","):
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ValueError(f"{text!r} is no list of resources")
        amount = _tres_amount(name, value)
        if amount is not None:
            amounts[name] = amount
    return amounts or None


def _tres_amount(name: str, value: str) -> int | float | None:
    if name == "cpu" and ":" in value:
        return parse_seconds(value)
    if name == "energy":
        return parse_joules(value)
    return _scaled(value, _BINARY if name in TRES_BYTES else _DECIMAL)


@dataclass(frozen=True)
class Step:
    """A row of accounting: the columns of the table `slurm_steps`. None: not known."""

    source: str
    job_id: str
    step_id: str | None = None
    raw_job_id: str | None = None
    attempt: int | None = None
    name: str | None = None
    state: str | None = None
    reason: str | None = None
    cancelled_by: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    derived_exit: str | None = None
    nodes: str | None = None
    ntasks: int | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    elapsed_s: int | None = None
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    max_rss_node: str | None = None
    max_disk_read_bytes: int | None = None
    max_disk_write_bytes: int | None = None
    energy_j: float | None = None
    tres: str | None = None


@dataclass
class Reading:
    """What a reader made of one file's text."""

    source: str
    steps: list[Step] = field(default_factory=list)
    unreadable: int = 0
    """Lines or records that could not be used."""
    doubtful: int = 0
    """Values that are not what their field says; they became None."""
    zoneless: bool = False
    """Some time did not say its zone, and was read as UTC."""
    problem: str = ""
    """Why nothing could be read at all."""


def dump_tres(parts: Mapping[str, Mapping[str, int | float] | None]) -> str | None:
    """Lists of resources by their role (`alloc`, `in_max`, ...) as JSON; None if all are empty."""
    told = {role: amounts for role, amounts in parts.items() if amounts}
    return json.dumps(told, sort_keys=True) if told else None


Parser = Callable[[str], Any]
PARSERS: Final[Mapping[str, Parser]] = {
    "jobid": parse_job_id,
    "jobidraw": parse_job_id,
    "jobname": parse_text,
    "state": parse_state,
    "exitcode": parse_exit,
    "derivedexitcode": parse_exit,
    "reason": parse_text,
    "nodelist": parse_text,
    "ntasks": parse_count,
    "start": parse_time_ns,
    "end": parse_time_ns,
    "elapsed": parse_seconds,
    "elapsedraw": parse_seconds,
    "totalcpu": parse_seconds,
    "maxrss": parse_bytes,
    "maxrssnode": parse_text,
    "maxdiskread": parse_bytes,
    "maxdiskwrite": parse_bytes,
    "consumedenergy": parse_joules,
    "consumedenergyraw": parse_joules,
    "alloctres": parse_tres,
    "tresusageinmax": parse_tres,
    "tresusageintot": parse_tres,
    "tresusageoutmax": parse_tres,
    "tresusageouttot": parse_tres,
    "restarts": parse_count,
}
"""By the field's name in lower case (Slurm's field names do not mind case)."""

QUERY_FIELDS: Final = (
    "JobID",
    "JobIDRaw",
    "JobName",
    "State",
    "ExitCode",
    "DerivedExitCode",
    "Reason",
    "NodeList",
    "NTasks",
    "Start",
    "End",
    "ElapsedRaw",
    "TotalCPU",
    "MaxRSS",
    "MaxRSSNode",
    "MaxDiskRead",
    "MaxDiskWrite",
    "ConsumedEnergyRaw",
    "AllocTRES",
    "TRESUsageInMax",
    "TRESUsageInTot",
    "TRESUsageOutMax",
    "TRESUsageOutTot",
)
"""What we ask for: fields that every version from 20 to 26 has (`Restarts`, `Planned` are not)."""
