"""Every question of the cookbook is answered on the example, and the answers are the known ones."""

from __future__ import annotations

import shutil

import duckdb
import pytest
from click.testing import CliRunner
from cookbook_run import PAGE, PLANNED, ROWS, cookbook_database, page
from example_run import LATE
from truth.simulate import Simulation

from harness.cli import query_verb
from harness_analysis.build.database import build_database
from harness_analysis.cookbook import AREAS, find_question, load_questions, parse_question
from harness_analysis.query import open_runs, query_runs
from harness_schemas.errors import UsageError

QUESTIONS = load_questions()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return cookbook_database(tmp_path_factory.mktemp("cookbook"))


def answer(database, name):
    """Rows of a question's answer as dictionaries."""
    [result] = query_runs([database], find_question(name).sql).results
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_there_are_enough_questions_with_names_of_their_own():
    assert len(QUESTIONS) >= 25
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS)
    assert {question.area for question in QUESTIONS} == set(AREAS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_question_is_answered(database, question):
    [result] = query_runs([database], question.sql).results
    assert result.rows


def test_the_page_is_current(database):
    assert PAGE.read_text() == page(database), "make it anew: python tests/cookbook_run.py"


def test_questions_run_over_several_runs_and_over_nothing(database, tmp_path):
    copy = shutil.copy(database, tmp_path / "copy.duckdb")
    empty = tmp_path / "empty.duckdb"
    build_database(empty, "empty", {"name": "empty"}, [])
    with open_runs([database, copy]) as both, open_runs([empty]) as nothing:
        for question in QUESTIONS:
            assert both.execute(question.sql).fetchone(), question.name
            nothing.execute(question.sql)


def test_the_late_rank_is_named(database):
    first = answer(database, "who-makes-others-wait")[0]
    collectives = LATE.steps * LATE.layers_per_stage
    assert (first["rank"], first["times_last"], first["collectives"]) == (
        3,
        collectives,
        collectives,
    )
    assert first["main_cause"] == "it computes longer"
    assert answer(database, "same-gpu")[0]["device"] == "node0:rank 3"
    over_time = answer(database, "lateness-over-time")
    assert [(row["mostly_last"], row["share"]) for row in over_time] == [(3, 1.0)] * 4
    assert answer(database, "who-waits-for-whom")[2]["waited_for"] == 3


def test_the_saving_is_the_delay_that_was_put_in(database):
    first = answer(database, "without-the-late-rank")[0]
    put_in = LATE.late_ns * LATE.layers_per_stage / 1e6
    assert first["saving_ms"] == pytest.approx(put_in, rel=0.02)


def test_step_17_is_what_was_simulated(database):
    truth = Simulation(LATE).run().truth
    for row in answer(database, "one-step-per-rank"):
        parts = truth[row["rank"], "decode", 17]
        assert row["transfer"] == round(parts["comm_transfer_ns"] / 1e6, 3)
        # CPU time inside calls (1 us each) counts as computing; waits are to the clocks' error.
        assert row["compute"] == pytest.approx(parts["compute_ns"] / 1e6, abs=0.01)
        assert row["wait"] == pytest.approx(parts["comm_wait_ns"] / 1e6, abs=0.01)


def test_bytes_and_tokens_are_those_of_the_simulation(database):
    (row,) = answer(database, "bytes-per-token")
    per_step = LATE.pp * LATE.layers_per_stage * 4096
    assert row["tokens"] == ROWS * LATE.steps
    assert row["bytes_per_token"] == per_step / ROWS
    (lost,) = answer(database, "tokens-lost-to-bubbles")
    share = lost["wait_share"]
    assert lost["tokens_lost"] == pytest.approx(row["tokens"] * share / (1 - share), rel=0.01)
    calls = {(r["rank"], r["op"]): r["per_step"] for r in answer(database, "calls-per-step")}
    assert calls[0, "all_reduce"] == LATE.layers_per_stage


def test_utilisation_is_bytes_over_time_and_peak(database):
    rows = {(r["phase"], r["rank"]): r for r in answer(database, "utilisation")}
    step_s = answer(database, "throughput")[0]["step_ms"] / 1e3
    read = 6_299_648 + 2048 * (86 + ROWS * 20.5)
    assert rows["decode", 0]["mbu"] == pytest.approx(read / step_s / 20e9, rel=0.01)
    assert rows["decode", 0]["mbu_busy"] > 4 * rows["decode", 0]["mbu"]
    assert all(0 < row["mfu"] < 1 for row in rows.values())


def test_memory_is_held_against_its_plan(database):
    for row in answer(database, "memory-against-plan"):
        measured = (400 + 60 * 4 + 10 * row["rank"]) * 2**20  # tests/example_run.py: host_samples
        assert row["weights_bytes"] == row["planned_weights_bytes"] == PLANNED["weights"]
        assert row["ratio"] == round(measured / sum(PLANNED.values()), 2)
        assert row["measured_by"] == "rss"


def test_nothing_is_utilised_where_the_peak_is_unknown(database, tmp_path):
    copy = shutil.copy(database, tmp_path / "copy.duckdb")
    with duckdb.connect(str(copy)) as con:
        con.execute("UPDATE ranks SET peak_bytes_per_s = NULL, step_weight_bytes = NULL")
        found = con.execute("SELECT count(*), count(mbu), count(mbu_busy) FROM utilisation")
        assert found.fetchone() == (4 * (LATE.steps + 1), 0, 0)


def test_a_broken_question_is_refused():
    with pytest.raises(ValueError, match="lacks its question"):
        parse_question("x", "run", "-- No question\nSELECT 1")
    with pytest.raises(UsageError, match="no example"):
        find_question("nothing")


def test_the_verb_asks_and_lists(database):
    run = CliRunner().invoke
    listed = run(query_verb.command, ["--list-examples", "--csv"]).output
    assert len(listed.splitlines()) == len(QUESTIONS) + 1
    asked = run(query_verb.command, [str(database), "--example", "percentiles", "--csv"])
    assert asked.output.splitlines()[0].startswith("metric,count,mean_ms")
    assert run(query_verb.command, []).exit_code == 2
