"""The reader of SQLite pages against SQLite itself."""

from __future__ import annotations

import contextlib
import gzip
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped
from support import SAMPLES, needs_samples

from harness_collectors.nsys.export.declarations import parse_columns
from harness_collectors.nsys.export.layouts import NULL
from harness_collectors.nsys.export.pages import NotReadable, PageFile

patient = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
INTS = st.one_of(
    st.none(), st.integers(-(2**63) + 1, 2**63 - 1), st.integers(-300, 300), st.sampled_from([0, 1])
)
TEXTS = st.one_of(st.none(), st.text(max_size=40), st.text(min_size=58, max_size=300))
LONG = st.integers(400, 6000).map(lambda size: "long " * (size // 5))
"""Rows that go on in overflow pages, the columns after the text among them."""


def database(path, rows, page_size=1024, statement="CREATE TABLE t (a INTEGER, b TEXT, c INTEGER)"):
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as con:
        con.execute(f"PRAGMA page_size = {page_size}")
        con.execute(statement)
        con.executemany(f"INSERT INTO t VALUES ({','.join('?' * len(rows[0]))})", rows)
    con.close()
    return path.read_bytes()


def read(data, table="t", ints=("a", "c"), texts=("b",)):
    """Rows as tuples, and how much was lost."""
    file = PageFile(data)
    rows = []
    for chunk in file.read(table, ints, texts):
        columns = [
            [None if v == NULL else v for v in chunk.ints[name].tolist()] for name in ints
        ] + [
            [
                None if v is None else v.decode("utf-8", "replace")
                for v in chunk.texts[n].to_pylist()
            ]
            for n in texts
        ]
        rows += zip(*columns, strict=True)
    return rows, file.lost_pages + file.lost_rows


@patient
@given(
    rows=st.lists(st.tuples(INTS, st.one_of(TEXTS, LONG), INTS), min_size=1, max_size=80),
    page_size=st.sampled_from([512, 1024, 4096]),
)
def test_rows_are_those_of_sqlite(rows, page_size, tmp_path_factory):
    data = database(tmp_path_factory.mktemp("db") / "t.sqlite", rows, page_size)
    assert read(data) == ([(a, c, b) for a, b, c in rows], 0)


@pytest.mark.parametrize("count", [1, 200, 30_000])
def test_trees_of_every_depth(count, tmp_path):
    rows = [(n, f"name {n}", -n) for n in range(count)]
    assert read(database(tmp_path / "t.sqlite", rows, 512)) == (
        [(a, c, b) for a, b, c in rows],
        0,
    )


def test_an_integer_primary_key_is_the_row_id(tmp_path):
    sql = "CREATE TABLE t (\n  -- a, comment\n  a INTEGER NOT NULL PRIMARY KEY, b TEXT, c INTEGER)"
    data = database(tmp_path / "t.sqlite", [(7, "x", 1), (900000, "y", 2)], statement=sql)
    assert read(data)[0] == [(7, 1, "x"), (900000, 2, "y")]


def test_columns_added_later_are_null_in_older_rows(tmp_path):
    path = tmp_path / "t.sqlite"
    database(path, [(1, "x", 2)])
    with sqlite3.connect(path) as con:
        con.execute("ALTER TABLE t ADD COLUMN late INTEGER")
        con.execute("INSERT INTO t VALUES (3, 'y', 4, 5)")
    con.close()
    assert read(path.read_bytes(), ints=("a", "late"), texts=())[0] == [(1, None), (3, 5)]


def test_values_of_other_types_are_null(tmp_path):
    rows = [("text", 5, 1.5), (b"blob", b"\xff", None), (2, "plain", 3)]
    data = database(tmp_path / "t.sqlite", rows)
    assert read(data)[0] == [(None, None, "5"), (None, None, "\ufffd"), (2, 3, "plain")]


def test_missing_tables_and_columns_are_empty(tmp_path):
    data = database(tmp_path / "t.sqlite", [(1, "x", 2)])
    assert read(data, table="nothing") == ([], 0)
    assert read(data, ints=("nothing",), texts=("neither",)) == ([(None, None)], 0)


def test_a_file_that_lost_its_end_gives_the_rows_before_it(tmp_path):
    rows = [(n, f"name {n}", n) for n in range(5000)]
    data = database(tmp_path / "t.sqlite", rows, 4096)
    found, lost = read(data[: len(data) // 2])
    assert lost > 0
    assert len(found) > 1000
    assert set(found) < {(a, c, b) for a, b, c in rows}


@pytest.mark.parametrize(
    "data", [b"", b"SQLite format 3\0", b"PAR1" * 100, b"SQLite format 3\0" + bytes(200)]
)
def test_what_is_no_database_is_refused(data):
    with pytest.raises(NotReadable):
        PageFile(data)


ROWS = [(n, f"name {n}" * (1 + n % 40), -n) for n in range(300)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return database(tmp_path_factory.mktemp("db") / "t.sqlite", ROWS, 512)


@patient
@given(data=st.data())
def test_damage_never_raises(whole, data):
    spoilt = data.draw(st.one_of(cuts(whole), flipped(whole, 12)))
    try:
        found, _ = read(spoilt)
    except NotReadable:
        return
    assert len(found) <= 2 * len(ROWS)


def test_a_file_that_is_cut_behind_its_inner_pages_never_raises(whole):
    """What the first table's rows left behind is no ground to trust the next one's pages."""
    for pages in range(1, len(whole) // 512):
        with contextlib.suppress(NotReadable):
            read(whole[: 512 * pages])


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('CREATE TABLE t ("a b" INTEGER, [c] TEXT, `d` REAL)', (("a b", "c", "d"), -1)),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY /* x, y */, b)", (("a", "b"), 0)),
        ("CREATE TABLE t (a INT PRIMARY KEY, b NUMERIC(3, 4))", (("a", "b"), -1)),
        ("CREATE TABLE t (a INTEGER, PRIMARY KEY (a), CHECK (a > 0))", (("a",), -1)),
        ("CREATE TABLE t (a INTEGER\n, name TEXT)", (("a", "name"), -1)),
    ],
)
def test_declarations(sql, expected):
    assert parse_columns(sql) == expected


@needs_samples
@pytest.mark.parametrize("name", ["h100_2gpu_1s", "mfu_2gpu_before"])
def test_every_table_of_the_samples(name, tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_bytes(gzip.decompress((SAMPLES / f"nsys/{name}.sqlite.gz").read_bytes()))
    file = PageFile(path.read_bytes())
    with sqlite3.connect(path) as con:
        con.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for table, info in file.tables.items():
            types = {row[1]: row[2] for row in con.execute(f'PRAGMA table_info("{table}")')}
            assert info.columns == tuple(types)
            ints = [column for column, kind in types.items() if kind == "INTEGER"]
            texts = [column for column, kind in types.items() if kind == "TEXT"]
            found, lost = read(path.read_bytes(), table, ints, texts)
            wanted = ", ".join(f'"{column}"' for column in ints + texts)
            assert found == con.execute(f'SELECT {wanted} FROM "{table}"').fetchall()
            assert lost == 0
    con.close()
