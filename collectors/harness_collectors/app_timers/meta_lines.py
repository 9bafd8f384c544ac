"""What a line of a meta file must look like to be used (docs/spool.md); others are counted.

The recorder writes no such line wrong, but disks and file systems do, and a value of another
kind or size would spoil a whole column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Check = Callable[[Any], bool]


def _whole(bits: int) -> Check:
    def fits(value: Any) -> bool:
        return type(value) is int and -(1 << bits) <= value < 1 << bits

    return fits


_I64, _I32 = _whole(61), _whole(31)
"""No time, size or count needs more; what is made of a few of them still fits into 64 bits."""


def _place(value: Any) -> bool:
    """One in a list: counted from its end it would be another's."""
    return _I32(value) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) is float or _I64(value)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _listed(check: Check) -> Check:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and all(map(check, value))

    return fits


def _call(value: Any) -> bool:
    """A collective inside a graph: operation, group, peer or -1, bytes or -1, dtype."""
    if not isinstance(value, list) or len(value) < 5:
        return False
    op, group, peer, size, dtype, *_ = value
    return (
        _text(op) and _I64(group) and _I32(peer) and _I64(size) and (dtype is None or _text(dtype))
    )


def _all(check: Check, *names: str) -> dict[str, Check]:
    return dict.fromkeys(names, check)


_UNIT: Final[dict[str, Check]] = {
    **_all(_I32, "batch", "microbatch", "repeat", "step"),
    **_all(_text, "phase", "perturbed_by"),
    "warmup": _flag,
}
_FACTS: Final[dict[str, Check]] = {
    **_all(_I32, "tp_rank", "stage", "first_layer", "last_layer", "numa"),
    **_all(_I64, "weights_bytes", "step_weight_bytes", "kv_bytes_per_token", "flops_per_token"),
    **_all(_I64, "attention_flops_per_kv_token", "peak_memory_bytes"),
    **_all(_number, "peak_bytes_per_s", "peak_flops_per_s"),
}
_SHAPES: Final[dict[str, dict[str, Check]]] = {
    "start": {**_all(_I32, "rank", "local_rank", "pid"), **_all(_text, "host", "boot_id")},
    "desc": {
        **_all(_text, "name", "category", "timeline", "op", "dtype", "source"),
        "id": _I64,
        "layer": _I32,
    },
    "unit": {**_UNIT, **_all(_I64, "id", "start_ns")},
    "group": {"id": _I64, "ranks": _listed(_I32), "ordinal": _I64},
    "attrs": {"id": _I64, "attrs": _table},
    "anchor": _all(_I64, "mono_ns", "wall_ns", "width_ns"),
    "fact": _FACTS,
    "batch": {**_all(_I32, "batch", "repeat"), "requests": _listed(_text)},
    "request": {
        **_all(_text, "id", "perturbed_by"),
        **_all(_I32, "batch", "repeat", "prompt_tokens", "output_tokens"),
        **_all(_I64, "arrival_ns", "start_ns", "first_token_ns", "end_ns"),
        "warmup": _flag,
    },
    "tokens": {
        **_all(_I64, "unit", "device_ns", "host_ns"),
        "first_row": _place,
        "n": _listed(_I32),
    },
    "step": {
        **_all(_I32, "batch_size", "padded_batch"),
        **_all(_I64, "unit", "prefill_tokens", "decode_tokens", "kv_tokens"),
    },
    "sample": {**_all(_text, "metric", "unit"), "value": _number, "device": _I32, "mono_ns": _I64},
    "clock": {"peer": _I32, **_all(_I64, "t0", "t1", "t2", "t3")},
    "collection": _all(_text, "collector", "state", "reason"),
    "device": {"index": _I32, "uuid": _text},
    "device_end": {"lost": _I64},
    "graph": {"calls": _listed(_call)},
    "graph_clock": {"gap_ns": _I64},
    "error": {"mono_ns": _I64},
    "end": _all(_I64, "mono_ns", "records", "dropped", "dropped_meta"),
}
_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "start": ("rank",),
    "desc": ("id",),
    "unit": ("id",),
    "group": ("id", "ranks", "ordinal"),
    "attrs": ("id",),
    "clock": ("peer", "t0", "t1", "t2", "t3"),
}
_FREE_IDS: Final = 1 << 16
_IDS_A_LINE: Final = 64
"""Ids count from 1; lines may be lost, but an id far beyond their number is damage."""


def is_sound(kind: Any, row: Mapping[str, Any]) -> bool:
    """Whether every field that is read is of its kind; absent and null ones are."""
    if not isinstance(kind, str):
        return False
    if any(row.get(name) is None for name in _NEEDED.get(kind, ())):
        return False
    checks = _SHAPES.get(kind, {})
    return all(check(row[name]) for name, check in checks.items() if row.get(name) is not None)


def is_plausible_id(number: int, defined: int) -> bool:
    """Whether an id can be the next of so many."""
    return 0 <= number < _FREE_IDS + _IDS_A_LINE * defined
