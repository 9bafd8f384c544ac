"""Ranks in a container: needs Apptainer and an image (docs/container.md), minutes to make.

HARNESS_TEST_IMAGE=harness.sif pytest tests/integration/test_container.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import slurm_jobs as jobs

from harness_slurm.step.container import runtime

IMAGE = os.environ.get("HARNESS_TEST_IMAGE", "")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        runtime() is None or not IMAGE,
        reason="no container image is at hand: HARNESS_TEST_IMAGE names one",
    ),
]

SPEC = f"""
name = "contained"
device = "cpu"
model = {{ synthetic = "tiny-llama", layers = 2 }}
prompts = {{ limit = 2 }}
parallel = {{ tp = 2, pp = 2 }}
generation = {{ batch_size = 2, new_tokens = 6 }}
launcher = {{ kind = "local", threads = 1 }}
slurm = {{ container = "{Path(IMAGE).absolute()}" }}
"""


def test_spans_of_contained_ranks_and_samples_from_outside_meet_in_one_database(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    code, out, err = jobs.end(jobs.start("run", "spec.toml", cwd=tmp_path), timeout=280)
    assert code == 0, err
    assert "12 of 12 tokens equal" in out
    run = jobs.latest(tmp_path)
    found = jobs.rows(
        run, "SELECT rank, count(*) > 50 FROM spans WHERE source = 'app_timers' GROUP BY 1"
    )
    assert sorted(found) == [(rank, True) for rank in range(4)]
    seen = jobs.rows(run, "SELECT count(DISTINCT rank) FROM samples WHERE rank IS NOT NULL")
    assert seen == [(4,)], "the sampler outside found the processes inside"


def test_the_image_says_what_it_lacks():
    words = (str(runtime()), "exec", IMAGE, "harness", "doctor", "--require", "gpu")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 123)
    assert (done.returncode == 0) == Path("/dev/nvidiactl").exists()
    if done.returncode:
        assert "no GPU for the ranks on" in done.stderr
