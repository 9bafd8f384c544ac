"""Look at this machine. Every look may fail; what it would have told is then not known."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from harness.doctor.facts import Facts, Gpu, HcaPort, Interface

T = TypeVar("T")
_ROOT: Final = Path("/")
_NVIDIA: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"
_MONITORS: Final = ("nv-hostengine", "dcgm-exporter", "dcgm_exporter", "dcgmproftester", "ncu")
_ASKED: Final = (
    *("NCCL_SOCKET_IFNAME", "NCCL_IB_DISABLE", "NCCL_NET", "NCCL_DEBUG_FILE"),
    *("CUDA_VISIBLE_DEVICES", "SLURM_EXPORT_ENV", "SBATCH_EXPORT", "SRUN_EXPORT_ENV"),
    *("APPTAINER_CLEANENV", "SINGULARITY_CLEANENV", "APPTAINER_CONTAINALL"),
    "SINGULARITY_CONTAINALL",
)
_TIMEX_LONGS: Final = 32
_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5


def gather(root: Path = _ROOT) -> Facts:
    """Everything about this machine; never fails, changes nothing. `root`: where /proc and /sys
    are (tests give a folder)."""
    return _look(
        root, _gpu_looks, _network_looks, _limit_looks, _clock_looks, _tool_looks, _env_looks
    )


def gather_gpus(root: Path = _ROOT) -> Facts:
    """What of a machine decides whether its GPUs can be reached; the rest is not known."""
    return _look(root, _gpu_looks, _env_looks)


Looks = dict[str, Callable[[], Any]]


def _look(root: Path, *areas: Callable[[Path], Looks]) -> Facts:
    facts: dict[str, Any] = {"python": sys.version.split()[0]}
    for area in areas:
        for name, look in area(root).items():
            with contextlib.suppress(Exception):
                facts[name] = look()
    return Facts(**facts)


def _gpu_looks(root: Path) -> Looks:
    return {
        "driver": lambda: _driver(root),
        "gpus": lambda: _gpus(root),
        "device_nodes": lambda: len(list((root / "dev").glob("nvidia[0-9]*"))),
        "libcuda": lambda: ctypes.util.find_library("cuda") is not None or _loads("libcuda.so.1"),
        "nvml": _nvml,
        "cuda_of_driver": _cuda_of_driver,
        "torch": lambda: importlib.metadata.version("torch"),
        "torch_cuda": _torch_cuda,
        "monitors": lambda: _monitors(root),
    }


def _driver(root: Path) -> str | None:
    text = (root / "proc/driver/nvidia/version").read_text()
    version = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text)
    return version[0] if version else "of unknown version"


def _gpus(root: Path) -> tuple[Gpu, ...]:
    found = []
    for device in sorted((root / "sys/bus/pci/devices").iterdir()):
        kind = _read(device / "class") or ""
        if _read(device / "vendor") != _NVIDIA or not kind.startswith(_DISPLAY_CLASS):
            continue
        numa = _read(device / "numa_node")
        cpus = cpu_list(_read(device / "local_cpulist") or "")
        known = numa is not None and numa.lstrip("-").isdigit()
        found.append(Gpu(device.name, int(numa) if known and numa else None, cpus))
    return tuple(found)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _nvml() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return str(error)
    pynvml.nvmlShutdown()
    return "ok"


def _cuda_of_driver() -> tuple[int, int]:
    """By libcuda itself, which knows of compatibility packages; else by NVML."""
    found = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    number = found.value or _cuda_of_nvml()
    return number // 1000, number % 1000 // 10


def _cuda_of_nvml() -> int:
    import pynvml

    pynvml.nvmlInit()
    try:
        return int(pynvml.nvmlSystemGetCudaDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _torch_cuda() -> str | None:
    """Out of torch/version.py, without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text()
    found = re.search(r"^cuda\b[^=\n]*= *(?:['\"]([\d.]+)['\"]|None)", text, re.MULTILINE)
    return (found[1] or "") if found else None


def _monitors(root: Path) -> tuple[str, ...]:
    found = set()
    for name in (root / "proc").glob("[0-9]*/comm"):
        command = _read(name) or ""
        found |= {known for known in _MONITORS if command == known[:15]}
    return tuple(sorted(found))


def _network_looks(root: Path) -> Looks:
    return {
        "interfaces": lambda: _interfaces(root),
        "hca_ports": lambda: _hca_ports(root),
        "verbs_usable": lambda: _verbs_usable(root),
        "libibverbs": lambda: _loads("libibverbs.so.1"),
    }


def _interfaces(root: Path) -> tuple[Interface, ...]:
    kinds = {"772": "loopback", "32": "infiniband"}  # ARPHRD_* of linux/if_arp.h
    found = []
    for folder in sorted((root / "sys/class/net").iterdir()):
        state = _read(folder / "operstate")
        kind = kinds.get(_read(folder / "type") or "", "ether")
        # Some virtual interfaces that carry traffic say "unknown".
        found.append(Interface(folder.name, state in ("up", "unknown"), kind))
    return tuple(found)


def _hca_ports(root: Path) -> tuple[HcaPort, ...]:
    found = []
    for folder in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        state = (_read(folder / "state") or "").rpartition(":")[2].strip()
        link = _read(folder / "link_layer") or "InfiniBand"
        found.append(HcaPort(folder.parents[1].name, int(folder.name), state, link))
    return tuple(found)


def _verbs_usable(root: Path) -> bool:
    nodes = list((root / "dev/infiniband").glob("uverbs*"))
    return any(os.access(node, os.R_OK | os.W_OK) for node in nodes)


def _limit_looks(root: Path) -> Looks:
    return {
        "shm_bytes": lambda: shutil.disk_usage(root / "dev/shm").total,
        "locked_bytes": lambda: _limit(resource.RLIMIT_MEMLOCK, 0),
        "open_files": lambda: _limit(resource.RLIMIT_NOFILE, 0),
        "open_files_hard": lambda: _limit(resource.RLIMIT_NOFILE, 1),
        "disk_free_bytes": lambda: shutil.disk_usage(Path.cwd()).free,
        "cpus_allowed": lambda: frozenset(os.sched_getaffinity(0)),
        "cpus_online": os.cpu_count,
    }


def _limit(which: int, place: int) -> int:
    value = resource.getrlimit(which)[place]
    return -1 if value == resource.RLIM_INFINITY else value


def _clock_looks(root: Path) -> Looks:
    folder = root / "sys/devices/system/clocksource/clocksource0"
    return {
        "clock_source": lambda: _read(folder / "current_clocksource"),
        "clock_synchronised": lambda: _adjtimex()[0],
        "clock_error_us": lambda: _adjtimex()[1],
    }


def _adjtimex() -> tuple[bool, int | None]:
    """Whether the kernel's clock is disciplined, and its largest error in us (adjtimex(2))."""
    buffer = (ctypes.c_long * _TIMEX_LONGS)()  # struct timex; modes = 0 reads only
    state = int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(buffer)))
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    status = int(buffer[5]) & 0xFFFFFFFF
    synchronised = state != _TIME_ERROR and not status & _STA_UNSYNC
    return synchronised, int(buffer[3]) if synchronised else None


def _tool_looks(root: Path) -> Looks:
    return {
        "perf_paranoid": lambda: int(_read(root / "proc/sys/kernel/perf_event_paranoid") or ""),
        "perf_missing": _perf_missing,
        "perf_features": _perf_features,
        "sacct": lambda: shutil.which("sacct") is not None,
        "accounting": _accounting,
    }


def _perf_missing() -> tuple[str, ...] | None:
    perf = shutil.which("perf")
    if perf is None:
        return None
    return missing_libraries(_output("ldd", os.path.realpath(perf)))


def missing_libraries(said: str) -> tuple[str, ...]:
    """Names that `ldd` reports as not found."""
    return tuple(re.findall(r"^\s*(\S+) => not found", said, re.MULTILINE))


def _perf_features() -> dict[str, bool]:
    return features(_output("perf", "version", "--build-options"))


def features(said: str) -> dict[str, bool]:
    """`libdw: [ on  ]` and the like; names in newer versions carry `-dwarf-unwind` and so on."""
    found = re.findall(r"^\s*(lib\w+)[\w-]*: \[ *(on|OFF) *\]", said, re.MULTILINE | re.IGNORECASE)
    known: dict[str, bool] = {}
    for name, state in found:
        known[name] = known.get(name, False) or state.lower() == "on"
    return known


def _accounting() -> str | None:
    said = _output("scontrol", "show", "config")
    found = re.search(r"^AccountingStorageType\s*=\s*(\S+)", said, re.MULTILINE)
    return found[1] if found else None


def _env_looks(root: Path) -> Looks:
    return {
        "container": lambda: _container(root),
        "in_slurm_job": lambda: "SLURM_JOB_ID" in os.environ,
        "env": lambda: {name: os.environ[name][:200] for name in _ASKED if name in os.environ},
        "image_sets": lambda: _image_sets(root),
    }


_APPTAINER: Final = frozenset({"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"})


def _container(root: Path) -> str | None:
    # A folder that is no image has no .singularity.d: there the names of the runtime tell.
    if (root / ".singularity.d").exists() or os.environ.keys() & _APPTAINER:
        return "apptainer"
    if (root / "run/.containerenv").exists():
        return "podman"
    return "docker" if (root / ".dockerenv").exists() else None


def _image_sets(root: Path) -> tuple[str, ...]:
    """Names that the scripts of an Apptainer image export (their values are not kept)."""
    names: set[str] = set()
    for script in (root / ".singularity.d/env").glob("*.sh"):
        names |= set(re.findall(r"^\s*export\s+([A-Z_]\w*)=", _read(script) or "", re.MULTILINE))
    return tuple(sorted(names))


def cpu_list(text: str) -> frozenset[int]:
    """Numbers of `0-3,8` (the kernel's format of CPU lists)."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers |= set(range(int(first), min(int(last or first), int(first) + 4096) + 1))
    return frozenset(numbers)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _output(*command: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=5,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")
