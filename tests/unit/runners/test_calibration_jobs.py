"""Pairs of batches with the recorder off and on."""

from __future__ import annotations

from harness_runners.plan import GenerationPlan, ModelPlan, RunPlan
from harness_runners.prompts import Request
from harness_runners.rank.worker import make_jobs

REQUESTS = [Request(f"p{index}", (1,) * (index + 1)) for index in range(3)]


def jobs(**generation):
    settings = GenerationPlan(batch_size=2, **generation)
    plan = RunPlan("run", "cache", ModelPlan("m"), (1,), generation=settings, check_prompts=1)
    return list(make_jobs(plan, REQUESTS))


def test_pairs_run_the_first_batch_between_the_measured_and_the_checked():
    found = jobs(calibrate=3, repeats=2, warmup=1)
    assert [job.perturbed_by for job in found] == [
        *[None] * 5,
        "calibrate:off",
        "calibrate:on",
        "calibrate:on",
        "calibrate:off",
        "calibrate:off",
        "calibrate:on",
        "correctness",
    ]
    pairs = found[5:11]
    assert {(job.index, job.warmup, job.keep_logits) for job in pairs} == {(0, False, False)}
    assert [job.repeat for job in pairs] == [3, 4, 5, 6, 7, 8]
    assert all([r.id for r in job.requests] == ["p0", "p1"] for job in pairs)
    keys = [(job.index, job.repeat) for job in found]
    assert len(set(keys)) == len(keys)


def test_each_collector_asked_for_has_pairs_of_its_own():
    found = jobs(calibrate=1, calibrate_collectors=("nvml",), warmup=0)
    assert [(job.perturbed_by, job.repeat) for job in found[2:-1]] == [
        ("calibrate:off", 2),
        ("calibrate:on", 3),
        ("calibrate:off:nvml", 4),
        ("calibrate:on:nvml", 5),
    ]


def test_without_calibration_nothing_is_added():
    assert [job.perturbed_by for job in jobs(warmup=0)] == [None, None, "correctness"]
