"""Exports of versions, tools and accidents that our own captures never meet."""

from __future__ import annotations

import sqlite3

import duckdb
import pytest
from unit.collectors.nsys.exports import (
    Report,
    decode,
    device_spans,
    rows,
    state,
    tables,
    units,
)

from harness.ingest import ingest_paths
from harness_collectors.nsys import COLLECTOR


def told(found):
    """What must not depend on how the tables are stored."""
    spans = [
        (row["rank"], row["timeline"], row["category"], row["name"], row["start_ns"], row["step"])
        for row in found["spans"]
    ]
    calls = [(row["rank"], row["comm_group"], row["seq"]) for row in found["collectives"]]
    return sorted(map(str, spans)), sorted(map(str, calls))


def parts(path, columns="compute_ns, idle_ns, unresolved_ns"):
    """The rows of phase `all`, by rank."""
    database = ingest_paths([path], path.parent / "d.duckdb")
    with duckdb.connect(str(database), read_only=True) as con:
        query = f"SELECT {columns} FROM rank_breakdown WHERE phase = 'all' ORDER BY rank"
        return con.sql(query).fetchall()


def altered(path, sql):
    with sqlite3.connect(path) as con:
        con.execute(sql)
    con.close()


REWRITTEN = {
    "numbered tables": "ALTER TABLE NVTX_EVENTS RENAME TO NVTX_EVENTS_V2;"
    "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME TO CUPTI_ACTIVITY_KIND_KERNEL_V3;"
    "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL_V2 (start INTEGER);",
    "defaults instead of NULL": "UPDATE NVTX_EVENTS SET text = '' WHERE text IS NULL;"
    "UPDATE NVTX_EVENTS SET textId = 0 WHERE textId IS NULL;",
    "a view": "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME TO k;"
    "CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS SELECT * FROM k;",
    "a table that is an index": "CREATE TABLE s (id INTEGER PRIMARY KEY, value) WITHOUT ROWID;"
    "INSERT INTO s SELECT id, value FROM StringIds; DROP TABLE StringIds;"
    "ALTER TABLE s RENAME TO StringIds;",
    "times as floats, ids as texts": "CREATE TABLE k (start REAL, end REAL, deviceId TEXT,"
    "streamId INTEGER, correlationId TEXT, globalPid TEXT, shortName TEXT, gridX INTEGER);"
    "INSERT INTO k SELECT start, end, deviceId, streamId, correlationId, globalPid, shortName,"
    "gridX FROM CUPTI_ACTIVITY_KIND_KERNEL; DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL;"
    "ALTER TABLE k RENAME TO CUPTI_ACTIVITY_KIND_KERNEL;",
    "tables of other interfaces": "CREATE TABLE MPI_COLLECTIVES_EVENTS (start INTEGER);"
    "CREATE TABLE DX12_API (start INTEGER); CREATE TABLE GPU_METRICS (timestamp INTEGER);",
}


@pytest.mark.parametrize("how", REWRITTEN)
def test_tables_are_found_however_they_are_stored(tmp_path, how):
    expected = rows(tmp_path, decode())
    path = decode().write(tmp_path / "other.sqlite")
    with sqlite3.connect(path) as con:
        con.executescript(REWRITTEN[how])
    con.close()
    assert told(tables([path], tmp_path)) == told(expected)


def capture(number, begin, host="node-a", epoch=None):
    """One window of `nsys profile --capture-range-end=repeat`."""
    report = Report(**({} if epoch is None else {"epoch": epoch}))
    process = report.process(700)
    process.range(f"decode_step_{number}", begin, 50)
    process.launched(1, begin + 5, begin + 10, 20)
    report.add("TARGET_INFO_SYSTEM_ENV", name="Hostname", value=host, globalVid=1)
    return report


@pytest.mark.parametrize(
    ("second", "ranks"),
    [
        (capture(2, 5000), {0}),
        (capture(2, 102), {0, 1}),  # two containers may show the same process id at once
        (capture(2, 5000, host="node-b"), {0, 1}),
    ],
)
def test_a_process_that_several_reports_show_is_one_rank(tmp_path, second, ranks):
    first = capture(1, 100).write(tmp_path / "report.1.sqlite")
    found = tables([first, second.write(tmp_path / "report.2.sqlite")], tmp_path)
    assert {row["rank"] for row in found["ranks"]} == ranks
    assert [unit["step"] for unit in units(found)] == [1, 2]
    assert len({row["span_id"] for row in found["spans"] if row["rank"] == 0}) == len(
        [row for row in found["spans"] if row["rank"] == 0]
    )


def test_between_two_captures_nothing_is_known(tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    for number in (1, 2):
        capture(number, 1000 * number).write(folder / f"report.{number}.sqlite")
    assert parts(folder) == [(40_000, 30_000, 950_000)]


@pytest.mark.parametrize("name", ["local_rank_1", "node_rank_1", "report"])
def test_ranks_within_something_are_none(tmp_path, name):
    assert {row["rank"] for row in rows(tmp_path, capture(1, 100), f"{name}.sqlite")["ranks"]} == {
        0
    }


def test_a_replay_without_rows_is_not_idle_time(tmp_path):
    report = Report("3.7.2")
    process = report.process(700)
    process.launched(11, 105, 110, 20)
    process.call(12, 140, name="cudaGraphLaunch_v10000")
    process.launched(13, 200, 230, 20)
    assert parts(report.write(tmp_path / "r.sqlite")) == [(40_000, 10_000, 90_000)]


def test_kernels_whose_names_are_lost_are_not_called_computing(tmp_path):
    path = decode().write(tmp_path / "r.sqlite", without=("StringIds",))
    assert parts(path, "compute_ns, unresolved_ns") == [(0, 106_500), (0, 96_500)]
    assert "names are unknown" in state(tables([path], tmp_path))[1]


def test_ranges_alone_show_neither_communication_nor_files(tmp_path):
    """`nsys profile --trace=nvtx`."""
    report = Report("3.7.2")
    process = report.process(900)
    for step in (1, 2):
        process.range(f"decode_step_{step}", 100 * step, 40)
    columns = "timeline, comm_unsplit_ns, io_ns, idle_ns, unresolved_ns"
    assert parts(report.write(tmp_path / "r.sqlite"), columns) == [
        ("host", None, None, None, 140_000)
    ]


def test_kernels_without_a_process_are_of_the_only_one_that_calls(tmp_path):
    """Derived exports leave `globalPid` out; with two processes whose they are is not known."""
    report = capture(1, 100)
    report.process(701).range("tokenize", 100, 50)
    path = report.write(tmp_path / "r.sqlite")
    altered(path, "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET globalPid = NULL")
    found = tables([path], tmp_path)
    assert [(row["rank"], row["step"]) for row in device_spans(found)] == [(0, 1)]
    both = decode().write(tmp_path / "both.sqlite")
    altered(both, "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET globalPid = NULL")
    assert "10 events have no time or no process" in state(tables([both], tmp_path))[1]


def test_times_that_were_lost_are_none(tmp_path):
    report = capture(1, 5000)
    report.process(700).kernel(50, 0, 0)
    assert parts(report.write(tmp_path / "r.sqlite"), "window_ns") == [(20_000,)]


def test_a_list_of_tables_anywhere_in_the_file(tmp_path):
    """Where tables were made late, the beginning of the file names none."""
    path = capture(1, 100).write(tmp_path / "r.sqlite")
    assert COLLECTOR.recognise(path, path.read_bytes()[:100])
    with sqlite3.connect(tmp_path / "other.sqlite") as con:
        con.execute("CREATE TABLE StringTable (_id_ INTEGER PRIMARY KEY, value TEXT)")
    assert not COLLECTOR.recognise(tmp_path / "other.sqlite", b"SQLite format 3\0")


def mpi(second):
    """Two processes without NCCL's communicators, and the ranks that MPI gave them."""
    report = Report()
    report.schema = {**report.schema, "MPI_RANKS": "globalTid rank"}
    for pid, rank in ((600, 1), (700, second)):
        process = report.process(pid)
        process.launched(1, 5, 10, 20)
        report.add("MPI_RANKS", globalTid=process.tid, rank=rank)
    return report


@pytest.mark.parametrize(("second", "ranks"), [(0, {600: 1, 700: 0}), (1, {600: 0, 700: 1})])
def test_ranks_of_mpi_are_taken_unless_two_processes_have_the_same(tmp_path, second, ranks):
    found = rows(tmp_path, mpi(second))
    assert {row["pid"]: row["rank"] for row in found["ranks"]} == ranks


def test_without_the_table_of_kernels_the_device_is_not_called_idle(tmp_path):
    report = Report()
    process = report.process(700)
    process.launched(1, 5, 10, 20)
    for number, at in ((2, 40), (3, 90)):
        process.copy(number, at, at + 5, 3)
    process.call(4, 50)
    path = report.write(tmp_path / "report.sqlite", without=("CUPTI_ACTIVITY_KIND_KERNEL",))
    (reason,) = [row["reason"] for row in tables([path], tmp_path)["collection"]]
    assert reason.startswith("2 launches and no kernel")
    assert parts(path, "memcpy_ns, idle_ns, unresolved_ns") == [(6_000, 2_000, 85_000)]
