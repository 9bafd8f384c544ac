"""How much of a read came from storage and not from the page cache."""

from __future__ import annotations

import os


def storage_bytes_read() -> int | None:
    """Bytes that this process has made the kernel fetch from storage so far; None: not told.

    Source: read_bytes of /proc/self/io (proc(5)); of the process, because a large copy
    out of a mapped file is spread over threads. Page faults count, and
    so does what the kernel reads ahead. A network file system's client may not account for it.
    """
    try:
        descriptor = os.open("/proc/self/io", os.O_RDONLY)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(b": ")
        if name == b"read_bytes":
            return int(value)
    return None


def storage_bytes_since(before: int | None) -> int | None:
    """Bytes fetched from storage since `before`; None: not told."""
    now = storage_bytes_read()
    return None if before is None or now is None else now - before
