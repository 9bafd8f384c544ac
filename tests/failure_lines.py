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
    # other schedulers, services and engines
    "=>> PBS: job killed: mem 515899392kb exceeded limit 513802240kb": "oom_host",
    "=>> PBS: job killed: walltime 3612 exceeded limit 3600": "timeout",
    "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit.": "oom_host",
    "TERM_RUNLIMIT: job killed after reaching LSF run time limit.": "timeout",
    "Warning Evicted pod/a The node was low on resource: memory.": "oom_host",
    "Normal  Preempted   pod/a   Preempted by pod 3b0e2a53 on node g": "preempted",
    "5m58s  Warning  NodeNotReady  pod/a  Node is not ready": "node_fail",
    "Received spot instance interruption notice": "preempted",
    "x systemd[1]: a.service: Failed with result 'oom-kill'.": "oom_host",
    "Killed /user.slice/a.scope due to memory pressure for /user.slice": "oom_host",
    "Docker job has gone over memory limit of 65536 Mb": "oom_host",
    "  Warning  Failed   1m    kubelet  Error: ImagePullBackOff": "rank_failed",
    "[TRT][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n): out of memory": "oom_gpu",
    "allocating 17066.89 MiB on device 0: cudaMalloc failed: out of memory": "oom_gpu",
    "ValueError: (16.00 GiB KV cache is needed, which is larger than the available KV cache memory":
        "oom_gpu",
    "ValueError: Free memory on device (11.02/79.11 GiB) on startup is less than desired GPU "
    "memory utilization (0.9, 71.2 GiB).": "oom_gpu",
    "RuntimeError: No HIP GPUs are available": "no_driver",
    "RuntimeError: Failed to infer device type": "no_driver",
    "HW Exception by GPU node-4 (Agent handle: 0x55d1) reason :GPU Hang": "rank_failed",
    "[2025-03-09 00:57:15 TP4] Watchdog timeout (self.watchdog_timeout=300)": "hang",
    "TimeoutError: RPC call to execute_model timed out.": "hang",
    "bench timed out after 600 s, exit code 124": "timeout",
    "SignalException: Process 812 got signal: 15": "cancelled",
    "EnvironmentNameNotFound: Could not find conda environment: infer-v2": "rank_failed",
    "what(): thread: Resource temporarily unavailable [system:11]": "rank_failed",
    "Signal 11 (SIGSEGV) received by PID 8123": "rank_failed",
    "/bin/bash: line 1:  7121 Aborted                 (core dumped) python x.py": "rank_failed",
    "[17.1] [n2:881:0] ib.c:177 UCX  ERROR Transport retry count exceeded on mlx5_0": "rank_failed",
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
    "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution": "xid",
    "(raylet) node_manager.cc:1: 2 Workers (tasks / actors) killed due to memory pressure (OOM), 0 "
    "Workers crashed due to other reasons at node (ID: 3)": "oom_host",
    "[  5.6] amdgpu 0000:67:00.0: GPU reset begin!": "rank_failed",
    "amdgpu 0000:0a:00.0: Unable to change power state from D3hot to D0, device inaccessible":
        "fell_off_bus",
    ":0:rocdevice.cpp :29: Queue 0x7f aborting with error : HSA_STATUS_ERROR_OUT_OF_RESOURCES: x":
        "rank_failed",
    "[4c86:144] Signal: Segmentation fault (11)": "rank_failed",
    "=   KILLED BY SIGNAL: 9 (Killed)": "rank_failed",
    "Abort(109) on node 0 (rank 0 in comm 0): Fatal error in PMPI_Init: Other": "rank_failed",
    "a.service: Main process exited, code=killed, status=9/KILL": "rank_failed",
    "[01/02/2026-03:04:05] [TRT-LLM] [RANK 0] [E] Hang detected on rank 0 in PyExecutor.": "hang",
    "submitit WARNING (2026-01-02) - Caught signal SIGHUP on n1: this job is preempted.":
        "preempted",
    "submitit WARNING (2026-01-02) - Caught signal SIGUSR2 on n1: this job is timed-out.":
        "timeout",
    "n1:1:2 [0] ofi.c:3 NCCL WARN NET/OFI Request 0x7 completed with error. RC: 5": "nccl_error",
    "n1:1:1 [0] cudawrap.cc:1 NCCL WARN Cuda failure 35 'CUDA driver version is insufficient for "
    "CUDA runtime version'": "no_driver",
    "requests.exceptions.ReadTimeout: HTTPConnectionPool(host='n1', port=8000)": "rank_failed",
    "srun: error: n1: task 0: Exited with exit code 143": "cancelled",
    "n1:1:1 [3] init.cu:1197 NCCL WARN Mismatched collective detected, please check": "rank_failed",
    "[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine. (/a.cpp:239)":
        "rank_failed",
    "There are not enough slots available in the system to satisfy the 8": "rank_failed",
    "NVRM: GPU 0000:17:00.0: RmInitAdapter failed! (0x24:0x72:1568)": "no_driver",
    "exec /usr/bin/python3: exec format error": "rank_failed",
    "torch._C._LinAlgError: linalg.eigh: did not converge": "rank_failed",
    "subprocess.TimeoutExpired: Command '['x']' timed out after 30 seconds": "rank_failed",
    "kernel: Task in /kubepods/pod1/a killed as a result of limit of /kubepods/pod1": "oom_host",
    "NVRM: GPU0 nvAssertOkFailedNoLog: GPU lost from the bus [NV_ERR_GPU_IS_LOST]": "fell_off_bus",
    "Error response from daemon: OCI runtime create failed: hook: exit status 1": "rank_failed",
    "nvidia-container-cli: detection error: nvml error: unknown error": "no_driver",
    "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0": "no_driver",
    'failed: exec: "nvidia-container-runtime": executable file not found in $PATH': "no_driver",
    "(raylet) The node with node id: ab12 and address: n2 has been marked dead": "node_fail",
    "DeepEP timeout check failed: rank = 3, thread = 1, value = 0)": "hang",
    "DeepEP combine NVL sender timeout, channel: 1, RDMA: 0": "hang",
    "RuntimeError: DeepEP error: timeout (dispatch CPU)": "hang",
    "Task /job:jax_worker/replica:0/task:5 heartbeat timeout. This indicates": "rank_failed",
    "INTERNAL: DEADLINE_EXCEEDED: GetKeyValue() timed out with key: x": "rank_failed",
    "Coordination service agent in error status: DEADLINE_EXCEEDED: late": "rank_failed",
    "ValueError: TP rank 1 could finish the model loading, but there are other ranks":
        "rank_failed",
    "Rank 2 scheduler is dead. Please check": "rank_failed",
    "Exit code: -9": "rank_failed",
    "Status message: Job entrypoint command failed with exit code 1": "rank_failed",
    "infer.py: error: unrecognized arguments: --tq 4": "rank_failed",
    "make[2]: *** [Makefile:12: all] Error 1": "rank_failed",
    "h:1:2 [0] net_ib.cc:1 NCCL WARN NET/IB : req 0/1 tag 0 peer 10.0.0.6<1> collective mismatch":
        "rank_failed",
    "E1 worker_pool.cpp:2] Worker: Process failed for slice (opcode: 0): retry": "rank_failed",
    "Container rank 0 status failed cmd ['python3'] code 1 log x": "rank_failed",
    "ERROR text_generation_launcher: Shard 0 crashed": "rank_failed",
    "Error: Rank 0 scheduler is dead. Exit code: -6 (SIGABRT)": "rank_failed",
    "amdgpu 0000:c5:00.0: amdgpu: ring comp_1.3.0 timeout, signaled seq=1": "rank_failed",
    "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* ring gfx_0.0.0 timeout, signaled": "rank_failed",
    'Thread 7 "python3" received signal SIGBUS, Bus error.': "rank_failed",
    '  "message": "RendezvousConnectionError: The connection has failed."': "rank_failed",
    '  "message": "RendezvousClosedError: ",': "rank_failed",
    "Exited with exit code 139.": "rank_failed",
    "[x E 1 2] logging.cc:97: Unhandled exception: N3c105ErrorE. what(): Collective call returned":
        "rank_failed",
    "-- Process 3 terminated with the following error:": "rank_failed",
    "[E] [_torch][RANK 3] Executor loop crashed on this rank; hard-killing": "rank_failed",
    "kernel failed : no kernel image is available for execution on the device": "rank_failed",
    "An ORTE daemon has unexpectedly failed after launch and before": "rank_failed",
    "C 01-02 03:04:05 [x.py:9] Executor got fatal signal from worker processes, shutting down.":
        "rank_failed",
    "W horovod: One or more tensors were submitted and are waiting for remainder of ranks": "hang",
    "EI0006: [PID: 12] Getting socket times out. Reason: Remote Rank": "rank_failed",
    "RuntimeError: x:281 OPS function error: HcclAllreduce, error code is 6": "rank_failed",
    "collect2: error: ld returned 1 exit status": "rank_failed",
    "n2: ssh: connect to host n2 port 22: Connection refused": "rank_failed",
    "oom_kill 3": "oom_host",
    "/sys/fs/cgroup/x/memory.events:oom_kill 1": "oom_host",
    "*** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO USER REQUEST ***": "cancelled",
    "INFO all is well": "unknown",
}  # fmt: skip

REMEDIES = {
    "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.": (
        "oom_host", "memory"),
    "slurmstepd: error: Step 7.0 exceeded memory limit (52 > 41), being killed": (
        "oom_host", "--mem"),
    "ValueError: No available memory for the cache blocks.": ("oom_gpu", "TP"),
    "n:1:2 [1] enqueue.cc:1 NCCL WARN Cuda failure 'out of memory'": ("oom_gpu", "TP"),
    "n:1:2 [0] net_ib.cc:1 NCCL WARN Call to ibv_create_cq failed with error Cannot allocate "
    "memory": ("nccl_error", "ulimit -l"),
    "Error 803: system has unsupported display driver / cuda driver combination": (
        "no_driver", "driver"),
    "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet "
    "initialized": ("no_driver", "fabricmanager"),
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": (
        "rank_failed", "compute capability"),
    "RuntimeError: CUDA error: invalid device ordinal": ("rank_failed", "set_device"),
    "OSError: [Errno 24] Too many open files": ("rank_failed", "ulimit -n"),
    "RuntimeError: can't start new thread": ("rank_failed", "ulimit -u"),
    "torch.distributed.DistNetworkError: The IPv6 network addresses of (a, 1) cannot be "
    "retrieved (gai error: -2 - Name or service not known).": ("rank_failed", "MASTER_ADDR"),
    "OSError: You are trying to access a gated repo.": ("rank_failed", "licence"),
    "huggingface_hub.errors.LocalEntryNotFoundError: outgoing traffic has been disabled.": (
        "rank_failed", "cache"),
    "OSError: Can't load tokenizer for '/models/x'.": ("rank_failed", "path"),
    "ValueError: Transformers does not recognize this architecture.": ("rank_failed", "update"),
    "safetensors_rust.SafetensorError: Error while deserializing header": (
        "rank_failed", "incomplete"),
    "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0": (
        "rank_failed", "bfloat16"),
    "FATAL:   could not open image /x.sif: no such file or directory": ("rank_failed", "image"),
    "srun: error: Unable to create step for job 7: More processors requested than permitted": (
        "rank_failed", "--overlap"),
    "slurmstepd: error: execve(): vllm: No such file or directory": (
        "rank_failed", "absolute path"),
    "srun: error: n1: task 3: Segmentation fault (core dumped)": ("rank_failed", "PYTHONFAULT"),
    "srun: error: n1: tasks 4-7: Exited with exit code 1": ("rank_failed", "stderr"),
    "mpirun noticed that process rank 2 with PID 0 on node n3 exited on signal 9 (Killed).": (
        "rank_failed", "memory"),
    "/var/spool/slurmd/job1/slurm_script: line 14: 30211 Killed        python x.py": (
        "rank_failed", "memory"),
    "[ERROR] [launch.py:321:sigkill_handler] ['python', 'x.py'] exits with return code = -9": (
        "rank_failed", "memory"),
    "slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2024-02-02T02:02:02 DUE to SIGNAL "
    "Terminated ***": ("cancelled", "scancel"),
    "NVRM: Xid (PCI:0000:3b:00): 45, pid=7, Ch 00000010": ("xid", "killed"),
    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up": (
        "xid", "NVSwitch"),
    "[rank0]:[F ProcessGroupNCCL.cpp:1505] [PG ID 0 Rank 0] Terminating the process after "
    "attempting to dump debug info, due to ProcessGroupNCCL watchdog hang.": (
        "nccl_timeout", "suspect"),
    "  Reason:       OOMKilled": ("oom_host", "memory"),
    "RuntimeError: Triton Error [CUDA]: out of memory": ("oom_gpu", "TP"),
    "slurmstepd: error: *** STEP 9.0 ON n1 CANCELLED AT 2024-01-01T00:00:00 DUE TO NODE n1 NOT "
    "RESPONDING ***": ("node_fail", "--exclude"),
    "srun: error: Task launch for StepId=7.0 failed on node n2: Invalid node name specified": (
        "rank_failed", "--exclude"),
    "Failed to initialize NVML: Unknown Error": ("no_driver", "driver"),
}  # fmt: skip
"""Further lines: verdict, and a word of the remedy."""

TORCHRUN = """\
failed (exitcode: {code}) local_rank: 5 (pid: 4211) of binary: python
Root Cause (first observed failure):
[0]:
  time      : 2024-06-13_12:00:00
  host      : n1
  rank      : 13 (local_rank: 5)
  exitcode  : {code} (pid: 4211)
  error_file: <N/A>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
"""The summary that torchrun prints of a rank's end."""

HARMLESS = (
    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress",
    "UserWarning: CUDA initialization: Found no NVIDIA driver on your system.",
    "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an incorrectly set",
    "NCCL WARN NET/Plugin: could not find libnccl-net.so",
    "h:1:2 [0] NCCL WARN Failed to open libibverbs.so[.1]",
    "h:1:2 [0] misc/ibvwrap.cc:2 NCCL WARN Call to ibv_open_device failed",
    "h:1:2 [0] transport/net_ib.cc:1 NCCL WARN NET/IB : Unable to open device mlx5_7",
    "[W socket.cpp:663] Warning: something",
    "NVRM: Xid (PCI:0000:01:00): 145, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x1 0x2)",
    "[rank0]:[W1 socket.cpp:200] [c10d] The hostname of the client socket cannot be retrieved.",
    "slurm_script: line 4: module: command not found",
    "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.104.05",
    "found no NaN in the logits; error rate 0.0",
    "slurmstepd: error: Detected 0 oom-kill event(s) in StepId=7.0 cgroup.",
    "oom_kill 0",
    "WARNING retrying after ConnectionResetError: [Errno 104] Connection reset by peer (1/3)",
    "WARNING: Could not load libcuda.so.1: cannot open shared object file; falling back to the CPU",
    "init.cc:1 NCCL WARN Your program may be hanging, this may be caused by a collective mismatch",
    "oom_kill_disable 0",
    "(raylet) node_manager.cc:1: 0 Workers (tasks / actors) killed due to memory pressure (OOM)",
    "a.service: Main process exited, code=exited, status=0/SUCCESS",
    "[rank1]:[W1 TCPStore.cpp:125] [c10d] recvValue failed on SocketImpl: Connection reset by peer",
    "[prompt 13] Explain srun: error: n1: task 3: Out Of Memory",
    "[answer 12] To fix a CUDA out of memory error you can lower the batch size.",
    "WARNING: Could not find any nv files on this host!",
    "consider decreasing `gpu_memory_utilization` if you are running out of memory",
)
"""Lines of runs that went well."""
