"""When each rank ended, to the microsecond, and that none outlives the first failure for long.

torch's agent looks every 0.1 s and reports the ranks it finds dead in rank order, so it cannot
say who was first. A pidfd per rank becomes readable at the moment of its death.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time

POLL_SECONDS = 0.05


class RankWatch(threading.Thread):
    """Watches this process's children, the ranks, from a thread; reaps none of them."""

    def __init__(self, world_size: int, parent: int, patience_s: float) -> None:
        super().__init__(name="rank-watch", daemon=True)
        self._world_size = world_size
        self._parent = parent
        self._patience_s = patience_s
        self._fds: dict[int, int] = {}  # pidfd -> pid
        self._ended: dict[int, int] = {}  # pid -> Unix ns
        self._overdue: float | None = None
        self._stopping = threading.Event()

    def ended_ns(self, pid: int) -> int | None:
        """When `pid` ended (Unix ns); None if that was not seen."""
        return self._ended.get(pid)

    def stop(self) -> None:
        """End the thread and close what it holds."""
        self._stopping.set()
        self.join()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def run(self) -> None:
        """Look for children until all are known, note each end, and enforce the patience."""
        poll = select.poll()
        orphaned: float | None = None
        while not self._stopping.is_set():
            if len(self._fds) + len(self._ended) < self._world_size:
                self._find(poll)
            for fd, _ in poll.poll(POLL_SECONDS * 1000):
                self._note(poll, fd)
            now = time.monotonic()
            if self._overdue is not None and now > self._overdue:
                self._kill_rest()
            if orphaned is None and os.getppid() != self._parent:
                orphaned = now + 2 * self._patience_s
            if orphaned is not None and now > orphaned:
                os._exit(128 + signal.SIGTERM)  # the ranks die with this process

    def _find(self, poll: select.poll) -> None:
        import psutil

        known = {*self._fds.values(), *self._ended}
        for child in psutil.Process().children():
            if child.pid not in known:
                with contextlib.suppress(OSError):
                    fd = os.pidfd_open(child.pid)
                    self._fds[fd] = child.pid
                    poll.register(fd, select.POLLIN)

    def _note(self, poll: select.poll, fd: int) -> None:
        self._ended[self._fds[fd]] = time.time_ns()
        poll.unregister(fd)
        # Look, but leave the status for torch's agent to collect.
        with contextlib.suppress(ChildProcessError):
            status = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            failed = status is not None and status.si_status != 0
            if failed and self._overdue is None:
                self._overdue = time.monotonic() + self._patience_s
        os.close(fd)
        del self._fds[fd]

    def _kill_rest(self) -> None:
        # torch's agent has sent SIGTERM by now, and would wait 30 s for those that ignore it.
        for pid in self._fds.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._overdue = None
