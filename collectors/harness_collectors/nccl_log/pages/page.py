"""What is kept of a block of a log: its lines as they are read, whoever is to learn from them.

A page is made from text alone, in any process; what its lines mean depends on those before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness_collectors.nccl_log.grammar.lines import Hop, Record
from harness_collectors.nccl_log.pages.runs import Run

Some = tuple[int, int]
"""Elements from this one to before that one."""


Act = tuple[int, int, int, bytes]
"""A line that is read by itself, or the first of runs: its place; the code of what says who printed
it, -1: the line is looked at as a whole; how many lines say the same, 0: another has said it, but
who prints it is new; what stands behind `NCCL INFO `, cut where NCCL would, or the whole line."""


class Stretch(NamedTuple):
    """Lines among which calls come first, then choices, then the rest."""

    path: Path
    calls: Some
    choices: Some
    acts: Some


@dataclass(frozen=True)
class Calls:
    """Calls: an element a line."""

    places: np.ndarray
    codes: np.ndarray
    lines: list[bytes]
    """By code: a line without its middle and stamp."""
    times: np.ndarray | None
    """Stamps in Unix ns, -1: none."""


@dataclass(frozen=True)
class Choices:
    """Decisions: an element a line."""

    places: np.ndarray
    codes: np.ndarray
    lines: list[tuple[Record | None, bytes]]
    """By code: who printed it and what stands behind `NCCL INFO `, or None and the whole line."""


@dataclass(frozen=True)
class Page:
    """The lines of a block that may say something."""

    sizes: tuple[tuple[Path, int], ...]
    """Whose lines these are, and how many there were in all."""
    cut: bool
    """It is a line without its end."""
    heads: dict[int, Record]
    """Who printed lines, by the code of their heads."""
    stretches: list[Stretch]
    calls: Calls
    choices: Choices
    acts: list[Act]
    runs: dict[int, list[Run]]
    """Like lines, by the place at which they are read."""
    likes: list[Hop | str]
    """What runs say, by number."""
    stamps: dict[int, int]
    """Stamps by the places of acts and runs, Unix ns."""


def distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct codes (small, not negative) in their order, and which of them each is."""
    found = np.flatnonzero(np.bincount(codes))
    numbers = np.zeros(len(codes) and int(found[-1]) + 1, np.int32)
    numbers[found] = np.arange(len(found))
    return found, numbers[codes]
