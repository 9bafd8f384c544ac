"""What a process uses, out of /proc (proc(5)): it tells one that works from one that stands."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def read_vitals(pid: int, proc: Path = PROC) -> dict[str, Any]:
    """State letter, CPU ns of the process and its ended children, bytes read and written, resident
    bytes; what cannot be read is left out, and `gone` is set where there is no such process."""
    folder = proc / str(pid)
    found: dict[str, Any] = {"pid": pid}
    try:
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return {**found, "gone": True}
    except OSError:
        return found
    with contextlib.suppress(IndexError, ValueError):
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        found["state"] = fields[0]
        found["cpu_ns"] = sum(int(text) for text in fields[11:15]) * tick
        found["rss_bytes"] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        lines = (folder / "io").read_text().splitlines()
        values = dict(line.split(": ") for line in lines if ": " in line)
        found["io_bytes"] = int(values["rchar"]) + int(values["wchar"])
    return found


def describe_process(pid: int, proc: Path = PROC) -> str:
    """How the kernel sees a process, one line: its state, and what it sleeps in, where shown."""
    folder = proc / str(pid)
    parts = []
    with contextlib.suppress(OSError):
        for line in (folder / "status").read_text(errors="replace").splitlines():
            if line.startswith("State:"):
                parts.append(" ".join(line.split()[1:]))
    with contextlib.suppress(OSError):
        where = (folder / "wchan").read_text(errors="replace").strip()
        parts += [f"in {where}"] if where not in ("", "0") else []
    return ", ".join(parts)


def catches(pid: int, number: int, proc: Path = PROC) -> bool:
    """Whether a process has a handler for a signal: one without would die of it."""
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
