"""What a job's own script said, where its `--output` lies outside of the run's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict

from harness.ending.outcome import End, judge_run, outputs_elsewhere
from harness.jobs.finish import later_programs
from harness_schemas.rundir import RunDir, create_run, write_json
from harness_slurm.job.marks import Begin


def test_the_scripts_own_output_is_evidence(tmp_path):
    run = RunDir(tmp_path / "runs" / "a-run")
    create_run(run)
    (run.path / "job").mkdir()
    said = tmp_path / "slurm-7.out"
    said.write_text("srun: error: node1: task 0: Out Of Memory\n")
    own = run.logs / "launcher.err"
    begin = Begin(0, "7", "node1", str(said), str(own))
    write_json(run.path / "job" / "begin.json", asdict(begin))
    assert outputs_elsewhere(run) == [said]
    assert judge_run(run, End(exit_code=1), None).verdict == "oom_host"


def test_a_later_program_that_was_not_recorded_is_told(tmp_path):
    """The recorder's own words, so that the two do not drift apart."""
    run = RunDir(tmp_path / "runs" / "a-run")
    create_run(run)
    (run.path / "job").mkdir()
    said = tmp_path / "slurm-7.out"
    write_json(run.path / "job" / "begin.json", asdict(Begin(0, "7", "n", str(said), str(said))))
    program = (sys.executable, "-c", "from harness import probe; probe.start()")
    env = {**os.environ, "HARNESS_SPOOL_DIR": str(run.spans), "RANK": "0"}
    with said.open("wb") as log:
        subprocess.run(program, env=env, stdout=log, stderr=log, check=True)
        assert later_programs(run) == []
        subprocess.run(program, env=env, stdout=log, stderr=log, check=True)
    (row,) = later_programs(run)
    assert row["state"] == "degraded" and str(row["reason"]).startswith("1 process of a later")


SCRIPT = """
echo "Authorization: Bearer hunter2hunter2hunter2" >&2
echo "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB." >&2
exit 3
"""


def test_what_a_wrapped_command_wrote_to_a_file_says_why_it_failed(tmp_path):
    """Its own words alone: not those that stood in the file before it."""
    argv = (sys.executable, "-m", "harness", "run", "-q", "--", "sh", "-c", SCRIPT)
    said = tmp_path / "slurm-7.out"
    said.write_text("RuntimeError: Found no NVIDIA driver on your system.\n")
    with said.open("ab") as log:
        done = subprocess.run(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, check=False)
    assert done.returncode == 3
    run = RunDir((tmp_path / "runs" / "latest").resolve())
    assert run.read()["verdict"] == "oom_gpu" and "rank 1" in run.read()["verdict_detail"]
    kept = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert b"OutOfMemoryError" in kept and b"hunter2" not in kept
