"""Which texts may speak of a failure: the quick search finds what the plain one does."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from harness_collectors.failure_log.lines import WORDS, is_text, speaks

PIECES = st.sampled_from([*WORDS, b"4711", b"\n", b" ", b"[0] NCCL INFO ", b"\xc3\xa9", b"0x7f"])


def halves(word):
    return st.integers(0, len(word)).map(lambda at: word[:at] + b"7" + word[at:])


@given(st.lists(PIECES | st.sampled_from(WORDS).flatmap(halves) | st.binary(max_size=4)))
@example([b"time", b"1", b"out"])
def test_the_quick_search_finds_what_the_plain_one_finds(pieces):
    text = b"".join(pieces)
    assert speaks(text) == any(word in text.lower() for word in WORDS)
    assert speaks(text.upper()) == speaks(text)


def test_no_word_holds_what_the_quick_search_takes_out():
    assert not [word for word in WORDS if set(word) & set(b"0123456789\n") or word != word.lower()]


def test_a_place_in_a_program_is_no_markup():
    assert is_text(b"<stdin>:4: UserWarning: x\nValueError: y\n")
    assert not is_text(b"<html><body>ValueError: y</body></html>")


@given(st.binary(max_size=200))
def test_control_characters_make_a_file_binary(tail):
    assert not is_text(b"\x01\x02" * 40 + tail[:20])
    assert is_text(b"plain words\n" * 20)
