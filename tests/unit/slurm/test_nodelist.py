"""Node lists and task counts as Slurm compresses them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_slurm.step.nodelist import expand_counts, expand_nodes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("n[01-03,7],login2", ["n01", "n02", "n03", "n7", "login2"]),
        ("a[1-2,5]", ["a1", "a2", "a5"]),
        ("n[008-011]", ["n008", "n009", "n010", "n011"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("gpu[1-2]-ib,x", ["gpu1-ib", "gpu2-ib", "x"]),
        ("nid[005,007-008]", ["nid005", "nid007", "nid008"]),
        ("None assigned", []),
        ("(null)", []),
        ("", []),
    ],
)
def test_lists_of_real_clusters(text, names):
    assert expand_nodes(text) == names


@pytest.mark.parametrize(
    "text",
    ["n[1-", "n1]", "n[[1]]", "n[3-1]", "n[a-b]", "n[]", "a,,b", "a b", "n[1-99999999]", "x[1,]"],
)
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match="node list"):
        expand_nodes(text)


PREFIX = st.text("abcz-", min_size=1, max_size=4)


@st.composite
def folded(draw):
    """A list and the names it stands for, built by other means than the expander."""
    parts, names = [], []
    for _ in range(draw(st.integers(1, 4))):
        prefix, suffix = draw(PREFIX), draw(st.sampled_from(["", "-ib", "x"]))
        ranges, numbers = [], []
        for _ in range(draw(st.integers(0, 3))):
            width = draw(st.integers(1, 4))
            first = draw(st.integers(0, 10**width - 1))
            last = first + draw(st.integers(0, 12))
            ranges.append(f"{first:0{width}}" + (f"-{last:0{width}}" if last > first else ""))
            numbers += [f"{number:0{width}}" for number in range(first, last + 1)]
        parts.append(prefix + (f"[{','.join(ranges)}]" if ranges else "") + suffix)
        names += [prefix + number + suffix for number in numbers or [""]]
    return ",".join(parts), names


@given(folded())
def test_every_list_expands_to_the_names_it_was_made_of(pair):
    text, names = pair
    assert expand_nodes(text) == names


@given(st.text("n[]0123456789-,x ", max_size=30))
def test_any_text_is_a_list_or_a_value_error(text):
    try:
        names = expand_nodes(text)
    except ValueError:
        return
    assert all(name and not set(name) & set("[], ") for name in names)


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 50)), min_size=1, max_size=8))
def test_counts(pairs):
    text = ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in pairs)
    assert expand_counts(text) == [count for count, times in pairs for _ in range(times)]


@pytest.mark.parametrize("text", ["", "a", "2(x", "2(3)", "1,,2", "9(x99999999)"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError, match="counts"):
        expand_counts(text)
