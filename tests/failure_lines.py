"""Lines that people reported, and the verdicts they lead to."""

from __future__ import annotations

FAILURES = {
    "01": ("nccl_timeout", (1, 2)),  # ranks 0, 3 and 4 of an excerpt wait
    "03": ("nccl_timeout", (0,)),  # 1, 2 and 3 wait: the fourth is missing
    "05": ("nccl_timeout", ()),  # numbers of several groups: nobody can be named
    "10": ("oom_host", (1, 2, 3)),
    "12": ("oom_host", (0,)),
    "14": ("oom_host", (0,)),
    "15": ("timeout", ()),
    "17": ("sacct_unavailable", ()),
    "20": ("fell_off_bus", ()),
    "22": ("xid", ()),
    "24": ("xid", ()),
    "30": ("no_driver", ()),
    "31": ("no_driver", ()),
    "40": ("nccl_error", ()),
    "42": ("nccl_error", (1,)),
}
"""By the number of the shared sample: verdict, suspects."""

SEED = {
    "RuntimeError: Found no NVIDIA driver on your system. Please check": ("no_driver", "--nv"),
    "perf: error while loading shared libraries: libdw.so.1: cannot open shared object file: "
    "No such file or directory": ("rank_failed", "libdw1"),
    "perf: error while loading shared libraries: libunwind.so.8: cannot open shared object file": (
        "rank_failed",
        "libunwind8",
    ),
    "ValueError: model.embed_tokens.weight doesn't have any device set.": (
        "rank_failed",
        "device_map",
    ),
    "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have "
    "been OOM Killed.": ("oom_host", "--mem"),
    "[1.2] Out of memory: Killed process 4711 (python3) total-vm:1kB": ("oom_host", "memory"),
}
"""The failures of the seed report: verdict, and a word of the remedy."""

OTHERS = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "oom_gpu",
    "torch.cuda.OutOfMemoryError: HIP out of memory.": "oom_gpu",
    "srun: error: n1: task 3: Out Of Memory": "oom_host",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate "
    "memory: you tried to allocate 9 bytes.": "oom_host",
    "RuntimeError: CUDA error: no CUDA-capable device is detected": "no_driver",
    "ImportError: libcuda.so.1: cannot open shared object file: No such file": "no_driver",
    "AssertionError: Torch not compiled with CUDA enabled": "no_driver",
    "Failed to initialize NVML: Driver/library version mismatch": "no_driver",
    "slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2025-01-01T00:00:00 DUE TO PREEMPTION ***":
        "preempted",
    "slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2025-01-01T00:00:00 DUE TO NODE FAILURE, "
    "SEE SLURMCTLD LOG FOR DETAILS ***": "node_fail",
    "slurmstepd: error: *** STEP 9.0 ON n1 CANCELLED AT 2025-01-01T00:00:00 ***": "cancelled",
    "ncclRemoteError: A call failed possibly due to a network error": "nccl_error",
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1, unhandled cuda "
    "error": "nccl_error",
    "ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000":
        "nccl_error",
    "NVRM: Xid (PCI:0000:3b:00): 119, pid=1, Timeout waiting for RPC from GSP!": "xid",
    "RuntimeError: CUDA error: an illegal memory access was encountered": "rank_failed",
    "OSError: [Errno 28] No space left on device": "rank_failed",
    "RuntimeError: The server socket has failed to listen. errno: 98 - Address already in use":
        "rank_failed",
    "ModuleNotFoundError: No module named 'deepspeed'": "rank_failed",
    "[rank1]: KeyError: 'lm_head.weight'": "rank_failed",
    "sacct: error: Problem talking to the database: Connection refused": "sacct_unavailable",
    "INFO all is well": "unknown",
}  # fmt: skip
