"""A world of one rank in this process: the whole path of a run without spawning anything."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("deepspeed", reason="deepspeed is not installed")

from integration.runner.jobs import completions, free_ports, make_model, make_plan, replaced
from unit.probe import spool

import harness_probe as probe
from harness_runners.check import reference
from harness_runners.rank import worker
from harness_runners.rank.groups import Place
from harness_runners.rank.process import RankEnv
from harness_runners.rank.units import Units
from harness_schemas.errors import UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "llama", "tiny-llama", layers=2)


@pytest.fixture
def alone(monkeypatch):
    """The environment of a world of one; whatever the world leaves behind is taken away."""
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(free_ports(1)[0]))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    yield RankEnv(0, 0, 1)
    import deepspeed.comm.comm
    import torch.distributed as dist

    deepspeed.comm.comm.cdb = None
    if dist.is_initialized():
        dist.destroy_process_group()
    probe.stop()
    probe.untrace_distributed()


def test_one_rank_generates_what_transformers_does(model, tmp_path, alone):
    plan = make_plan(tmp_path / "run", model, new_tokens=8, warmup=1, peaks=True)
    probe.stop()
    probe.start(plan.run.spans, 0, 1, 0)
    units = Units()
    worker.run_rank(plan, alone, units)
    units.close()
    result = reference.compare_run(plan)
    assert result["verdict"] == "pass", result["why"]
    assert result["compared"] == 24
    assert set(completions(plan)) == {("p0", 0), ("p1", 0), ("p2", 0)}
    for tokens in completions(plan).values():
        assert len(tokens) == 8
    probe.stop()
    facts = {key: value for row in spool.read(plan.run.spans, 0).meta for key, value in row.items()}
    assert facts["peak_source"] == "measured"
    assert 1e8 < facts["peak_bytes_per_s"] < 1e13
    assert 1e8 < facts["peak_flops_per_s"] < 1e15


def test_a_result_is_written_for_the_session(model, tmp_path, alone, capsys):
    plan = make_plan(tmp_path / "run", model, new_tokens=2)
    units = Units()
    worker.run_rank(plan, alone, units)
    units.close()
    assert reference.main(["--plan", str(plan.run.plan_json)]) == 0
    result = json.loads((plan.run.artifacts / "correctness" / "result.json").read_text())
    assert (result["verdict"], result["compared"], result["equal"]) == ("pass", 6, 6)
    assert result["reference"]["transformers"]


def test_a_model_that_does_not_fit_is_not_compared(model, tmp_path, monkeypatch):
    plan = make_plan(tmp_path / "run", model)
    monkeypatch.setattr(reference, "_bytes_available", lambda: 1_000_000)
    result = reference.compare_run(plan)
    assert result["verdict"] == "unknown"
    assert "in one process" in result["why"]


@pytest.fixture
def world(alone):
    import torch.distributed as dist

    dist.init_process_group("gloo", rank=0, world_size=1)


def test_tokens_are_made_once_unless_told_otherwise(model, tmp_path, world):
    plan = make_plan(tmp_path / "run", model)
    requests, tokenizer = worker.tokenise(plan, Place(0, 1, 1))
    (file,) = (tmp_path / "cache" / "tokens").iterdir()
    made = file.stat().st_mtime_ns
    assert tokenizer.decode(requests[1].tokens, skip_special_tokens=True) == "Name a star."
    again, _ = worker.tokenise(plan, Place(0, 1, 1))
    assert again == requests
    assert file.stat().st_mtime_ns == made
    worker.tokenise(replaced(plan, prompts=replaced(plan.prompts, override=True)), Place(0, 1, 1))
    assert file.stat().st_mtime_ns > made


def test_prompts_beyond_the_context_are_refused_with_the_numbers(model, tmp_path, world):
    plan = make_plan(tmp_path / "run", model, new_tokens=8190)
    with pytest.raises(UsageError, match=r"prompt 'p1' has \d tokens; with 8190 new ones it needs"):
        worker.tokenise(plan, Place(0, 1, 1))


def test_jobs_are_warm_up_repeats_and_check_in_this_order(model, tmp_path, world):
    plan = make_plan(tmp_path / "run", model, batch_size=2, warmup=3, repeats=2, check_prompts=1)
    requests, _ = worker.tokenise(plan, Place(0, 1, 1))
    jobs = [
        (job.repeat, job.index, len(job.requests), job.warmup, job.perturbed_by)
        for job in worker.make_jobs(plan, requests)
    ]
    assert jobs == [
        (-1, 0, 2, True, None),
        (-1, 1, 1, True, None),
        (-1, 2, 2, True, None),
        (0, 0, 2, False, None),
        (0, 1, 1, False, None),
        (1, 0, 2, False, None),
        (1, 1, 1, False, None),
        (2, 0, 1, False, "correctness"),
    ]
