"""The device and the communication under a rank: torch, DeepSpeed's communication, facts."""

from __future__ import annotations

import os
from typing import Any

import harness_probe as probe
from harness_runners.engines import Engine
from harness_runners.plan import RunPlan
from harness_runners.rank.groups import Groups, Place
from harness_runners.rank.process import RankEnv
from harness_schemas.errors import HarnessError


def join_world(plan: RunPlan, env: RankEnv) -> Any:
    """Import torch and DeepSpeed, choose the device, initialise the world's process group.

    Every collective is recorded from here on. Returns the torch device.

    Raises:
        HarnessError: the plan wants a GPU and torch sees none.
    """
    # DeepSpeed guesses the accelerator on import: on a GPU machine a CPU run must say so.
    os.environ["DS_ACCELERATOR"] = plan.device
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import torch.distributed as dist

    device = _device(torch, plan, env)
    if plan.threads:
        torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.generation.seed)
    probe.trace_distributed()
    import deepspeed

    probe.trace_distributed()
    if device.type == "cpu":
        # The shared-memory all-reduce takes no group: it reduces over the wrong ranks as soon
        # as there are two stages (deepspeed 0.19 comm/torch.py, inference_all_reduce).
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    else:
        probe.use_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")):
        os.environ.setdefault(name, value)
    dist.init_process_group(backend, rank=env.rank, world_size=env.world_size)
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
    return device


def _device(torch: Any, plan: RunPlan, env: RankEnv) -> Any:
    if plan.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise HarnessError(
            "the plan computes on cuda, but torch sees no GPU",
            "install a torch build with CUDA, or use device cpu",
        )
    device = torch.device("cuda", env.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def device_facts(device: Any) -> dict[str, Any]:
    """Facts of this rank's device for the table `ranks`."""
    facts: dict[str, Any] = {
        "device": str(device),
        "cpus": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
    }
    if device.type == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(device)
        facts["gpu_name"] = properties.name
        facts["gpu_uuid"] = f"GPU-{properties.uuid}"
        domain, bus, slot = (
            getattr(properties, f"pci_{part}_id") for part in ("domain", "bus", "device")
        )
        facts["pci"] = f"{domain:04x}:{bus:02x}:{slot:02x}.0"
    return facts


def make_engine(plan: RunPlan, place: Place, groups: Groups, device: Any) -> Engine:
    """The engine that the plan names."""
    if plan.engine != "deepspeed":
        raise HarnessError(f"there is no engine {plan.engine!r}")
    from harness_runners.engines.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(plan, place, groups, device)
