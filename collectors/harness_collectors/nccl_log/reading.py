"""Reading the lines of one file: whose they are, and what they change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from harness_collectors.nccl_log import events, lines
from harness_collectors.nccl_log.apply import HANDLERS, Line, add_hop, add_ring, counts
from harness_collectors.nccl_log.block import Block
from harness_collectors.nccl_log.foreign import note_event, read_foreign
from harness_collectors.nccl_log.lines import MIDDLE_MARK, Hop, Record
from harness_collectors.nccl_log.owner import Owners
from harness_collectors.nccl_log.runs import Run
from harness_collectors.nccl_log.state import Evidence, LogFile, Process
from harness_collectors.nccl_log.tally import Calls, Choices, Texts
from harness_collectors.nccl_log.words import CHOICE_STARTS

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
    """Code of what says who printed it; -1: the line is looked at as a whole."""
    times: int
    """How many lines say the same; 0: another has said it, but who prints it is new."""
    text: bytes
    """What stands behind `NCCL INFO `."""


class Page(NamedTuple):
    """A block and what its lines have in common."""

    block: Block
    heads: dict[int, Record | None]
    """Who printed lines, by the code of their heads."""
    runs: dict[int, list[Run]]
    """Like lines, by the place at which they are read."""
    likes: list[Hop | str]
    cut: bool


class Reader:
    """Reads the lines of one file into the evidence."""

    def __init__(self, evidence: Evidence, file: LogFile, texts: Texts) -> None:
        self.evidence = evidence
        self.file = file
        self._owners = Owners(evidence, file)
        self._calls = Calls(self._owners, texts)
        self._choices = Choices(self._owners, texts)
        self._texts = texts
        # Of the page at hand:
        self._page = Page(Block.__new__(Block), {}, {}, [], False)
        self._lines = self._owners.lines
        self._parsed: dict[int, list[Record]] = {}
        """Records of distinct lines that were not split, by their code."""
        self._stamped: dict[int, int] = {}
        """The place of the first line with a stamp, by process, if that is in this block."""

    def turn(self, page: Page, size: int) -> None:
        """Go on with this page, which holds so many lines of the file."""
        self._page = page
        self._lines.clear()
        self._parsed.clear()
        self._stamped.clear()
        self.file.lines += size

    # -- in bulk -----------------------------------------------------------------------------

    def add_calls(self, places: np.ndarray) -> np.ndarray:
        """Append the calls at these places; returns the places of those that can be."""
        import numpy as np

        if not len(places):
            return places
        block = self._page.block
        found, inverse = np.unique(block.texts[places], return_inverse=True)
        resolved = [self._calls.resolve(block.pieces[code]) for code in found.tolist()]
        kinds = np.array([-1 if kind is None else kind for kind, _ in resolved], np.int32)[inverse]
        counts = np.array([count for _, count in resolved], np.int64)[inverse]
        sound = kinds >= 0
        self.file.unreadable += int((~sound).sum())
        places = places[sound]
        times = None if block.times is None else block.times[places]
        self.evidence.calls.extend(kinds[sound], counts[sound], times)
        return places

    def add_choices(self, places: np.ndarray, pairs: np.ndarray, calls: np.ndarray) -> None:
        """Count the choices at these places, behind calls at the places `calls`."""
        import numpy as np

        block = self._page.block
        befores = self._befores(places, calls)
        for pair in np.unique(pairs).tolist():
            its = np.flatnonzero(pairs == pair)
            place = places[its[0]]
            record = self._page.heads.get(int(block.heads[place]))
            choice = self._texts.choice(block.said(place)) if record is not None else None
            if record is None or choice is None:
                self._choices.count_line(block.line(place), befores[its])
            else:
                self._choices.count(record, choice, befores[its])

    def _befores(self, places: np.ndarray | Sequence[int], calls: np.ndarray) -> np.ndarray:
        """The rows that the next calls have, of calls just appended whose places are `calls`."""
        import numpy as np

        first = len(self.evidence.calls) - len(calls)
        return np.searchsorted(calls, np.asarray(places)) + first

    # -- one by one --------------------------------------------------------------------------

    def read(self, acts: list[Act], calls: np.ndarray) -> None:
        """Read lines, behind calls at the places `calls`."""
        befores = iter(())
        if len(calls) and acts:
            befores = iter(self._befores([act.place for act in acts], calls).tolist())
        # Without calls around, lines that hold several records may yet add some.
        before, runs, heads = len(self.evidence.calls), self._page.runs, self._page.heads
        for place, head, times, text in acts:
            before = next(befores, before)
            if place in runs:
                self._like_lines(runs[place], before)
            elif head >= 0 and heads[head] is not None:
                self._line(place, head, times, text, before)
            else:
                self._whole_line(place, before)
                before = len(self.evidence.calls)

    def _printed_by(self, head: int) -> Line | None:
        """Where the lines with this head belong; None: too many processes."""
        record = self._page.heads[head]
        record = self._owners.unglued(record) if record is not None else None
        owner = self._owners.of(record) if record is not None else None
        if record is None or owner is None:
            return None
        line = Line(record, *owner, self.file, self._page.cut, self._owners.called)
        self._lines[head] = line
        return line

    def _line(self, place: int, head: int, times: int, text: bytes, before: int) -> None:
        """A line by itself; `before` is the row that the next call has."""
        line = self._lines.get(head) or self._printed_by(head)
        if line is None:
            return
        if self._page.block.times is not None:
            line.now = self._page.block.time(place)
            self._stamp(line.process, place, line.now)
        if times:
            if len(text) > lines.MAX_TEXT_BYTES:
                text = text[: lines.MAX_TEXT_BYTES].rstrip(b"\r")
            line.text, line.before, line.times = text, before, times
            self._apply(line)

    def _like_lines(self, runs: list[Run], before: int) -> None:
        """Transports and ring maps of one process."""
        file, block, likes = self.file, self._page.block, self._page.likes
        printed, line, comm, rank = -1, None, None, None
        for head, like, place, times, low, high in runs:
            if head != printed:
                line, printed = self._lines.get(head) or self._printed_by(head), -1
                if line is not None:
                    line.before, printed = before, head
                    comm = line.current()
                    rank = comm.get("rank") if comm is not None else None
            if line is None:
                file.dropped += times - 1
                continue
            if block.times is not None:
                self._stamp(line.process, place, block.time(place))
            said = likes[like]
            if isinstance(said, Hop):
                add_hop(self.evidence, line, said, low | high << 64, times, comm, rank)
                file.records += times
            elif add_ring(line, said, times):
                file.records += times

    def _stamp(self, process: Process, place: int, now: int | None) -> None:
        """Note when a process printed its first line, which runs may bring forward."""
        if now is not None:
            unknown = process.first_ns is None
            if unknown or place < self._stamped.get(process.order, 0):
                process.first_ns, self._stamped[process.order] = now, place

    def _apply(self, line: Line) -> None:
        """Read the text of a record of level INFO."""
        text = line.text
        if b" Bytes -> " in text:
            self._glued_choice(line)
            return
        start = text[:4]
        handler = HANDLERS.get(start, _NOTHING)[0] or (counts if text[:1].isdigit() else None)
        if handler is None:
            cut = _CUT_CALL.match(text) if start in CHOICE_STARTS else None
            self.file.unreadable += cut is not None and cut[1].decode("ascii") in lines.OPS
            return
        comms = self.evidence.comms
        known = len(comms)
        understood = handler(self.evidence, line)
        if understood:
            self.file.records += line.times
        elif understood is not None:
            self.file.unreadable += line.times
        if len(comms) != known:
            self._calls.forget()

    def _glued_choice(self, line: Line) -> None:
        import numpy as np

        choice = None if line.cut else lines.parse_choice(line.text)
        if choice is None:
            self.file.unreadable += 1
        else:
            self._choices.count(line.record, choice, np.array([line.before]))

    # -- lines that may hold anything --------------------------------------------------------

    def _whole_line(self, place: int, before: int) -> None:
        block = self._page.block
        code = int(block.texts[place]) if block.heads[place] < 0 else -1
        found = self._parsed.get(code)
        if found is None:
            text = block.line(place)[:_MAX_EXAMINED]
            found = self._owners.records(text)
            if not found:
                read_foreign(self.evidence, self.file, self._owners, text, self._page.cut)
            elif code >= 0 and len(found) == 1 and not found[0].start:
                self._parsed[code] = found
        now = block.time(place)
        for record in found:
            if MIDDLE_MARK in record.text or b" opCount " in record.text:
                self._glued_call(record, now)
            else:
                self._record(record, place, now, before)

    def _record(self, record: Record, place: int, now: int | None, before: int) -> None:
        owner = self._owners.of(record)
        if owner is None:
            return
        process, thread = owner
        self._stamp(process, place, now)
        if record.level == b"WARN":
            self.file.warnings += 1
            note_event(self.evidence, self.file, events.warning(record, process, now))
            return
        called = self._owners.called
        line = Line(record, process, thread, self.file, self._page.cut, called)
        line.text, line.now, line.before = record.text, now, before
        self._apply(line)

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
