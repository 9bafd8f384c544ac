"""Which version of which library a process runs, by its own banner or its files'."""

from __future__ import annotations

from harness_collectors.nccl_log.evidence.state import LogFile, Process, agreed
from harness_collectors.nccl_log.tables.doubt import is_possible

Version = tuple[str | None, str | None, str | None]
"""Library, version, CUDA version."""


class Versions:
    """Versions of processes, each looked for once."""

    def __init__(self) -> None:
        self._found: dict[int, Version] = {}
        self._of_files: dict[int, set[tuple[str, str, str | None]]] = {}

    def of(self, process: Process) -> Version:
        """The process's own banner, else the only one of its files that can be its."""
        if process.order not in self._found:
            own = agreed(process.versions) if process.versions else self._lent(process)
            self._found[process.order] = own or (None, None, None)
        return self._found[process.order]

    def _lent(self, process: Process) -> Version | None:
        shared: set[tuple[str, str, str | None]] = set()
        for file in process.files:
            shared |= self._said_in(file)
        only = next(iter(shared)) if len(shared) == 1 else None
        sure = not any(file.is_torn for file in process.files) or _is_real(process)
        return only if only and sure and is_possible(process, only) else None

    def _said_in(self, file: LogFile) -> set[tuple[str, str, str | None]]:
        if id(file) not in self._of_files:
            said = set(file.bare_versions)
            self._of_files[id(file)] = said.union(*(other.versions for other in file.processes))
        return self._of_files[id(file)]


def _is_real(process: Process) -> bool:
    """Whether a torn prefix did not make it up: its communicator is sure, and it has a name where
    others have one."""
    is_named = process.pid is not None or not any(
        other.pid is not None for file in process.files for other in file.processes
    )
    return is_named and any(comm.seen_init and comm.rank is not None for comm in process.all_comms)
