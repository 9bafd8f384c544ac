"""What observing cost: known effects come back, and noise is called noise."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import numpy as np
import pytest
from example_run import batch, example_database
from truth.simulate import Scenario

from harness_analysis.answer import Overhead, load_answer
from harness_analysis.overhead.lines import NOT_MEASURED, SET_IT, overhead_line, overhead_lines
from harness_analysis.overhead.measure import effect, measure_overhead, pair_up
from harness_analysis.store import open_database
from harness_schemas.tables import BY_NAME, ddl

STEP_NS = 2_000_000
STEPS = 15
RANKS = 2


def evidence(pairs, effect_ns, noise_ns, seed=0, cut=0, once_ns=0):
    """Rows of unit_breakdown: two ranks, a prefill and 15 decode steps a batch, drift over all.

    Rank 1 starts 10 us after rank 0 and ends with it, so a step takes what rank 0's window says.
    """
    random = np.random.default_rng(seed)
    rows, now = [], 0
    for place in range(2 * pairs - cut):
        observed = (place % 2 == 1) == (place // 2 % 2 == 0)
        for step in range(STEPS + 1):
            # One step in eight hits something: the median must not care.
            hit = 5_000_000 if random.random() < 0.125 else 0
            drift = 20_000 * place
            length = STEP_NS + drift + hit + round(random.normal(0, noise_ns))
            length += effect_ns + (once_ns if step == 8 else 0) if observed else 0
            for rank in range(RANKS):
                rows.append(
                    {
                        "rank": rank,
                        "batch": 0,
                        "microbatch": 0,
                        "repeat": 5 + place,
                        "phase": "decode" if step else "prefill",
                        "step": step,
                        "perturbed_by": f"calibrate:{'on' if observed else 'off'}",
                        "evidence": "app_timers",
                        "start_ns": now + 10_000 * rank,
                        "window_ns": length - 10_000 * rank,
                    }
                )
            now += length
    return rows


def measured(rows):
    con = duckdb.connect()
    con.execute(ddl(BY_NAME["unit_breakdown"]))
    data = batch("unit_breakdown", rows).data if rows else None
    if data is not None:
        con.execute("INSERT INTO unit_breakdown BY NAME SELECT * FROM data")
    return {row["phase"]: row for row in measure_overhead(con)}


@pytest.mark.parametrize("effect_ns", [-60_000, 40_000, 200_000])
def test_a_known_effect_comes_back_within_its_interval(effect_ns):
    found = measured(evidence(20, effect_ns, noise_ns=20_000))
    assert list(found) == ["prefill", "decode", "all"]
    row = found["decode"]
    assert (row["collector"], row["pairs"], row["resolved"]) == ("recorder", 20, True)
    assert row["low_ns"] <= effect_ns <= row["high_ns"]
    assert abs(row["effect_ns"] - effect_ns) < 15_000
    # Off: the step itself, in the middle of the drift.
    assert abs(row["off_ns"] - STEP_NS - 20_000 * 19.5) < 30_000


def test_no_effect_is_not_resolved():
    resolved = 0
    for seed in range(20):
        row = measured(evidence(20, 0, noise_ns=50_000, seed=seed))["decode"]
        assert row["low_ns"] <= row["effect_ns"] <= row["high_ns"]
        resolved += row["resolved"]
    assert resolved <= 3  # one in twenty is expected


def test_the_whole_batch_holds_what_a_median_leaves_out():
    """An instrumented graph is replayed once in many steps: only the batch shows its price."""
    found = measured(evidence(8, 0, noise_ns=0, once_ns=30_000_000))
    assert abs(found["decode"]["effect_ns"]) < 25_000
    assert found["all"]["effect_ns"] > 20_000_000


def test_of_few_pairs_there_is_an_effect_but_no_interval():
    row = measured(evidence(3, 100_000, noise_ns=0))["decode"]
    assert row["pairs"] == 3 and row["effect_ns"] > 0
    assert (row["low_ns"], row["high_ns"], row["resolved"]) == (None, None, None)


def test_a_pair_that_was_cut_is_left_out():
    assert measured(evidence(7, 0, noise_ns=0, cut=1))["decode"]["pairs"] == 6
    rows = evidence(7, 0, noise_ns=0)
    last = rows[-1]["repeat"]
    assert (
        measured([r for r in rows if r["repeat"] < last or r["step"] < 9])["decode"]["pairs"] == 6
    )


def test_without_calibration_there_is_nothing_to_say():
    assert measured([]) == {}
    assert measured([{**row, "perturbed_by": None} for row in evidence(2, 0, 0)]) == {}
    assert measured([{**row, "perturbed_by": "calibrate:on"} for row in evidence(2, 0, 0)]) == {}


def test_pairs_are_found_by_position():
    off, on = pair_up([(1, False, 4, 10), (0, True, 4, 11), (3, True, 4, 13), (6, True, 4, 1)])
    assert (off.tolist(), on.tolist()) == ([10], [11])


def test_the_interval_is_the_same_every_time():
    off, on = np.arange(20.0), np.arange(20.0) ** 1.1
    assert effect(off, on) == effect(off, on)


# -- in words --------------------------------------------------------------------------------


COST = Overhead("recorder", "decode", 20, 2_000_000, 8_000, -4_000, 20_000, False)


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (
            COST,
            "overhead of recorder: +0.4 % of a decode step of 2 ms [-0.2, +1.0], 20 pairs, "
            "not resolved from noise",
        ),
        (
            Overhead("recorder", "all", 20, 2_000_000, 30_000, 20_000, 40_000, True),
            "overhead of recorder: +1.5 % of a batch of 2 ms [+1.0, +2.0], 20 pairs",
        ),
        (
            Overhead("recorder", "prefill", 3, 2_000_000, 30_000, None, None, None),
            "overhead of recorder: +1.5 % of a prefill of 2 ms, 3 pairs: too few for an interval",
        ),
        (
            Overhead("recorder", None, None, None, 3_000, 1_000, 5_000, True),
            "overhead of recorder: 3 us on a unit [1 us, 5 us], pairs unknown",
        ),
    ],
)
def test_the_sentence(cost, line):
    assert overhead_line(cost) == line


def test_a_run_that_measured_nothing_says_how_to(tmp_path):
    with open_database(example_database(tmp_path, Scenario(steps=2), bare=True)) as con:
        answer = load_answer(con)
    assert overhead_lines(answer) == [f"{NOT_MEASURED}: {SET_IT}"]
    theirs = replace(answer, run=replace(answer.run, runner=None))
    assert overhead_lines(theirs) == [NOT_MEASURED]  # no specification to set a key in
