"""The empty database: copied or declared anew, it is the same."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from harness_analysis.store import blank
from harness_analysis.views import load_views
from harness_schemas.tables import TABLES

COLUMNS = """
    SELECT table_name, column_name, data_type, comment FROM duckdb_columns()
    WHERE database_name = 'run' ORDER BY ALL
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "blank"


def attached(path: Path) -> list[tuple[str, ...]]:
    with duckdb.connect() as con:
        blank.attach_blank(con, path)
        con.execute("USE run")
        con.execute("INSERT INTO runs (run_id) VALUES ('r')")
        assert con.execute("SELECT run_id FROM run_summary").fetchall() == [("r",)]
        return con.execute(COLUMNS).fetchall()


def test_a_copy_is_what_was_declared(cache, tmp_path, monkeypatch):
    first = attached(tmp_path / "a.duckdb")
    assert {row[0] for row in first} == {each.name for each in (*TABLES, *load_views())}
    assert all(row[3] for row in first)
    with monkeypatch.context() as patch:
        patch.setattr(blank, "_declare", lambda con: pytest.fail("it was kept"))
        assert attached(tmp_path / "b.duckdb") == first
    assert len(list(cache.iterdir())) == 1


def test_other_declarations_are_other_databases(cache, tmp_path, monkeypatch):
    attached(tmp_path / "a.duckdb")
    (old,) = cache.iterdir()
    monkeypatch.setattr(blank, "STORAGE_VERSION", "v1.3.0")
    attached(tmp_path / "b.duckdb")
    (new,) = cache.iterdir()
    assert new != old


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000])
def test_a_damaged_copy_is_replaced(cache, tmp_path, damage):
    first = attached(tmp_path / "a.duckdb")
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert attached(tmp_path / "b.duckdb") == first
    assert kept.stat().st_size > len(damage)


def test_without_a_cache_it_is_declared(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file"))
    assert attached(tmp_path / "a.duckdb")


def test_no_home_is_no_cache(tmp_path, monkeypatch):
    for name in ("HARNESS_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert attached(tmp_path / "a.duckdb")
