"""Rows in four styles: nothing lost, NULL told from zero and from empty text."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.printing.rows import MOST_LINES, WIDTH, render_rows, wrap_lines

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), TEXT, st.floats(allow_nan=False)
)
TABLES = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.tuples(*[VALUES] * n), max_size=6).map(
        lambda rows: ([f"c{index}" for index in range(n)], rows)
    )
)


@given(TABLES)
def test_json_returns_the_values(table):
    columns, rows = table
    found = json.loads(render_rows(columns, rows, "json"))
    wanted = [
        [None if isinstance(v, float) and not math.isfinite(v) else v for v in row] for row in rows
    ]
    assert [list(row.values()) for row in found] == wanted
    for row, original in zip(found, rows, strict=True):
        for value, before in zip(row.values(), original, strict=True):
            if type(before) is int:
                assert type(value) is int
    assert all(list(row) == columns for row in found)


@given(TABLES)
def test_csv_returns_the_text(table):
    columns, rows = table
    text = render_rows(columns, rows, "csv")
    found = [row or [""] for row in csv.reader(io.StringIO(text, newline=""))]
    assert found[0] == columns
    assert len(found) == len(rows) + 1

    def written(value):
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        return repr(value) if isinstance(value, float) else str(value)

    assert found[1:] == [[written(value) for value in row] for row in rows]


@given(TABLES)
def test_tables_and_markdown_obey_nobody(table):
    """No control character of the evidence reaches a terminal; every row has its line."""
    columns, rows = table
    for style in ("table", "markdown"):
        text = render_rows(columns, rows, style)
        assert all(c == "\n" or c.isprintable() for c in text)
    lines = render_rows(columns, rows, "markdown").splitlines()
    assert len(lines) == len(rows) + 2
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)


def test_csv_tells_null_from_empty_text():
    assert render_rows(["a", "b"], [(None, "")], "csv") == 'a,b\n,""\n'


def test_values_of_databases_in_json():
    row = (
        decimal.Decimal("12"),
        decimal.Decimal("1.5"),
        datetime.datetime(2026, 1, 2, 3, 4, 5),
        b"\x00\xff",
        [1, None],
        {"k": decimal.Decimal("2")},
    )
    (found,) = json.loads(render_rows(list("abcdef"), [row], "json"))
    assert list(found.values()) == [12, 1.5, "2026-01-02T03:04:05", "00ff", [1, None], {"k": 2}]


def test_json_keeps_both_columns_of_one_name():
    assert json.loads(render_rows(["n", "n"], [(1, 2)], "json")) == [{"n": 1, "n_2": 2}]


def test_table_aligns_numbers_right_and_text_left():
    text = render_rows(["name", "ns"], [("a", 1), ("long", 1000), (None, None)])
    assert text.splitlines() == [
        "name    ns",
        "----  ----",
        "a        1",
        "long  1000",
        "-        -",
    ]


def test_table_wraps_long_text_and_cuts_nothing():
    words = [f"word{index}" for index in range(60)]
    text = render_rows(["rank", "text"], [(0, " ".join(words))])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert [word for word in text.split() if word.startswith("word")] == words


def test_a_cell_that_fills_a_screen_ends_in_dots():
    name = "void kernel<" + "lambda(float), " * 200 + ">"
    found = render_rows(["name", "calls"], [(name, 12)])
    lines = found.splitlines()
    assert len(lines) == 2 + MOST_LINES and found.rstrip().endswith(" ...")
    assert max(map(len, lines)) <= WIDTH == len(lines[1])  # the dots are within the column
    assert json.loads(render_rows(["name"], [(name,)], "json")) == [{"name": name}]


def test_sentences_are_indented_and_fit_the_page():
    lines = wrap_lines("word " * 60)
    assert len(lines) == 3 and all(line.startswith("  word") for line in lines)
    assert WIDTH - 5 < max(map(len, lines)) <= WIDTH
    assert wrap_lines("short", indent="- ") == ["- short"]


def test_table_with_many_columns_keeps_lines_whole():
    columns = [f"a_rather_long_name_{index}" for index in range(12)]
    lines = render_rows(columns, [tuple(range(12))]).splitlines()
    assert len(lines) == 3 and lines[0].split() == columns


def test_no_rows_and_no_columns():
    assert render_rows(["a"], [], "json") == "[]\n"
    assert "(no rows)" in render_rows(["a"], [])
    assert render_rows([], []) == "\n"


def test_an_unknown_style_is_a_defect():
    with pytest.raises(ValueError, match="yaml"):
        render_rows(["a"], [], "yaml")
