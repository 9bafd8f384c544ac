"""What launchers say of the ranks that failed: torchrun's summary, srun's lines on tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from harness_schemas.spi import RankExit

_SUMMARY = re.compile(r"Root Cause \(first observed failure\)")
_RANK = re.compile(r"^\s*rank\s+: (\d{1,6}) \(local_rank: \d+\)")
_CODE = re.compile(r"^\s*exitcode\s+: (-?\d{1,4}) \(pid: \d+\)")
_SUMMARY_LINES: Final = 12
_TASKS = re.compile(
    r"\btasks? (?P<tasks>\d[\d,-]*): "
    r"(?:Out Of Memory|Killed|Exited with|Segmentation|Bus error|Illegal|Floating|Aborted)"
)
_MOST_TASKS: Final = 4096
SAYS_LITTLE: Final = frozenset({-6, -15})
"""SIGABRT is how libraries end a process that has said why; SIGTERM comes from a launcher."""


def elastic_exits(texts: Iterable[str]) -> list[RankExit]:
    """First failures of torchrun's summaries (torch.distributed.elastic, all versions).

    `failed (exitcode: 1) local_rank: 0` is not used: a local rank is no rank.
    """
    found: list[RankExit] = []
    left, rank = 0, None
    for text in texts:
        if _SUMMARY.search(text):
            left, rank = _SUMMARY_LINES, None
        elif left:
            left -= 1
            if match := _RANK.match(text):
                rank = int(match[1])
            elif (match := _CODE.match(text)) and rank is not None:
                found.append(RankExit(rank, int(match[1]), ""))
                left = 0
    return found


def tasks_of(texts: Sequence[str], first_only: bool) -> tuple[int, ...]:
    """Tasks that srun names (`tasks 1-3,7: Out Of Memory`); with srun a task is a rank."""
    tasks: set[int] = set()
    for text in texts:
        match = _TASKS.search(text)
        for part in match["tasks"].split(",") if match else ():
            first, _, last = part.partition("-")
            if first.isdecimal() and (last or first).isdecimal():
                tasks |= set(
                    range(int(first), min(int(last or first), int(first) + _MOST_TASKS) + 1)
                )
        if tasks and first_only:
            break
    return tuple(sorted(tasks))
