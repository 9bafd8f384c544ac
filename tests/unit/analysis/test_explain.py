"""`harness explain` names the unit, the rank and the part that were put in."""

from __future__ import annotations

import json

import duckdb
import example_run
import pytest
from click.testing import CliRunner
from truth.simulate import Scenario, Simulation

from harness.cli import explain_verb
from harness.ingest import ingest_paths
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


def host_trace(folder, steps):
    """Twelve steps of two operators on one host thread; step 8's first takes 300 us more."""
    events = []
    for number in range(12):
        more = 300 if number == 7 else 0
        begin = number * 1000 + (300 if number > 7 else 0)
        parts = [("cpu_op", "aten::mm", 10, 400 + more), ("cpu_op", "aten::add", 420 + more, 50)]
        if steps:
            parts.insert(0, ("user_annotation", f"decode_step_{number + 1}", 0, 900 + more))
        events += [
            {"ph": "X", "cat": cat, "name": name, "pid": 7, "tid": 7, "ts": begin + at, "dur": took}
            for cat, name, at, took in parts
        ]
    path = folder / "rank0.json"
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}))
    return ingest_paths([path], folder / "host.duckdb")


def test_without_a_device_the_operators_tell_what_they_can(tmp_path):
    with open_database(host_trace(tmp_path, steps=True)) as con:
        told = explain(con, 3)
    assert [(row["name"], row["calls"], row["total_ns"]) for row in told.host] == [
        ("aten::mm", 12, 5_100_000),
        ("aten::add", 12, 600_000),
    ]
    (slow,) = told.units
    assert slow["unit"] == "decode step 8"
    assert slow["why"].endswith("; aten::mm took 300 us longer")


def test_without_steps_and_device_it_says_so_and_not_that_nothing_is_there(tmp_path):
    path = host_trace(tmp_path, steps=False)
    printed = CliRunner().invoke(explain_verb.command, [str(path)]).output
    assert "has no steps" in printed and "nothing that ran on a device" in " ".join(printed.split())
    assert "What took the host's time" in printed and "aten::mm" in printed
