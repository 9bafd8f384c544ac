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
USUAL = 160 << 20
"""A thread's: enough for any number of spans, which are read in chunks, and as quick as more."""
OF_CALL = 200
"""A thread's, for a row of `collectives`: what is joined over all of a group's is not read in
chunks. Each thread holds what it has grouped of them."""
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
    return f"{min(_share(proc, mount), most, MOST) >> 20}MiB"


def needed_memory(calls: int, threads: int) -> int:
    """Bytes that so many rows of `collectives` need."""
    return max(USUAL, OF_CALL * calls) * threads


def more_memory(
    limit: str, proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")
) -> str | None:
    """Twice a limit of `build_memory` that did not suffice, up to the whole share of what is free;
    None: it was that, or HARNESS_MEMORY."""
    if os.environ.get("HARNESS_MEMORY"):
        return None
    before, share = int(limit.removesuffix("MiB")), _share(proc, mount) >> 20
    return f"{min(2 * before, share)}MiB" if share > before else None


def _share(proc: Path, mount: Path) -> int:
    free = min([*_machine(proc), *_groups(proc, mount)], default=LEAST * SHARE)
    return max(free // SHARE, LEAST)


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
        if is_of_disk(error):
            raise _disk_full(path) from None
        raise HarnessError(
            f"not enough memory to build {path}: {str(error).splitlines()[0]}",
            "give DuckDB more with HARNESS_MEMORY (as in HARNESS_MEMORY=3GB)",
        ) from None
    except duckdb.IOException as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise _disk_full(path) from None
        raise


def is_of_disk(error: Exception) -> bool:
    """Whether what DuckDB calls out of memory is a lack of space to spill to."""
    return "max_temp_directory_size" in str(error)


def _disk_full(path: Path) -> HarnessError:
    return HarnessError(
        f"no space left to build {path}: what exceeds memory is kept beside it meanwhile",
        "free some, or choose another place with --output, or give DuckDB more memory with "
        "HARNESS_MEMORY (as in HARNESS_MEMORY=3GB)",
    )
