"""Bounded reading of text files, and rows into batches."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_collectors.reading.text_evidence import (
    Tally,
    batch,
    host_of,
    number_in_name,
    read_text,
)

TEXT = b"".join(b"line %d of a file\n" % number for number in range(5000))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(gzip.compress(TEXT))))
def test_a_torn_gzip_gives_a_beginning(tmp_path_factory, size):
    path = tmp_path_factory.mktemp("torn") / "x.gz"
    path.write_bytes(gzip.compress(TEXT)[:size])
    read = read_text(path)
    if size < 2:
        return  # nothing says that it is gzip
    assert TEXT.decode().startswith(read.text)
    assert read.cut == (size < len(gzip.compress(TEXT)))


def test_the_whole_and_the_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(TEXT)
    assert read_text(path).text.encode() == TEXT
    assert not read_text(path).cut
    part = read_text(path, 100)
    assert (part.text.encode(), part.cut, part.size) == (TEXT[:100], True, len(TEXT))
    path.write_bytes(gzip.compress(TEXT))
    assert read_text(path, 100).text.encode() == TEXT[:100]


def test_rows_have_the_types_of_the_table():
    rows = [{"rank": 1, "value": 2, "event": "a"}, {"rank": 1 << 40, "event": "\ud800"}]
    data = batch("perf_counters", rows).data
    assert data.schema.names == ["rank", "event", "value"]
    assert data.to_pylist() == [
        {"rank": 1, "event": "a", "value": 2.0},
        {"rank": None, "event": "?", "value": None},
    ]


@pytest.mark.parametrize(
    ("tally", "state"),
    [
        (Tally("perf", records=3), "ok"),
        (Tally("perf", records=3, unreadable=1), "degraded"),
        (Tally("perf"), "failed"),
        (Tally("perf", state="skipped", reason="why"), "skipped"),
    ],
)
def test_the_state_follows_from_the_counts(tally, state):
    row = tally.row({})
    assert row["state"] == state
    assert (row["reason"] is None) == (state == "ok")


def test_names_of_artifacts():
    path = Path("/r/artifacts/perf/n1/stat.rank-00003.pid-812.begin-17.jsonl")
    assert host_of(path, "perf") == "n1"
    assert host_of(path, "sacct") is None
    assert host_of(Path("stat.jsonl"), "perf") is None
    assert number_in_name(path, "rank") == 3
    assert number_in_name(path, "pid") == 812
    assert number_in_name(Path("frank-7.x"), "rank") is None
