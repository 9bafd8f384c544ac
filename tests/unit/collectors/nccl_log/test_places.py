"""Where words stand in a block: found by their rare signs, stretch by stretch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_collectors.nccl_log.pages import places
from harness_collectors.nccl_log.pages.places import find, holds

WORD, TELLING = b" opCount", (3, 4)
STRETCH = 1 << 18


@pytest.mark.parametrize(
    "at", [0, 5, STRETCH - 8, STRETCH - 3, STRETCH, 3 * STRETCH - 1, 3 * STRETCH + 92]
)
def test_a_word_is_seen_wherever_it_stands(at):
    text = bytearray(b"pCo " * (3 * STRETCH // 4 + 25))
    assert not holds(bytes(text), WORD, TELLING)
    text[at : at + len(WORD)] = WORD
    assert holds(bytes(text), WORD, TELLING)


@given(
    st.lists(st.sampled_from([WORD, b" opCoun", b"pC", b"opCount", b" o", b"\n"]), max_size=40),
    st.integers(1, 9),
)
def test_words_are_found_as_bytes_find_finds_them(pieces, stretch):
    text = b"".join(pieces)
    expected = [at for at in range(len(text)) if text.startswith(WORD, at)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "_STRETCH", stretch)
        found = find(text, np.frombuffer(text, np.uint8), WORD, TELLING)
        assert found.tolist() == expected
        assert holds(text, WORD, TELLING) == bool(expected)
