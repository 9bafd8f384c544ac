"""The rank side of `harness bench collectives`: how long communication takes when nobody is late.

Started by the harness, or where only ranks are wanted by
`python -m torch.distributed.run --nproc-per-node 2 -m harness_runners.bench.collectives`.

One round is a chain of calls, each waiting for the one before, after all ranks have met. On a CPU
its time over the number of calls, the slowest rank's, is one value. On a GPU the chain is a CUDA
graph, and calls are told apart in it (bench_graph). A message goes to and fro, and its time is that
of one way.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness_runners.bench.calls import Call, make_call
from harness_runners.bench.graph import GraphChain
from harness_runners.bench.plan import (
    DEFAULT_SIZES,
    FORMAT,
    ITEM_BYTES,
    OPS,
    SYMMETRIC,
    VERSION,
    BenchPlan,
    Cell,
    parse_sizes,
    result_row,
)
from harness_runners.bench.times import Times, over_ranks
from harness_runners.rank.process import RankEnv
from harness_schemas.errors import HarnessError

BUDGET_NS = 0.5e9
"""A cell's rounds together, about; then there are at least `ROUNDS[0]`."""
ROUNDS = (7, 40)
CALLS = (8, 64)
WARMUP_CALLS = 4
TIMEOUT_S = 120
NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1"}

Round = Callable[[Times], float]
"""Runs a round, adds what it measured, and returns how long all of it took in ns."""


def main(argv: list[str] | None = None) -> int:
    """Measure every cell of the plan; rank 0 writes the results."""
    try:
        env = RankEnv.read()
        plan = read_plan(argv, env)
        bench = Bench(plan, env)
        rows, skipped = bench.measure_all()
    except HarnessError as error:
        sys.stderr.write(f"harness: {error.message}\n")
        return error.exit_code
    if env.rank == 0:
        document = {"format": FORMAT, "version": VERSION, **bench.facts()}
        text = json.dumps({**document, "skipped": skipped, "rows": rows}, indent=1)
        Path(plan.output).write_text(text + "\n")
    bench.close()
    return 0


def read_plan(argv: list[str] | None, env: RankEnv) -> BenchPlan:
    """The plan that the session wrote, or one from options."""
    parser = argparse.ArgumentParser(prog="harness_runners.bench.collectives", description=__doc__)
    parser.add_argument("--plan", type=Path, help="plan written by `harness bench collectives`")
    parser.add_argument("--ops", default=",".join(OPS))
    parser.add_argument("--sizes", default=DEFAULT_SIZES)
    parser.add_argument("--groups", help="sizes of groups; default: all ranks")
    parser.add_argument("--dtype", choices=sorted(ITEM_BYTES))
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--output", default="floors.json")
    given = parser.parse_args(argv)
    if given.plan is not None:
        return BenchPlan.read(given.plan)
    import torch

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    groups = [int(text) for text in (given.groups or str(env.world_size)).split(",")]
    return BenchPlan(
        output=given.output,
        ops=tuple(given.ops.split(",")),
        sizes=parse_sizes(given.sizes),
        groups=tuple(groups),
        dtype=given.dtype or ("bfloat16" if device == "cuda" else "float32"),
        device=device,
    )


class Bench:
    """A rank of the benchmark: its groups, and how a chain of calls is timed on its device."""

    def __init__(self, plan: BenchPlan, env: RankEnv) -> None:
        for name, value in NO_MULTICAST.items():
            os.environ.setdefault(name, value)
        import torch
        import torch.distributed as dist

        self._plan = plan
        self._rank = env.rank
        self._device = torch.device(plan.device)
        if plan.device == "cuda":
            self._device = torch.device("cuda", env.local_rank % torch.cuda.device_count())
            torch.cuda.set_device(self._device)
        backend = "cpu:gloo,cuda:nccl" if plan.device == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=TIMEOUT_S))
        sizes = sorted({cell.group_size for cell in plan.cells()})
        # A group of its own for meeting: its traffic never mixes with what a graph captured.
        self._groups = {size: dist.new_group(list(range(size))) for size in sizes}
        self._gates = {size: dist.new_group(list(range(size))) for size in sizes}
        self._pools: dict[int, Any] = {}

    def measure_all(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of results, and cells that could not be measured with the reason."""
        rows, skipped = [], []
        for cell in self._plan.cells():
            calls = max(CALLS[0], min(CALLS[1], (16 << 20) // cell.bytes))
            found = self._share(self._try(cell, calls))
            reasons = [answer for answer in found if isinstance(answer, str)]
            if reasons:
                what = {"op": cell.op, "implementation": cell.implementation}
                skipped.append({**what, "bytes": cell.bytes, "reason": reasons[0]})
                continue
            times = [answer for answer in found if isinstance(answer, Times)]
            rows.append(result_row(cell, self._plan.dtype, over_ranks(times, calls)))
        return rows, skipped

    def _share(self, answer: Any) -> list[Any]:
        """Every rank's answer."""
        import torch.distributed as dist

        answers: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(answers, answer)
        return answers

    def _try(self, cell: Cell, calls: int) -> Times | str | None:
        """This rank's times, or why it has none; None outside the group."""
        if self._rank >= cell.group_size:
            return None
        group = self._groups[cell.group_size]
        try:
            call = make_call(
                cell, group, self._plan.dtype, self._device, lambda size: self._pool(cell, size)
            )
            if self._device.type == "cpu":
                return self._rounds(self._loop(call, calls, cell.group_size), cell.group_size)
            chain = self._graph(call, calls, cell.group_size)
            times = self._rounds(chain.round, cell.group_size)
            chain.profile(times)
            return times
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"

    def _pool(self, cell: Cell, size: int) -> Any:
        """Symmetric memory of the cell's group: made once, for the largest cell."""
        import torch
        import torch.distributed._symmetric_memory as symmetric

        if cell.group_size not in self._pools:
            cells = [c for c in self._plan.cells() if c.implementation in SYMMETRIC]
            largest = max([size, *(c.bytes for c in cells)]) + 256
            pool = symmetric.empty(largest, dtype=torch.uint8, device=self._device)
            symmetric.rendezvous(pool, self._groups[cell.group_size].group_name)
            self._pools[cell.group_size] = pool.zero_()
        return self._pools[cell.group_size]

    def _rounds(self, one_round: Round, group_size: int) -> Times:
        """As many rounds as the budget allows, the same number on every rank."""
        import torch
        import torch.distributed as dist

        one_round(Times())
        first = torch.tensor([one_round(Times())], dtype=torch.float64)
        dist.all_reduce(first, dist.ReduceOp.MAX, group=self._gates[group_size])
        times = Times()
        for _ in range(max(ROUNDS[0], min(ROUNDS[1], int(BUDGET_NS / max(first.item(), 1.0))))):
            one_round(times)
        return times

    def _loop(self, call: Call, calls: int, group_size: int) -> Round:
        import torch.distributed as dist

        for number in range(WARMUP_CALLS):
            call(number)

        def one_round(times: Times) -> float:
            dist.barrier(group=self._gates[group_size])
            start = time.perf_counter_ns()
            for number in range(calls):
                call(number)
            whole = float(time.perf_counter_ns() - start)
            times.rounds_ns.append(whole / calls)
            return whole

        return one_round

    def _graph(self, call: Call, calls: int, group_size: int) -> GraphChain:
        import torch.distributed as dist

        for number in range(WARMUP_CALLS):
            call(number)
        gate = self._gates[group_size]
        return GraphChain(call, calls, self._device, lambda one: dist.all_reduce(one, group=gate))

    def facts(self) -> dict[str, Any]:
        """Device and versions."""
        import torch

        on_gpu = self._device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self._device) if on_gpu else "cpu",
            "world_size": torch.distributed.get_world_size(),
            "torch": torch.__version__,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else None,
            "cuda": torch.version.cuda if on_gpu else None,
            "env": {name: os.environ.get(name) for name in NO_MULTICAST},
        }

    def close(self) -> None:
        """Leave together."""
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
