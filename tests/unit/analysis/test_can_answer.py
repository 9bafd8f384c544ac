"""A NULL that nobody looked for is said to be one, with the reason."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from truth.simulate_devices import DeviceRun, Devices, make_batch

from harness.cli.main import cli
from harness_analysis.build.database import build_database
from harness_analysis.can_answer import NEEDS
from harness_analysis.documentation import describe

SKIPPED = [
    {"collector": "nvml", "state": "skipped", "host": "node2", "reason": "not found"},
    {"collector": "nccl_log", "state": "failed", "reason": "it is empty"},
]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("can") / "d.duckdb"
    batches = [
        *DeviceRun(Devices(pp=1, steps=3)).run().batches(),
        make_batch("collection", SKIPPED),
    ]
    build_database(path, "r", {"tp": 2}, batches)
    return path


def ask(database, sql):
    found = CliRunner().invoke(cli, ["query", str(database), sql, "--csv"])
    assert found.exit_code == 0
    return found.stdout, found.stderr


def test_every_need_names_relations_and_columns_that_exist():
    known = {relation.name: {c.name for c in relation.columns} for relation in describe()}
    for need in NEEDS:
        assert set(need.columns) <= known[need.relation]


SAMPLED = "nvml skipped on node2 (not found); psutil not recorded"
CHOSEN = "nccl_log failed (it is empty); nccl_inspector not recorded"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("FROM samples", f"cannot answer: samples: {SAMPLED}"),
        ("SELECT op, algo FROM collectives", f"cannot answer: collectives (algo): {CHOSEN}"),
        (
            "SELECT max(tok_per_s) FROM run_summary",
            "cannot answer: run_summary (tok_per_s): app_timers not recorded",
        ),
        ("SELECT op, wait_ns FROM collectives", ""),
        ("SELECT count(*) AS samples, max(op) AS latency FROM collectives", ""),
        ("WITH c AS (SELECT *, 1 AS one FROM collectives) SELECT count(*) FROM c", ""),
        ("SELECT 'samples' AS word, count(*) FROM collectives", ""),
    ],
)
def test_a_query_says_on_stderr_what_its_nulls_mean(database, sql, said):
    rows, narration = ask(database, sql)
    assert rows and narration.strip() == said


def test_what_can_be_answered_is_a_table(database):
    where = "relation = 'step_breakdown' AND of_columns IS NULL"
    rows, _ = ask(database, f"SELECT answerable FROM can_answer WHERE {where}")
    assert rows.split() == ["answerable", "true"]


def test_a_strangers_trace_without_steps_is_no_missing_profiler(tmp_path):
    rows = [{"collector": "kineto", "state": "ok"}]
    build_database(tmp_path / "d.duckdb", "r", {"name": "x"}, [make_batch("collection", rows)])
    _, said = ask(tmp_path / "d.duckdb", "SELECT * FROM step_breakdown")
    assert said.strip() == (
        "cannot answer: step_breakdown: kineto recorded, and has no step marks; "
        "app_timers and nsys not recorded"
    )


@pytest.mark.parametrize("sql", ["FROM stragglers", "SELECT wait_ns FROM collectives"])
def test_what_was_recorded_and_cannot_be_split_says_why(tmp_path, sql):
    kept = [
        make_batch(batch.table, [row for row in batch.data.to_pylist() if row.get("rank") == 0])
        for batch in DeviceRun(Devices(pp=1, steps=3)).run().batches()
    ]
    kept.append(make_batch("collection", [{"collector": "kineto", "state": "ok"}]))
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, kept)
    _, said = ask(tmp_path / "d.duckdb", sql)
    assert ": kineto recorded, but not this (seen on 1 of 2 ranks); " in said


def test_every_view_without_its_source_says_so(tmp_path):
    """Of a run of which nothing is recorded: rows, or the reason why there are none."""
    build_database(tmp_path / "d.duckdb", "r", {"name": "x"}, [make_batch("collection", SKIPPED)])
    views = [relation.name for relation in describe() if relation.kind == "view"]
    assert len(views) > 15
    for view in views:
        rows, said = ask(tmp_path / "d.duckdb", f"FROM {view}")
        # What is evidence of other calls, and what no collector gives, may be empty.
        if len(rows.splitlines()) <= 1 and view != "collectives_all":
            assert said.startswith((f"cannot answer: {view}: ", f"cannot answer: {view} (")), view
