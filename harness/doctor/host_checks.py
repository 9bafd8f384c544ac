"""Checks of the host: processors and their nearness to GPUs, limits, disk, clocks."""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.check import Check, ok, warning
from harness.doctor.facts import Facts
from harness_schemas.units import format_bytes

MIN_OPEN_FILES = 4096
MIN_DISK_BYTES = 5 << 30
MIN_CORES = 4
MAX_CLOCK_ERROR_US = 10_000
_FAST_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")


def host_checks(facts: Facts) -> Iterator[Check]:
    """Python, processors, limits, disk, clocks."""
    yield ok("python", facts.python)
    yield _cores(facts)
    if facts.gpus:
        yield _affinity(facts)
    yield _open_files(facts)
    yield _disk(facts)
    yield _clock_source(facts)
    yield _clock_sync(facts)


def _cores(facts: Facts) -> Check:
    name, count = "cpu cores", len(facts.cpus_allowed)
    if not count:
        return warning(name, "unknown", "", "")
    found = f"{count} of {facts.cpus_online}" if facts.cpus_online else str(count)
    if facts.in_slurm_job and count == 1 and (facts.cpus_online or 1) > 1:
        cost = "all threads of a rank share one core: launches come late, decode is host-bound"
        return warning(name, found, cost, "`--cpus-per-task=8`, and srun --cpus-per-task as well")
    if count < MIN_CORES:
        cost = "CPU runs of more ranks than cores show much time unresolved"
        mend = "`--cpus-per-task`, or fewer ranks" if facts.in_slurm_job else "use fewer ranks"
        return warning(name, found, cost, mend)
    return ok(name, found)


def _affinity(facts: Facts) -> Check:
    """Whether this process may run on the CPUs near each GPU."""
    name = "cpu and gpu affinity"
    far = [gpu for gpu in facts.gpus if gpu.cpus and not gpu.cpus & facts.cpus_allowed]
    near = [gpu for gpu in facts.gpus if gpu.cpus & facts.cpus_allowed]
    if far and facts.cpus_allowed:
        which = ", ".join(_named(gpu.pci, gpu.numa) for gpu in far)
        allowed = _ranges(facts.cpus_allowed)
        cost = "launches and copies to these GPUs cross the sockets' link: decode steps get longer"
        mend = (
            "bind each rank to its GPU's NUMA node: srun --gpu-bind=closest --cpu-bind=cores, or "
            "numactl --cpunodebind"
        )
        return warning(name, f"CPUs {allowed} are on no node of GPU {which}", cost, mend)
    nodes = {gpu.numa for gpu in near if gpu.numa is not None and gpu.numa >= 0}
    if len(nodes) > 1 and facts.cpus_allowed >= frozenset().union(*(gpu.cpus for gpu in near)):
        return ok(name, f"unbound over NUMA nodes {_ranges(frozenset(nodes))}: bind each rank")
    return ok(name, "GPUs and CPUs share NUMA nodes" if near else "the bus does not say")


def _named(pci: str, numa: int | None) -> str:
    return pci if numa is None or numa < 0 else f"{pci} (NUMA {numa})"


def _ranges(numbers: frozenset[int]) -> str:
    """`0-3,8` of a set."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _open_files(facts: Facts) -> Check:
    name, soft = "open files", facts.open_files
    if soft is None:
        return warning(name, "unknown", "", "")
    if soft < 0 or soft >= MIN_OPEN_FILES:
        return ok(name, "unlimited" if soft < 0 else str(soft))
    hard = facts.open_files_hard
    most = 65536 if hard is None or hard < 0 else min(hard, 65536)
    cost = "many ranks on one host may run out of sockets ('Too many open files')"
    mend = f"ulimit -n {most}"
    if most <= soft:  # nobody but root can raise it further
        mend = "the hard limit is as low: have the administrators raise `nofile`"
        mend += " (limits.conf, LimitNOFILE of slurmd; docker run --ulimit nofile=65536)"
    return warning(name, str(soft), cost, mend)


def _disk(facts: Facts) -> Check:
    name, free = "disk here", facts.disk_free_bytes
    if free is None:
        return warning(name, "unknown", "a run may not be writable here", "use --output elsewhere")
    found = f"{format_bytes(free)} free"
    if free >= MIN_DISK_BYTES:
        return ok(name, found)
    cost = "a long run may fill it; spans are then dropped and counted"
    return warning(name, found, cost, "use --output elsewhere")


def _clock_source(facts: Facts) -> Check:
    name = "clock source"
    if facts.clock_source is None:
        return warning(name, "unknown", "what a span costs is not known", "")
    if facts.clock_source in _FAST_CLOCKS:
        return ok(name, facts.clock_source)
    cost = "reading the clock is a system call: a span costs several microseconds"
    return warning(name, facts.clock_source, cost, "boot with clocksource=tsc tsc=reliable")


def _clock_sync(facts: Facts) -> Check:
    name = "clock sync"
    if facts.clock_synchronised is None:
        return warning(name, "unknown", "times of several hosts may not be comparable", "")
    error = f"error below {facts.clock_error_us} us" if facts.clock_error_us is not None else ""
    cost = (
        "evidence of other tools on several hosts (logs, traces) cannot be laid side by side; our "
        "own ranks measure their offsets through the network"
    )
    if not facts.clock_synchronised:
        return warning(name, "the kernel's clock is not synchronised", cost, "run chronyd or PTP")
    if (facts.clock_error_us or 0) > MAX_CLOCK_ERROR_US:
        return warning(name, f"synchronised, {error}", cost, "check chrony's sources, or use PTP")
    return ok(name, f"synchronised, {error}".rstrip(", "))
