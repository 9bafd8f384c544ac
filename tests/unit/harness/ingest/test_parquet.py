"""Evidence through Parquet, in shares and in small pieces: the same database."""

from __future__ import annotations

import json

import duckdb
import pyarrow.dataset as ds
import pytest
from support import ROOT
from truth.simulate import Clock, Scenario, Simulation

from harness.cli.main import invoke
from harness.ingest import Share, ingest_paths, store_share
from harness.ingest.parquet import _Files
from harness_analysis.build import chunks as chunks
from harness_analysis.query import query_runs
from harness_schemas.errors import EvidenceError, UsageError
from harness_schemas.parquet import missing_shares, read_manifests

FIXTURES = ROOT / "tests" / "fixtures"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four ranks of two hosts whose clocks differ, and spans that belong to no rank."""
    folder = tmp_path_factory.mktemp("run") / "run"
    clocks = (Clock(), Clock(offset_ns=40_000_000, drift_ppb=30_000, boot_id="boot-b"))
    scenario = Scenario(late_rank=1, late_ns=90_000, clocks=clocks, ranks_per_host=2)
    Simulation(scenario).run().write(folder / "spans")
    (folder / "run.json").write_text(json.dumps({"run_id": "sim", "name": "sim", "device": "cpu"}))
    trace = (FIXTURES / "kineto" / "rank0.json").read_text()
    (folder / "nobody.json").write_text(trace.replace('"rank": 0', '"rank_unknown": 0'))
    return folder


@pytest.fixture(scope="module")
def direct(run, tmp_path_factory):
    return contents(ingest_paths([run], tmp_path_factory.mktemp("direct") / "a.duckdb"))


def contents(path):
    """Rows of every table, `spans` too where it is a view, in an order of their own."""
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute(f"SET file_search_path = '{path.parent}'")
        tables = con.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {
            name: sorted(map(repr, con.execute(f"FROM {name}").fetchall()))
            for name in {"spans", *(row[0] for row in tables)}
        }


def test_clocks_that_messages_tie_are_the_same_through_parquet(tmp_path):
    """Without round trips, and with nothing but the recorder's rows, which stay in their files."""
    clocks = (Clock(), Clock(offset_ns=-50_000_000, drift_ppb=8_000, boot_id="boot-b"))
    simulation = Simulation(Scenario(tp=2, pp=1, steps=40, clocks=clocks, ranks_per_host=1))
    simulation._pingpong = lambda: None
    run = tmp_path / "run"
    simulation.run().write(run / "spans")
    (run / "run.json").write_text(json.dumps({"run_id": "sim", "name": "sim", "device": "cpu"}))
    folder, through = tmp_path / "parquet", tmp_path / "through.duckdb"
    assert invoke(["ingest", "--parquet", str(folder), "--share", "1/1", str(run)]) == 0
    assert invoke(["ingest", str(folder), "-o", str(through)]) == 0
    direct = contents(ingest_paths([run], tmp_path / "direct.duckdb"))
    found = contents(through)
    assert any("'messages'" in row for row in found["clock_offsets"])
    assert {name for name in found if found[name] != direct[name]} == set()


def test_the_database_is_the_same_through_parquet(run, direct, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 100)
    folder = tmp_path / "parquet"
    for number in (2, 3, 1):
        assert invoke(["ingest", "--parquet", str(folder), "--share", f"{number}/3", str(run)]) == 0
    assert invoke(["ingest", str(folder), "-o", str(tmp_path / "a.duckdb")]) == 0
    through = contents(tmp_path / "a.duckdb")
    assert through.keys() == direct.keys()
    for name, rows in direct.items():
        assert through[name] == rows, name
    assert {row.split(", ")[1] for row in direct["spans"]} == {"None", "0", "1", "2", "3"}


def only_row(database, sql):
    [result] = query_runs([database], sql).results
    [row] = result.rows
    return row


def test_spans_stay_in_the_files_and_move_with_the_database(run, tmp_path):
    place = tmp_path / "here"
    store_share([run], place / "parquet", Share())
    assert invoke(["ingest", str(place / "parquet"), "-o", str(place / "a.duckdb")]) == 0
    moved = place.rename(tmp_path / "there")
    rows, ranks = only_row(moved / "a.duckdb", "SELECT count(*), count(DISTINCT rank) FROM spans")
    assert ranks == 4
    anybody = ds.dataset(moved / "parquet" / "spans", partitioning="hive")
    assert anybody.count_rows() == rows
    ends = "WHERE table_name = 'spans' AND column_name = 'end_ns'"
    [comment] = only_row(moved / "a.duckdb", f"SELECT comment FROM duckdb_columns() {ends}")
    assert comment


def test_a_share_that_is_missing_is_told(run, tmp_path):
    folder = tmp_path / "parquet"
    store_share([run], folder, Share.parse("1/2"))
    assert missing_shares(read_manifests(folder)) == [2]
    assert invoke(["ingest", str(folder), "-o", str(tmp_path / "a.duckdb")]) == 0
    sql = "SELECT state, reason FROM collection WHERE collector = 'parquet'"
    reason = "of 2 shares these were not written: 2"
    assert only_row(tmp_path / "a.duckdb", sql) == ("degraded", reason)


def test_a_share_that_was_cut_off_leaves_nothing_that_counts(run, tmp_path, monkeypatch):
    def fail(self, batch):
        raise KeyboardInterrupt

    folder = tmp_path / "parquet"
    store_share([run], folder, Share())
    monkeypatch.setattr(_Files, "add", fail)
    with pytest.raises(KeyboardInterrupt):
        store_share([run], folder, Share())
    assert read_manifests(folder) == []
    assert not list(folder.rglob("*.tmp"))


def test_shares_of_different_divisions_do_not_go_together(run, tmp_path):
    for text in ("1/2", "1/3"):
        store_share([run], tmp_path / "parquet", Share.parse(text))
    with pytest.raises(EvidenceError, match="different numbers"):
        missing_shares(read_manifests(tmp_path / "parquet"))


def test_names_of_shares(monkeypatch):
    assert Share.parse("3/8") == Share(3, 8)
    assert Share.parse("node7").stem == "node7"
    for text in ("0/3", "4/3", "a/b", "../x", ""):
        with pytest.raises(UsageError, match="names no share"):
            Share.parse(text)
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert Share.parse("slurm") == Share(3, 8)


def test_every_task_is_in_one_share():
    tasks = list(range(11))
    taken = [number for k in range(1, 5) for number, _ in Share(k, 4).of_tasks(tasks)]
    assert sorted(taken) == tasks
    assert Share(name="node7").of_tasks(tasks) == list(enumerate(tasks))


def test_neighbours_are_put_together_up_to_a_size():
    sizes = [("a", 3), ("b", 3), ("c", 9), ("d", 1), ("e", 1)]
    assert chunks.bounded(sizes, 6) == [["a", "b"], ["c"], ["d", "e"]]
    assert chunks.bounded([], 6) == []


def test_other_files_of_the_folder_are_not_read_to_see_whether_they_are_manifests(tmp_path):
    (tmp_path / "nested.json").write_text("[" * 200_000)
    with (tmp_path / "trace.json").open("wb") as sparse:  # more than anyone has memory for
        sparse.truncate(1 << 40)
    (tmp_path / "forged.json").write_text('{"format": "harness-parquet-1", "run": ' + "[" * 200_000)
    assert read_manifests(tmp_path) == []
