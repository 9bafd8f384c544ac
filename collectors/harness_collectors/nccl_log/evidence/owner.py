"""Whose a record is: the process and thread that printed it."""

from __future__ import annotations

from harness_collectors.nccl_log.evidence.apply import Line
from harness_collectors.nccl_log.evidence.state import (
    MAX_THINGS,
    Comm,
    Evidence,
    LogFile,
    Process,
    Thread,
)
from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import Record

_LOOK_BACK = 64
"""Calls among which a thread's latest is looked for."""


class Owners:
    """Processes and threads of one file."""

    def __init__(self, evidence: Evidence, file: LogFile) -> None:
        self.evidence = evidence
        self.file = file
        self.calling: set[int] = set()
        """Slots of threads that have made calls."""
        self.lines: dict[int, Line] = {}
        """By the code of a head of the page at hand: where its lines belong."""
        self._printers: dict[Record, Line] = {}
        """The same by who printed them, of any page."""
        self._hosts: dict[int, list[str]] = {}
        self._found: dict[tuple[str | None, int | None, int | None], tuple[Process, Thread]] = {}

    def of(self, record: Record) -> tuple[Process, Thread] | None:
        """Process and thread of a record; None: too many processes."""
        name = (record.host, record.pid, record.tid)
        found = self._found.get(name)
        if found is None:
            found = self._find(record)
            if found is not None and len(self._found) < MAX_THINGS:
                self._found[name] = found
        return found

    def line_of(self, record: Record, cut: bool) -> Line | None:
        """Where lines belong that this one printed; None: too many processes."""
        line = self._printers.get(record)
        if line is None:
            unglued = self._unglued(record)
            owner = self.of(unglued)
            if owner is None:
                return None
            line = Line(unglued, *owner, self.file, cut, self.called)
            if len(self._printers) < MAX_THINGS:
                self._printers[record] = line
        line.cut, line.now = cut, None  # of another page it keeps what that said
        return line

    def _find(self, record: Record) -> tuple[Process, Thread] | None:
        host, pid = self._glued_host(record) or record.host, record.pid
        if host is not None and pid is not None and len(self._hosts) < MAX_THINGS:
            hosts = self._hosts.setdefault(pid, [])
            if host not in hosts:
                hosts.append(host)
                if len(hosts) > 1:
                    # From now on other text may be glued to a host.
                    self.lines.clear()
                    self._printers.clear()
        process = self.evidence.process(self.file, host, pid)
        if process is None:
            self.file.dropped += 1
            return None
        return process, self.evidence.thread(process, record.tid)

    def _unglued(self, record: Record) -> Record:
        """A record that is alone in its line, its host told apart from what is glued to it."""
        host = self._glued_host(record)
        return record if host is None else record._replace(host=host)

    def records(self, line: bytes) -> list[Record]:
        """The records of a line, told apart where one's end is glued to the next one's host."""
        found = list(lines.records(line))
        for place, record in enumerate(found):
            host = self._glued_host(record)
            if host is not None and record.host is not None:
                glue = record.host.removesuffix(host)
                found[place] = record._replace(host=host, start=record.start + len(glue))
                if place:
                    before = found[place - 1]
                    found[place - 1] = before._replace(text=before.text + glue.encode("ascii"))
        return found

    def _glued_host(self, record: Record) -> str | None:
        """The host's name where other text stands before it without a space."""
        if record.host is None or record.pid is None or not record.start:
            return None
        known = self._hosts.get(record.pid, ())
        if record.host in known:
            return None
        return next((name for name in known if record.host.endswith(name)), None)

    def is_host(self, name: str) -> bool:
        """Whether a process on this host has printed something."""
        return any(name in hosts for hosts in self._hosts.values())

    def called(self, thread: Thread, before: int) -> Comm | None:
        """The communicator of the thread's latest call before row `before`, if later than init."""
        if thread.slot not in self.calling:
            return None
        calls = self.evidence.calls
        lowest = max(thread.since_row, calls.base, before - _LOOK_BACK)
        for row in range(before - 1, lowest - 1, -1):
            kind = self.evidence.kinds[calls.kinds[row - calls.base]]
            if kind.slot == thread.slot:
                return kind.comm
        return None
