"""Durations and sizes, as they are read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.units import (
    format_bytes,
    format_count,
    format_ns,
    format_share,
    parse_duration_ns,
)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("250us", 250_000),
        ("250 \u00b5s", 250_000),
        (" 1.5ms ", 1_500_000),
        ("7ns", 7),
        ("2", 2_000_000_000),
        (3, 3_000_000_000),
        (0.5, 500_000_000),
        ("10min", 600_000_000_000),
        ("10m", 600_000_000_000),
        ("1h", 3_600_000_000_000),
    ],
)
def test_durations_are_read_with_their_unit(text, nanoseconds):
    assert parse_duration_ns(text) == nanoseconds


def test_a_bare_number_is_in_the_unit_that_is_asked_for():
    assert parse_duration_ns("5", "ms") == 5_000_000


@pytest.mark.parametrize("text", ["", "never", "-1s", "1parsec", "1 2s", "ms", "1e3s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (None, "-"),
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 us"),
        (1_234, "1.23 us"),
        (-1_234, "-1.23 us"),
        (999_999, "1,000 us"),
        (1_000_000, "1 ms"),
        (1_838_000_000, "1.84 s"),
        (100_000_000_000, "100 s"),
        (4_711_000_000_000, "4,711 s"),
    ],
)
def test_durations_are_written_in_the_unit_of_their_size(nanoseconds, shown):
    assert format_ns(nanoseconds) == shown


@given(st.integers(0, 10**15))
def test_what_is_written_is_read_within_its_digits(nanoseconds):
    shown = format_ns(nanoseconds).replace(",", "")
    assert parse_duration_ns(shown) == pytest.approx(nanoseconds, rel=6e-3)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_048_576, "1.0 MiB"),
        (80 << 30, "80.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5_000 << 40, "5000.0 TiB"),
        (-2_048, "-2.0 KiB"),
    ],
)
def test_sizes_are_in_binary_units(size, shown):
    assert format_bytes(size) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (None, "-"),
        (0, "0.0 %"),
        (0.0004, "<0.1 %"),
        (-0.0004, ">-0.1 %"),
        (0.0005, "0.1 %"),
        (0.964, "96.4 %"),
        (1, "100.0 %"),
    ],
)
def test_little_is_told_from_nothing(share, shown):
    assert format_share(share) == shown


def test_counts_have_their_thousands_apart():
    assert (format_count(None), format_count(1_234_567), format_count(999)) == (
        "-",
        "1,234,567",
        "999",
    )
