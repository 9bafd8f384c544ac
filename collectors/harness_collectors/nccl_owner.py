"""Whose a record is: the process and thread that printed it."""

from __future__ import annotations

from harness_collectors.nccl_lines import Record
from harness_collectors.nccl_state import (
    MAX_THINGS,
    Comm,
    Evidence,
    LogFile,
    Process,
    Thread,
)

_LOOK_BACK = 64
"""Calls among which a thread's latest is looked for."""


class Owners:
    """Processes and threads of one file."""

    def __init__(self, evidence: Evidence, file: LogFile) -> None:
        self.evidence = evidence
        self.file = file
        self.calling: set[int] = set()
        """Slots of threads that have made calls."""
        self._hosts: dict[int, list[str]] = {}

    def of(self, record: Record) -> tuple[Process, Thread] | None:
        """Process and thread of a record; None: too many processes."""
        host, pid = record.host, record.pid
        if host is not None and pid is not None and len(self._hosts) < MAX_THINGS:
            hosts = self._hosts.setdefault(pid, [])
            if host not in hosts:
                # Text of the application may be glued to the host's name.
                known = [name for name in hosts if record.start and host.endswith(name)]
                if known:
                    host = known[0]
                else:
                    hosts.append(host)
        process = self.evidence.process(self.file, host, pid)
        if process is None:
            self.file.dropped += 1
            return None
        return process, self.evidence.thread(process, record.tid)

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
