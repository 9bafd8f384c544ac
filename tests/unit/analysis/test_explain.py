"""`harness explain` names the unit, the rank and the part that were put in."""

from __future__ import annotations

import json

import duckdb
import example_run
import pytest
from click.testing import CliRunner
from truth.simulate import Scenario, Simulation

from harness.cli import explain_verb
from harness_analysis.build.database import build_database
from harness_analysis.explain import explain
from harness_analysis.store import open_database
from harness_schemas.errors import EvidenceError

SLOW_STEP, SLOW_RANK, SLOW_NS = 9, 2, 2_000_000


class OneSlowStep(Simulation):
    """Rank 2 computes 2 ms longer once, in decode step 9."""

    done = False

    def compute(self, writer, duration, preempted=0):
        if self._key[writer.rank] == (SLOW_RANK, "decode", SLOW_STEP) and not self.done:
            self.done, duration = True, duration + SLOW_NS
        super().compute(writer, duration, preempted)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    original, example_run.Simulation = example_run.Simulation, OneSlowStep
    try:
        scenario = Scenario(steps=16, late_rank=1, late_ns=300_000)
        return example_run.example_database(tmp_path_factory.mktemp("run"), scenario, bare=True)
    finally:
        example_run.Simulation = original


@pytest.fixture(scope="module")
def found(database):
    with open_database(database) as con:
        return explain(con, 3)


def test_the_slow_unit_comes_first_with_its_rank_and_part(found):
    first, second = found.units[:2]
    assert (first["unit"], first["rank"], first["part"]) == ("decode step 9 batch 0", 2, "compute")
    assert first["part_excess_ns"] == pytest.approx(SLOW_NS, rel=0.02)
    assert first["excess_ns"] == pytest.approx(SLOW_NS, rel=0.02)
    assert "rank 2 computed 2 ms longer; rank " in first["why"]
    assert second["excess_ns"] < SLOW_NS / 20
    assert "prefill: too few units for a median (1, at least 5)" in found.unit_notes


def test_the_rank_that_is_always_late_is_named_with_what_it_costs(found):
    late = found.late[0]
    assert (late["rank"], late["phase"], late["named"]) == (1, "decode", True)
    assert late["main_cause"] == "it computes longer"
    saved = late["step_ms"] - late["predicted_step_ms"]
    assert saved == pytest.approx(3 * 0.3, rel=0.05)
    assert not any("culprit" in note for note in found.late_notes)


def test_what_has_no_evidence_is_not_answered(tmp_path):
    path = tmp_path / "empty.duckdb"
    build_database(path, "empty", {"name": "empty"}, [])
    with open_database(path) as con:
        found = explain(con, 10)
        assert (found.units, found.late) == ([], [])
        assert found.unit_notes == [
            "cannot answer: the evidence shows no time of any rank (no spans, kernels or steps)"
        ]
        assert found.late_notes == [
            "cannot answer: the evidence shows no collective of several ranks"
        ]


def test_a_part_without_evidence_is_no_explanation(tmp_path):
    path = tmp_path / "run.duckdb"
    build_database(path, "run", {"name": "run"}, [])
    with duckdb.connect(str(path)) as con:
        # Eight perturbed units of two ranks; in the seventh rank 1 is idle for 5 us longer.
        con.execute(
            """
            INSERT INTO unit_breakdown BY NAME
            SELECT 'run' AS run_id, rank, 'decode' AS phase, step, 'nsys' AS perturbed_by,
              'device' AS timeline, 'nsys' AS evidence, 10000 * step AS start_ns, true AS complete,
              10000 + late AS window_ns, CASE rank WHEN 1 THEN 4000 + late END AS idle_ns,
            FROM (SELECT *, CASE step WHEN 7 THEN 5000 ELSE 0 END AS late
              FROM range(2) r(rank), range(1, 9) s(step))
            """
        )
        (worst,) = explain(con, 10).units
        assert (worst["step"], worst["rank"], worst["part"]) == (7, 1, "idle")
        assert worst["why"] == (
            "rank 1 left its device idle for 5 us longer (launches came late) "
            "(units slowed by observing them)"
        )
        con.execute("UPDATE unit_breakdown SET idle_ns = NULL")
        (worst,) = explain(con, 10).units
        assert worst["why"] == "cannot answer: no part of its time is known"


def test_a_database_of_an_older_version_is_told_so(tmp_path):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE runs (run_id VARCHAR)")
    with open_database(path) as con, pytest.raises(EvidenceError, match="older version"):
        explain(con, 10)


def test_the_verb_prints_sentences_and_json(database):
    shown = CliRunner().invoke(explain_verb.command, [str(database), "--worst", "2"])
    assert shown.exit_code == 0
    assert "decode step 9 batch 0" in shown.output and "Who makes the others late" in shown.output
    shown = CliRunner().invoke(explain_verb.command, [str(database), "--worst", "2", "--json"])
    answer = json.loads(shown.output)
    assert answer["units"]["rows"][0]["step"] == SLOW_STEP
    assert answer["late"]["rows"][0]["named"] is True
