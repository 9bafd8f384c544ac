"""Output of tools that is known and not read: what it is, and what to bring instead."""

from __future__ import annotations

import re
from typing import Final

_FORMS: Final = (
    (
        r"ROCm System Management Interface|^(?:=+ )?ROCm SMI|^\s*\{\s*\"card\d+\""
        r"|^device,.{0,400}\(%\)",
        "output of rocm-smi: AMD's counters are not read; of its log, `dmesg` and stderr are",
    ),
    (r"^GPU: \d+\n +(?:ASIC|USAGE|POWER):|^ *AMD-SMI ", "output of amd-smi, which is not read"),
    (
        r"^#? ?Entity +(?:[A-Z0-9_]+ *)+$|^\| (?:Group Info|Field Group|Host Engine)|dcgmi ",
        "output of dcgmi: not read; `harness run` samples NVML itself",
    ),
    (
        r"^# HELP DCGM_FI|^DCGM_FI_\w+\{",
        "metrics of the DCGM exporter: not read; `harness run` samples NVML itself",
    ),
    (
        r"^# HELP (?:nccl_inspector|nvidia_smi|node_|vllm:|sglang:)",
        "metrics for Prometheus, which are not read: bring the tool's own log",
    ),
    (
        r"^=+NVSMI LOG=+|<nvidia_smi_log>|DOCTYPE nvidia_smi_log|^\| NVIDIA-SMI \d",
        "a status page of nvidia-smi: of its output `topo -m`, `dmon` and `--query-gpu` are read",
    ),
    (
        r"^GPU \d+: .{0,80}\(UUID: GPU-|^# gpu +pid +type",
        "a list of nvidia-smi: of its output `topo -m`, `dmon` and `--query-gpu` are read",
    ),
    (
        r"^# Overhead +(?:Children +)?(?:Self +)?(?:Command|Shared Object|Symbol)"
        r"|^# Samples: .{0,20} of event ",
        "a perf report, which has no samples any more: bring `perf script` or perf.data",
    ),
    (r"^version https://git-lfs", "a git-lfs pointer instead of the file: `git lfs pull`"),
    (r"^<!DOCTYPE html|^<html", "a web page: download the raw file"),
)
_KNOWN: Final = tuple((re.compile(form, re.MULTILINE), name) for form, name in _FORMS)
_LOOKED_AT: Final = 4096


def known_format(head: bytes) -> str | None:
    """What a file is, from its beginning, if it is output that no collector reads."""
    text = head[:_LOOKED_AT].decode("utf-8", "replace")
    return next((name for form, name in _KNOWN if form.search(text)), None)
