"""Checks of GPUs: driver, its binding into the container, NVML, torch's CUDA, who else profiles."""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.check import Check, missing, ok, warning
from harness.doctor.facts import Facts

_BIND = {
    "apptainer": "start the container with `apptainer exec --nv`",
    "singularity": "start the container with `singularity exec --nv`",
    "docker": "start the container with `--gpus all` (NVIDIA container toolkit)",
    "podman": "start the container with `--device nvidia.com/gpu=all`",
}


def gpu_checks(facts: Facts) -> Iterator[Check]:
    """In the order in which a program would stumble over them."""
    yield _driver(facts)
    if facts.gpus or facts.driver or facts.device_nodes:
        yield _binding(facts)
        yield _nvml(facts)
    yield _torch_cuda(facts)
    yield _monitors(facts)


def _driver(facts: Facts) -> Check:
    name = "nvidia driver"
    if facts.driver:
        return ok(name, facts.driver)
    cost = "ranks compute on the CPU; torch says 'Found no NVIDIA driver on your system'"
    if facts.container and (facts.gpus or facts.device_nodes):
        found = f"GPUs on the bus, no driver in this {facts.container} container"
        return missing(name, found, cost, _BIND.get(facts.container, "bind the host's driver"))
    if facts.gpus:
        mend = "load the kernel module (`modprobe nvidia`), or reinstall the driver for this kernel"
        return missing(name, f"{len(facts.gpus)} GPUs on the bus, no driver", cost, mend)
    mend = (
        "ask Slurm for GPUs (`--gres=gpu:N`): this node or allocation has none"
        if facts.in_slurm_job
        else "run on a GPU node; a login node has no driver"
    )
    if facts.container:
        mend += f", and {_BIND.get(facts.container, 'bind the driver into the container')}"
    return missing(name, "none, and no GPU on the bus", cost, mend)


def _binding(facts: Facts) -> Check:
    name = "driver binding"
    bind = _BIND.get(facts.container or "", "reinstall the driver's user-space libraries")
    if facts.driver and facts.libcuda is False:
        cost = "'libcuda.so.1: cannot open shared object file': no program finds the GPU"
        return missing(name, "the driver runs, libcuda.so.1 is not to be found", cost, bind)
    if facts.driver and not facts.device_nodes:
        cost = "CUDA sees no device"
        mend = "ask Slurm for GPUs (`--gres=gpu:N`)" if facts.in_slurm_job else bind
        return missing(name, "no /dev/nvidia0", cost, mend)
    visible = facts.env.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        cost = "CUDA sees no device: 'No CUDA GPUs are available'"
        mend = "unset it, or ask Slurm for GPUs, which sets it"
        return warning(name, f"CUDA_VISIBLE_DEVICES={visible!r}", cost, mend)
    return ok(name, "libcuda and device files are there" if facts.libcuda else "device files")


def _nvml(facts: Facts) -> Check:
    if facts.nvml == "ok":
        return ok("nvml", "answers")
    mismatch = "mismatch" in (facts.nvml or "").lower()
    mend = (
        "the driver was updated under a running kernel module: reboot, or reload the module"
        if mismatch
        else "pip install nvidia-ml-py, and see that nvidia-smi works"
    )
    cost = "no power, clocks, memory and NVLink bytes of the GPUs"
    return missing("nvml", facts.nvml or "not asked", cost, mend)


def _torch_cuda(facts: Facts) -> Check:
    name = "torch and CUDA"
    if facts.torch is None:
        cost = "`harness run SPEC` cannot run models; every other verb works"
        return missing(name, "no torch", cost, "pip install 'inference-harness[run]'")
    has_gpu = bool(facts.driver or facts.gpus)
    if not facts.torch_cuda:
        built = "built for the CPU" if facts.torch_cuda == "" else "CUDA of its build not known"
        if not has_gpu or facts.torch_cuda is None:
            return ok(name, f"torch {facts.torch}, {built}")
        cost = "'Torch not compiled with CUDA enabled': ranks compute on the CPU"
        return warning(name, f"torch {facts.torch}, {built}", cost, "install torch's CUDA build")
    found = f"torch {facts.torch} for CUDA {facts.torch_cuda}"
    if facts.cuda_of_driver is None:
        return ok(name, found)
    wanted = _version(facts.torch_cuda)
    driver = ".".join(map(str, facts.cuda_of_driver))
    # Within a major version a driver runs later minor ones (CUDA minor version compatibility).
    if wanted[:1] > facts.cuda_of_driver[:1]:
        cost = "'The NVIDIA driver on your system is too old': CUDA does not start"
        mend = f"a torch built for CUDA {facts.cuda_of_driver[0]}.x, or a newer driver"
        return warning(name, f"{found}, driver for CUDA {driver}", cost, mend)
    return ok(name, f"{found}, driver for CUDA {driver}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _monitors(facts: Facts) -> Check:
    name = "profiling lock"
    if not facts.monitors:
        return ok(name, "no monitoring daemon seen")
    who = ", ".join(facts.monitors)
    cost = (
        "a daemon that reads profiling metrics (DCGM fields 1001 and up) holds the counters: "
        "nsys GPU metrics and CUPTI counters fail, or its own values go missing"
    )
    mend = (
        "`dcgmi profile --pause` around the run (and --resume), or have the site's job option for "
        "it set; kernels and NVTX ranges are recorded all the same"
    )
    return warning(name, f"{who} is running", cost, mend)
