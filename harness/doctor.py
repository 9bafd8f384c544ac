"""Checks of this machine: what can be recorded here, what is missing, what that costs, the mend."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.registry import all_collectors
from harness_schemas.units import format_bytes

MIN_SHM_BYTES = 1 << 30
MIN_OPEN_FILES = 4096
MIN_DISK_BYTES = 5 << 30


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis. `state`: ok, missing or warning."""

    name: str
    state: str
    found: str
    cost: str = ""
    mend: str = ""


def diagnose() -> list[Check]:
    """Every check, in the order in which a run would need them. Changes nothing."""
    found = [check() for check in _MACHINE]
    found += _packages()
    found += _collectors()
    return found


def _python() -> Check:
    return Check("python", "ok", sys.version.split()[0])


def _driver() -> Check:
    version = Path("/proc/driver/nvidia/version")
    if version.exists():
        words = version.read_text().split("Kernel Module", 1)[-1].split()
        return Check("nvidia driver", "ok", words[0] if words else "present")
    in_container = Path("/.dockerenv").exists() or Path("/.singularity.d").exists()
    mend = (
        "start the container with --nv (Apptainer) or --gpus all (Docker)"
        if in_container
        else "run on a GPU node; a login node has no driver"
    )
    return Check("nvidia driver", "missing", "none", "ranks compute on the CPU", mend)


def _shared_memory() -> Check:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Check("/dev/shm", "missing", "none", "NCCL cannot use shared memory", "mount it")
    if size >= MIN_SHM_BYTES:
        return Check("/dev/shm", "ok", format_bytes(size))
    cost = "NCCL may fail with 'unhandled system error'"
    return Check(
        "/dev/shm", "warning", format_bytes(size), cost, "give the container --shm-size=8g"
    )


def _limits() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= MIN_OPEN_FILES or soft == resource.RLIM_INFINITY:
        return Check("open files", "ok", str(soft))
    cost = "many ranks on one host may run out of sockets"
    return Check("open files", "warning", str(soft), cost, f"ulimit -n {min(hard, 65536)}")


def _locked_memory() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or soft >= 1 << 30:
        text = "unlimited" if soft == resource.RLIM_INFINITY else format_bytes(soft)
        return Check("locked memory", "ok", text)
    cost = "InfiniBand cannot register memory: NCCL falls back to sockets"
    return Check("locked memory", "warning", format_bytes(soft), cost, "ulimit -l unlimited")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    if free >= MIN_DISK_BYTES:
        return Check("disk here", "ok", f"{format_bytes(free)} free")
    cost = "a long run may fill it; spans are then dropped and counted"
    return Check(
        "disk here", "warning", f"{format_bytes(free)} free", cost, "use --output elsewhere"
    )


def _clock() -> Check:
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    try:
        source = path.read_text().strip()
    except OSError:
        return Check("clock source", "warning", "unknown", "cost of a span is unknown", "")
    if source in ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"):
        return Check("clock source", "ok", source)
    cost = "reading the clock is a system call: a span costs several microseconds"
    return Check("clock source", "warning", source, cost, "boot with clocksource=tsc")


def _cores() -> Check:
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    cost = "" if count >= 4 else "CPU runs of more ranks than cores show much time unresolved"
    return Check("cpu cores", "ok" if count >= 4 else "warning", str(count), cost)


_MACHINE: tuple[Callable[[], Check], ...] = (
    _python,
    _driver,
    _shared_memory,
    _limits,
    _locked_memory,
    _disk,
    _clock,
    _cores,
)


def _packages() -> Iterator[Check]:
    for name in ("torch", "deepspeed", "transformers", "safetensors"):
        if importlib.util.find_spec(name) is None:
            cost = "`harness run SPEC` cannot run models; every other verb works"
            yield Check(name, "missing", "not installed", cost, "install inference-harness[run]")
        else:
            yield Check(name, "ok", importlib.metadata.version(name))


def _collectors() -> Iterator[Check]:
    device = "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    for collector in all_collectors():
        answer = collector.check(device)
        name = f"collector {collector.name}"
        if answer.available:
            yield Check(name, "ok", collector.title)
        else:
            yield Check(name, "missing", answer.reason, f"no {collector.title}", answer.hint)
