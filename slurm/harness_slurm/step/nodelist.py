"""Slurm's compressed lists: node names (`n[01-03,7],login2`) and counts (`4(x2),3`).

Standard library only and without scontrol, which is absent in many containers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

MOST = 65_536
"""More names or counts than any cluster has: a list that expands to more is a mistake."""
NOBODY = frozenset({"", "(null)", "None", "None assigned", "None_Assigned", "N/A"})

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def expand_nodes(text: str) -> list[str]:
    """Node names in the list's own order, doubles kept; [] where Slurm says that there are none.

    Numbers keep the width of their range's first one. Several brackets vary as digits do, the
    last one fastest (`r[1-2]n[1-2]`: r1n1, r1n2, r2n1, r2n2).

    Raises:
        ValueError: not such a list.
    """
    if text.strip() in NOBODY:
        return []
    names: list[str] = []
    for item in _items(text.strip()):
        names += itertools.islice(_expand_item(item, text), MOST + 1 - len(names))
        if len(names) > MOST:
            raise ValueError(f"node list {text[:80]!r} names more than {MOST} nodes")
    return names


def _items(text: str) -> Iterator[str]:
    """The list cut at its outer commas."""
    begin, inside = 0, False
    for place, character in enumerate(text):
        if character in "[]":
            if inside == (character == "["):
                raise ValueError(f"node list {text[:80]!r} has a bracket too many")
            inside = not inside
        elif character == "," and not inside:
            yield text[begin:place]
            begin = place + 1
    if inside:
        raise ValueError(f"node list {text[:80]!r} lacks a closing bracket")
    yield text[begin:]


def _expand_item(item: str, whole: str) -> Iterator[str]:
    # `split` with a group alternates: literal, ranges, literal, ranges, ..., literal.
    parts = re.split(r"\[([^]]*)\]", item)
    if not item or any(character.isspace() for character in item):
        raise ValueError(f"node list {whole[:80]!r} has an empty name or a space in one")
    choices = [_numbers(part, whole) if place % 2 else [part] for place, part in enumerate(parts)]
    for chosen in itertools.product(*choices):
        yield "".join(chosen)


def _numbers(ranges: str, whole: str) -> list[str]:
    found: list[str] = []
    for text in ranges.split(","):
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ValueError(f"node list {whole[:80]!r}: {text!r} is no range of numbers")
        first, last = match[1], match[2] or match[1]
        count = int(last) - int(first) + 1
        if count < 1 or len(found) + count > MOST:
            raise ValueError(f"node list {whole[:80]!r}: range {text!r} is empty or too long")
        found += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return found


def expand_counts(text: str) -> list[int]:
    """Numbers, one a node: `4(x2),3` is [4, 4, 3].

    Raises:
        ValueError: not such a list.
    """
    counts: list[int] = []
    for part in text.strip().split(","):
        match = _COUNT.fullmatch(part)
        if match is None:
            raise ValueError(f"counts {text[:80]!r}: {part!r} is no number like 4 or 4(x2)")
        times = int(match[2] or 1)
        if len(counts) + times > MOST:
            raise ValueError(f"counts {text[:80]!r} are more than {MOST}")
        counts += [int(match[1])] * times
    return counts
