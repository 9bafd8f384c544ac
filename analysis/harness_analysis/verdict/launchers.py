"""What launchers say of ranks that failed: summaries of torchrun and mpirun, srun on tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from harness_schemas.log_prefix import peeled
from harness_schemas.spi import RankExit

_SUMMARY = re.compile(r"Root Cause \(first observed failure\)")
_RANK = re.compile(r"^\s*rank\s+: (\d{1,6}) \(local_rank: \d+\)")
_CODE = re.compile(r"^\s*exitcode\s+: (-?\d{1,4}) \(pid: \d+\)")
_TIME = re.compile(r"^\s*time\s+: (\d{4}-\d\d-\d\d_\d\d:\d\d:\d\d)\s*$")
_SUMMARY_LINES: Final = 12
_MPI_PROCESS = re.compile(r"^\s*Process name: \[\[\d+,1\],(\d{1,6})\]\s*$")
_PRTE_PROCESS = re.compile(
    r"^\s*Process name: \[prterun-[\w.-]+@1,(\d{1,6})\] Exit code: +(\d{1,3})\s*$"
)
_PALS = re.compile(
    r"^(?:[\w.-]+: )?rank (\d{1,6}) "
    r"(?:exited with code ([1-9]\d{0,2})|died from signal (\d{1,2}))\s*$"
)
_MPI_CODE = re.compile(r"^\s*Exit code: +(\d{1,3})\s*$")
_MPI_ABORT = re.compile(
    r"MPI_ABORT was invoked on rank (?P<open>\d{1,6}) in communicator MPI_COMM_WORLD"
    r"|called MPI_Abort\(MPI_COMM_WORLD, -?\d+\) - process (?P<mpich>\d{1,6})\b"
)
_WORDS: Final = (
    *(" : ", "Root Cause", "MPI_", "Process name", "Exit code"),
    *("exited with code", "died from signal"),
)
"""One of them is in every line that is looked at: cheap, and rare."""
_TASKS = re.compile(
    r"\btasks? (?P<tasks>\d[\d,-]*): "
    r"(?:Out Of Memory|Killed|Exited with exit code (?!(?:130|143)\s*$)"
    r"|Segmentation|Bus error|Illegal|Floating|Aborted)"
)
_TERMINATED = re.compile(r"\btasks? (?P<tasks>\d[\d,-]*): Terminated")
_MOST_TASKS: Final = 4096
SAYS_LITTLE: Final = frozenset({-6, -15})
"""SIGABRT is how libraries end a process that has said why; SIGTERM comes from a launcher."""


def first_exits(texts: Iterable[str]) -> list[RankExit]:
    """Ranks that launchers say failed first, the earliest first where they give times."""
    listed = [peeled(text)[0] for text in texts if any(word in text for word in _WORDS)]
    return elastic_exits(listed) or mpi_exits(listed) or pals_exits(listed)


def elastic_exits(texts: Iterable[str]) -> list[RankExit]:
    """First failures of torchrun's summaries (torch.distributed.elastic, all versions).

    Each node's agent prints its own; the one with the earliest time is the job's.
    `failed (exitcode: 1) local_rank: 0` is not used: a local rank is no rank.
    """
    found: list[tuple[str, RankExit]] = []
    left, rank, when = 0, None, ""
    for text in texts:
        if _SUMMARY.search(text):
            left, rank, when = _SUMMARY_LINES, None, ""
        elif left:
            left -= 1
            if match := _TIME.match(text):
                when = match[1]
            elif match := _RANK.match(text):
                rank = int(match[1])
            elif (match := _CODE.match(text)) and rank is not None:
                found.append((when, RankExit(rank, int(match[1]), "")))
                left = 0
    return [end for _, end in sorted(found, key=lambda item: item[0])]


def mpi_exits(texts: Iterable[str]) -> list[RankExit]:
    """The process that mpirun says ended the job, or that called MPI_Abort in the world."""
    found: list[RankExit] = []
    rank = None
    for text in texts:
        if match := _MPI_ABORT.search(text):
            found.append(RankExit(int(match["open"] or match["mpich"]), 1, ""))
        elif match := _PRTE_PROCESS.match(text):
            found.append(RankExit(int(match[1]), int(match[2]), ""))
        elif match := _MPI_PROCESS.match(text):
            rank = int(match[1])
        elif (match := _MPI_CODE.match(text)) and rank is not None:
            found.append(RankExit(rank, int(match[1]), ""))
            rank = None
    return found


def pals_exits(texts: Iterable[str]) -> list[RankExit]:
    """The ranks that mpiexec of HPE's PALS says ended by themselves, in its order."""
    found = [match for text in texts if (match := _PALS.match(text))]
    ends = [RankExit(int(end[1]), int(end[2] or -int(end[3])), "") for end in found]
    return [end for end in ends if end.exit_code not in (-15, 143)]


def tasks_of(texts: Sequence[str], first_only: bool) -> tuple[int, ...]:
    """Tasks that srun names (`tasks 1-3,7: Out Of Memory`); with srun a task is a rank."""
    tasks: set[int] = set()
    for text in texts:
        tasks |= _numbers(_TASKS.search(text))
        if tasks and first_only:
            break
    return tuple(sorted(tasks))


def task_not_terminated(texts: Iterable[str]) -> tuple[int, ...]:
    """The one task that srun does not list among those that Slurm ended for it, if it is one."""
    tasks: set[int] = set()
    for text in texts:
        tasks |= _numbers(_TERMINATED.search(text))
    others = set(range(max(tasks, default=-1) + 1)) - tasks
    return tuple(others) if len(others) == 1 and len(tasks) > 1 else ()


def _numbers(match: re.Match[str] | None) -> set[int]:
    """`0-2,5` as numbers."""
    tasks: set[int] = set()
    for part in match["tasks"].split(",") if match else ():
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            tasks |= set(range(int(first), min(int(last or first), int(first) + _MOST_TASKS) + 1))
    return tasks
