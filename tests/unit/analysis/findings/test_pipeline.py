"""When a pipeline's stage is named as slow, and when its waiting is more than its structure."""

from __future__ import annotations

import duckdb
import pytest

from harness_analysis.findings.pipeline import pipeline_findings

MS = 1_000_000
STEPS = 30


def database(busy_ms, *, layers=(40, 40), weights=(8, 8), tp=1, perturbed_by=None, unsplit=0.0,
             microbatches=1, extra="compute", shares=(0.5, 0.5)):  # fmt: skip
    """Steps in which each stage works and then waits for the others; 5 ms of it are the work's.

    `busy_ms(step)`: of each stage. `extra`: the part that what exceeds 5 ms belongs to.
    """
    con = duckdb.connect()
    con.execute("CREATE TABLE runs (run_id TEXT, pp INT, microbatches INT)")
    con.execute("INSERT INTO runs VALUES ('r', 2, ?)", [microbatches])
    con.execute(
        "CREATE TABLE ranks (run_id TEXT, rank INT, stage INT, first_layer INT, last_layer INT,"
        " step_weight_bytes BIGINT)"
    )
    con.execute(
        "CREATE TABLE step_breakdown (run_id TEXT, rank INT, repeat INT, batch INT, microbatch INT,"
        " step INT, phase TEXT, complete BOOLEAN, warmup BOOLEAN, perturbed_by TEXT,"
        " window_ns BIGINT, compute_ns BIGINT, memcpy_ns BIGINT, idle_ns BIGINT,"
        " unresolved_ns BIGINT, comm_wait_ns BIGINT, comm_unsplit_ns BIGINT)"
    )
    for stage in range(2):
        for rank in range(stage * tp, (stage + 1) * tp):
            con.execute(
                "INSERT INTO ranks VALUES ('r', ?, ?, 0, ?, ?)",
                [rank, stage, layers[stage] - 1 if layers else None, weights[stage]],
            )
            for step in range(STEPS):
                own, window = busy_ms(step)[stage] * MS, sum(busy_ms(step)) * MS
                wait = window - own
                more = own - min(own, 5 * MS)
                parts = {"compute": own - more, "memcpy": 0, "idle": 0, "unresolved": 0}
                parts[extra] += more
                con.execute(
                    "INSERT INTO step_breakdown VALUES ('r', ?, 0, 0, 0, ?, 'decode', true, false,"
                    " ?, ?, ?, ?, ?, ?, ?, ?)",
                    [rank, step, perturbed_by, window, *parts.values(), wait, unsplit * window],
                )
    con.execute(
        "CREATE TABLE pipeline_bubbles AS SELECT 'r' AS run_id, stage, 'decode' AS phase,"
        f" wait_share::DOUBLE AS wait_share, 0.5::DOUBLE AS floor_share, {MS} AS p2p_wait_ns"
        f" FROM (VALUES (0, {shares[0]}), (1, {shares[1]})) AS v(stage, wait_share)"
    )
    return con


def stages_named(con):
    return [found for found in pipeline_findings(con) if found.kind == "stage"]


def test_stages_that_take_their_share_are_not_named():
    assert stages_named(database(lambda step: (5, 5))) == []


def test_the_slow_stage_is_named_with_its_rank_its_cause_and_a_step_without_it():
    [found] = stages_named(database(lambda step: (5, 8)))
    assert (found.severity, found.rank, found.phase) == ("problem", 1, "decode")
    assert found.share == pytest.approx(3 / 13) and found.value_ns == STEPS * 3 * MS
    for said in ("stage 1 (rank 1) is busy 8 ms", "3 ms longer", "pace of stage 0",
                 "it computes longer", "would take about 10 ms instead of 13 ms"):  # fmt: skip
        assert said in found.text
    assert "slowed by observing" not in found.text


@pytest.mark.parametrize(
    ("part", "cause"),
    [("memcpy", "it copies memory"), ("idle", "its device waits for launches"),
     ("unresolved", "neither on a CPU nor communicating")],
)  # fmt: skip
def test_the_part_that_is_longer_is_the_cause(part, cause):
    [found] = stages_named(database(lambda step: (5, 8), extra=part))
    assert cause in found.text


def test_a_stage_of_several_ranks_names_none_of_them():
    [found] = stages_named(database(lambda step: (8, 5), tp=2))
    assert found.rank is None and "stage 0 is busy" in found.text


@pytest.mark.parametrize(
    "held", [{"layers": (20, 60)}, {"weights": (5, 15)}], ids=["more layers", "more weights"]
)
def test_what_a_stage_holds_explains_what_it_takes(held):
    assert stages_named(database(lambda step: (5, 15), **held)) == []


@pytest.mark.parametrize(
    ("busy", "more"),
    [
        (lambda step: (5, 6), {}),  # a fifth longer: weights and layers tell no more
        (lambda step: (5, 8) if step % 2 else (8, 5), {}),  # now the one, now the other
        (lambda step: (5, 8), {"layers": None}),  # what the stages hold is not known
        (lambda step: (5, 8), {"unsplit": 0.05}),  # nor how long they waited
    ],
)
def test_otherwise_nobody_is_named(busy, more):
    assert stages_named(database(busy, **more)) == []


def test_with_several_batches_in_flight_no_step_is_predicted():
    [found] = stages_named(database(lambda step: (5, 8), microbatches=2))
    assert "would take" not in found.text


def test_units_that_were_slowed_are_believed_where_there_are_no_others():
    [found] = stages_named(database(lambda step: (5, 8), perturbed_by="torch_profiler"))
    assert "slowed by observing" in found.text


@pytest.mark.parametrize(("share", "severity"), [(0.52, "info"), (0.59, "info"), (0.61, "notice")])
def test_waiting_is_held_against_its_floor(share, severity):
    con = database(lambda step: (5, 5), shares=(0.3, share))
    [found] = [found for found in pipeline_findings(con) if found.kind == "pipeline"]
    assert (found.severity, found.share, found.floor_share) == (severity, share, 0.5)
    assert found.text == (
        f"stage 1 waits {100 * share:.0f} % of decode for stage 0; 50 % is the floor of 2 stages "
        "with one batch in flight"
    )


def test_one_stage_has_no_pipeline():
    con = database(lambda step: (5, 8))
    con.execute("UPDATE runs SET pp = 1")
    assert stages_named(con) == []
