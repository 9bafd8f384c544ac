"""How much memory DuckDB may take while it builds: a share of what this process may still use."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from harness_schemas.errors import HarnessError, UsageError

LEAST = 640 << 20
"""A chunk of harness_analysis.build.chunks and what is derived from it."""
MOST = 2 << 30
"""More makes nothing faster: what is large is read in chunks."""
SHARE = 4
"""One part in so many of what is free: others work here too."""
USUAL = 320 << 20
"""Enough for any number of spans, which are read in chunks, and as quick as more."""
OF_CALL = 400
"""A row of `collectives`: what is joined over all of them is not read in chunks."""
LOADING = 64 << 20
"""A thread that inserts: the row group that it fills and the one that it compresses. The rest of
the memory is the readers' meanwhile, who hold a file's events."""
_UNLIMITED = 1 << 60
_SIZE = re.compile(r"\s*\d+(\.\d+)?\s*[KMGT]i?B\s*", re.IGNORECASE)


def build_memory(
    proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup"), most: int = MOST
) -> str:
    """DuckDB's `memory_limit`: HARNESS_MEMORY, or a quarter of what is free on the machine and in
    every control group of this process, from 640 MB to `most` bytes (2 GB if that is less)."""
    given = os.environ.get("HARNESS_MEMORY")
    if given:
        if not _SIZE.fullmatch(given):
            raise UsageError(f"HARNESS_MEMORY is {given!r}, no size", "such as 4GB or 500MiB")
        return given
    free = min([*_machine(proc), *_groups(proc, mount)], default=LEAST * SHARE)
    return f"{min(max(free // SHARE, LEAST), most, MOST) >> 20}MiB"


def loading_memory(threads: int) -> str:
    """DuckDB's `memory_limit` while rows are inserted: more does not make it quicker."""
    return f"{threads * LOADING >> 20}MiB"


def _machine(proc: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) << 10


def _groups(proc: Path, mount: Path) -> Iterator[int]:
    """What each control group with a limit has left, from this process's up to the root."""
    lines = []
    with contextlib.suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = mount / "memory" if controllers else mount
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, usage = names if controllers else ("memory.max", "memory.current")
        folder = root / path.lstrip("/")
        for group in (folder, *(up for up in folder.parents if up.is_relative_to(root))):
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                allowed = int((group / limit).read_text())
                if allowed < _UNLIMITED:
                    yield allowed - int((group / usage).read_text()) + _reclaimable(group)


def _reclaimable(group: Path) -> int:
    """Pages of files that the kernel drops when memory is asked for."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def shortages_told(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors about memory and disk into what to do about them.

    Raises:
        HarnessError: not enough memory, or no space left where `path` is being written.
    """
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        if "max_temp_directory_size" in str(error):
            raise _disk_full(path) from None
        raise HarnessError(
            f"not enough memory to build {path}: {str(error).splitlines()[0]}",
            "give DuckDB more with HARNESS_MEMORY (as in HARNESS_MEMORY=3GB)",
        ) from None
    except duckdb.IOException as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise _disk_full(path) from None
        raise


def _disk_full(path: Path) -> HarnessError:
    return HarnessError(
        f"no space left to build {path}: what exceeds memory is kept beside it meanwhile",
        "free some, or choose another place with --output, or give DuckDB more memory with "
        "HARNESS_MEMORY (as in HARNESS_MEMORY=3GB)",
    )
