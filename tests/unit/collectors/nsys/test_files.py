"""In which forms reports come, and how damage is borne."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped
from unit.collectors.nsys.exports import Report, decode, rows, state, tables

from harness.ingest import read_head
from harness_collectors.nsys import COLLECTOR
from harness_collectors.nsys.export.layouts import NULL
from harness_collectors.nsys.report.ranges import cut_suffixes
from harness_collectors.nsys.report.work import first_match
from harness_collectors.nsys.rows.trace import nested

patient = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
VERSIONS = ("2.9.1", "3.7.2", "3.25.0")


def plain(found):
    """Rows without what names the file."""
    text = json.dumps({key: found[key] for key in ("spans", "collectives", "ranks")})
    return text.replace("report.sqlite", "report")


def to_folder(path, folder, suffix):
    """The tables of an SQLite export as `nsys export --type parquetdir|arrowdir` writes them."""
    folder.mkdir()
    with sqlite3.connect(path) as con:
        names = [n for (n,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            info = con.execute(f"PRAGMA table_info({name})").fetchall()
            columns = list(zip(*con.execute(f"SELECT * FROM {name}").fetchall(), strict=True))
            table = pa.table(
                {
                    row[1]: pa.array(values, kind_of(row[1], row[2]))
                    for row, values in zip(info, columns, strict=True)
                }
            )
            file = folder / f"{name}{suffix}"
            if suffix == ".parquet":
                pq.write_table(table, file)
            else:
                with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as w:
                    w.write_table(table)
    con.close()
    return sorted(folder.iterdir())


def kind_of(column, declared):
    """Types as nsys 2023.4 writes them."""
    if declared == "TEXT":
        return pa.binary() if column == "binaryData" else pa.string()
    return pa.uint64() if column in ("globalPid", "globalTid") else pa.int64()


# -- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "suffix"), [("_pqtdir", ".parquet"), ("_arwdir", ".arrow")])
def test_folders_of_tables_give_the_same_rows(folder, suffix, tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    expected = plain(tables([path], tmp_path))
    files = to_folder(path, tmp_path / f"report{folder}", suffix)
    path.unlink()
    found = tables(files, tmp_path)
    assert plain(found).replace(f"report{folder}", "report") == expected
    assert state(found) == ("ok", None)


def test_arrow_tables_that_others_rewrote_as_files_give_the_same_rows(tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    expected = plain(tables([path], tmp_path))
    files = to_folder(path, tmp_path / "report_arwdir", ".arrow")
    for file in files:
        table = pa.ipc.open_stream(file.read_bytes()).read_all()
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    assert all(COLLECTOR.recognise(file, file.read_bytes()[:64]) for file in files)
    assert plain(tables(files, tmp_path)).replace("report_arwdir", "report") == expected


def test_gzip_gives_the_same_rows(tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    expected = plain(tables([path], tmp_path))
    packed = tmp_path / "report.sqlite.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    found = tables([packed], tmp_path)
    assert plain(found).replace("report.gz", "report") == expected


def test_files_with_a_journal_are_left_to_sqlite(tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    expected = plain(tables([path], tmp_path))
    with sqlite3.connect(path) as con:
        con.execute("PRAGMA journal_mode = wal")
    con.close()
    assert path.read_bytes()[18] == 2
    assert plain(tables([path], tmp_path)) == expected


def test_one_report_in_several_forms_is_read_once(tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    expected = plain(tables([path], tmp_path))
    files = to_folder(path, tmp_path / "report_pqtdir", ".parquet")
    report = tmp_path / "report.nsys-rep"
    report.write_bytes(b"NVIDIA Tegra Profiler Report 2023@4@4@54\n")
    found = tables([path, report, *files], tmp_path)
    assert plain(found).replace("report_pqtdir", "report") == expected


def test_a_report_needs_nsys(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    report = tmp_path / "run.nsys-rep"
    report.write_bytes(b"NVIDIA Tegra Profiler Report 2023@4@4@54\n")
    verdict, reason = state(tables([report], tmp_path))
    assert verdict == "failed"
    assert "nsys export --type sqlite run.nsys-rep" in reason


@pytest.mark.parametrize("said", ["nsys is not found", "nsys does not start"])
def test_a_node_without_nsys_is_skipped(said, tmp_path):
    path = tmp_path / "artifacts" / "nsys" / "node2" / "rank-00003.missing"
    path.parent.mkdir(parents=True)
    path.write_text(f"{said} on node2\n")
    (row,) = tables([path], tmp_path)["collection"]
    assert (row["host"], row["rank"], row["state"]) == ("node2", 3, "skipped")
    assert row["reason"] == f"{said} on this node"


def test_evidence_is_recognised_by_its_content(tmp_path):
    path = decode().write(tmp_path / "a.db")
    files = [path, *to_folder(path, tmp_path / "out", ".parquet")]
    files += to_folder(path, tmp_path / "more", ".arrow")
    assert all(COLLECTOR.recognise(file, read_head(file)) for file in files)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as con:
        con.execute("CREATE TABLE history (url TEXT)")
    con.close()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data.parquet")
    assert not COLLECTOR.recognise(other, read_head(other))
    assert not COLLECTOR.recognise(tmp_path / "data.parquet", read_head(tmp_path / "data.parquet"))


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.sqlite.gz"
    with gzip.open(path, "wb") as stream:
        for _ in range(160):
            stream.write(b"SQLite format 3\0" + bytes((1 << 20) - 16))
    verdict, reason = state(tables([path], tmp_path))
    assert (verdict, reason) == ("failed", "it unpacks to more than any export does")


# -- damage --------------------------------------------------------------------------------------

EVERY = sorted({table for version in VERSIONS for table in decode(version).rows})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("table", EVERY)
def test_a_missing_table_costs_what_it_held(version, table, tmp_path):
    report = decode(version)
    whole = rows(tmp_path, report, "rank.sqlite")
    found = rows(tmp_path, report, "rank.sqlite", without=(table,))
    assert len(found["collection"]) == 1
    assert len(found.get("spans", [])) <= len(whole["spans"])
    verdict, reason = state(found)
    if table == "StringIds":
        assert (verdict, "names are unknown" in reason) == ("degraded", True)
    if table == "TARGET_INFO_SESSION_START_TIME":
        assert (verdict, "start is not recorded" in reason) == ("degraded", True)


def altered(path, statement):
    with sqlite3.connect(path) as con:
        con.execute(statement)
    con.close()


COLUMNS = [
    (table, column.strip("#!"))
    for table, columns in Report().schema.items()
    for column in columns.split()
    if table in decode().rows and not column.endswith("!")
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_missing_column_costs_what_it_held(table, column, tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    altered(path, f'ALTER TABLE {table} DROP COLUMN "{column}"')
    assert len(tables([path], tmp_path)["collection"]) == 1


STRANGE = ("'text'", "1.5", "NULL", "x'00ff'", str(-(2**63)), str(2**63 - 1))


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_values_of_other_types_cost_what_they_held(table, column, tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    for value in STRANGE:
        altered(path, f'UPDATE {table} SET "{column}" = {value}')
        found = tables([path], tmp_path)
        assert len(found["collection"]) == 1
        times = [row.get(n) or 0 for row in found.get("spans", []) for n in ("start_ns", "end_ns")]
        assert all(abs(time) < 2**62 for time in times)


def test_events_without_a_time_are_counted(tmp_path):
    path = decode().write(tmp_path / "report.sqlite")
    altered(path, "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'x' WHERE correlationId = 11")
    found = tables([path], tmp_path)
    assert state(found) == ("degraded", "2 events have no time or no process")
    assert found["collection"][0]["unreadable"] == 2


def test_a_torn_export_is_used_as_far_as_it_goes(tmp_path):
    report = Report()
    process = report.process(700)
    for n in range(2000):
        process.launched(n, 10 * n, 10 * n + 5, 3)
    path = report.write(tmp_path / "report.sqlite")
    whole = path.read_bytes()
    path.write_bytes(whole[: 2 * len(whole) // 3])
    found = tables([path], tmp_path)
    verdict, reason = state(found)
    assert (verdict, reason.startswith("the file is torn")) == ("degraded", True)
    assert 100 < len(found["spans"]) < 4000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return decode().write(tmp_path_factory.mktemp("whole") / "report.sqlite")


@patient
@given(data=st.data())
def test_spoilt_exports_never_raise(whole, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spoilt")
    path = folder / "report.sqlite"
    path.write_bytes(
        data.draw(st.one_of(cuts(whole.read_bytes()), flipped(whole.read_bytes(), 40)))
    )
    found = tables([path], folder)
    assert len(found["collection"]) == 1
    shutil.rmtree(folder)


@patient
@given(data=st.data())
def test_spoilt_folders_never_raise(whole, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spoilt")
    suffix = data.draw(st.sampled_from([".parquet", ".arrow"]))
    files = to_folder(whole, folder / "tables", suffix)
    file = data.draw(st.sampled_from(files))
    file.write_bytes(data.draw(st.one_of(cuts(file.read_bytes()), flipped(file.read_bytes(), 8))))
    assert len(tables(files, folder)["collection"]) == 1
    shutil.rmtree(folder)


# -- parts ---------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.just(NULL), st.integers(-50, 50), st.integers(0, 2**40))


@given(st.lists(NUMBERS, max_size=40), st.lists(NUMBERS, max_size=40))
def test_first_match_is_that_of_a_dictionary(keys, ids):
    import numpy as np

    places = {}
    for place, key in enumerate(ids):
        if key != NULL:
            places.setdefault(key, place)
    found = first_match(np.array(keys, np.int64), np.array(ids, np.int64))
    assert found.tolist() == [places.get(key, -1) for key in keys]


INTERVALS = st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 30))


@given(st.lists(INTERVALS, max_size=25, unique=True))
def test_nested_is_what_comparing_all_pairs_says(intervals):
    import numpy as np

    columns = [np.array(column, np.int64) for column in zip(*intervals, strict=True)] or [
        np.zeros(0, np.int64)
    ] * 3
    thread, start, end = columns[0], columns[1], columns[1] + columns[2]
    expected = [
        any(
            thread[a] == thread[b] and start[b] <= start[a] and end[a] <= end[b]
            for b in range(len(start))
            if b != a
        )
        for a in range(len(start))
    ]
    assert nested(thread, start, end).tolist() == expected


NAMES = st.text(st.sampled_from("ab, =:\u00e9"), max_size=8)
SUFFIXES = st.sampled_from(["", ", op_id = 7", ", seq = 3, op_id = 9", ", seq", ", sizes = [[2]]"])


@given(st.lists(st.one_of(st.none(), st.tuples(NAMES, SUFFIXES)), max_size=20), st.integers(0, 3))
def test_suffixes_are_cut_in_the_bytes(texts, skipped):
    written = [None if text is None else "".join(text) for text in texts]
    values = [None if text is None else text.encode() for text in written]
    array = pa.array(values, pa.large_binary())[skipped:]
    found, is_op = cut_suffixes(array)
    expected = [None if text is None else cut(text) for text in written[skipped:]]
    assert found.to_pylist() == [None if text is None else text.encode() for text in expected]
    assert is_op.tolist() == [a != b for a, b in zip(expected, written[skipped:], strict=True)]


def cut(text):
    places = [place for word in (", op_id ", ", seq = ") if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text
