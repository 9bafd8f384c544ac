"""Processes of ranks as the kernel of this host shows them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness_probe.recorder import boot_id

ProcessState = Literal["alive", "blocked", "stopped", "gone"]
"""`blocked`: in the kernel and not to be woken, as by a file system that does not answer."""
START_SLACK_NS = 2_000_000_000
"""A process that began later than this after its rank's first record is another one."""
LETTERS: Mapping[str, ProcessState] = {
    "D": "blocked",
    "T": "stopped",
    "t": "stopped",
    "Z": "gone",
    "X": "gone",
}


@dataclass(frozen=True)
class Here:
    """This host, and whether it shows processes at all."""

    host: str
    boot: str
    proc: Path = Path("/proc")

    @classmethod
    def now(cls) -> Here:
        """This process's host."""
        return cls(socket.gethostname(), boot_id())

    def is_same(self, host: object, boot: object) -> bool:
        """Whether a rank of that host and boot shares our clocks and process numbers."""
        return (host, boot) == (self.host, self.boot) and (self.proc / "self").exists()

    def state(self, pid: object, began_ns: int | None) -> ProcessState | None:
        """How a process stands; None: it cannot be told. `began_ns`: its rank's first record."""
        if not isinstance(pid, int) or pid <= 0:
            return None
        try:
            text = (self.proc / str(pid) / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return "gone"
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        with contextlib.suppress(IndexError, ValueError):
            started = int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
            if began_ns is not None and started > began_ns + START_SLACK_NS:
                return "gone"  # its number was given to another process
            return LETTERS.get(fields[0], "alive")
        return None
