"""Ranks as the launcher starts them: how they end, and what they say."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time

import pytest
from integration.runner.jobs import make_model, make_plan, replaced
from unit.probe import spool

from harness_schemas.spi import LaunchPlan
from harness_slurm.local import LocalLauncher

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "llama", "tiny-llama", layers=2)


def launch(plan, world=None):
    module = "harness_runners.rank.worker"
    worker = (sys.executable, "-m", module, "--plan", str(plan.run.plan_json))
    env = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch_plan = LaunchPlan(worker, env, world or plan.world_size, plan.run.path, timeout_s=120)
    return LocalLauncher().launch(launch_plan)


def error_log(plan, rank):
    return plan.run.rank_log(rank, "err").read_text()


def units(plan, rank):
    return [row for row in spool.read(plan.run.spans, rank).meta if row["t"] == "unit"]


def test_a_killed_rank_ends_the_others_within_seconds(llama, tmp_path):
    plan = make_plan(tmp_path / "run", llama, tp=2, new_tokens=4000, check_prompts=0)
    killed = []

    def kill_when_decoding():
        until = time.monotonic() + 100
        while time.monotonic() < until and not killed:
            time.sleep(0.1)
            try:
                if any(row["phase"] == "decode" for row in units(plan, 1)):
                    start = next(r for r in spool.read(plan.run.spans, 1).meta if r["t"] == "start")
                    os.kill(start["pid"], signal.SIGKILL)
                    killed.append(time.monotonic())
            except (OSError, StopIteration, AssertionError, struct.error):
                continue  # files that are just being made

    killer = threading.Thread(target=kill_when_decoding)
    killer.start()
    result = launch(plan)
    ended = time.monotonic()
    killer.join()
    assert ended - killed[0] < 15
    assert result.exit_code == 128 + signal.SIGKILL
    assert result.failures[0].rank == 1
    for rank in range(2):
        found = spool.read(plan.run.spans, rank)
        assert any(record.end_ns for record in found.records)
    assert any(row["phase"] == "decode" for row in units(plan, 0))


def test_prompts_that_do_not_fit_are_the_users_mistake(llama, tmp_path):
    plan = make_plan(tmp_path / "run", llama, new_tokens=8190)
    result = launch(plan)
    assert result.exit_code == 2
    said = error_log(plan, 0)
    assert "harness: rank 0: prompt 'p0' has" in said
    assert "of the model's 8192 positions" in said
    assert "Traceback" not in said
    assert "of the model's 8192 positions" in result.failures[0].message
    (error,) = [row for row in spool.read(plan.run.spans).meta if row["t"] == "error"]
    assert error["kind"] == "UsageError"


def test_completions_that_cannot_be_written_are_one_line(llama, tmp_path):
    plan = make_plan(tmp_path / "run", llama, new_tokens=2, check_prompts=0)
    (plan.run.completions / "rank-00000.jsonl").symlink_to("/dev/full")
    result = launch(plan)
    assert result.exit_code == 1
    said = error_log(plan, 0).splitlines()
    line = next(text for text in said if text.startswith("harness: rank 0:"))
    assert "cannot write" in line
    assert "No space left on device" in line


def test_another_number_of_ranks_than_the_plan_needs(llama, tmp_path):
    plan = make_plan(tmp_path / "run", llama, tp=2)
    result = launch(replaced(plan, tp=1), world=1)
    assert result.exit_code == 2
    assert "tp 2 x pp 1 needs 2 ranks, the launcher started 1" in error_log(plan, 0)
