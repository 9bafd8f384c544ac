"""Lines that are nearly all of a log, in bulk: calls, and the choices NCCL made for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from harness_collectors.nccl_log.evidence.owner import Owners
from harness_collectors.nccl_log.evidence.state import MAX_THINGS, CallKind, Comm, Thread
from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import Choice, Record
from harness_collectors.nccl_log.grammar.texts import Shape, Texts, make_room, split_call

if TYPE_CHECKING:
    import re

    import numpy as np

_LOOK_BACK: Final = 16


class Calls:
    """Turns lines of calls into kinds of calls."""

    def __init__(self, owners: Owners, texts: Texts) -> None:
        self._owners = owners
        self._texts = texts
        self._resolved: dict[Shape, int | None] = {}
        self._kinds: dict[CallKind, int] = {}

    def resolve(self, line: bytes) -> tuple[int | None, int]:
        """(number of the kind, count) of a line that is a call; no kind: it cannot be."""
        found = split_call(line)
        if found is None:
            return None, 0
        shape, count = found
        if shape not in self._resolved:
            make_room(self._resolved)
            parsed = self._texts.call(shape, line)
            self._resolved[shape] = self.kind(*parsed) if parsed else None
        return self._resolved[shape], count

    def forget(self) -> None:
        """An address may mean another communicator from now on."""
        self._resolved.clear()

    def kind(self, record: Record, match: re.Match[bytes]) -> int | None:
        """The kind of a call, made on first sight. None: what the line says cannot be."""
        op, datatype = match["op"].decode("ascii"), int(match["datatype"])
        nranks, root = int(match["nranks"]), int(match["root"])
        if op not in lines.OPS or datatype >= len(lines.DATATYPES) or root >= nranks:
            return None
        owner = self._owners.of(record)
        if owner is None:
            return None
        process, thread = owner
        evidence = self._owners.evidence
        pointer = match["comm"].decode("ascii")
        comm = process.comms.get(pointer) or evidence.new_comm(process, pointer)
        if comm is None:
            return None
        dtype, element = lines.DATATYPES[datatype]
        rank = int(match["globalrank"]) if match["globalrank"] else None
        kind = CallKind(
            self._owners.file,
            comm,
            thread.slot,
            lines.OPS[op],
            op,
            dtype,
            element,
            root,
            nranks,
            rank,
        )
        if kind not in self._kinds:
            if len(evidence.kinds) >= MAX_THINGS:
                self._owners.file.dropped += 1
                return None
            self._kinds[kind] = len(evidence.kinds)
            evidence.kinds.append(kind)
            self._owners.calling.add(thread.slot)
        return self._kinds[kind]


class Choices:
    """Counts TUNING lines, and gives each to its call where that is certain.

    A line names no communicator. It is printed by rank 0 of one, in the thread of the call and
    after it, so it belongs to that thread's latest call by a rank 0 with the same op and size.
    """

    def __init__(self, owners: Owners, texts: Texts) -> None:
        self._owners = owners
        self._texts = texts

    def count_line(self, line: bytes, befores: np.ndarray) -> None:
        """Count a line that is a choice, printed when the calls had reached rows `befores`."""
        parsed = self._texts.whole_choice(line)
        if parsed is not None:
            self.count(*parsed, befores)

    def count(self, record: Record, choice: Choice, befores: np.ndarray) -> None:
        """Count a choice; `befores` (int64) has an element for each time it was printed."""
        evidence, file = self._owners.evidence, self._owners.file
        owner = self._owners.of(record)
        known = choice in evidence.choices
        if owner is None or (not known and len(evidence.choices) >= MAX_THINGS):
            file.dropped += len(befores)
            return
        process, thread = owner
        index = evidence.choices.setdefault(choice, len(evidence.choices))
        for comm, times in self._give(thread, choice, index, befores).items():
            number = comm.order if comm is not None else -1
            evidence.choice_counts[(process.order, number, index)] += times
        file.choices += len(befores)
        file.records += len(befores)

    def _give(
        self, thread: Thread, choice: Choice, index: int, befores: np.ndarray
    ) -> Counter[Comm | None]:
        """Give the choice to its calls; how often to which communicator (None: not certain)."""
        import numpy as np

        calls, kinds = self._owners.evidence.calls, self._owners.evidence.kinds
        found: Counter[Comm | None] = Counter()
        waiting = befores - calls.base
        low = max(int(waiting.min()) - _LOOK_BACK, 0)
        near = np.frombuffer(calls.kinds, "i4")[low : int(waiting.max())]
        if not len(near):
            found[None] = len(waiting)
            return found
        wanted = np.full((2, len(near)), -1, np.int64)
        for number in np.unique(near).tolist():
            if _fits(kinds[number], thread, choice):
                wanted[:, near == number] = _counts_meant(kinds[number], choice)
        counts = np.frombuffer(calls.counts, "i8")[low : int(waiting.max())]
        rows = np.flatnonzero((wanted == counts).any(axis=0)) + low
        place = np.searchsorted(rows, waiting) - 1
        latest = rows[np.maximum(place, 0)] if len(rows) else np.full_like(waiting, -1)
        chosen = latest[(place >= 0) & (waiting - latest <= _LOOK_BACK)]
        for number, times in Counter(near[chosen - low].tolist()).items():
            found[kinds[number].comm] += times
        if len(waiting) > len(chosen):
            found[None] += len(waiting) - len(chosen)
        calls.choose(chosen + calls.base, index)
        return found


def _fits(kind: CallKind, thread: Thread, choice: Choice) -> bool:
    same = kind.slot == thread.slot and choice.op in (None, kind.op)
    return same and kind.comm.said_rank() == 0


def _counts_meant(kind: CallKind, choice: Choice) -> np.ndarray:
    """The element counts that a choice's bytes may mean, shape (2, 1); -1: none.

    Versions differ in whether the size of a gathered message is one rank's share or the whole.
    """
    import numpy as np

    sizes = (kind.element_bytes, kind.element_bytes * kind.nranks)
    meant = [-1 if choice.bytes % size else choice.bytes // size for size in sizes]
    return np.array(meant, np.int64)[:, None]
