"""Rows wait for each other until groups are full, and come out as they went in."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_analysis.store import row_groups
from harness_analysis.store.row_groups import RowGroups


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(row_groups, "GROUP_ROWS", 8)


def _texts(values: list[str | None], form: str) -> pa.Array:
    plain = pa.array(values, pa.string())
    if form == "plain":
        return plain
    codes = pa.array(range(len(values)), pa.int32())
    if form == "coded":
        return pa.DictionaryArray.from_arrays(codes, plain.fill_null(""))
    return pa.DictionaryArray.from_arrays(codes, plain)  # a dictionary that may hold NULL


def _through(groups: RowGroups, tables: list[pa.Table]) -> list[pa.Table]:
    out = [found for table in tables for found in groups.add(table)]
    return [*out, *groups.rest()]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["plain", "coded", "null"]),
                          st.booleans()), max_size=8), st.integers(1, 3))  # fmt: skip
def test_nothing_is_lost_or_changed_and_full_groups_are_of_one_piece(batches, at_once):
    tables, expected, number = [], [], 0
    for size, form, with_extra in batches:
        numbers = list(range(number, number + size))
        words: list[str | None] = [None if n % 5 == 0 else f"w{n % 3}" for n in numbers]
        if form == "coded":
            words = [word or "" for word in words]
        columns = {"n": pa.array(numbers), "word": _texts(words, form)}
        if with_extra:
            columns["extra"] = pa.array([n * 2 for n in numbers])
        tables.append(pa.table(columns))
        extra = [n * 2 if with_extra else None for n in numbers]
        expected += list(zip(numbers, words, extra, strict=True))
        number += size
    out = _through(RowGroups(at_once), tables)
    found = [
        (row["n"], row["word"], row.get("extra")) for table in out for row in table.to_pylist()
    ]
    assert found == expected
    for table in out:
        for column in table.columns:
            assert all(len(chunk) == 8 for chunk in column.chunks[:-1])


def test_batches_of_one_form_leave_one_rest_only():
    tables = [pa.table({"n": list(range(3))}) for _ in range(10)]
    assert [table.num_rows for table in _through(RowGroups(2), tables)] == [16, 14]
