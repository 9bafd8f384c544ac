"""Stacks on request, of every thread, even while the interpreter is stuck in C (faulthandler)."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from pathlib import Path

VARIABLE = "HARNESS_HANG_DIR"
"""Folder for stacks; set where somebody may ask for them."""
_OFFSET = 7


def stack_signal() -> int | None:
    """The signal that asks for stacks; None where the system has no real-time signals.

    USR1 may be NCCL's, USR2 is a warning of Slurm's, PROF and URG belong to profilers; real-time
    signals are nobody's but the first ones, which threading libraries use.
    """
    first = getattr(signal, "SIGRTMIN", None)
    return None if first is None else int(first) + _OFFSET


def stack_file(folder: Path, rank: int) -> Path:
    """Where a rank's stacks go."""
    return folder / f"rank-{rank:05d}.stack"


def register(rank: int) -> bool:
    """Write stacks to this rank's file whenever the signal comes; returns whether it will.

    Does nothing without `VARIABLE`, and leaves a handler of the script's own alone.
    """
    folder, number = os.environ.get(VARIABLE), stack_signal()
    if not folder or number is None:
        return False
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if signal.getsignal(number) != signal.SIG_DFL:
            return False
        Path(folder).mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        fd = os.open(stack_file(Path(folder), rank), flags, 0o644)
        faulthandler.register(number, file=fd, all_threads=True, chain=False)
        return True
    return False
