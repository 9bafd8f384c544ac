"""The sbatch script of a specification, as it is submitted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import ROOT

from harness_schemas.errors import SpecError
from harness_schemas.spec import RunSpec
from harness_schemas.spec.slurm import SlurmSpec, array_tasks
from harness_slurm.job.script import job_shape, render_script
from harness_slurm.step.container import container_prefix

GOLDEN = ROOT / "tests" / "golden" / "sbatch"
RUN = Path("/scratch/runs/20260101-000000-example-1a2b")
COMMAND = ("python3", "-P", "-m", "harness", "run", "--in-job", str(RUN))

PLAIN = {"nodes": 2}
EVERYTHING = {
    "partition": "boost_usr_prod",
    "account": "IscrB_x",
    "nodes": 3,
    "ntasks_per_node": 4,
    "gpus_per_node": 4,
    "cpus_per_task": 8,
    "mem": "480G",
    "time": "90min",
    "constraint": "a100&nvlink",
    "qos": "normal",
    "reservation": "maint",
    "modules": ["cuda/12.4", "nccl"],
    "prologue": ["ulimit -c 0", "export NCCL_SOCKET_IFNAME=ib0  # the fast one"],
    "array": "0-3%2",
    "requeue": True,
    "warn": "2min",
    "directives": ["--exclusive", "--comment=two words"],
}


def spec(slurm, tp=2, pp=2, device="cpu", name="example"):
    return RunSpec.model_validate(
        {
            "name": name,
            "device": device,
            "model": {"synthetic": "tiny-llama"},
            "parallel": {"tp": tp, "pp": pp},
            "slurm": slurm,
        }
    )


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("plain", lambda: spec(PLAIN)),
        ("everything", lambda: spec(EVERYTHING, 4, 3, "cuda", 'an "odd" name')),
    ],
)
def test_the_script_is_the_golden_one(name, made):
    script = render_script(made(), RUN, COMMAND, {"HARNESS_CACHE_DIR": "/home/me/my cache"})
    assert script == (GOLDEN / f"{name}.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_every_key_of_the_section_is_in_the_script():
    assert set(EVERYTHING) | {"container", "binds", "tp_across_nodes"} == set(
        SlurmSpec.model_fields
    )


def test_ranks_fill_nodes_in_whole_stages():
    assert job_shape(spec({"nodes": 2})).ntasks_per_node == 2
    assert job_shape(spec({"nodes": 2}, tp=2, pp=3)).ntasks_per_node == 4
    assert job_shape(spec({"nodes": 2}, 4, 2, "cuda")).gpus_per_node == 4
    across = {"nodes": 4, "ntasks_per_node": 1, "tp_across_nodes": True}
    assert job_shape(spec(across)).ntasks_per_node == 1


@pytest.mark.parametrize(
    ("slurm", "says"),
    [
        ({"nodes": 4, "ntasks_per_node": 1}, "no whole stages of tp 2"),
        ({"nodes": 2, "ntasks_per_node": 1}, "hold fewer than tp x pp = 4"),
        ({"nodes": 2, "ntasks_per_node": 3, "gpus_per_node": 2}, "share 2 GPUs"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(slurm, says):
    with pytest.raises(SpecError, match=says):
        job_shape(spec(slurm, device="cuda"))


@pytest.mark.parametrize(
    "slurm",
    [
        {"partition": "a b"},
        {"account": "x$(rm)"},
        {"time": "soon"},
        {"array": "3-1"},
        {"directives": ["--output=x"]},
        {"directives": ["--comment=a\nrm -rf ~"]},
        {"prologue": ["#SBATCH --nodes=9"]},
        {"nodez": 1},
    ],
)
def test_what_is_no_request_is_refused(slurm):
    with pytest.raises(ValueError, match="slurm"):
        spec(slurm)


@pytest.mark.parametrize(
    ("given", "read"),
    [("90min", "01:30:00"), ("2h", "02:00:00"), ("61s", "00:02:00"), ("30", "00:30:00")]
    + [(text, text) for text in ("1:00", "00:05:00", "1-12:00:00", "2-0")],
)
def test_times(given, read):
    assert SlurmSpec(time=given).slurm_time == read


def test_arrays():
    assert array_tasks("0-3%2") == [0, 1, 2, 3]
    assert array_tasks("7,1-5:2") == [1, 3, 5, 7]


def test_ranks_of_a_container_see_their_folders():
    folders = (Path("/scratch/runs/r"), Path("/home/me/.cache/harness"))
    slurm = SlurmSpec(container="/images/h.sif", binds=["/data:/d"])
    assert container_prefix(slurm, "cuda", folders) == (
        *("apptainer", "exec", "--nv", "--bind"),
        "/scratch/runs/r,/home/me/.cache/harness,/data:/d",
        "/images/h.sif",
    )
    assert "--nv" not in container_prefix(slurm, "cpu", folders)
    assert container_prefix(SlurmSpec(), "cuda", folders) == ()
