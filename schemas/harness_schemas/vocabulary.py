"""The words that evidence, tables, views and reports share (docs/glossary.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PHASES: Final = (
    "startup",
    "load",
    "preprocess",
    "warmup",
    "prefill",
    "decode",
    "mixed",
    "postprocess",
)
"""What a unit of work is for. `mixed` is continuous batching: prefill and decode in one step."""

MEASURED_PHASES: Final = ("prefill", "decode", "mixed")
"""The phases of which headline numbers are made."""

CATEGORIES: Final = (
    "unit",  # a unit of work: the span that windows are made of
    "phase",  # a stretch that holds units or belongs to none
    "compute",
    "comm",
    "comm_fused",  # a kernel that computes and communicates
    "memcpy",
    "memset",
    "graph",  # a CUDA graph as a whole: what ran inside it is not told apart
    "io",
    "layer",
    "request",
    "runtime",  # host API calls: launches, synchronisations
    "overhead",  # time spent by a profiler
    "other",
)

PARTS: Final = (
    "compute_ns",
    "fused_ns",
    "comm_transfer_ns",
    "comm_wait_ns",
    "comm_unsplit_ns",
    "memcpy_ns",
    "io_ns",
    "idle_ns",
    "unresolved_ns",
)
"""The nine parts into which a window is divided; their sum is the window."""

PART_LABELS: Final = {
    "compute_ns": "compute",
    "fused_ns": "fused",
    "comm_transfer_ns": "transfer",
    "comm_wait_ns": "wait",
    "comm_unsplit_ns": "comm (unsplit)",
    "memcpy_ns": "memcpy",
    "io_ns": "I/O",
    "idle_ns": "idle",
    "unresolved_ns": "unresolved",
}

CALIBRATE_OFF: Final = "calibrate:off"
CALIBRATE_ON: Final = "calibrate:on"
"""`perturbed_by` of the units that are run to measure what observing costs; where one collector
alone is switched, `:` and its name follow."""
RECORDER: Final = "recorder"
"""What is switched where no collector is named: the recorder and all rank hooks."""


def calibrated(perturbed_by: str | None) -> tuple[str, bool] | None:
    """What is switched in units of this mark, and whether it is on; None: nothing is."""
    for state, on in ((CALIBRATE_OFF, False), (CALIBRATE_ON, True)):
        if perturbed_by is not None and perturbed_by.startswith(state):
            return perturbed_by[len(state) + 1 :] or RECORDER, on
    return None


SYNCHRONISING_OPS: Final = frozenset(
    {
        "all_reduce",
        "all_gather",
        "reduce_scatter",
        "barrier",
    }
)
"""No rank can leave before the last has entered. all_to_all joins only when sizes are equal."""


def group_name(ranks: Sequence[int], ordinal: object) -> str:
    """`[0,1]#0`, by which calls of several ranks and sources are matched: the group's ordered
    global ranks and its ordinal among groups of the same ranks."""
    return f"[{','.join(map(str, ranks))}]#{ordinal}"


COLLECTION_STATES: Final = ("ok", "skipped", "degraded", "failed")

EVIDENCE_RANK: Final = (
    "nsys",
    "torch_profiler",
    "graph_events",
    "nccl_inspector",
    "app_timers",
)
"""Best first: which evidence `step_breakdown` takes where a unit has several."""


def evidence_order(source: str) -> tuple[int, str]:
    """Sort key: the best evidence first, what `EVIDENCE_RANK` does not know last, by name."""
    known = source in EVIDENCE_RANK
    return EVIDENCE_RANK.index(source) if known else len(EVIDENCE_RANK), source
