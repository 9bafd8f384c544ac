"""What keeps ranks from their GPUs is one line before torch starts, and an exit code."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.main import invoke
from harness.doctor.facts import Facts, Gpu
from harness.doctor.gate import refusal
from harness.doctor.gather import gather_gpus
from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import TextLine, VerdictEvidence
from harness_schemas.errors import ExitCode

NODE = Facts(
    container="apptainer",
    in_slurm_job=True,
    driver="550.54.15",
    gpus=(Gpu("0000:18:00.0"),),
    device_nodes=4,
    libcuda=True,
    nvml="ok",
    cuda_of_driver=(12, 4),
    torch="2.13.0",
    torch_cuda="12.8",
)

# What is changed about a good node; whether --nv was given; what was found; what to do.
WRONG = [
    ({"libcuda": False}, False, "libcuda.so.1 is not to be found", "apptainer exec --nv"),
    ({"libcuda": False}, True, "libcuda.so.1 is not to be found", "ldconfig -p"),
    ({"device_nodes": 0}, True, "no /dev/nvidia0", "--gres=gpu"),
    ({"driver": None}, False, "no driver in this apptainer container", "exec --nv"),
    ({"driver": None}, True, "no driver", "modprobe"),
    ({"driver": None, "gpus": (), "device_nodes": 0}, True, "no GPU on the bus", "--gres=gpu"),
    ({"torch_cuda": "13.0"}, True, "driver for CUDA 12.4", "CUDA 12.x"),
    ({"torch_cuda": ""}, True, "built for the CPU", "CUDA build"),
    ({"env": {"CUDA_VISIBLE_DEVICES": ""}}, True, "CUDA_VISIBLE_DEVICES=''", "unset it"),
]


@pytest.mark.parametrize(("changes", "bound", "found", "mend"), WRONG)
def test_each_thing_that_is_missing_is_named_with_its_mend(changes, bound, found, mend):
    said = refusal(dataclasses.replace(NODE, **changes), "node-17", bound)
    assert said is not None
    assert said[0].startswith("no GPU for the ranks on node-17 (inside apptainer): ")
    assert found in said[0] and mend in said[1]
    assert not (bound and "--nv`" in said[1]), "it was given"
    line = TextLine("stderr", f"harness: {said[0]}; {said[1]}", 3)
    assert judge(VerdictEvidence(exit_code=123, lines=(line,))).name == "no_driver"


def test_a_good_node_passes_and_what_cannot_be_known_is_no_reason():
    assert refusal(NODE, "node-17", True) is None
    unknown = dataclasses.replace(NODE, cuda_of_driver=None, torch_cuda=None, libcuda=None)
    assert refusal(unknown, "node-17", True) is None


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
def test_without_a_gpu_the_program_is_not_started(capsys):
    gate = [sys.executable, "-P", "-m", "harness.doctor.gate", "--nv", "--"]
    done = subprocess.run([*gate, "echo", "started"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (ExitCode.NOT_READY, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("harness: no GPU for the ranks on ")
    assert invoke(["doctor", "--require", "gpu"]) == 123
    assert "no GPU for the ranks on" in capsys.readouterr().err


def test_the_gate_imports_nothing_heavy():
    code = "import harness.doctor.gate, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"torch", "numpy", "duckdb", "pyarrow", "pydantic"} & set(done.stdout.split())
    assert gather_gpus().clock_source is None
