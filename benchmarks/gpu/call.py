"""What recording a collective costs the host that calls it, us: bare, quiet and recorded.

    python -m torch.distributed.run --nproc-per-node 2 -m benchmarks.gpu.call

On GPUs the calls are NCCL's and return when they are launched; elsewhere they are gloo's and hold
the exchange itself. Rank 0 prints a row a way: the best of several loops, all in one process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

import harness_probe as probe

CALLS, LOOPS = 200, 7
ELEMENTS = 6400


def main() -> None:
    """Measure the three ways and print them."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    message = torch.ones(ELEMENTS, dtype=torch.bfloat16, device="cuda" if on_gpu else "cpu")

    def bare() -> float:
        _settle(on_gpu)
        dist.barrier()
        _settle(on_gpu)
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            dist.all_reduce(message)
        took = time.perf_counter_ns() - start
        _settle(on_gpu)
        return took / CALLS / 1e3

    def recorded() -> float:
        with probe.unit("prefill", step=0):
            took = bare()
        probe.resolve_device()
        return took

    def quiet() -> float:
        with probe.quiet():
            return recorded()

    rows = [("bare", _best(bare))]
    with tempfile.TemporaryDirectory() as folder:
        probe.start(folder, rank, world, rank)
        probe.trace_distributed()
        if on_gpu:
            probe.use_device()
        rows += [("quiet", _best(quiet)), ("recorded", _best(recorded))]
        probe.stop()
    if rank == 0:
        print("| call | us |\n|---|---:|")
        print("\n".join(f"| {name} | {took:.1f} |" for name, took in rows))
    dist.destroy_process_group()


def _settle(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def _best(loop: Callable[[], float]) -> float:
    loop()
    return min(loop() for _ in range(LOOPS))


if __name__ == "__main__":
    main()
