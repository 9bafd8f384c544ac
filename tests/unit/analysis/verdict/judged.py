"""A verdict of a text alone, and the words of a watchdog."""

from __future__ import annotations

from pathlib import Path

from support import SAMPLES

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import (
    VerdictEvidence,
    lines_of,
)

LOGS = SAMPLES / "logs" if SAMPLES else Path()


def verdict_of(text, source="log", **known):
    return judge(VerdictEvidence(lines=lines_of(source, text), **known))


def watchdog(rank, number, prefix="", group=""):
    return (
        f"{prefix}[E ProcessGroupNCCL.cpp:607] [{group}Rank {rank}] Watchdog caught collective "
        f"operation timeout: WorkNCCL(SeqNum={number}, OpType=ALLREDUCE, Timeout(ms)=600000) ran"
    )
