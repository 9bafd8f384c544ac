"""What is recorded of versions, host and environment: an allow-list, so no secret gets out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import __version__
from harness_schemas.redact import redact

PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "safetensors",
    "duckdb",
    "pyarrow",
    "numpy",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
)
ALLOWED_NAMES = re.compile(
    r"^(SLURM_(JOB_ID|JOB_NAME|JOB_PARTITION|JOB_NUM_NODES|JOB_NODELIST|NTASKS|NTASKS_PER_NODE"
    r"|CPUS_PER_TASK|GPUS_ON_NODE|PROCID|LOCALID|NODEID|RESTART_COUNT|ARRAY_JOB_ID|ARRAY_TASK_ID"
    r"|STEP_ID|CLUSTER_NAME)"
    r"|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_MAX_CONNECTIONS|OMP_NUM_THREADS|MKL_NUM_THREADS"
    r"|NCCL_(ALGO|PROTO|DEBUG|DEBUG_SUBSYS|SOCKET_IFNAME|IB_DISABLE|IB_HCA|P2P_DISABLE|P2P_LEVEL"
    r"|SHM_DISABLE|NET_GDR_LEVEL|MIN_NCHANNELS|MAX_NCHANNELS|NVLS_ENABLE|CUMEM_ENABLE|BUFFSIZE)"
    r"|TORCH_NCCL_(BLOCKING_WAIT|ASYNC_ERROR_HANDLING|AVOID_RECORD_STREAMS)"
    r"|GLOO_SOCKET_IFNAME|HF_HUB_OFFLINE|TOKENIZERS_PARALLELISM|RANK|LOCAL_RANK|WORLD_SIZE)$"
)
MAX_VALUE = 200
MAX_COMMAND = 4000


def provenance(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, host and allow-listed environment of this process; of a wrapped command, its line
    with secrets masked."""
    command = {"command": redact(shlex.join(argv))[:MAX_COMMAND]} if argv else {}
    return {
        **command,
        "harness": __version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "host": host_facts(),
        "env": allowed_env(os.environ),
        "git": git_commit(Path.cwd()),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that matter, where installed. Imports none of them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def host_facts() -> dict[str, Any]:
    """What this machine is."""
    return {
        "name": socket.gethostname(),
        "os": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }


def allowed_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables on the allow-list, values cut at `MAX_VALUE` characters."""
    return {
        name: value[:MAX_VALUE]
        for name, value in sorted(environment.items())
        if ALLOWED_NAMES.match(name)
    }


def git_commit(folder: Path) -> str | None:
    """Commit of the user's own project, `+dirty` when files differ; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
