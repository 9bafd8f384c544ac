"""What the machine itself knows of an end: kills for memory, and the kernel's messages."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from harness_collectors.kernel_files import CgroupMemory

_MAX_MESSAGES = 20_000
_KILL = ("oom-kill:", "Out of memory: Kill", "Memory cgroup out of memory", "oom-killer")


@dataclass(frozen=True)
class Witness:
    """How the counters stood when a run began."""

    oom_kills: int | None
    monotonic_us: int

    def oom_kills_since(self) -> int | None:
        """Processes of this control group killed for memory since; None: not readable."""
        now = oom_kills()
        return None if now is None or self.oom_kills is None else max(0, now - self.oom_kills)

    def kernel_lines(self, killed: bool) -> tuple[str, ...]:
        """Errors of GPUs in the kernel's log since, where it may be read.

        Kills for memory only if `killed`, that is if a process of the run was killed: the log is
        the whole machine's, and the others on it run out of memory too.
        """
        lines = [text for when, text in kernel_log() if when >= self.monotonic_us]
        return tuple(
            text
            for text in lines
            if "NVRM: Xid" in text or (killed and any(word in text for word in _KILL))
        )


def begin() -> Witness:
    """Look at the counters now."""
    return Witness(oom_kills(), time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)


def oom_kills(proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Kills for memory in this process's control group (v2 or v1) so far; None: not readable."""
    return CgroupMemory("self", proc, mount).oom_kills()


def kernel_log(device: Path = Path("/dev/kmsg")) -> list[tuple[int, str]]:
    """Messages with their microseconds since boot; empty where the log may not be read.

    Format: Documentation/ABI/testing/dev-kmsg, `priority,sequence,microseconds,flags;text`.
    """
    found: list[tuple[int, str]] = []
    try:
        log = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return found
    try:
        while len(found) < _MAX_MESSAGES and (record := _next(log)):
            head, _, text = record.partition(b";")
            fields = head.split(b",")
            if len(fields) >= 3 and fields[2].isdigit():
                said = text.split(b"\n", 1)[0].decode("utf-8", "replace")
                found.append((int(fields[2]), said))
    finally:
        os.close(log)
    return found


def _next(log: int) -> bytes:
    """The next record; empty at the end of the log."""
    try:
        return os.read(log, 8192)
    except BrokenPipeError:  # the oldest records were overwritten meanwhile: go on with the next
        return b"-;"
    except OSError:
        return b""
