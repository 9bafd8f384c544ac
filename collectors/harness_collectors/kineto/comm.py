"""Rows of `collectives` out of Kineto's communication kernels.

The arguments are those of torch's `record_param_comms`. They are absent for CUDA graph replays,
custom all-reduce kernels, coalesced calls and old files; then the host annotation around the
launch and the kernel's name say what they can, and what they cannot stays NULL.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness_collectors.kineto.columns import CommLabel
from harness_collectors.traces.operations import NO_GROUP, UNKNOWN_GROUP
from harness_schemas.vocabulary import group_name

DEFAULT_GROUP: Final = "default"

_DTYPES: Final = {
    "Bool": ("bool", 1),
    "Byte": ("uint8", 1),
    "Char": ("int8", 1),
    "Short": ("int16", 2),
    "Int": ("int32", 4),
    "Long": ("int64", 8),
    "UInt16": ("uint16", 2),
    "UInt32": ("uint32", 4),
    "UInt64": ("uint64", 8),
    "Half": ("float16", 2),
    "BFloat16": ("bfloat16", 2),
    "Float": ("float32", 4),
    "Double": ("float64", 8),
    "ComplexFloat": ("complex64", 8),
    "ComplexDouble": ("complex128", 16),
    "Float8_e4m3fn": ("float8_e4m3fn", 1),
    "Float8_e5m2": ("float8_e5m2", 1),
    "Float8_e4m3fnuz": ("float8_e4m3fnuz", 1),
    "Float8_e5m2fnuz": ("float8_e5m2fnuz", 1),
}
_SIZES: Final = dict(_DTYPES.values())
"""Traces that Python wrote spell the types as `torch.dtype` does."""


@dataclass(frozen=True)
class Group:
    """A communicator as far as it is known; `ranks` empty: not."""

    name: str | None
    size: int | None
    ranks: tuple[int, ...] = ()
    reason: str | None = None


class Groups:
    """Process groups of one file: of its `distributedInfo`, and of kernels that name others."""

    def __init__(self, info: Any, labels: Iterable[CommLabel] = ()) -> None:
        found = info if isinstance(info, dict) else {}
        self.world_size = _count(found.get("world_size"))
        config = found.get("pg_config")
        self.described = isinstance(config, list) and bool(config)
        listed: dict[str, tuple[int, ...]] = {}
        for entry in config if isinstance(config, list) else []:
            if ranks := self._ranks(entry):
                listed.setdefault(str(entry.get("pg_name")), ranks)
        self._named = self._ordered(listed)
        others: dict[str, tuple[int, ...]] = {}
        for label in labels:
            ranks = _rank_list(label.group_ranks)
            if ranks and label.group_name is not None and label.group_name not in listed:
                others.setdefault(label.group_name, ranks)
        self._seen = self._ordered(others)

    def _ordered(self, ranks_of: Mapping[str, tuple[int, ...]]) -> dict[str, Group]:
        """Groups by their names. torch counts them as they are made, and 0 is the world: a list
        may be in another order, and lack those that were not used."""
        names = list(ranks_of)
        ordinals: Counter[tuple[int, ...]] = Counter()
        if all(name.isdecimal() for name in names):
            names.sort(key=int)
            if "0" not in ranks_of:
                ordinals.update(ranks for ranks in set(ranks_of.values()) if self._are_all(ranks))
        groups = {}
        for name in names:
            ranks = ranks_of[name]
            groups[name] = Group(group_name(ranks, ordinals[ranks]), len(ranks), ranks)
            ordinals[ranks] += 1
        return groups

    def _are_all(self, ranks: tuple[int, ...]) -> bool:
        return len(ranks) == self.world_size and ranks == tuple(range(len(ranks)))

    def _ranks(self, entry: Any) -> tuple[int, ...]:
        if not isinstance(entry, dict):
            return ()
        ranks = entry.get("ranks")
        if isinstance(ranks, list) and all(type(rank) is int for rank in ranks) and ranks:
            return tuple(ranks)
        if written := _rank_list(ranks if isinstance(ranks, str) else None):
            return written  # as on-demand traces have them
        size = _count(entry.get("pg_size"))
        return tuple(range(size)) if size and size == self.world_size and size < 1 << 16 else ()

    def of(self, label: CommLabel) -> Group:
        """The group that a kernel's arguments name."""
        named = self._named.get(label.group_name or "")
        ranks = _rank_list(label.group_ranks)
        if named is not None and (not ranks or ranks == named.ranks):
            return named
        if ranks:
            seen = self._seen.get(label.group_name or "")
            same = seen is not None and seen.ranks == ranks
            return seen if seen and same else Group(group_name(ranks, 0), len(ranks), ranks)
        if label.group_name is None and label.group_ranks is None:
            return self.unlabelled(label.group_size)
        return Group(
            None, label.group_size, reason=f"ranks of process group {label.group_name} not recorded"
        )

    def unlabelled(self, size: int | None = None) -> Group:
        """The group of a kernel that names none: certain only where there is no choice."""
        several = [group for group in self._named.values() if (group.size or 0) > 1]
        choice = {group.ranks for group in several}
        if len(several) == 1:
            return several[0]
        if len(choice) == 1:
            # Which of several communicators of these ranks it was cannot be told.
            ranks = choice.pop()
            return Group(group_name(ranks, "?"), len(ranks), ranks)
        if not self.described and self.world_size:
            ranks = tuple(range(self.world_size)) if self.world_size < 1 << 16 else ()
            return Group(DEFAULT_GROUP, self.world_size, ranks)
        return Group(UNKNOWN_GROUP, size, reason=NO_GROUP)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None


def _rank_list(text: str | None) -> tuple[int, ...]:
    """Ranks of `[0, 1]`; empty where the list was shortened or is none."""
    if text is None or not re.fullmatch(r"\[\s*\d{1,9}(?:\s*,\s*\d{1,9})*\s*\]", text):
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", text))


def dtype_of(label: CommLabel) -> tuple[str | None, int | None]:
    """torch's name of the data type, and the bytes of an element."""
    if label.dtype is None:
        return None, None
    return _DTYPES.get(label.dtype) or (label.dtype, _SIZES.get(label.dtype))


def counted_bytes(op: str | None, element: int | None) -> int:
    """Bytes that an element of the message counts for; 0: the size says nothing or is unknown."""
    return 0 if op is None or op == "barrier" else element or 0
