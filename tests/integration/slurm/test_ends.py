"""Ends of jobs that others bring about, on a real Slurm; docs/reliability.md has all of them.

All jobs are started first, so that they come to their middle together; each test ends its own.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import slurm_jobs as jobs
from slurm_ends import EAT, Scene, remedy

pytestmark = pytest.mark.integration

LONG = f"{jobs.RANK} 300\n"
LOST_SECONDS = 0.5 + 0.2
"""Records reach the file every half second; a span of the light rank takes 0.05 s."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, slurm):
    """A job for every test that needs one in its middle."""
    root = tmp_path_factory.mktemp("ends")
    wanted = {
        "killed": (LONG, ""),
        "memory": (f"{jobs.RANK} 300 || exit 9\n", ""),
        "full": (LONG, ""),
        "samplers": (f"{jobs.RANK} 12\n", "#SBATCH -w node1\n"),
        "left": (f"{jobs.RANK} 12\n", ""),
    }
    found = {}
    for name, (body, options) in wanted.items():
        found[name] = scene = Scene.make(root / name, name)
        if name == "full":
            scene.root = root / name / "scratch"
            scene.root.mkdir()
            words = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(scene.root))
            subprocess.run(words, check=True)
            scene.wrap(body, options, "--output", str(scene.root))
        else:
            scene.wrap(body, options)
    yield found
    for scene in found.values():
        scene.clear()
    subprocess.run(["umount", "--lazy", str(found["full"].root)], capture_output=True)


def told(scene, answer, verdict, code, do):
    """What every end has in common."""
    assert answer.code == code, answer.err
    name, detail = scene.verdict()
    assert name == verdict and do in remedy(detail), detail
    assert verdict in answer.out
    assert scene.left() == [] and scene.asked_too_often() == []


def test_killed_samplers_do_no_harm(scenes):
    scene = scenes["samplers"]
    scene.to_decode(ranks=1)
    jobs.wait_for(scene.run / "artifacts" / "psutil" / "node1" / "samples.jsonl")
    assert scene.kill_named("harness_collectors.agent") > 0
    answer = scene.end()
    assert answer.code == 0 and "finished: ok" in answer.out, answer.err
    assert scene.left() == [] and scene.asked_too_often() == []


def test_a_killed_rank(scenes):
    scene = scenes["killed"]
    scene.to_decode(ranks=1)
    scene.signal(0, signal.SIGKILL)
    answer = scene.end()
    told(scene, answer, "rank_failed", 137, "Killed")
    assert scene.lost_seconds() < LOST_SECONDS


def test_memory_beyond_the_limit(scenes):
    scene = scenes["memory"]
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("Slurm limits memory by the cgroups of version 1 only where there are some")
    scene.to_decode(ranks=1)
    scene.signal(0, EAT)
    answer = scene.end()
    told(scene, answer, "oom_host", 9, "raise `--mem`")
    assert scene.lost_seconds() < LOST_SECONDS


def test_scratch_that_is_full(scenes):
    scene = scenes["full"]
    scene.to_decode(ranks=1)
    with contextlib.suppress(OSError), (scene.root / "filler").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    scene.provoke(lambda: subprocess.run(["scancel", scene.job], check=True))
    answer = scene.end()
    assert answer.code == 143 and "failed: cancelled" in answer.out, answer.err
    elsewhere = re.search(r"No space left on device: .*; the database is (\S+)", answer.err)
    assert elsewhere, answer.err
    database = Path(elsewhere[1])
    shutil.move(database, scene.folder / "run.duckdb")
    database.parent.rmdir()
    spans = "SELECT count(*) FROM spans WHERE name = 'work'"
    assert jobs.rows(scene.folder, spans)[0][0] > 20
    assert scene.left() == [] and scene.asked_too_often() == []


def test_a_killed_harness_leaves_the_job_and_another_answers(scenes):
    scene = scenes["left"]
    scene.process.kill()
    scene.process.communicate()
    answer = scene.harness("run", "--attach", scene.job)
    assert answer.code == 0 and "finished: ok" in answer.out, answer.err
    assert scene.left() == []


def test_a_job_that_never_began(tmp_path, slurm):
    scene = Scene.make(tmp_path / "waits", "waits")
    scene.wrap(LONG, "#SBATCH --begin=now+1hour\n")
    jobs.wait_for(tmp_path / "waits" / "runs" / "latest" / "job" / "job.json")
    subprocess.run(["scancel", scene.job], check=True)
    answer = scene.end()
    assert (answer.code, scene.verdict()[0]) == (143, "cancelled"), answer.err


def test_accounting_that_is_down_keeps_nobody_waiting(tmp_path, slurm):
    scene = Scene.make(tmp_path / "down", "down")
    sacct = tmp_path / "down" / "bin" / "sacct"
    log = f'echo "$(date +%s.%N) sacct $*" >>{tmp_path}/down/calls.log\n'
    said = "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1"
    sacct.write_text(f"#!/bin/sh\n{log}{said}\n")
    scene.wrap("exit 3\n")
    answer = scene.end()
    told(scene, answer, "rank_failed", 3, "read the")
    assert "Connection refused" in answer.err and f"--attach {scene.job}" in answer.err
    assert len(jobs.calls(tmp_path / "down" / "calls.log", "sacct")) == 1
    states = jobs.rows(scene.run, "SELECT state, source FROM slurm_steps")
    assert states == [("FAILED", "scontrol")]
