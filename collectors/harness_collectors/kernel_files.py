"""Memory of the control group and pressure stalls, as Linux publishes them in small files.

cgroup v2 (Documentation/admin-guide/cgroup-v2.rst: memory.current, memory.peak, memory.events),
cgroup v1 (Documentation/admin-guide/cgroup-v1/memory.rst: memory.usage_in_bytes, .oom_control)
and PSI (Documentation/accounting/psi.rst: `total` is microseconds stalled since boot).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness_collectors.sampling import Reading

_EVENTS = ("oom", "oom_kill", "max", "high")
_V2 = ("memory.current", "memory.peak", "memory.events")
_V1 = ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")


class CgroupMemory:
    """Memory of the control group that holds a process: the nearest with a memory controller."""

    def __init__(self, pid: int | str, proc: Path, mount: Path) -> None:
        self.folder, self.reason = _memory_group(pid, proc, mount)
        self._files = _V2
        if self.folder is None and (old := _memory_group_v1(pid, proc, mount)) is not None:
            self.folder, self.reason, self._files = old, "", _V1

    def read(self) -> Iterator[Reading]:
        """Bytes now and at most, and the kernel's counts of refused or killed allocations."""
        if self.folder is None:
            return
        current, peak, events = self._files
        for name, metric in ((current, "current"), (peak, "peak")):
            value = _integer(self.folder / name)
            if value is not None:
                yield Reading(f"cgroup_memory_{metric}", "bytes", value)
        for name, count in _pairs(self.folder / events):
            if name in _EVENTS:
                yield Reading(f"cgroup_{name}", "count", count)

    def oom_kills(self) -> int | None:
        """Processes of the group that the kernel killed for memory, ever; None: not readable."""
        if self.folder is None:
            return None
        return dict(_pairs(self.folder / self._files[2])).get("oom_kill")


def _memory_group_v1(pid: int | str, proc: Path, mount: Path) -> Path | None:
    """The folder of the memory controller of cgroup v1 that holds a process, or the nearest."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    fields = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    inside = next((path for _, names, path in fields if "memory" in names.split(",")), None)
    if inside is None:
        return None
    return _nearest(mount / "memory", inside, _V1[0])


def _memory_group(pid: int | str, proc: Path, mount: Path) -> tuple[Path | None, str]:
    if not (mount / "cgroup.controllers").exists():
        return None, "no cgroup v2 here"
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError as error:
        return None, f"the process's cgroup cannot be read: {error.strerror}"
    inside = next((line[3:] for line in lines if line.startswith("0::")), None)
    if inside is None:
        return None, "the process is in no cgroup v2"
    folder = _nearest(mount, inside, _V2[0])
    if folder is not None:
        return folder, ""
    return None, "no readable memory.current from the process's cgroup upwards"


def _nearest(mount: Path, inside: str, file: str) -> Path | None:
    """The folder of a group, or the nearest above it, whose `file` holds a number."""
    # In a cgroup namespace the path can leave the mount (`/../..`): then only the root is ours.
    parts = [part for part in inside.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        folder = mount.joinpath(*parts[:depth])
        if _integer(folder / file) is not None:
            return folder
    return None


def pressure(proc: Path) -> Iterator[Reading]:
    """Microseconds since boot in which some or all tasks stalled for CPU, memory or I/O."""
    for resource in ("cpu", "memory", "io"):
        try:
            lines = (proc / "pressure" / resource).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            kind, _, fields = line.partition(" ")
            total = fields.rpartition("total=")[2]
            if kind in ("some", "full") and total.isdigit():
                yield Reading(f"pressure_{resource}_{kind}", "us", int(total))


def _integer(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(" ")
        if value.isdigit():
            yield name, int(value)
