"""What a job's own script said, where its `--output` lies outside of the run's folder."""

from __future__ import annotations

from dataclasses import asdict

from harness.outcome import End, judge_run, outputs_elsewhere
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
