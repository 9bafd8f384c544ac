"""Going through a log: calls and choices in bulk, like lines in runs, every other by itself.

A block is cut into stretches at the lines that change what an address means. Within a stretch
calls come first, then choices, then the rest, which is told how far the calls had come.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from harness_collectors.nccl_log import events, lines
from harness_collectors.nccl_log.apply import HANDLERS, Line, add_hop, add_ring, counts
from harness_collectors.nccl_log.block import MIDDLE_MARK, Block, encode
from harness_collectors.nccl_log.foreign import note_event, read_foreign
from harness_collectors.nccl_log.lines import Hop, Record
from harness_collectors.nccl_log.owner import Owners
from harness_collectors.nccl_log.runs import Run, repeats, runs_of
from harness_collectors.nccl_log.sorting import CHOICE_STARTS, Sort, Sorter
from harness_collectors.nccl_log.state import Evidence, LogFile, Process
from harness_collectors.nccl_log.tally import Calls, Choices

if TYPE_CHECKING:
    import numpy as np

_MAX_EXAMINED: Final = 64 << 10
"""Of a longer line, whose line ends were lost, the rest is dropped."""
_CUT_CALL: Final = re.compile(rb"(\w{4,20}):(?: (?:o(?:p(?:C(?:o(?:u(?:n(?:t)?)?)?)?)?)?)?)?$")
_OTHERS_CALL: Final = b"COLLTRACE"
_NOTHING: Final = (None, ())


class Act(NamedTuple):
    """A line that is read by itself, or the first of runs."""

    place: int
    head: int
    text: bytes
    """What stands behind `NCCL INFO `, or the whole line."""
    now: int | None
    times: int = 1
    """How many lines of the block are the same."""


class Scanner:
    """Reads the blocks of one file into the evidence. Never raises for what the text holds."""

    def __init__(self, evidence: Evidence, file: LogFile) -> None:
        self.evidence = evidence
        self.file = file
        self._owners = Owners(evidence, file)
        self._calls = Calls(self._owners)
        self._choices = Choices(self._owners)
        self._sorter = Sorter(self._calls, self._choices)
        self._cut = False
        # Of the block at hand:
        self._parsed: dict[int, list[Record]] = {}
        """Records of distinct lines that were not split, by their code."""
        self._heads: dict[int, Record | None] = {}
        """Who printed the split ones, by the code of their heads."""
        self._runs: dict[int, list[Run]] = {}
        """Like lines, by the place at which they are read."""
        self._likes: list[Hop | str] = []
        self._stamped: dict[int, int] = {}
        """The place of the first line with a stamp, by process, if that is in this block."""

    def scan(self, text: bytes) -> None:
        """Read a block of whole lines."""
        import numpy as np

        block = encode(text)
        self._parsed.clear()
        self._stamped.clear()
        self.file.lines += len(block)
        self._heads = self._sorter.heads(block)
        sorts = self._sorter.sorts(block, self._heads, self._cut)
        acts = self._acts(block, sorts)
        calls, choices = (np.flatnonzero(sorts == sort) for sort in (Sort.CALL, Sort.CHOICE))
        pairs = _distinct(block, choices)
        cuts = _cuts(sorts)
        bounds = [
            np.searchsorted(places, cuts).tolist()
            for places in (calls, choices, [act.place for act in acts])
        ]
        for number in range(len(cuts) - 1):
            own = [slice(bound[number], bound[number + 1]) for bound in bounds]
            places = self._add_calls(block, calls[own[0]])
            if own[1].start < own[1].stop:
                self._add_choices(block, choices[own[1]], pairs[own[1]], places)
            self._read(block, acts[own[2]], places)
        self.evidence.calls.relieve()

    def _acts(self, block: Block, sorts: np.ndarray) -> list[Act]:
        """What is read one by one, in the order of lines."""
        import numpy as np

        facts = np.flatnonzero(sorts == Sort.FACT)
        if block.times is not None and (block.times[facts] < 0).any():
            sorts[facts] = Sort.LINE  # the first with a stamp is wanted
            facts = facts[:0]
        times = ((sorts == Sort.LINE) | (sorts >= Sort.TURN)).astype(np.int64)
        firsts, often = repeats(block, facts)
        times[firsts] = often
        is_like = np.flatnonzero(sorts == Sort.LIKE)
        self._runs.clear()
        if len(is_like):
            numbers, self._likes = self._sorter.likes(block, is_like)
            self._runs = runs_of(block, sorts, numbers, self._heads)
            times[list(self._runs)] = 1
        places = np.flatnonzero(times)
        columns = (places, block.heads[places], times[places])
        listed, heads, often_listed = (column.tolist() for column in columns)
        return list(map(Act, listed, heads, *block.said(places), often_listed))

    def scan_cut(self, text: bytes) -> None:
        """Read a last line without a line end: what may be cut in it is not believed."""
        self._cut = True
        before = self.file.unreadable
        self.scan(text)
        self.file.ends_cut = self.file.unreadable - before

    # -- a stretch ---------------------------------------------------------------------------

    def _add_calls(self, block: Block, places: np.ndarray) -> np.ndarray:
        """Append the calls at these places; returns the places of those that can be."""
        import numpy as np

        if not len(places):
            return places
        codes = block.texts[places]
        found, inverse = np.unique(codes, return_inverse=True)
        resolved = [self._calls.resolve(block.pieces[code]) for code in found.tolist()]
        kinds = np.array([-1 if kind is None else kind for kind, _ in resolved], np.int32)[inverse]
        counts = np.array([count for _, count in resolved], np.int64)[inverse]
        sound = kinds >= 0
        self.file.unreadable += int((~sound).sum())
        places = places[sound]
        times = None if block.times is None else block.times[places]
        self.evidence.calls.extend(kinds[sound], counts[sound], times)
        return places

    def _add_choices(
        self, block: Block, places: np.ndarray, pairs: np.ndarray, calls: np.ndarray
    ) -> None:
        """Count the choices at these places, behind calls at the places `calls`."""
        import numpy as np

        befores = self._befores(places, calls)
        for pair in np.unique(pairs).tolist():
            its = np.flatnonzero(pairs == pair)
            place = places[its[0]]
            record = self._heads.get(int(block.heads[place]))
            choice = self._choices.choice(block.text(place)) if record is not None else None
            if record is None or choice is None:
                self._choices.count_line(block.line(place), befores[its])
            else:
                self._choices.count(record, choice, befores[its])

    def _read(self, block: Block, acts: list[Act], calls: np.ndarray) -> None:
        """Read what is read one by one."""
        befores: list[int] | None = None
        if len(calls) and acts:
            befores = self._befores([act.place for act in acts], calls).tolist()
        for number, act in enumerate(acts):
            # Without calls around, lines that hold several records may yet add some.
            before = befores[number] if befores is not None else len(self.evidence.calls)
            if (runs := self._runs.get(act.place)) is not None:
                self._like_lines(block, runs, before)
            else:
                self._line(block, act, before)

    def _befores(self, places: np.ndarray | Sequence[int], calls: np.ndarray) -> np.ndarray:
        """The rows that the next calls have, of calls just appended whose places are `calls`."""
        import numpy as np

        first = len(self.evidence.calls) - len(calls)
        return np.searchsorted(calls, np.asarray(places)) + first

    # -- one line ----------------------------------------------------------------------------

    def _line(self, block: Block, act: Act, before: int) -> None:
        """A line by itself; `before` is the row that the next call has."""
        head, text = self._heads.get(act.head), act.text
        if head is None or b"NCCL " in text or b" opCount " in text:
            self._whole_line(block, act, before)
            return
        if len(text) > lines.MAX_TEXT_BYTES:
            text = text[: lines.MAX_TEXT_BYTES].rstrip(b"\r")
        self._record(self._owners.unglued(head), text, act, before)

    def _like_lines(self, block: Block, runs: list[Run], before: int) -> None:
        """Transports and ring maps of one process."""
        printed, file = -1, self.file
        for run in runs:
            if run.head != printed:
                head = self._heads[run.head]
                record = self._owners.unglued(head) if head is not None else None
                owner = self._owners.of(record) if record is not None else None
                if record is None or owner is None:
                    file.dropped += run.times - 1
                    continue
                printed, now = run.head, block.time(run.place)
                process, thread = owner
                called = self._owners.called
                line = Line(record, b"", process, thread, file, now, False, called, before)
                comm = line.current()
                rank = comm.get("rank") if comm is not None else None
            if block.times is not None:
                self._stamp(process, run.place, block.time(run.place))
            like = self._likes[run.like]
            if isinstance(like, Hop):
                add_hop(self.evidence, line, like, run.channels, run.times, comm, rank)
                file.records += run.times
            elif add_ring(line, like, run.times):
                file.records += run.times

    def _stamp(self, process: Process, place: int, now: int | None) -> None:
        """Note when a process printed its first line, which runs may bring forward."""
        if now is not None:
            unknown = process.first_ns is None
            if unknown or place < self._stamped.get(process.order, 0):
                process.first_ns, self._stamped[process.order] = now, place

    def _whole_line(self, block: Block, act: Act, before: int) -> None:
        """A line that may hold anything."""
        code = int(block.texts[act.place]) if act.head < 0 else -1
        found = self._parsed.get(code)
        if found is None:
            line = block.line(act.place)[:_MAX_EXAMINED]
            found = self._owners.records(line)
            if not found:
                read_foreign(self.evidence, self.file, self._owners, line, self._cut)
            elif code >= 0 and len(found) == 1 and not found[0].start:
                self._parsed[code] = found
        for record in found:
            if MIDDLE_MARK in record.text or b" opCount " in record.text:
                self._glued_call(record, act.now)
            else:
                self._record(record, record.text, act, before)

    def _glued_call(self, record: Record, now: int | None) -> None:
        """A call in a line that holds more than it, or a piece of one."""
        import numpy as np

        match = lines.CALL.match(record.text)
        kind = self._calls.kind(record, match) if match else None
        if match is None or kind is None:
            self.file.unreadable += _OTHERS_CALL not in record.text
            return
        times = None if now is None else np.array([now])
        self.evidence.calls.extend(np.array([kind]), np.array([int(match["count"])]), times)

    def _record(self, record: Record, text: bytes, act: Act, before: int) -> None:
        """A record whose text is `text`, whatever `record` has for it."""
        owner = self._owners.of(record)
        if owner is None:
            return
        process, thread = owner
        self._stamp(process, act.place, act.now)
        if record.level == b"WARN":
            self.file.warnings += 1
            note_event(self.evidence, self.file, events.warning(record, process, act.now))
            return
        start = text[:4]
        if b" Bytes -> " in text:
            self._glued_choice(record._replace(text=text), before)
            return
        handler = counts if start[:1].isdigit() else HANDLERS.get(start, _NOTHING)[0]
        if handler is None:
            cut = _CUT_CALL.match(text) if start in CHOICE_STARTS else None
            self.file.unreadable += cut is not None and cut[1].decode("ascii") in lines.OPS
            return
        comms, called, times = len(self.evidence.comms), self._owners.called, act.times
        line = Line(
            record, text, process, thread, self.file, act.now, self._cut, called, before, times
        )
        understood = handler(self.evidence, line)
        if understood:
            self.file.records += times
        elif understood is not None:
            self.file.unreadable += times
        if len(self.evidence.comms) != comms:
            self._calls.forget()

    def _glued_choice(self, record: Record, before: int) -> None:
        import numpy as np

        choice = None if self._cut else lines.parse_choice(record.text)
        if choice is None:
            self.file.unreadable += 1
        else:
            self._choices.count(record, choice, np.array([before]))


def _distinct(block: Block, places: np.ndarray) -> np.ndarray:
    """Numbers of the distinct lines at these places, in the order of their first ones."""
    import numpy as np

    pairs = block.heads[places].astype(np.int64) * len(block.pieces) + block.texts[places]
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    found: np.ndarray = numbers[inverse]
    return found


def _cuts(sorts: np.ndarray) -> list[int]:
    """Where stretches begin and the last one ends: at turns that have calls or choices near."""
    import numpy as np

    busy = np.flatnonzero((sorts == Sort.CALL) | (sorts == Sort.CHOICE))
    turns = np.flatnonzero(sorts >= Sort.TURN)
    near = np.unique(np.searchsorted(turns, busy))
    begins = np.append(turns + 1, len(sorts))[near - 1]  # of the first there is none before
    begins = np.where(near > 0, begins, 0)
    ends = np.append(turns, len(sorts))[near]
    cuts: list[int] = np.unique(np.concatenate(([0, len(sorts)], begins, ends))).tolist()
    return cuts
