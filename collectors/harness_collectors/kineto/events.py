"""Kineto's events: typed decoding, fields of surprising types, exact times.

Field names are those of libkineto's output_json.cpp and of `record_param_comms`; only the
fields in use are decoded. Categories of activities and their kinds: `classify.KINETO_KINDS`.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import msgspec
import numpy as np

LIMIT: Final = 2**63 - 1
Integer = Annotated[int, msgspec.Meta(ge=-LIMIT, le=LIMIT)]
LARGEST_US: Final = 9.2e15
"""Beyond this many microseconds int64 nanoseconds end."""
LONGEST_US: Final = 1e13
"""Nothing that a profiler records lasts four months."""
FLOAT_EXACT_US: Final = float(2**43)
"""Below, neighbouring float64 microseconds are less than 1 ns apart, so rounding is exact."""


class Args(msgspec.Struct, frozen=True, gc=False):
    """The arguments in use. -1 and None: absent."""

    device: Integer = -1
    stream: Integer = -1
    correlation: Integer = -1
    graph: Integer = msgspec.field(default=-1, name="graph id")
    bytes: Integer | str = -1
    grid: msgspec.Raw = msgspec.Raw(b"")
    in_device: Integer = msgspec.field(default=-1, name="inDevice")
    from_device: Integer = msgspec.field(default=-1, name="fromDevice")
    collective: str | None = msgspec.field(default=None, name="Collective name")
    in_elements: Integer = msgspec.field(default=-1, name="In msg nelems")
    out_elements: Integer = msgspec.field(default=-1, name="Out msg nelems")
    group_size: Integer = msgspec.field(default=-1, name="Group size")
    dtype: str | None = None
    in_split: Any = msgspec.field(default=None, name="In split size")
    out_split: Any = msgspec.field(default=None, name="Out split size")
    group_name: str | Integer | None = msgspec.field(default=None, name="Process Group Name")
    group_ranks: Any = msgspec.field(default=None, name="Process Group Ranks")
    source: Integer = msgspec.field(default=-1, name="Src Rank")
    target: Integer = msgspec.field(default=-1, name="Dst Rank")
    sequence: Integer = msgspec.field(default=-1, name="Seq")


_NO_ARGS: Final = Args()
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,15}")


class Event(msgspec.Struct, gc=False):
    """One element of `traceEvents`. Times in microseconds."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: Integer | str = -1
    tid: Integer | str = -1
    ts: float = float("nan")
    dur: float = -1.0
    args: Args = _NO_ARGS


class _ExactTimes(msgspec.Struct, gc=False):
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")


_event = msgspec.json.Decoder(Event)
decode_events = msgspec.json.Decoder(list[Event]).decode
decode_exact = msgspec.json.Decoder(list[_ExactTimes]).decode


def mend_event(text: bytes) -> Event | None:
    """An event whose fields have surprising types, as far as they can be understood.

    Raises:
        ValueError, RecursionError: the text is no JSON.
    """
    try:
        return _event.decode(text)
    except msgspec.ValidationError:
        found = msgspec.json.decode(text)
    return _coerced(found) if isinstance(found, dict) else None


def _coerced(found: dict[str, Any]) -> Event | None:
    args = found.get("args")
    given = args if isinstance(args, dict) else {}
    fields: dict[str, Any] = {}
    for info in msgspec.structs.fields(Args):
        value = given.get(info.encode_name)
        if info.name in ("in_split", "out_split", "group_ranks"):
            fields[info.name] = value
        elif info.name in ("collective", "dtype", "group_name"):
            fields[info.name] = value if isinstance(value, str) else None
        elif info.name != "grid":
            fields[info.name] = integer(value)
    texts = [found.get(name) for name in ("ph", "cat", "name")]
    if not all(isinstance(text, str) for text in texts[:2] if text is not None):
        return None
    ph, cat, name = ("" if text is None else str(text) for text in texts)
    pid, tid = (_identity(found.get(key)) for key in ("pid", "tid"))
    ts, dur = _number(found.get("ts"), float("nan")), _number(found.get("dur"), -1.0)
    return Event(ph, cat, name, pid, tid, ts, dur, Args(**fields))


def integer(value: Any) -> int:
    """A number, or a text that is one (hexadecimal too); -1: neither."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return int(value, 16)
    number = _number(value, -1.0)
    return int(number) if abs(number) < LIMIT else -1


def _identity(value: Any) -> int | str:
    return value if isinstance(value, str) else integer(value)


def _number(value: Any, default: float) -> float:
    if isinstance(value, bool):
        return default
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default


# -- times ---------------------------------------------------------------------------------


def nanoseconds(microseconds: np.ndarray) -> np.ndarray:
    """float64 microseconds to int64 nanoseconds, exact for three decimals below 2**43 us.

    The whole part is split off first: multiplying the sum by 1000 would round twice.
    """
    whole = np.floor(microseconds)
    part = np.rint((microseconds - whole) * 1000.0)
    result: np.ndarray = whole.astype(np.int64) * 1000 + part.astype(np.int64)
    return result


def exact_nanoseconds(text: bytes) -> int | None:
    """Nanoseconds of a decimal number of microseconds as written; None: no such number."""
    text = text.strip(b' "\t\r\n')
    whole, _, part = text.partition(b".")
    if len(part) <= 3 and whole.isdigit() and (part.isdigit() or not part):
        value = int(whole) * 1000 + int(part.ljust(3, b"0"))
    else:
        try:
            value = int((Decimal(text.decode("ascii", "replace")) * 1000).to_integral_value())
        except (InvalidOperation, ValueError, OverflowError):
            return None
    return value if abs(value) <= LIMIT else None
