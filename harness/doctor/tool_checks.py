"""Checks of perf's rights and libraries, and of Slurm's accounting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.doctor.check import Check, missing, ok, warning
from harness.doctor.facts import Facts

_PACKAGES = {
    "libdw": "libdw1 (Debian) or elfutils-libs (RHEL)",
    "libelf": "libelf1 (Debian) or elfutils-libelf (RHEL)",
    "libunwind": "libunwind8 (Debian) or libunwind (RHEL)",
}
_STACKS = ("libdw", "libunwind")


_FIRST_NSYS: Final = {13: (2025, 3), 12: (2022, 4)}
"""The version that came with the first CUDA of a major number (CUDA's release notes)."""


def nsys_too_old(name: str, version: str | None, facts: Facts) -> Check | None:
    """What an nsys older than the driver's CUDA costs; None: it is not, or either is unknown.

    Seen on H200s with a driver for CUDA 13.0: programs ran to their end, nsys 2023.4 stayed.
    """
    cuda = (facts.cuda_of_driver or (0,))[0]
    first = _FIRST_NSYS.get(cuda)
    if name != "collector nsys" or version is None or first is None:
        return None
    if tuple(map(int, version.split(".")[:2])) >= first:
        return None
    found = f"nsys {version}, driver for CUDA {cuda}"
    cost = "nsys may not return when a rank has ended, and the run waits until its time limit"
    mend = f"nsys {'.'.join(map(str, first))} or later, or collect torch_profiler instead"
    return warning(name, found, cost, mend)


def tool_checks(facts: Facts) -> Iterator[Check]:
    """perf_event_paranoid, perf's libraries, accounting."""
    yield _paranoid(facts)
    if facts.perf_missing is not None:
        yield _perf_libraries(facts)
    yield _accounting(facts)


def _paranoid(facts: Facts) -> Check:
    name, level = "perf_event_paranoid", facts.perf_paranoid
    if level is None:
        return warning(name, "unknown", "not known whether perf may count here", "")
    if level <= 1:
        return ok(name, str(level))
    cost = (
        "counters of user code only, no kernel frames and no scheduling events"
        if level == 2
        else "perf counts nothing without CAP_PERFMON; nsys cannot sample the CPU"
    )
    mend = "`sysctl kernel.perf_event_paranoid=1` by the administrators, or CAP_PERFMON"
    return warning(name, str(level), cost, mend)


def _perf_libraries(facts: Facts) -> Check:
    name = "perf libraries"
    if facts.perf_missing:
        wanted = [
            package
            for library, package in _PACKAGES.items()
            if any(name.startswith(library) for name in facts.perf_missing)
        ]
        cost = "perf does not start: 'error while loading shared libraries'"
        mend = "install " + (", ".join(wanted) or "them") + " where perf runs (the image too)"
        return missing(name, f"{', '.join(facts.perf_missing)} not found", cost, mend)
    stacks = [key for key in _STACKS if facts.perf_features.get(key)]
    if facts.perf_features and not stacks:
        cost = "perf record cannot unwind stacks without frame pointers (--call-graph dwarf)"
        mend = "a perf built with libdw or libunwind: the distribution's own package"
        return warning(name, "built without libdw and libunwind", cost, mend)
    return ok(name, f"stacks by {' and '.join(stacks)}" if stacks else "all are found")


def _accounting(facts: Facts) -> Check:
    name = "slurm accounting"
    cost = "no verdict, memory and energy from Slurm; the verdict rests on exit codes and logs"
    if not facts.sacct:
        mend = "none needed without Slurm; else run where sacct is, or ingest its saved output"
        return missing(name, "sacct is not on PATH", cost, mend)
    if facts.accounting is not None and facts.accounting.endswith("/none"):
        mend = "ask the administrators for slurmdbd; `scontrol show job` within minutes of its end"
        return missing(name, "sacct is here, the cluster keeps no accounts", cost, mend)
    return ok(name, facts.accounting or "sacct is here")
