"""The catalogue: what it remembers, when it is made anew, and the question it is there for."""

from __future__ import annotations

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest
from example_run import batch, example_database
from truth.simulate import Scenario

from harness.runs import find_databases
from harness.runs.catalogue import open_catalogue

SPEC = {
    "name": "example",
    "parallel": {"tp": 2, "pp": 2},
    "generation": {"batch_size": 4, "microbatches": 1},
}


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """TP=2 x PP=2 with rank 3 late, on four GPUs of one host."""
    gpus = [{"rank": k, "host": "node0", "local_rank": k, "gpu_uuid": f"GPU-{k}"} for k in range(4)]
    late = Scenario(steps=14, late_rank=3, late_ns=400_000)
    folder = tmp_path_factory.mktemp("example")
    return example_database(folder, late, more=(batch("ranks", gpus),), bare=True)


def add_run(root, name, database=None, **said):
    folder = root / name
    folder.mkdir(parents=True)
    record = {"run_id": name, "status": "finished", "verdict": "ok", "spec": SPEC, **said}
    (folder / "run.json").write_text(json.dumps(record))
    if database is not None:
        shutil.copy(database, folder / "run.duckdb")
    return folder


def ask(root, sql):
    with contextlib.closing(duckdb.connect(str(open_catalogue(root)), read_only=True)) as con:
        return con.execute(sql).fetchall()


def test_which_gpu_is_always_the_last(tmp_path, example):
    """Three runs with rank 3 late in each, one of another kind that has no database."""
    for name in ("a", "b"):
        add_run(tmp_path, name, example)
    add_run(tmp_path / "x-sweep-1", "c", example, sweep_id="1", cell="tp=2", repeat=0)
    add_run(tmp_path, "d", status="failed", verdict="oom_gpu")
    worst, *others = ask(
        tmp_path, "SELECT gpu_uuid, host, runs_mostly_last, runs_named, runs FROM device_history"
    )
    assert worst == ("GPU-3", "node0", 3, 3, 3)
    assert all(row[3] == 0 for row in others)
    assert ask(tmp_path, "SELECT sweep_id, cell, tp FROM runs WHERE run_id = 'c'") == [
        ("1", "tp=2", 2)
    ]
    assert ask(tmp_path, "SELECT verdict, tok_per_s FROM runs WHERE run_id = 'd'") == [
        ("oom_gpu", None)
    ]


def test_it_follows_the_folder(tmp_path, example):
    folder = add_run(tmp_path, "a", status="running", verdict=None)
    add_run(tmp_path, "b")
    sql = "SELECT run_id, status, present, has_database FROM runs ORDER BY run_id"
    assert ask(tmp_path, sql)[0] == ("a", "running", True, False)
    record = {"run_id": "a", "status": "finished", "verdict": "ok", "spec": SPEC}
    (folder / "run.json").write_text(json.dumps(record))
    shutil.copy(example, folder / "run.duckdb")
    shutil.rmtree(tmp_path / "b")
    assert ask(tmp_path, sql) == [("a", "finished", True, True), ("b", "finished", False, False)]
    assert ask(tmp_path, "SELECT count(*) > 0 FROM lateness") == [(True,)]


def test_nothing_new_leaves_it_alone(tmp_path):
    add_run(tmp_path, "a")
    before = open_catalogue(tmp_path).stat()
    after = open_catalogue(tmp_path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("damage", [b"", b"not a database at all, though it has that name"])
def test_a_damaged_one_is_built_anew(tmp_path, damage):
    add_run(tmp_path, "a")
    open_catalogue(tmp_path).write_bytes(damage)
    assert ask(tmp_path, "SELECT run_id FROM runs") == [("a",)]


def test_an_unreadable_run_database_counts_as_none(tmp_path):
    folder = add_run(tmp_path, "a")
    (folder / "run.duckdb").write_text("cut off")
    assert ask(tmp_path, "SELECT verdict, has_database FROM runs") == [("ok", False)]


def test_many_may_refresh_at_once(tmp_path):
    """Whoever renames last wins, and the next refresh adds what that one had not seen."""
    for number in range(4):
        add_run(tmp_path, f"r{number}")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_catalogue(tmp_path), range(8)))
    assert ask(tmp_path, "SELECT count(*) FROM runs") == [(4,)]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_it_is_named_catalogue_and_is_no_run(tmp_path, example, monkeypatch):
    add_run(tmp_path / "runs", "a", example)
    monkeypatch.chdir(tmp_path)
    (found,) = find_databases(["catalogue"])
    assert found.name == "catalogue.duckdb"
    assert [path.name for path in find_databases(["runs/*"])] == ["run.duckdb"]


def test_a_sweep_stands_for_its_runs(tmp_path, example, monkeypatch):
    sweep = tmp_path / "runs" / "20260101-000000-x-sweep-ab12cd"
    for name in ("a", "b"):
        add_run(sweep, name, example)
    (sweep / "sweep.json").write_text("{}")
    (sweep / "latest").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    both = find_databases([str(sweep)])
    assert len(both) == 2
    for name in ("ab12cd", f"{sweep}/*", "runs/*"):
        assert [path.resolve() for path in find_databases([name])] == [
            path.resolve() for path in both
        ], name
