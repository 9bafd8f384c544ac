"""What is known of a machine: plain data, so that every check can be tried on machines we lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Gpu:
    """A GPU on the PCI bus: address, NUMA node (None: not said) and the CPUs near it."""

    pci: str
    numa: int | None = None
    cpus: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Interface:
    """A network interface: whether it is up, and its link type (ether, infiniband, loopback)."""

    name: str
    up: bool
    kind: str = "ether"


@dataclass(frozen=True)
class HcaPort:
    """A port of an InfiniBand or RoCE adapter. `state`: ACTIVE, DOWN, INIT, ..."""

    device: str
    port: int
    state: str
    link: str = "InfiniBand"


@dataclass(frozen=True)
class Facts:
    """A machine, its tools and the environment of this process. None: not known."""

    python: str = ""
    container: str | None = None
    """apptainer, docker, podman, ...; None: none was noticed."""
    in_slurm_job: bool = False
    # GPUs
    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    device_nodes: int = 0
    """/dev/nvidia0 and so on."""
    libcuda: bool | None = None
    nvml: str | None = None
    """ok, or why NVML does not answer."""
    cuda_of_driver: tuple[int, int] | None = None
    torch: str | None = None
    torch_cuda: str | None = None
    """CUDA that torch was built for; empty: a CPU build; None: not known."""
    # network
    interfaces: tuple[Interface, ...] = ()
    hca_ports: tuple[HcaPort, ...] = ()
    verbs_usable: bool | None = None
    """/dev/infiniband/uverbs* is there and may be opened."""
    libibverbs: bool | None = None
    # limits
    shm_bytes: int | None = None
    locked_bytes: int | None = None
    """-1: unlimited."""
    open_files: int | None = None
    """-1: unlimited."""
    open_files_hard: int | None = None
    disk_free_bytes: int | None = None
    # clocks
    clock_source: str | None = None
    clock_synchronised: bool | None = None
    clock_error_us: int | None = None
    # processors
    cpus_allowed: frozenset[int] = frozenset()
    cpus_online: int | None = None
    # tools
    perf_paranoid: int | None = None
    perf_missing: tuple[str, ...] | None = None
    """Shared libraries that perf is linked with and the loader does not find; None: no perf."""
    perf_features: Mapping[str, bool] = field(default_factory=dict)
    """Of `perf version --build-options`: libdw, libunwind, ..."""
    monitors: tuple[str, ...] = ()
    """Processes of monitoring that may hold the GPU's profiling counters."""
    sacct: bool = False
    accounting: str | None = None
    """AccountingStorageType of the cluster; None: not said."""
    # environment
    env: Mapping[str, str] = field(default_factory=dict)
    """Only variables that the checks ask for; no value that may be secret."""
    image_sets: tuple[str, ...] = ()
    """Variables that the container image sets by itself, which outdo those of the host."""
