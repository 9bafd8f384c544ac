"""The accounting of an array, shared out to its tasks: from sacct, and from scontrol without it."""

from __future__ import annotations

from harness.jobs.finish import finish
from harness.progress import Narrator
from harness_analysis.store import open_database
from harness_collectors.sacct.query import Answer
from harness_schemas.rundir import RunDir, create_run
from harness_slurm.job.controller import JobState
from harness_slurm.job.marks import PARTS, JobRecord, task_run, write_end

TASK = (
    "JobId=1{task} ArrayJobId=9 ArrayTaskId={task} JobName=a UserId=me(1) MCS_label=N/A "
    "JobState={state} Reason=None Restarts=0 ExitCode={code}:0 RunTime=00:00:05 "
    "StartTime=1700000000 EndTime=1700000005 NodeList=n1 NumNodes=1 NumTasks=1\n"
)


class Slurm:
    """No database of accounts, and a controller that knows both tasks."""

    def __init__(self):
        self.asked = []

    def run(self, argv):
        self.asked.append(argv[0])
        if argv[0] == "sacct":
            return Answer(1, "", "sacct: error: Problem talking to the database")
        tasks = ((1, "COMPLETED", 0), (2, "FAILED", 5))
        return Answer(0, "".join(TASK.format(task=t, state=s, code=c) for t, s, c in tasks), "")


def test_tasks_get_their_rows_from_the_controller_with_one_question(tmp_path):
    run = RunDir(tmp_path / "runs" / "an-array")
    create_run(run)
    run.write({"version": 1, "run_id": "an-array", "name": "a"})
    for task, code in ((1, 0), (2, 5)):
        own = task_run(run, task)
        for part in (*PARTS, "job"):
            (own.path / part).mkdir(parents=True)
        own.write({"version": 1, "run_id": f"task-{task}", "name": f"a {task}"})
        write_end(own, code, stopped=False)
    slurm = Slurm()
    record = JobRecord("9", "wrap", None, (1, 2))
    results = finish(run, record, {}, Narrator(quiet=True), slurm)
    assert [(r.exit_code, r.outcome.verdict) for r in results] == [(0, "ok"), (5, "rank_failed")]
    assert slurm.asked == ["sacct", "scontrol"]
    for task, state in ((1, "COMPLETED"), (2, "FAILED")):
        with open_database(task_run(run, task).database) as con:
            rows = con.execute("SELECT job_id, state, source FROM slurm_steps").fetchall()
        assert rows == [(f"9_{task}", state, "scontrol")]


def test_a_script_that_ends_before_the_run_is_pointed_at(tmp_path, capsys):
    run = RunDir(tmp_path / "runs" / "a-run")
    create_run(run)
    (run.path / "job").mkdir()
    run.write({"version": 1, "run_id": "a-run", "name": "a"})
    (run.logs / "launcher.err").write_text("module: command not found\n")
    states = {"9": JobState("FAILED")}
    (result,) = finish(run, JobRecord("9", "spec"), states, Narrator(), NoSlurm())
    said = capsys.readouterr().err
    assert result.exit_code and "slurm.prologue?" in said and str(run.logs / "launcher.err") in said


class NoSlurm:
    """Accounting that is disabled, and a controller that has forgotten the job."""

    def run(self, argv):
        disabled = "Slurm accounting storage is disabled"
        return Answer(1, "", disabled if argv[0] == "sacct" else "Invalid job id specified")
