"""Lines that are nearly all of a log, in bulk: calls, and the choices NCCL made for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.nccl_log import lines
from harness_collectors.nccl_log.lines import MIDDLE_MARK, Choice, Record
from harness_collectors.nccl_log.owner import Owners
from harness_collectors.nccl_log.state import MAX_THINGS, CallKind, Comm, Thread

if TYPE_CHECKING:
    import re

    import numpy as np

_MAX_CACHED: Final = 1 << 16
_COUNT: Final = MIDDLE_MARK + b" count "
_LOOK_BACK: Final = 16

Shape = tuple[bytes, bytes]
"""A call's line before and after its count."""


def split_call(line: bytes) -> tuple[Shape, int] | None:
    """(shape, count) of a normalised line that looks like a call."""
    at = line.find(_COUNT)
    start = at + len(_COUNT)
    end = line.find(b" ", start)
    digits = line[start:end]
    if at < 0 or end < 0 or not digits.isdigit() or len(digits) > 18:
        return None
    return (line[:at], line[end:]), int(digits)


class Texts:
    """What lines of calls and choices say by themselves, remembered; of any file."""

    def __init__(self) -> None:
        self._calls: dict[Shape, tuple[Record, re.Match[bytes]] | None] = {}
        self._whole: dict[bytes, tuple[Record, Choice] | None] = {}
        self._choices: dict[bytes, Choice | None] = {}

    def is_call(self, line: bytes) -> bool:
        """Whether the line is one whole call, whatever stands before its prefix."""
        found = split_call(line)
        return found is not None and self.call(found[0], line) is not None

    def call(self, shape: Shape, line: bytes) -> tuple[Record, re.Match[bytes]] | None:
        """The call that a line of this shape is; None: it is no whole one."""
        if shape not in self._calls:
            _make_room(self._calls)
            self._calls[shape] = _whole_call(line)
        return self._calls[shape]

    def is_choice(self, line: bytes) -> bool:
        """Whether the line is one whole decision."""
        return self.whole_choice(line) is not None

    def whole_choice(self, line: bytes) -> tuple[Record, Choice] | None:
        """The decision that a line is, whatever stands before its prefix; None: no whole one."""
        if line not in self._whole:
            _make_room(self._whole)
            found = list(lines.records(line))
            choice = lines.parse_choice(found[0].text) if len(found) == 1 else None
            self._whole[line] = (found[0], choice) if choice else None
        return self._whole[line]

    def choice(self, text: bytes) -> Choice | None:
        """The decision that the text of a record is; None: it is no whole one."""
        if text not in self._choices:
            _make_room(self._choices)
            self._choices[text] = lines.parse_choice(text[: lines.MAX_TEXT_BYTES].rstrip(b"\r"))
        return self._choices[text]


def _make_room(memory: dict[Any, Any]) -> None:
    if len(memory) >= _MAX_CACHED:
        memory.clear()


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
            _make_room(self._resolved)
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


def _whole_call(line: bytes) -> tuple[Record, re.Match[bytes]] | None:
    found = list(lines.records(line))
    match = lines.CALL.fullmatch(found[0].text) if len(found) == 1 else None
    return (found[0], match) if match else None


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
    return same and kind.comm.rank == 0


def _counts_meant(kind: CallKind, choice: Choice) -> np.ndarray:
    """The element counts that a choice's bytes may mean, shape (2, 1); -1: none.

    Versions differ in whether the size of a gathered message is one rank's share or the whole.
    """
    import numpy as np

    sizes = (kind.element_bytes, kind.element_bytes * kind.nranks)
    meant = [-1 if choice.bytes % size else choice.bytes // size for size in sizes]
    return np.array(meant, np.int64)[:, None]
