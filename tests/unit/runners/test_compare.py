from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_runners.check.compare import compare_prompt, summarise


def logits(rows=4, vocabulary=50, seed=0):
    return np.random.default_rng(seed).normal(0, 3, (rows, vocabulary)).astype(np.float32)


def compared(run, reference, tokens=None, dtype="float32"):
    chosen = run.argmax(axis=1) if tokens is None else tokens
    return compare_prompt("p", chosen, run, reference, dtype)


def verdict(*results, dtype="float32"):
    return summarise(results, dtype)


def test_equal_logits_pass():
    result = compared(logits(), logits())
    assert (result.compared, result.equal, result.ties) == (4, 4, 0)
    assert (result.max_logit_error, result.kl_max) == (0, 0)
    total = verdict(result)
    assert (total["verdict"], total["share"], total["why"]) == ("pass", 1, "all 4 tokens equal")


def near_tie(gap, error):
    """Row 0's two best tokens are `gap` apart in the reference; the run prefers the second."""
    reference = logits(rows=200)
    order = reference[0].argsort()
    best, second = order[-1], order[-2]
    reference[0, second] = reference[0, best] - gap
    run = reference.copy()
    run[0, best] -= error
    run[0, second] += error
    return run, reference, best, second


def test_a_gap_below_twice_a_small_error_is_a_tie():
    run, reference, best, second = near_tie(gap=1e-5, error=2e-5)
    result = compared(run, reference)
    assert (result.equal, result.ties) == (199, 1)
    assert result.first_difference.tie
    assert (result.first_difference.run_token, result.first_difference.reference_token) == (
        second,
        best,
    )
    assert verdict(result)["verdict"] == "pass"


def test_an_error_that_rounding_cannot_explain_is_no_tie():
    run, reference, *_ = near_tie(gap=0.5, error=0.4)
    result = compared(run, reference)
    assert result.ties == 0
    total = verdict(result)
    assert total["verdict"] == "fail"
    assert "1 of 200 tokens differ" in total["why"]
    assert total["first_difference"]["position"] == 0


def test_more_than_one_tie_in_a_hundred_fails_in_float32():
    run, reference, *_ = near_tie(gap=1e-5, error=2e-5)
    few = compared(run[:50], reference[:50])
    assert (few.ties, verdict(few)["verdict"]) == (1, "fail")
    assert "ties, more than 1%" in verdict(few)["why"]


def test_a_wrong_logit_fails_even_where_every_token_is_right():
    reference = logits()
    run = reference.copy()
    run[2, reference[2].argmin()] -= 0.1
    result = compared(run, reference)
    assert result.equal == 4
    assert verdict(result)["verdict"] == "fail"
    assert compared(run, reference, dtype="bfloat16").max_error_over_tolerance < 1


def test_tokens_that_the_run_itself_does_not_prefer_fail():
    reference = logits()
    tokens = reference.argmax(axis=1)
    tokens[3] = reference[3].argsort()[-2]
    total = verdict(compared(reference, reference, tokens))
    assert total["verdict"] == "fail"
    assert "its own logits do not prefer" in total["why"]


def test_not_a_number_fails():
    reference = logits()
    run = reference.copy()
    run[1] = np.nan
    assert verdict(compared(run, reference, reference.argmax(axis=1)))["verdict"] == "fail"


def test_a_difference_that_is_no_tie_is_reported_before_a_tie():
    tie = compared(*near_tie(gap=1e-5, error=2e-5)[:2])
    wrong = compared(*near_tie(gap=0.5, error=0.4)[:2])
    assert verdict(tie, wrong)["first_difference"]["tie"] is False


def test_nothing_to_compare_is_no_success():
    assert verdict()["verdict"] == "fail"


def test_divergence_is_that_of_the_definition():
    run, reference = logits(seed=1), logits(seed=2)
    p, q = (np.exp(x - x.max(1, keepdims=True)) for x in (reference, run))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    expected = (p * np.log(p / q)).sum(axis=1)
    assert compared(run, reference).kl_mean == pytest.approx(expected.mean(), rel=1e-4)


@given(st.integers(0, 10_000), st.floats(1e-6, 1.0))
def test_noise_is_a_tie_exactly_while_it_is_within_the_tolerance(seed, scale):
    reference = logits(rows=30, seed=seed)
    noise = np.random.default_rng(seed + 1).normal(0, scale, reference.shape)
    result = compared((reference + noise).astype(np.float32), reference)
    assert result.equal + result.ties <= result.compared
    if result.max_error_over_tolerance < 1:
        assert result.equal + result.ties == result.compared
