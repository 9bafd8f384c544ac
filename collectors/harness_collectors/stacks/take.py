"""The stacks of the ranks of this node: by py-spy where it is there, else by their own handler."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_collectors.stacks.vitals import catches, describe_process, read_vitals
from harness_schemas import hang_files

PY_SPY_SECONDS = 5.0
ALL_SECONDS = 20.0
"""py-spy is given up after that: a node may have many ranks, and the job waits to be ended."""
SETTLE_SECONDS = 0.3
WAIT_SECONDS = 3.0


def take_stacks(folder: Path, ranks: Mapping[int, int]) -> dict[str, dict[str, Any]]:
    """Write the stacks of ranks (rank -> pid) into their files; says of each how that went."""
    before = {rank: _size(hang_files.stack_file(folder, rank)) for rank in ranks}
    taken = {str(rank): _facts(pid) for rank, pid in sorted(ranks.items())}
    deadline = time.monotonic() + ALL_SECONDS
    asked = []
    for rank, pid in sorted(ranks.items()):
        how = _by_py_spy(folder, rank, pid) if time.monotonic() < deadline else None
        if how is None and not taken[str(rank)].get("gone"):
            how = _ask(pid, taken[str(rank)].get("state"))
            asked += [rank] if how == "faulthandler" else []
        taken[str(rank)]["how"] = how or "none: there is no such process"
    _wait(folder, asked, before)
    for rank in asked:
        if _size(hang_files.stack_file(folder, rank)) == before[rank]:
            taken[str(rank)]["how"] = "none: it did not answer the signal"
    return taken


def _facts(pid: int) -> dict[str, Any]:
    kept = ("pid", "state", "gone")
    facts = {name: value for name, value in read_vitals(pid).items() if name in kept}
    return {**facts, "kernel": describe_process(pid)}


def _by_py_spy(folder: Path, rank: int, pid: int) -> str | None:
    """None where py-spy is not there, or may not look."""
    tool = shutil.which("py-spy")
    if tool is None:
        return None
    # --nonblocking: it only reads memory; a rank that stands needs not be stopped for that.
    command = (tool, "dump", "--nonblocking", "--pid", str(pid))
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=PY_SPY_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    if done.returncode != 0 or "Thread" not in done.stdout:
        return None
    with hang_files.stack_file(folder, rank).open("a") as stream:
        stream.write(done.stdout)
    return "py-spy"


def _ask(pid: int, state: object) -> str:
    number = getattr(signal, "SIGRTMIN", 0) + hang_files.SIGNAL_OFFSET
    if state in ("T", "t"):
        return "none: a stopped process answers no signal (py-spy could look into it)"
    if not catches(pid, number):
        return "none: it has no handler for stacks, and py-spy is not here or may not look"
    with contextlib.suppress(OSError):
        os.kill(pid, number)
        return "faulthandler"
    return "none: it could not be signalled"


def _wait(folder: Path, asked: list[int], before: Mapping[int, int]) -> None:
    """Until every file has grown and then rested."""
    deadline = time.monotonic() + WAIT_SECONDS
    last: dict[int, int] = {}
    while asked and time.monotonic() < deadline:
        sizes = {rank: _size(hang_files.stack_file(folder, rank)) for rank in asked}
        if sizes == last and all(sizes[rank] > before[rank] for rank in asked):
            return
        last = sizes
        time.sleep(SETTLE_SECONDS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
