"""Launches whose work is not on record: replays of CUDA graphs, or all where no kernel is."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

HIDDEN: Final = "CUDA graph, not on record"
UNSEEN: Final = "kernel, not on record"
"""Names of their spans."""
_LAUNCH = re.compile(r"(?:cuda|cu|hip)(?:Ext)?(?:Module)?Launch\w*Kernel|\w*EnqueueKernelLaunch")


def replays_graph(name: str) -> bool:
    """Whether a call replays a CUDA graph."""
    return "GraphLaunch" in name


def launches_kernel(name: str) -> bool:
    """Whether a call launches a kernel by itself."""
    return _LAUNCH.match(name) is not None


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
