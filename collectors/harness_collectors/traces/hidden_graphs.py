"""Replays of CUDA graphs whose work is not on record."""

from __future__ import annotations

from typing import Final

import numpy as np

HIDDEN: Final = "CUDA graph, not on record"
"""The name of their spans."""


def next_work(moments: np.ndarray, launch: np.ndarray, start: np.ndarray) -> np.ndarray:
    """When the first device work began that was launched after each moment; -1: none was.

    `launch`, `start`: of all device work whose launch is known. Times in ns.
    """
    order = np.argsort(launch, kind="stable")
    earliest = np.minimum.accumulate(start[order][::-1])[::-1]
    place = np.searchsorted(launch[order], moments, side="right")
    found = np.full(len(moments), -1, np.int64)
    later = place < len(order)
    found[later] = np.maximum(earliest[place[later]], moments[later])
    return found
