"""Clocks come onto one axis, in integers, however far they are off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.clocks.mapping import Anchor, PingPong, align_domains

EPOCH = 1_800_000_000_000_000_000


def trips(own, other, times, offset, drift_ppb, delay=20_000):
    """Round trips between a clock at true time and one that is off and drifts."""

    def shown(t):
        return t + offset + t * drift_ppb // 1_000_000_000

    return [
        PingPong(own, other, t, shown(t + delay), shown(t + delay + 500), t + 2 * delay + 500)
        for t in times
    ]


START = [10_000_000 + k * 100_000 for k in range(20)]
END = [60_000_000_000 + k * 100_000 for k in range(20)]


@given(st.integers(-(10**12), 10**12), st.integers(-100_000, 100_000))
def test_offset_and_drift_are_found_within_the_residual(offset, drift_ppb):
    anchors = [Anchor("a", 5, EPOCH + 5, 50)]
    pings = trips("a", "b", START + END, offset, drift_ppb)
    mapping = align_domains(["a", "b"], "a", anchors, pings)["b"]
    assert mapping.method == "ping_pong" and mapping.residual_ns is not None
    for true in (0, 30_000_000_000, 60_000_000_000):
        shown = true + offset + true * drift_ppb // 1_000_000_000
        assert abs(mapping.apply(shown) - (EPOCH + true)) <= mapping.residual_ns


def test_a_device_is_reached_through_its_host_and_that_through_another():
    anchors = [Anchor("a", 0, EPOCH, 50)]
    pings = trips("a", "b", START, 7_000, 0) + trips("b", "b:gpu", START, -9_000, 0)
    found = align_domains(["a", "b", "b:gpu"], "a", anchors, pings)
    assert found["b:gpu"].method == "ping_pong"
    # Shown by the device at true time t: t - 9,000 on b's clock, which is 7,000 ahead of a's.
    assert abs(found["b:gpu"].apply(1_000_000 - 9_000) - (EPOCH + 1_000_000 - 7_000)) <= 50_000


def test_without_round_trips_the_wall_clock_serves_and_its_error_is_unknown():
    anchors = [Anchor("a", 0, EPOCH, 50), Anchor("b", 100, EPOCH + 50, 50)]
    mapping = align_domains(["a", "b"], "a", anchors, [])["b"]
    assert (mapping.method, mapping.residual_ns) == ("wall_clock", None)
    assert mapping.apply(100) == EPOCH + 50


def test_an_impossible_round_trip_is_not_believed():
    anchors = [Anchor("a", 0, EPOCH, 50)]
    backwards = PingPong("a", "b", 100, 500, 900, 200)
    assert align_domains(["a", "b"], "a", anchors, [backwards])["b"].method == "none"
