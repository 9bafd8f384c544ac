"""Reading the lines of one file: whose they are, and what they change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from harness_collectors.nccl_log.evidence import events
from harness_collectors.nccl_log.evidence.apply import HANDLERS, Line, add_hop, add_ring, counts
from harness_collectors.nccl_log.evidence.foreign import note_event, read_foreign
from harness_collectors.nccl_log.evidence.owner import Owners
from harness_collectors.nccl_log.evidence.state import Evidence, LogFile, Process
from harness_collectors.nccl_log.evidence.tally import Calls, Choices
from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import MIDDLE_MARK, Hop, Record
from harness_collectors.nccl_log.grammar.texts import Texts
from harness_collectors.nccl_log.grammar.words import CHOICE_STARTS
from harness_collectors.nccl_log.pages.page import Act, Page, Stretch, distinct
from harness_collectors.nccl_log.pages.runs import Run

if TYPE_CHECKING:
    import numpy as np

_CUT_CALL: Final = re.compile(rb"(\w{4,20}):(?: (?:o(?:p(?:C(?:o(?:u(?:n(?:t)?)?)?)?)?)?)?)?$")
_OTHERS_CALL: Final = b"COLLTRACE"


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
        self._page: Page
        self._lines = self._owners.lines
        self._parsed: dict[bytes, list[Record]] = {}
        """Records of distinct lines that were not split."""
        self._stamped: dict[int, int] = {}
        """The place of the first line with a stamp, by process, if that is in this block."""

    def turn(self, page: Page, size: int) -> None:
        """Go on with this page, which holds so many lines of the file."""
        self._page = page
        self._lines.clear()
        self._parsed.clear()
        self._stamped.clear()
        self.file.lines += size

    def read(self, stretch: Stretch) -> None:
        """Read lines of this file: calls, then what was chosen for them, then the rest."""
        places = self._add_calls(slice(*stretch.calls))
        self._add_choices(slice(*stretch.choices), places)
        self._read(self._page.acts[slice(*stretch.acts)], places)

    # -- in bulk -----------------------------------------------------------------------------

    def _add_calls(self, some: slice) -> np.ndarray:
        """Append calls; returns the places of those that can be."""
        import numpy as np

        calls = self._page.calls
        places = calls.places[some]
        if not len(places):
            return places
        found, inverse = distinct(calls.codes[some])
        resolved = [self._calls.resolve(calls.lines[code]) for code in found.tolist()]
        kinds = np.array([-1 if kind is None else kind for kind, _ in resolved], np.int32)[inverse]
        counts = np.array([count for _, count in resolved], np.int64)[inverse]
        sound = kinds >= 0
        self.file.unreadable += int((~sound).sum())
        times = None if calls.times is None else calls.times[some][sound]
        self.evidence.calls.extend(kinds[sound], counts[sound], times)
        sure: np.ndarray = places[sound]
        return sure

    def _add_choices(self, some: slice, calls: np.ndarray) -> None:
        """Count choices, behind calls at the places `calls`."""
        import numpy as np

        choices = self._page.choices
        codes = choices.codes[some]
        if not len(codes):
            return
        befores = self._befores(choices.places[some], calls)
        for code in np.unique(codes).tolist():
            record, text = choices.lines[code]
            choice = self._texts.choice(text) if record is not None else None
            if record is None or choice is None:
                self._choices.count_line(text, befores[codes == code])
            else:
                self._choices.count(record, choice, befores[codes == code])

    def _befores(self, places: np.ndarray | list[int], calls: np.ndarray) -> np.ndarray:
        """The rows that the next calls have, of calls just appended whose places are `calls`."""
        import numpy as np

        first = len(self.evidence.calls) - len(calls)
        return np.searchsorted(calls, np.asarray(places)) + first

    # -- one by one --------------------------------------------------------------------------

    def _read(self, acts: list[Act], calls: np.ndarray) -> None:
        """Read lines, behind calls at the places `calls`."""
        befores = iter(())
        if len(calls) and acts:
            befores = iter(self._befores([place for place, *_ in acts], calls).tolist())
        # Without calls around, lines that hold several records may yet add some.
        before, comms = len(self.evidence.calls), len(self.evidence.comms)
        runs, stamps, lines_of = self._page.runs, self._page.stamps, self._lines.get
        for place, head, times, text in acts:
            before = next(befores, before)
            if place in runs:
                self._like_lines(runs[place], before)
            elif head < 0:
                self._whole_line(place, text, before)
                before = len(self.evidence.calls)
            elif (line := lines_of(head) or self._printed_by(head)) is not None:
                if stamps:
                    line.now = stamps.get(place)
                    self._stamp(line.process, place, line.now)
                if times:
                    line.text, line.before, line.times = text, before, times
                    self._apply(line)
        if len(self.evidence.comms) != comms:
            self._calls.forget()

    def _printed_by(self, head: int) -> Line | None:
        """Where the lines with this head belong; None: too many processes."""
        line = self._owners.line_of(self._page.heads[head], self._page.cut)
        if line is not None:
            self._lines[head] = line
        return line

    def _like_lines(self, runs: list[Run], before: int) -> None:
        """Transports and ring maps of one process."""
        file, stamps, likes = self.file, self._page.stamps, self._page.likes
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
            if stamps:
                self._stamp(line.process, place, stamps.get(place))
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
        if b"y" in text and b" Bytes -> " in text:  # few have the first, which is quick to see
            self._glued_choice(line)
            return
        start = text[:4]
        handler = HANDLERS.get(start) or (counts if text[:1].isdigit() else None)
        if handler is None:
            cut = _CUT_CALL.match(text) if start in CHOICE_STARTS else None
            self.file.unreadable += cut is not None and cut[1].decode("ascii") in lines.OPS
            return
        understood = handler(self.evidence, line)
        if understood:
            self.file.records += line.times
        elif understood is not None:
            self.file.unreadable += line.times

    def _glued_choice(self, line: Line) -> None:
        import numpy as np

        choice = None if line.cut else lines.parse_choice(line.text)
        if choice is None:
            self.file.unreadable += 1
        else:
            self._choices.count(line.record, choice, np.array([line.before]))

    # -- lines that may hold anything --------------------------------------------------------

    def _whole_line(self, place: int, text: bytes, before: int) -> None:
        found = self._parsed.get(text)
        if found is None:
            found = self._owners.records(text)
            if not found:
                read_foreign(self.evidence, self.file, self._owners, text, self._page.cut)
            elif len(found) == 1 and not found[0].start:
                self._parsed[text] = found
        now = self._page.stamps.get(place)
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
