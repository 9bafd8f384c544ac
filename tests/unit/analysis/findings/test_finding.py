"""When somebody is named, and when nobody is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness_analysis.findings.finding import sign_test, steady


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (5, 10), (9, 10), (40, 60), (60, 60)])
def test_the_sign_test_is_the_binomial_tail(successes, trials):
    exact = sum(math.comb(trials, k) for k in range(successes, trials + 1)) / 2**trials
    assert sign_test(successes, trials) == pytest.approx(exact, rel=1e-9)


def test_late_in_most_units_at_a_cost_is_named():
    assert steady(np.array([200.0] * 30 + [-50.0] * 4), share=0.1)


@pytest.mark.parametrize(
    ("net", "share"),
    [
        ([200.0] * 30, 0.001),  # late always, but it costs nothing
        ([200.0] * 8, 0.3),  # too few units
        ([200.0] * 17 + [-200.0] * 13, 0.3),  # a coin toss
        ([-10.0] * 30, 0.3),  # the others are later
        ([0.0] * 30, 0.3),
    ],
)
def test_otherwise_nobody_is(net, share):
    assert not steady(np.array(net), share)


def test_noise_names_nobody():
    random = np.random.default_rng(1)
    named = sum(steady(random.normal(0, 500, 40), 0.2) for _ in range(400))
    assert named <= 2
