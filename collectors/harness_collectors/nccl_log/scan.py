"""Going through a log: calls and choices in bulk, every other line that says something by itself.

A block is cut into stretches at the lines that change what an address means. Within a stretch
calls come first, then choices, then the rest, which is told how far the calls had come.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from harness_collectors.nccl_log import events, lines
from harness_collectors.nccl_log.apply import HANDLERS, Line, counts
from harness_collectors.nccl_log.block import MIDDLE_MARK, Block, encode
from harness_collectors.nccl_log.lines import Record
from harness_collectors.nccl_log.owner import Owners
from harness_collectors.nccl_log.state import MAX_EVENTS, Event, Evidence, LogFile
from harness_collectors.nccl_log.tally import Calls, Choices

if TYPE_CHECKING:
    import numpy as np

_IGNORED, _CALL, _CHOICE, _LINE, _TURN = range(5)
"""What to do with a line; a `_TURN` changes what addresses mean, or holds several records."""

_MAX_EXAMINED: Final = 64 << 10
"""Of a longer line, whose line ends were lost, the rest is dropped."""
_CHOICE_STARTS: Final = frozenset(name[:4].encode("ascii") for name in lines.OPS)
_CUT_CALL: Final = re.compile(rb"(\w{4,20}):(?: (?:o(?:p(?:C(?:o(?:u(?:n(?:t)?)?)?)?)?)?)?)?$")
_CUT_LEVEL: Final = re.compile(rb"\] NCCL ?(?:I|IN|INF|INFO|W|WA|WAR|WARN)?\s*$")
_TAILS: Final = (b" - Init ", b"[nranks=", b" via P2P/", b" via NET/", b"+cuda", b" nranks ")
"""What ends NCCL's lines only: in a line without its prefix, the rest of a torn one."""
_PIECES: Final = (b"CL INFO ", b"RCCL version ", *_TAILS)
_OTHERS_CALL: Final = b"COLLTRACE"


class Scanner:
    """Reads the blocks of one file into the evidence. Never raises for what the text holds."""

    def __init__(self, evidence: Evidence, file: LogFile) -> None:
        self.evidence = evidence
        self.file = file
        self._owners = Owners(evidence, file)
        self._calls = Calls(self._owners)
        self._choices = Choices(self._owners)
        self._cut = False
        self._parsed: dict[int, list[Record]] = {}
        """Records of the distinct lines of the block at hand, by their code."""

    def scan(self, text: bytes) -> None:
        """Read a block of whole lines."""
        import numpy as np

        block = encode(text)
        self._parsed.clear()
        self.file.lines += len(block.codes)
        sorts = np.array([self._sort(line) for line in block.lines], np.int8)[block.codes]
        start = 0
        for turn in np.flatnonzero(sorts == _TURN).tolist():
            self._stretch(block, sorts, start, turn)
            self._line(block, turn, len(self.evidence.calls))
            start = turn + 1
        self._stretch(block, sorts, start, len(sorts))
        self.evidence.calls.relieve()

    def scan_cut(self, text: bytes) -> None:
        """Read a last line without a line end: what may be cut in it is not believed."""
        self._cut = True
        before = self.file.unreadable
        self.scan(text)
        self.file.ends_cut = self.file.unreadable - before

    # -- sorting lines -----------------------------------------------------------------------

    def _sort(self, line: bytes) -> int:
        """What to do with a line, by its text alone."""
        at = line.find(b"NCCL")
        if at < 0:
            is_piece = any(word in line for word in _PIECES)
            return _LINE if is_piece or self._may_be_prefix(line) else _IGNORED
        if MIDDLE_MARK in line:
            return _CALL if self._calls.is_call(line) else _TURN
        if b" opCount " in line or line.find(b"NCCL ", at + 4) >= 0:
            return _TURN
        if not line.startswith(b" INFO ", at + 4):
            return _LINE
        start = line[at + 10 : at + 14]
        if start in _CHOICE_STARTS or start[:1].isdigit():
            if b" Bytes -> " in line:
                whole = not self._cut and self._choices.is_choice(line)
                return _CHOICE if whole else _LINE
            return _LINE if start in _CHOICE_STARTS or b" coll channels" in line else _IGNORED
        _, words = HANDLERS.get(start, (None, ()))
        if not any(word in line for word in words):
            return _IGNORED
        return _TURN if b"omm" in line and b"anks" in line else _LINE

    def _may_be_prefix(self, line: bytes) -> bool:
        return line.count(b":") > 1 and lines.CUT_PREFIX.search(line[-400:]) is not None

    # -- a stretch ---------------------------------------------------------------------------

    def _stretch(self, block: Block, sorts: np.ndarray, start: int, end: int) -> None:
        import numpy as np

        if start == end:
            return
        own = sorts[start:end]
        places = np.flatnonzero(own == _CALL)
        first = len(self.evidence.calls)
        if len(places):
            places = self._add_calls(block, places + start) - start
        choices = np.flatnonzero(own == _CHOICE)
        if len(choices):
            befores = np.searchsorted(places, choices) + first
            codes = block.codes[choices + start]
            for code in np.unique(codes).tolist():
                self._choices.count_line(block.lines[code], befores[codes == code])
        others = np.flatnonzero(own == _LINE)
        befores = np.searchsorted(places, others) + first
        for place, before in zip(others.tolist(), befores.tolist(), strict=True):
            self._line(block, start + place, before)

    def _add_calls(self, block: Block, places: np.ndarray) -> np.ndarray:
        """Append the calls at these places; returns the places of those that can be."""
        import numpy as np

        codes = block.codes[places]
        found, inverse = np.unique(codes, return_inverse=True)
        resolved = [self._calls.resolve(block.lines[code]) for code in found.tolist()]
        kinds = np.array([-1 if kind is None else kind for kind, _ in resolved], np.int32)[inverse]
        counts = np.array([count for _, count in resolved], np.int64)[inverse]
        sound = kinds >= 0
        self.file.unreadable += int((~sound).sum())
        places = places[sound]
        times = None if block.times is None else block.times[places]
        self.evidence.calls.extend(kinds[sound], counts[sound], times)
        return places

    # -- one line ----------------------------------------------------------------------------

    def _line(self, block: Block, place: int, before: int) -> None:
        """A line by itself; `before` is the row that the next call has."""
        code = block.codes[place]
        now = block.time(place)
        found = self._parsed.get(code)
        if found is None:
            line = block.lines[code][:_MAX_EXAMINED]
            found = self._owners.records(line)
            if not found:
                self._foreign(line)
            elif len(found) == 1 and not found[0].start:
                self._parsed[code] = found
        for record in found:
            if MIDDLE_MARK in record.text or b" opCount " in record.text:
                self._glued_call(record, now)
            else:
                self._record(record, now, before)

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

    def _record(self, record: Record, now: int | None, before: int) -> None:
        owner = self._owners.of(record)
        if owner is None:
            return
        process, thread = owner
        if now is not None and process.first_ns is None:
            process.first_ns = now
        if record.level == b"WARN":
            self.file.warnings += 1
            self._event(events.warning(record, process, now))
            return
        text, start = record.text, record.text[:4]
        if b" Bytes -> " in text:
            self._glued_choice(record, before)
            return
        handler = counts if start[:1].isdigit() else HANDLERS.get(start, (None,))[0]
        if handler is None:
            cut = _CUT_CALL.match(text) if start in _CHOICE_STARTS else None
            self.file.unreadable += cut is not None and cut[1].decode("ascii") in lines.OPS
            return
        comms = len(self.evidence.comms)
        called = partial(self._owners.called, thread, before)
        given = Line(record, text, process, thread, self.file, now, self._cut, called)
        understood = handler(self.evidence, given)
        if understood is not None:
            self.file.records += understood
            self.file.unreadable += not understood
        if len(self.evidence.comms) != comms:
            self._calls.forget()

    def _glued_choice(self, record: Record, before: int) -> None:
        import numpy as np

        choice = None if self._cut else lines.parse_choice(record.text)
        if choice is None:
            self.file.unreadable += 1
        else:
            self._choices.count(record, choice, np.array([before]))

    def _event(self, event: Event) -> None:
        self.file.records += 1
        if len(self.evidence.events) < MAX_EVENTS:
            self.evidence.events.append(event)
        else:
            self.file.dropped += 1

    # -- lines without a record --------------------------------------------------------------

    def _foreign(self, line: bytes) -> None:
        """A bare banner, a watchdog's message, or a torn piece of a record."""
        if b"NCCL" not in line and b"RCCL version " not in line:
            self.file.tails += any(tail in line for tail in _TAILS)
            cut = lines.CUT_PREFIX.search(line[-400:])
            whole = cut is not None and not self._owners.is_host(cut[1].decode("ascii"))
            self.file.unreadable += not whole
            return
        if version := lines.version_said(line):
            if not self._cut:
                self.file.bare_versions[version] += 1
                self.file.records += 1
            return
        for event in events.watchdog(line):
            self._event(event)
        torn = _CUT_LEVEL.search(line[-40:]) is not None or MIDDLE_MARK in line
        self.file.unreadable += torn or b" opCount " in line
