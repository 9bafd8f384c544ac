"""Which Python ranks start in: this one or an image's, and what the image gets to see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.session import plan_run, prepare_command
from harness.setup.interpreter import bound_folders, choose_interpreter
from harness_schemas.errors import SpecError
from harness_schemas.rundir import name_run
from harness_schemas.spec import RunSpec
from harness_slurm.step import container


def spec(image=None, **changes):
    model = changes.pop("model", {"synthetic": "tiny-llama"})
    slurm = {"container": str(image)} if image else {}
    kind = {"launcher": {"kind": "local"}}
    return RunSpec(model=model, device="cpu", slurm=slurm, **kind, **changes)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """An image's file, and a program that would run it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "singularity"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "h.sif").touch()
    return tmp_path / "h.sif"


def test_model_and_reference_are_made_where_the_ranks_run(image, tmp_path):
    prompts = tmp_path / "texts" / "mine.jsonl"
    prompts.parent.mkdir()
    prompts.write_text('{"prompt": "a"}\n')
    wanted = spec(image, prompts={"source": str(prompts), "variant": None})
    plan = plan_run(wanted, name_run(tmp_path / "runs", "x"))
    binds = ",".join(map(str, (plan.run.path, tmp_path / "cache", tmp_path / "texts")))
    start = ("singularity", "exec", "--bind", binds, str(image), "python3", "-P", "-m")
    assert plan.launch.argv[:8] == start
    assert prepare_command(plan.run, plan.python)[:8] == start
    assert "singularity exec" in plan.describe()


def test_a_gpu_is_looked_for_before_torch_in_the_image_and_on_other_nodes(image, tmp_path):
    ranks = plan_run(spec(image), name_run(tmp_path, "x")).ranks
    on_gpus = type(ranks).from_json({**ranks.to_json(), "device": "cuda"})
    words = choose_interpreter(spec(image), on_gpus, on_nodes=True).rank("worker")
    gate = ("-m", "harness.doctor.gate", "--nv", "--", "python3", "-P", "-m", "worker")
    assert words[:3] == ("singularity", "exec", "--nv") and words[-8:] == gate
    outside = choose_interpreter(spec(), on_gpus, on_nodes=True).rank("worker")
    assert outside == (sys.executable, "-P", *gate[:2], "--", sys.executable, "-m", "worker")
    assert choose_interpreter(spec(), on_gpus, on_nodes=False).rank("worker")[1] == "-m"


def test_what_ranks_and_conversion_read_is_bound(image, tmp_path):
    ranks = plan_run(spec(image), name_run(tmp_path / "runs", "x")).ranks
    plain = ranks.to_json()
    plain["model"]["source"] = "/models/bin"
    plain["stage"] = {"weights": "/disk/a/harness-weights-0/m", "spool": "/disk/b/harness-spool-0"}
    found = bound_folders(type(ranks).from_json(plain))
    assert {Path("/models/bin"), Path("/disk/a"), Path("/disk/b")} < set(found)
    assert len(container.outermost(found)) == 5, "the made model lies in the cache"


def test_an_image_that_cannot_be_run_is_a_mistake_of_the_specification(
    image, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpecError) as refused:
        plan_run(spec(tmp_path / "no.sif"), name_run(tmp_path, "x"))
    paths, texts = zip(*refused.value.problems, strict=True)
    assert set(paths) == {"slurm.container"}
    assert "there is no" in texts[0] and "slurm.modules" in texts[1]


def test_folders_within_others_are_bound_once_and_links_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "1a", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "77").touch()
    (snapshot / "model.safetensors").symlink_to("../../blobs/77")
    found = container.model_folders(snapshot)
    assert found == [snapshot, blobs]
    assert container.outermost([*found, tmp_path / "hub", Path("/x")]) == [
        tmp_path / "hub",
        Path("/x"),
    ]
