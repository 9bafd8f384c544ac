"""The next items of a reader made while the last ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

_END: Final = object()


def read_ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made ahead in one thread.

    Worth it where making them lets go of the interpreter's lock, as zlib and numpy do. What
    `items` raises is raised here.
    """
    with ThreadPoolExecutor(1, "read ahead") as pool:
        pending = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
