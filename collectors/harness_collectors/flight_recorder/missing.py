"""Collectives that some ranks wait in and others never entered, over all dumps of a job.

A dump does not say when it was taken, and in a hang all clocks of its entries stand still; what
the dumps of several ranks say together needs no clock: who is behind, who called something else
there, and which side of a send or receive never came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

NEVER_ENDED: Final = "never ended"
"""Of a group's overdue calls the first; the later ones wait for it."""
AT_END: Final = "end_rank_"
"""Begins the names of our dumps at a rank's end: others may still have been on their way there."""
_POINT_TO_POINT: Final = {"send": "recv", "recv": "send"}
_EVEN: Final = frozenset({"all_reduce", "all_gather", "broadcast", "reduce", "reduce_scatter"})
"""Whose messages must be of one size on all ranks."""
_Pending = tuple[dict[str, Any], dict[str, Any]]
_Pair = tuple[str, int, int]
"""(operation, sender, receiver)."""


@dataclass
class Progress:
    """How far each rank was in each group or pair, and its first pending call in each."""

    entered: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    """Ordinal and operation of the last collective, by group and rank."""
    posted: dict[int, dict[_Pair, int]] = field(default_factory=dict)
    """Ordinal of the last send or receive, by rank and pair."""
    ranks: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    """Ranks whose ring is empty or has lost its beginning: what they posted is not known."""
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
        self.unsure |= set() if rows else {rank}  # a recorder without a call may have been off
        self.members.update(dict(groups.values()))
        for row in rows:
            self._note(rank, row)
        first: dict[Any, _Pending] = {}
        for row, event in pending:
            place = _pair(row) or row["comm_group"]
            if place is None or row["seq"] is None or event["severity"] != "notice":
                continue
            if place not in first or row["seq"] < first[place][0]["seq"]:
                first[place] = (row, event)
        self.held += first.values()
        return list(first.values())

    def _note(self, rank: int, row: Mapping[str, Any]) -> None:
        label, seq, pair = row["comm_group"], row["seq"], _pair(row)
        if row["op"] in _POINT_TO_POINT:
            if pair is None or seq is None:
                self.unsure.add(rank)
            else:
                mine = self.posted.setdefault(rank, {})
                mine[pair] = max(seq, mine.get(pair, -1))
        elif label is not None and seq is not None:
            known = self.entered.setdefault(label, {}).get(rank, (-1, ""))
            self.entered[label][rank] = max(known, (seq, row["op"]))

    def graded(self) -> Iterator[_Pending]:
        """The held calls: a problem is one that another rank did not enter, or entered as another.

        What the text then says of ranks is read again by `harness_analysis.verdict.suspects`.
        """
        called = self._called()
        for row, event in self.held:
            pair = _pair(row)
            absent = self._partner(pair, row["seq"]) if pair else self._absent(row)
            told: dict[str, Any] = {"not_entered_by": absent[:64]} if absent else {}
            if pair and absent:
                event["text"] += f", and rank {absent[0]} never called {_POINT_TO_POINT[row['op']]}"
            if not pair and not absent:
                told, words = _mismatch(called[row["comm_group"], row["seq"]], _call(row))
                event["text"] += words
            if told:
                event["severity"] = "problem"
                row["unsplit_reason"] = NEVER_ENDED
                event["attrs"] = json.dumps({**json.loads(event["attrs"]), **told})
            yield row, event

    def _absent(self, row: Mapping[str, Any]) -> list[int]:
        label, seq = row["comm_group"], row["seq"]
        present = [rank for rank in self.members.get(label, ()) if rank in self.ranks]
        entered = self.entered.get(label, {})
        return sorted(rank for rank in present if entered.get(rank, (-1, ""))[0] < seq)

    def _partner(self, pair: _Pair, seq: int) -> list[int]:
        op, source, target = pair
        other = target if op == "send" else source
        if other not in self.ranks or other in self.unsure:
            return []
        last = self.posted.get(other, {}).get((_POINT_TO_POINT[op], source, target), -1)
        return [other] if last < seq else []

    def _called(self) -> dict[tuple[str, int], Counter[str]]:
        """What ranks wait in, by group and ordinal, with how many of them."""
        found: dict[tuple[str, int], Counter[str]] = {}
        for row, _ in self.held:
            if _pair(row) is None:
                found.setdefault((row["comm_group"], row["seq"]), Counter())[_call(row)] += 1
        return found


def _pair(row: Mapping[str, Any]) -> _Pair | None:
    op, source, target = row["op"], row["src_rank"], row["dst_rank"]
    known = op in _POINT_TO_POINT and source is not None and target is not None
    return (op, source, target) if known else None


def _call(row: Mapping[str, Any]) -> str:
    if row["op"] in _EVEN and row["bytes"] is not None:
        return f"{row['op']} of {row['bytes']} bytes"
    return str(row["op"])


def _mismatch(called: Counter[str], mine: str) -> tuple[dict[str, Any], str]:
    """What ranks called at one place where that differs, and the words for it."""
    if len(called) < 2:
        return {}, ""
    [(most, count), *_] = called.most_common(1)
    told = {"mismatch": dict(sorted(called.items()))}
    if count * 2 > called.total():
        words = f"; most ranks called {most} there" if most != mine else "; others called another"
        return told, words
    return told, "; others called another"
