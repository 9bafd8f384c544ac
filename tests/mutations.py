"""Damage as real evidence has it: cut, doubled, interleaved, flipped."""

from __future__ import annotations

from hypothesis import strategies as st


def cuts(data: bytes):
    """The first bytes only, any number of them."""
    return st.integers(0, len(data)).map(lambda size: data[:size])


def doubled(data: bytes):
    """Some lines twice, in place or at the end."""
    lines = data.splitlines(keepends=True)

    def repeat(span: tuple[int, int]) -> bytes:
        first, last = sorted(span)
        return b"".join(lines[:last] + lines[first:last] + lines[last:])

    places = st.integers(0, len(lines))
    return st.tuples(places, places).map(repeat)


def interleaved_lines(one: bytes, other: bytes):
    """Whole lines of two files in turn, each in its own order."""
    first, second = one.splitlines(keepends=True), other.splitlines(keepends=True)

    def weave(turns: list[bool]) -> bytes:
        a, b, out = list(first), list(second), []
        for turn in turns:
            source = a if turn and a else b or a
            if not source:
                break
            out.append(source.pop(0))
        return b"".join(out + a + b)

    size = len(first) + len(second)
    return st.lists(st.booleans(), min_size=size, max_size=size).map(weave)


def woven(one: bytes, other: bytes, sizes: list[int]) -> bytes:
    """Pieces of two files in turn, of these sizes, and what is left of each."""
    rest, out = [one, other], []
    for place, size in enumerate(sizes):
        out.append(rest[place % 2][:size])
        rest[place % 2] = rest[place % 2][size:]
    return b"".join(out + rest)


def interleaved_chunks(one: bytes, other: bytes):
    """Pieces of two files in turn, cut anywhere."""
    return st.lists(st.integers(1, 400), max_size=12).map(lambda sizes: woven(one, other, sizes))


def flipped(data: bytes, most: int = 4):
    """Up to `most` bytes replaced by others."""

    def flip(changes: list[tuple[int, int]]) -> bytes:
        damaged = bytearray(data)
        for place, value in changes:
            damaged[place] = value
        return bytes(damaged)

    change = st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255))
    return st.lists(change, min_size=1, max_size=most).map(flip)
