"""`harness compare` and `harness audit` from the command line: what is printed, how they end."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import duckdb
import pytest
from example_run import LATE, example_database
from support import ROOT

from harness.cli.main import invoke

HOSTILE = "</script><script>stolen=1</script><img src=x onerror=stolen=1>"
SEED_TABLES = ROOT / "tests" / "fixtures" / "audit" / "seed_tables.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a late rank and one without, the second with a hostile value."""
    root = tmp_path_factory.mktemp("runs")
    for name, late, note in (("late", 400_000, "x"), ("even", 0, HOSTILE)):
        scenario = dataclasses.replace(LATE, late_rank=3 if late else None, late_ns=late)
        spec = json.dumps({"parallel": {"tp": 2, "pp": 2}, "note": note})
        (root / name).mkdir()
        example_database(root / name, scenario, spec=spec, name=name)
    return root


def run(capsys, *argv):
    code = invoke([str(argument) for argument in argv])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_the_text_says_what_changed_then_how_much_then_why(folder, capsys):
    code, out, _ = run(capsys, "compare", folder / "late", folder / "even")
    assert code == 0
    places = [out.index(word) for word in ("What changed", "Metrics", "Why")]
    assert places == sorted(places)
    assert "differs in ONE variable: note x ->" in out
    assert "Rank 3 computes 1.2 ms less, and its peers wait up to" in out
    assert "cannot see how much runs differ" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("step_p50 < -5%", 1),
        ("step_p50 > +5%", 0),
        ("step_p99 > +5%", 3),
        ("nonsense > +5%", 2),
        ("step_p50 is slow", 2),
    ],
)
def test_the_exit_code_is_the_gates_answer(folder, capsys, gate, code):
    found, out, err = run(capsys, "compare", folder / "late", folder / "even", "--fail-on", gate)
    assert found == code, out + err


def test_a_failed_gate_outweighs_one_that_cannot_tell(folder, capsys):
    gates = ("--fail-on", "step_p99 > +5%", "--fail-on", "step_p50 < -5%")
    assert run(capsys, "compare", folder / "late", folder / "even", *gates)[0] == 1


def test_json_csv_and_the_text_say_the_same(folder, capsys):
    sides = (folder / "late", folder / "even")
    (answer,) = json.loads(run(capsys, "compare", *sides, "--json")[1])
    rows = list(csv.DictReader(io.StringIO(run(capsys, "compare", *sides, "--csv")[1])))
    by_name = {row["metric"]: row for row in rows}
    assert len(answer["metrics"]) == len(rows) == len(by_name)
    for metric in answer["metrics"]:
        row = by_name[metric["metric"]]
        assert row["word"] == metric["word"]
        assert float(row["effect"]) == metric["effect"] if row["effect"] else not metric["effect"]
    assert answer["changed"]["verdict"].startswith("differs in ONE variable")
    markdown = run(capsys, "compare", *sides, "--markdown")[1]
    assert "| decode.wait[0] |" in markdown and "<script>" not in markdown


def test_numbers_are_those_of_the_view_latency(folder, capsys):
    (answer,) = json.loads(run(capsys, "compare", folder / "late", folder / "even", "--json")[1])
    found = {metric["metric"]: metric for metric in answer["metrics"]}
    with duckdb.connect(str(folder / "late" / "run.duckdb"), read_only=True) as con:
        for metric, p50, p99 in con.execute(
            "SELECT metric, p50_ns, p99_ns FROM latency"
        ).fetchall():
            assert found[f"{metric}_p50"]["a"] == pytest.approx(p50)
            assert found[f"{metric}_p99"]["a"] == pytest.approx(p99)
        rate, step = con.execute("SELECT tok_per_s, step_ms FROM run_summary").fetchone()
        assert found["tok_per_s"]["a"] == pytest.approx(rate)
        assert found["step_p50"]["a"] == pytest.approx(step * 1e6)
        wait, window = con.execute(
            "SELECT sum(comm_wait_ns) / sum(units), sum(window_ns) / sum(units) "
            "FROM rank_breakdown WHERE phase = 'decode'"
        ).fetchone()
        assert found["decode.wait"]["a"] == pytest.approx(float(wait))
        assert found["decode.window"]["a"] == pytest.approx(float(window))


def test_the_page_holds_the_numbers_and_escapes_what_evidence_says(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(capsys, "compare", folder / "late", folder / "even", "--html", page)[0] == 0
    text = page.read_text()
    assert "<script>stolen" not in text and "&lt;script&gt;stolen" in text
    for word in ("What each part adds to a unit of decode", "What changed", "decode.wait[0]"):
        assert word in text
    again = tmp_path / "again.html"
    run(capsys, "compare", folder / "late", folder / "even", "--html", again)
    assert page.read_bytes() == again.read_bytes()


def test_one_run_alone_cannot_be_compared(folder, capsys):
    code, _, err = run(capsys, "compare", folder / "late")
    assert code == 2
    assert "two sides" in err


def test_a_folder_of_runs_is_one_side_and_a_run_found_twice_counts_once(folder, capsys):
    (folder / "latest").symlink_to("even")
    code, out, _ = run(capsys, "compare", folder, folder / "late", "--json")
    (answer,) = json.loads(out)
    assert code == 0
    assert (len(answer["a"]["runs"]), len(answer["b"]["runs"])) == (2, 1)


def test_audit_flags_the_seeds_tables_and_ends_with_1(capsys):
    code, out, err = run(capsys, "audit", SEED_TABLES)
    assert code == 1
    assert "single-request-pipeline" in out and "->" in out
    assert "3 tables checked" in err


def test_audit_of_runs_reads_their_databases(folder, capsys):
    code, out, _ = run(capsys, "audit", folder / "even", "--json")
    flags = {row["rule"]: row for row in json.loads(out)}
    # The example's requests are made up: they do not last as long as its units.
    assert flags.keys() == {"tokens-time"}
    assert code == 1


def test_audit_sees_throttling_jumps_and_batches_that_never_were(folder, tmp_path, capsys):
    import shutil

    database = tmp_path / "bad.duckdb"
    shutil.copy(folder / "even" / "run.duckdb", database)
    with duckdb.connect(str(database)) as con:
        con.execute(
            """
            INSERT INTO samples BY NAME SELECT run_id, 'node0' AS host, 0 AS device,
              'clock_event_reasons' AS metric, start_ns + 1 AS ts_ns, 64 AS value
            FROM unit_breakdown WHERE phase = 'decode';
            INSERT INTO clock_anchors BY NAME SELECT 'r' AS run_id, 'psutil' AS source,
              'node9' AS host, 'b' AS clock_domain, k * 1000000000 AS raw_ns,
              k * 1000000000 + CASE WHEN k > 2 THEN 50000000 ELSE 0 END AS wall_ns, 50 AS width_ns
            FROM range(5) t(k);
            INSERT INTO steps BY NAME SELECT run_id, 0 AS rank, 'decode' AS phase, 1 AS step,
              2 AS batch_size FROM runs;
            """
        )
    flags = json.loads(run(capsys, "audit", database, "--json")[1])
    assert {"throttled", "clock-jump", "never-batched"} <= {flag["rule"] for flag in flags}
    (jump,) = [flag for flag in flags if flag["rule"] == "clock-jump"]
    assert "50 ms" in jump["numbers"] and "node9" in jump["numbers"]
