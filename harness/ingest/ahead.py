"""Read the next rows while the last ones are being written."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

WAITING: Final = 1
"""Items read and not yet taken: more would cost memory and save no time."""
PATIENCE_S: Final = 5.0
"""How long leaving waits for a reader in the middle of a large file."""
SWITCH_S: Final = 1e-4
"""Each of a thousand small statements asks for the lock anew: at Python's 5 ms they would take
seconds beside a busy reader."""
_END: Final = object()


@contextlib.contextmanager
def ahead(items: Generator[T, None, None]) -> Iterator[Iterator[T]]:
    """The same items in the same order, made in a thread that begins at once.

    Reading is numpy and JSON, writing is DuckDB, and both let go of the interpreter's lock. What
    the generator raises is raised here; leaving early closes it at its next item.
    """
    box: queue.Queue[object] = queue.Queue(WAITING)
    left = threading.Event()
    failed: list[BaseException] = []

    def fill() -> None:
        try:
            with contextlib.closing(items):
                for item in items:
                    if left.is_set() or not _put(box, item, left):
                        return
        except BaseException as error:  # noqa: BLE001 - raised again by the reader's side
            failed.append(error)
        _put(box, _END, left)

    thread = threading.Thread(target=fill, name="read ahead", daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    thread.start()
    try:
        yield _taken(box, failed)
    finally:
        sys.setswitchinterval(interval)
        left.set()
        thread.join(PATIENCE_S)


def _put(box: queue.Queue[object], item: object, left: threading.Event) -> bool:
    """Hand an item over; False: nobody wants it any more."""
    while not left.is_set():
        with contextlib.suppress(queue.Full):
            box.put(item, timeout=0.1)
            return True
    return False


def _taken(box: queue.Queue[object], failed: list[BaseException]) -> Iterator[T]:
    while (item := box.get()) is not _END:
        yield item  # type: ignore[misc]
    if failed:
        raise failed[0]
