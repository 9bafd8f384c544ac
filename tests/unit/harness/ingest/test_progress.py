"""The bar of an ingest: it moves within a large file, and ends where the evidence ends."""

from __future__ import annotations

import gzip
import json

from hypothesis import given
from hypothesis import strategies as st

from harness.ingest import ingest_paths
from harness.ingest.progress import PartWatch, Watch


class Heard(Watch):
    def __init__(self) -> None:
        self.size = 0
        self.steps: list[int] = []

    def begin(self, parts: int, size: int, jobs: int) -> None:
        self.size = size

    def advance(self, size: int) -> None:
        self.steps.append(size)


@given(st.integers(0, 1000), st.lists(st.integers(-5, 400)))
def test_a_part_is_told_once_whatever_its_reader_says(size, said):
    heard = Heard()
    part = PartWatch(heard, size)
    for more in said:
        part.advance(more)
    part.finish()
    assert sum(heard.steps) == size
    assert all(step >= 0 for step in heard.steps)


def test_a_large_trace_is_told_on_the_way(tmp_path):
    event = {"ph": "X", "cat": "cpu_op", "pid": 7, "tid": 7, "dur": 1.0}
    events = [{**event, "name": f"op{n * 7919 % 9973}", "ts": n * 2.0} for n in range(40_000)]
    path = tmp_path / "rank0.json.gz"
    with gzip.open(path, "wt") as stream:
        json.dump({"schemaVersion": 1, "deviceProperties": [], "traceEvents": events}, stream)
    heard = Heard()
    ingest_paths([path], tmp_path / "d.duckdb", watch=heard)
    assert sum(heard.steps) == heard.size == path.stat().st_size
    assert len([step for step in heard.steps if step]) > 1
