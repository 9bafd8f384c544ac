"""Intervals hold what they promise: they miss one time in twenty, in the right direction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.compare.stats import (
    Interval,
    between_runs,
    block_counts,
    block_length,
    chance,
    discoveries,
    drawn_means,
    drawn_quantiles,
    expanded_tails,
    from_draws,
    student_quantile,
)
from harness_analysis.scaling.intervals import ratio

TRIALS = 400


def alike(random, size, likeness):
    """Steps of a run: the next resembles the last."""
    noise = random.normal(0, 1, size + 50)
    values = np.zeros(size + 50)
    for k in range(1, size + 50):
        values[k] = likeness * values[k - 1] + noise[k]
    return 100 + np.exp(0.3 * values[50:])


def within(a, b, seed, block=None):
    random = np.random.default_rng(seed)
    block = block or max(block_length(b - a), block_length(a), block_length(b))
    counts = block_counts(len(a), block, 500, random)
    place = np.arange(len(a))
    drawn = [drawn_means(side, None, place, counts) for side in (a, b)]
    return from_draws(a.mean(), b.mean(), *drawn, len(a) / block)


def excludes_zero(interval):
    return interval.low > 0 or interval.high < 0


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706), (2, 4.3027), (4, 2.7764), (10, 2.2281), (1000, 1.9623)]
)
def test_student_quantiles_are_those_of_the_tables(freedom, value):
    assert student_quantile(0.975, freedom) == pytest.approx(value, rel=2e-4)


@pytest.mark.parametrize("runs", [3, 5, 8])
@pytest.mark.parametrize("paired", [False, True])
def test_runs_without_an_effect_differ_one_time_in_twenty(runs, paired):
    random = np.random.default_rng(7 * runs + paired)
    wrong = 0
    for trial in range(TRIALS):
        beside = random.normal(0, 5, runs) if paired else 0
        a, b = (100 + beside + random.normal(0, 1, runs) for _ in range(2))
        wrong += excludes_zero(between_runs(a, b, paired, trial))
    # 20 expected of 400; more than 34 or fewer than 5 would happen once in 1,000.
    assert 5 <= wrong <= 34


@pytest.mark.parametrize(("likeness", "most"), [(0.0, 22), (0.8, 36)])
def test_steps_without_an_effect_differ_seldom_even_where_neighbours_are_alike(likeness, most):
    random = np.random.default_rng(11)
    pairs = [[alike(random, 200, likeness) for _ in range(2)] for _ in range(200)]
    wrong = sum(excludes_zero(within(a, b, k)) for k, (a, b) in enumerate(pairs))
    assert wrong <= most


def test_single_steps_would_find_effects_where_neighbours_are_alike():
    """The test above can fail: without blocks the same runs differ far too often."""
    random = np.random.default_rng(11)
    pairs = [[alike(random, 200, 0.8) for _ in range(2)] for _ in range(100)]
    assert sum(excludes_zero(within(a, b, k, block=1)) for k, (a, b) in enumerate(pairs)) > 30


@pytest.mark.parametrize("runs", [3, 5, 12])
def test_an_effect_of_three_spreads_is_found_and_lies_in_its_interval(runs):
    random = np.random.default_rng(runs)
    found = covered = 0
    for trial in range(200):
        a = 100 + random.normal(0, 1, runs)
        b = 110 + random.normal(0, 1, runs)
        interval = between_runs(a, b, False, trial)
        found += interval.low > 0
        covered += interval.low <= 10 <= interval.high
    assert found >= 190
    assert covered >= 178  # 190 expected


@pytest.mark.parametrize("paired", [False, True])
def test_noisy_runs_that_take_five_times_as_long_are_told_and_cover_the_truth(paired):
    """On a shared machine runs differ by half of themselves: only the logarithm copes."""
    random = np.random.default_rng(3)
    found = covered = wrong = 0
    for _ in range(200):
        a, b, same = (10 * np.exp(random.normal(0, 0.4, 3)) for _ in range(3))
        interval = between_runs(a, 5 * b, paired)
        found += interval.low > 0
        covered += interval.share_low <= 4 <= interval.share_high
        assert interval.share_low > -1
        wrong += excludes_zero(between_runs(a, same, paired))
    assert found >= 130 and covered >= 178 and wrong <= 20


@given(
    st.lists(st.integers(10, 1000), min_size=2, max_size=5),
    st.lists(st.integers(10, 1000), min_size=2, max_size=5),
)
def test_a_comparison_and_a_scaling_table_give_the_same_interval(a, b):
    compared = between_runs(np.array(a, float), np.array(b, float), False)
    table = ratio(b, a)
    assert compared.share + 1 == pytest.approx(table.value)
    if table.high / table.low < 1e9:  # beyond that the table rounds degrees of freedom
        assert compared.share_low + 1 >= table.low * (1 - 1e-3)
        assert compared.share_high + 1 <= table.high * (1 + 1e-3)


def test_what_one_side_lacks_altogether_moved():
    nothing, some = np.zeros(3), np.array([2.0, 3.0, 4.0])
    came, went = between_runs(nothing, some, False), between_runs(some, nothing, False)
    assert came.low > 0 and came.share is None
    assert went.high < 0 and went.share_high == -1
    assert not excludes_zero(between_runs(nothing, np.array([0.0, 3.0, 4.0]), False))


def test_pairing_removes_what_both_sides_share():
    drift = np.array([0.0, 30.0, 60.0, 90.0])
    a = 100 + drift
    b = a + np.array([2.0, 2.1, 1.9, 2.0])
    assert excludes_zero(between_runs(a, b, paired=True))
    assert not excludes_zero(between_runs(a, b, paired=False))


def test_a_single_run_borrows_the_spread_of_the_other_side():
    a = np.array([100.0, 101.0, 99.0, 100.5])
    near, far = (between_runs(a, np.array([x]), False) for x in (101.0, 120.0))
    assert not excludes_zero(near)
    assert excludes_zero(far)


def test_one_run_each_says_nothing_about_spread():
    with pytest.raises(ValueError, match="one run each"):
        between_runs(np.array([1.0]), np.array([2.0]), False)


def test_a_quantile_of_draws_that_draw_everything_once_is_the_quantile():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    counts = np.ones((2, 5), dtype=np.int32)
    found = drawn_quantiles(values, np.arange(5), counts, [0.2, 0.5, 0.99])
    assert found.tolist() == [[1.0, 3.0, 5.0]] * 2


@given(st.integers(20, 80), st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_draws_draw_as_many_clusters_as_there_are(clusters, block, draws, seed):
    counts = block_counts(clusters, block, draws, np.random.default_rng(seed))
    assert counts.shape == (draws, clusters)
    assert (counts.sum(axis=1) == clusters).all()


@given(st.lists(st.floats(0.5, 1e9), min_size=20, max_size=60), st.floats(0.5, 2.0))
def test_interval_holds_its_effect(values, factor):
    a = np.array(values)
    interval = within(a, a * factor, 0)
    assert interval.low <= interval.effect <= interval.high


def test_fewer_units_make_a_wider_interval():
    tails = [expanded_tails(units)[0] for units in (4.0, 8.0, 20.0, 1000.0)]
    assert tails == sorted(tails)
    assert tails[-1] == pytest.approx(0.025, abs=5e-4)


def test_of_many_chances_only_the_surprising_are_kept():
    random = np.random.default_rng(3)
    kept = [discoveries(random.uniform(0, 1, 500).tolist()) for _ in range(50)]
    assert sum(any(row) for row in kept) <= 8  # 2.5 expected
    real = [1e-9] * 10 + random.uniform(0, 1, 500).tolist()
    assert all(discoveries(real)[:10])
    assert discoveries([]) == []


def test_chance_of_an_effect_at_the_end_of_its_interval_is_one_in_twenty():
    assert chance(Interval(1.0, 0.0, 2.0, None, None, None, 4.0)) == pytest.approx(0.05, rel=1e-2)
    double = between_runs(np.array([1.0, 1.2, 0.8]), np.array([2.0, 3.0, 1.5]), False)
    assert (chance(double) < 0.05) == excludes_zero(double) and double.logarithmic
    assert chance(Interval(0.0, 0.0, 0.0, None, None, None, 4.0)) == 1.0
    assert chance(Interval(1.0, 1.0, 1.0, None, None, None, 4.0)) == 0.0
