"""SQL over several databases: the union of their rows, with few files open."""

from __future__ import annotations

import duckdb
import pytest

from harness.cli.main import invoke
from harness_analysis import query
from harness_analysis.query import query_runs
from harness_schemas.errors import EvidenceError, UsageError

SQL = "SELECT run_id, n, doubled FROM twice JOIN runs USING (run_id) ORDER BY run_id"
COUNT = 7


@pytest.fixture
def databases(tmp_path):
    """Seven small databases, each with a table and a view of its own; one has a column more."""
    paths = []
    for number in range(COUNT):
        path = tmp_path / f"run {number}'s.duckdb"
        with duckdb.connect(str(path)) as con:
            more = ", 9 AS extra" if number == 3 else ""
            con.execute(f"CREATE TABLE runs AS SELECT 'r{number}' AS run_id, {number} AS n{more}")
            con.execute("CREATE TABLE large AS SELECT range AS x FROM range(10)")
            con.execute("CREATE VIEW twice AS SELECT run_id, 2 * n AS doubled FROM runs")
        paths.append(path)
    return paths


@pytest.mark.parametrize("most", [COUNT, 2])
def test_every_name_means_the_rows_of_all(databases, monkeypatch, most):
    """Attached all at once, or copied one after the other: the same rows."""
    monkeypatch.setattr(query, "MOST_ATTACHED", most)
    [result] = query_runs(databases, SQL).results
    assert result.rows == [(f"r{k}", k, 2 * k) for k in range(COUNT)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 AS a; SELECT 2 AS b, 3 AS c;", [(("a",), [(1,)]), (("b", "c"), [(2, 3)])]),
        ("SET threads = 1; CREATE TEMP TABLE t AS SELECT 4 AS x; FROM t", [(("x",), [(4,)])]),
        ("PIVOT (SELECT 'p' AS k, 5 AS v) ON k USING sum(v)", [(("p",), [(5,)])]),
        ("SELECT ';' AS x -- ; no end", [(("x",), [(";",)])]),
        ("SET threads = 1", [(("Success",), [])]),
    ],
)
def test_every_statement_that_asks_has_a_result(databases, sql, expected):
    found = query_runs(databases[:1], sql).results
    assert [(result.columns, result.rows) for result in found] == expected


def test_few_files_are_open_at_once(databases, monkeypatch):
    monkeypatch.setattr(query, "MOST_ATTACHED", 2)
    with query.open_runs(databases, "SELECT count(*) FROM twice") as con:
        names = con.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal")
        assert names.fetchall() == [("memory",)]
        tables = con.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert tables == [("twice",)]  # nothing that was not asked for is copied


@pytest.mark.parametrize("most", [COUNT, 2])
def test_what_is_no_database_is_named(databases, monkeypatch, tmp_path, most):
    monkeypatch.setattr(query, "MOST_ATTACHED", most)
    broken = tmp_path / "broken.duckdb"
    broken.write_text("not a database, but long enough to be looked at")
    with pytest.raises(EvidenceError, match=r"broken\.duckdb is no DuckDB database"):
        query_runs([*databases, broken], SQL)
    with pytest.raises(UsageError, match="does not exist"):
        query_runs([*databases, tmp_path / "absent.duckdb"], SQL)


def test_wrong_sql_over_many_is_a_mistake_of_the_user(databases, monkeypatch):
    monkeypatch.setattr(query, "MOST_ATTACHED", 2)
    with pytest.raises(UsageError, match="nowhere"):
        query_runs(databases, "SELECT 1; FROM nowhere")
    with pytest.raises(UsageError, match="says nothing"):
        query_runs(databases, "-- nothing")


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ([], "a\n-\n1\n\nb\n-\n2\n"),
        (["--json"], '[[\n {"a": 1}\n],\n[\n {"b": 2}\n]]\n'),
        (["--markdown"], "| a |\n| ---: |\n| 1 |\n\n| b |\n| ---: |\n| 2 |\n"),
    ],
)
def test_several_results_are_all_printed(databases, capsys, style, expected):
    assert invoke(["query", str(databases[0]), "SELECT 1 AS a; SELECT 2 AS b", *style]) == 0
    assert capsys.readouterr().out == expected


def test_csv_takes_one_result(databases, capsys):
    assert invoke(["query", str(databases[0]), "SELECT 1; SELECT 2", "--csv"]) == 2
    assert "the query has 2 results" in capsys.readouterr().err
