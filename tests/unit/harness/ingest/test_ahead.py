"""Reading ahead of the writer: the same items in the same order, and nothing left behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from harness.ingest.ahead import WAITING, ahead


def test_items_come_in_their_order_from_another_thread():
    threads = set()

    def items() -> Iterator[int]:
        for number in range(1000):
            threads.add(threading.current_thread())
            yield number

    with ahead(items()) as found:
        assert list(found) == list(range(1000))
    assert threading.current_thread() not in threads


def test_an_error_of_the_reader_is_raised_where_the_items_are_taken():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("torn")

    found = []
    with ahead(items()) as taken, pytest.raises(ValueError, match="torn"):
        for item in taken:
            found.append(item)
    assert found == [1]


def test_leaving_early_closes_the_reader_which_was_ahead_by_a_few_items_only():
    made, closed = [], threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            closed.set()

    interval = sys.getswitchinterval()
    with ahead(items()) as found:
        assert next(found) == 0
    assert closed.wait(5)
    assert len(made) <= 2 + WAITING
    assert sys.getswitchinterval() == interval
