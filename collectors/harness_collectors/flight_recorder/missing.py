"""Collectives that some ranks wait in and others never entered, over all dumps of a job.

A dump does not say when it was taken, and in a hang all clocks of its entries stand still; what
the dumps of several ranks say together needs no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

NEVER_ENDED: Final = "never ended"
"""Of a group's overdue calls the first; the later ones wait for it."""
AT_END: Final = "end_rank_"
"""Begins the names of our dumps at a rank's end: others may still have been on their way there."""
_POINT_TO_POINT: Final = frozenset({"send", "recv"})
_Pending = tuple[dict[str, Any], dict[str, Any]]


@dataclass
class Progress:
    """How far each rank was in each group, and each rank's first pending collective in a group."""

    entered: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    """Ordinal and operation of the last collective, by group and rank."""
    ranks: set[int] = field(default_factory=set)
    members: dict[str, tuple[int, ...]] = field(default_factory=dict)
    held: list[_Pending] = field(default_factory=list)

    def hold(
        self,
        rank: int | None,
        groups: Mapping[str, tuple[str, tuple[int, ...]]],
        rows: Sequence[dict[str, Any]],
        pending: Sequence[_Pending],
    ) -> list[_Pending]:
        """Note a dump; returns those of its pending calls that the other dumps may yet explain."""
        if rank is None:
            return []
        self.ranks.add(rank)
        self.members.update(dict(groups.values()))
        for row in rows:
            label, seq = row["comm_group"], row["seq"]
            if label is not None and seq is not None and row["op"] not in _POINT_TO_POINT:
                known = self.entered.setdefault(label, {}).get(rank, (-1, ""))
                self.entered[label][rank] = max(known, (seq, row["op"]))
        first: dict[str, _Pending] = {}
        for row, event in pending:
            label, seq = row["comm_group"], row["seq"]
            graded = event["severity"] != "notice" or row["op"] in _POINT_TO_POINT
            if label is None or seq is None or graded:
                continue
            if label not in first or seq < first[label][0]["seq"]:
                first[label] = (row, event)
        self.held += first.values()
        return list(first.values())

    def graded(self) -> Iterator[_Pending]:
        """The held calls: one that others of the group did not enter is a problem."""
        for row, event in self.held:
            label, seq = row["comm_group"], row["seq"]
            present = [rank for rank in self.members.get(label, ()) if rank in self.ranks]
            entered = self.entered.get(label, {})
            absent = sorted(rank for rank in present if entered.get(rank, (-1, ""))[0] < seq)
            if absent:
                event["severity"] = "problem"
                row["unsplit_reason"] = NEVER_ENDED
                attrs = json.loads(event["attrs"])
                event["attrs"] = json.dumps({**attrs, "not_entered_by": absent[:64]})
            yield row, event
