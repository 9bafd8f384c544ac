"""Whom to believe: a piece of one line glued to a piece of another can look like a whole line.

In a file with torn lines, and where lines contradict each other, a rank, a size or a version
needs a second line that says the same; else it is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from harness_collectors.nccl_log.evidence.state import Comm, Process, agreed

_NEEDED: Final = 2
"""Lines that must agree on a value in a torn file."""

_SINCE: Final = {
    "cudaDev": (2, 4),
    "busId": (2, 5),
    "nNodes": (2, 14),
    "commId": (2, 16),
    "splitCount": (2, 23),
    "childCount": (2, 29),
}
"""The first versions that print these, with room for vendors' builds."""
_FUNCTION_SINCE: Final = (2, 21)
_FUNCTION_ALWAYS: Final = (2, 23)
_START_SINCE: Final = (2, 18)
_CUDA_SINCE: Final = {"11": (2, 7), "12": (2, 15), "13": (2, 27)}
"""The first versions that were built for a CUDA of this major number."""


def doubt_torn(processes: Iterable[Process]) -> None:
    """Forget ranks and sizes of torn files that rest on one line only."""
    listed = list(processes)
    torn = [process for process in listed if any(file.is_torn for file in process.files)]
    if not torn:
        return
    sizes = _sizes(listed)
    for process in torn:
        ranks = _ranks(process)
        for comm in process.all_comms:
            _keep(comm, "rank", ranks)
            _keep(comm, "nranks", sizes)


def _keep(comm: Comm, name: str, support: Counter[Any]) -> None:
    votes = comm.votes.get(name)
    if votes is not None:
        enough = {value: count for value, count in votes.items() if support[value] >= _NEEDED}
        comm.votes[name] = Counter(enough)


def _sizes(processes: Iterable[Process]) -> Counter[int]:
    """How many lines say a size: of any communicator, since sizes repeat."""
    sizes: Counter[int] = Counter()
    for process in processes:
        sizes.update(process.ring_sizes)
        for comm in process.all_comms:
            sizes.update(comm.votes.get("nranks", ()))
            sizes.update(comm.votes.get("call_nranks", ()))
    return sizes


def _ranks(process: Process) -> Counter[int]:
    """How many lines of a process say a rank; ring maps are rank 0's alone."""
    ranks = Counter(process.edge_ranks)
    ranks[0] += sum(process.ring_sizes.values())
    for comm in process.all_comms:
        ranks.update(comm.votes.get("rank", ()))
    return ranks


def doubt_contradictions(groups: Iterable[list[Comm]]) -> None:
    """Where two claim one rank, or sizes differ, nobody is believed."""
    for comms in groups:
        if len({comm.nranks for comm in comms} - {None}) > 1:
            for comm in comms:
                comm.rank = comm.nranks = None
        ranks = [comm.rank for comm in comms]
        if len(set(ranks)) < len(ranks):
            for comm in comms:
                if ranks.count(comm.rank) > 1:
                    comm.rank = None


def doubt_versions(processes: Iterable[Process], groups: Iterable[list[Comm]]) -> None:
    """Forget versions that are said once in a torn file, or that the process's lines deny.

    The processes of a communicator have one version: a line that differs is garbled.
    """
    listed = list(processes)
    said: Counter[Any] = Counter()
    files = {id(file): file for process in listed for file in process.files}
    for votes in [p.versions for p in listed] + [f.bare_versions for f in files.values()]:
        said.update(votes)
    for process in listed:
        torn = any(file.is_torn for file in process.files)
        for version in list(process.versions):
            if (torn and said[version] < _NEEDED) or not is_possible(process, version):
                del process.versions[version]
    for file in files.values():
        for version in list(file.bare_versions):
            if file.is_torn and said[version] < _NEEDED:
                del file.bare_versions[version]
    for comms in groups:
        members = {comm.process.order: comm.process for comm in comms}.values()
        shared = agreed(Counter(agreed(p.versions) for p in members if p.versions))
        for process in members:
            if process.versions and agreed(process.versions) != shared:
                process.versions.clear()


def is_possible(process: Process, version: tuple[str, str, str | None]) -> bool:
    """Whether a (library, version, CUDA version) prints lines like those of this process."""
    lives = [
        (comm.state, comm.function is not None, comm.seen_init, tuple(comm.names))
        for comm in process.all_comms
    ]
    return _are_possible(version, tuple(dict.fromkeys(lives)))


@lru_cache(maxsize=1024)  # the processes of a job are alike
def _are_possible(
    version: tuple[str, str, str | None],
    lives: tuple[tuple[str | None, bool, bool, tuple[str, ...]], ...],
) -> bool:
    """Whether a version prints such communicators: their states, whether a function is named,
    whether their beginning was seen, the names of what is said of them."""
    _, number, cuda = version
    parts = tuple(int(part) for part in number.split(".")[:2])
    if parts < _CUDA_SINCE.get((cuda or "").partition(".")[0], parts):
        return False
    names = {name for *_, said in lives for name in said}
    since = [first for name, first in _SINCE.items() if name in names]
    for state, is_named, seen_init, _ in lives:
        if is_named and seen_init:
            since.append(_FUNCTION_SINCE)
        if state == "started":
            since.append(_START_SINCE)
        if state == "complete" and not is_named and parts >= _FUNCTION_ALWAYS:
            return False
    return all(parts >= first for first in since)
